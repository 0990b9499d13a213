"""Anchors from nnU-Net's plans: whole or narrowed, called what they are, checked at the start."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from archspec.costs.flops import cost_plan
from archspec.nnunet.dataset import PreprocessedDataset
from archspec.spec.hashing import arch_hash
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.report.trials import read_trials
from search.report.write import best_trial
from search.space.anchors import Anchor
from search.space.control import control_space
from search.space.dry_run import dry_run
from search.space.first import first_of, with_plans
from search.space.references import Reference, reference_of
from search.space.space import Space, load_space
from search.study.ledger import ended
from search.study.loop import Event, SearchLoop
from search.study.run import open_run
from search.study.storage import queued_params

MakeLoop = Callable[..., SearchLoop]
Cli = Callable[..., tuple[int, str, str]]

PROTOCOL = Path(__file__).parents[3] / "benchmarks" / "real" / "unet.yaml"
HIPPOCAMPUS = [32, 64, 128, 256]


def plans_of(features: list[int], **fields: Any) -> dict[str, Any]:
    """Return what nnU-Net's default planner writes for isotropic images."""
    stages = len(features)
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": features,
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * stages,
            "strides": [[1, 1, 1], *[[2, 2, 2]] * (stages - 1)],
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
            **fields,
        },
    }
    full = {"patch_size": [40, 56, 40], "architecture": architecture}
    return {"plans_name": "nnUNetPlans", "configurations": {"3d_fullres": full}}


def write_plans(dataset: PreprocessedDataset, features: list[int], **fields: Any) -> Path:
    file = dataset.folder / "nnUNetPlans.json"
    file.write_text(json.dumps(plans_of(features, **fields)), encoding="utf-8")
    return file


def with_anchors(tree: dict[str, Any], *anchors: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**tree, **fields, "search": {**tree["search"], "anchors": list(anchors)}}


def loaded(folder: Path, tree: dict[str, Any]) -> Space:
    path = folder / "space.yaml"
    path.write_text(dump(tree), encoding="utf-8")
    return load_space(path)


def drawn(space: Space, dataset: PreprocessedDataset) -> list[ArchSpec]:
    """Return what the anchors that name networks train."""
    anchors = [anchor for anchor in first_of(space) if anchor.reference is not None]
    return [space.draw(anchor.trial(), dataset.sizes).spec for anchor in anchors]


def widths(spec: ArchSpec) -> list[int]:
    return [stage.width for stage in spec.encoder.stages]


@pytest.fixture
def curve(
    tmp_path: Path, dataset: PreprocessedDataset, space_tree: dict[str, Any]
) -> dict[str, Any]:
    """Return a space with the whole network and two narrow ones; their plans lie with the data."""
    write_plans(dataset, HIPPOCAMPUS)
    given = [{"plans": "nnUNetPlans", **width} for width in ({}, {"width": 4}, {"width": 2})]
    return with_anchors(space_tree, {}, *given)


@pytest.mark.parametrize("width", [4, 8, 16, 32])
def test_narrowed_it_is_the_network_of_the_protocol(
    tmp_path: Path, dataset: PreprocessedDataset, space_tree: dict[str, Any], width: int
) -> None:
    write_plans(dataset, HIPPOCAMPUS)
    tree = with_anchors(space_tree, {"plans": "nnUNetPlans", "width": width})
    (found,) = drawn(with_plans(loaded(tmp_path, tree), dataset), dataset)
    by_hand = [f"encoder.stages.{stage}.width={width * 2**stage}" for stage in range(4)]
    assert arch_hash(found) == arch_hash(load(PROTOCOL, overrides=(*by_hand, "num_classes=2")))
    assert found.deep_supervision.heads == 3 and found.init == "nnunet"
    whole = width == 32
    assert found.title == (
        "nnU-Net's planned network (nnUNetPlans)" if whole else f"nnUNetPlans, width {width}"
    )
    assert found.name == "nnUNetPlans-3d_fullres" + ("" if whole else f"-width{width}")


def test_the_cap_on_features_is_scaled_alike_and_the_recipe_is_the_space_s(
    tmp_path: Path, dataset: PreprocessedDataset, space_tree: dict[str, Any]
) -> None:
    write_plans(dataset, [32, 64, 128, 256, 320])
    recipe = {"optimizer": "adamw", "lr": {"choice": [0.1, 0.2]}, "clip": 1.0}
    given = [{"plans": "nnUNetPlans"}, {"plans": "nnUNetPlans", "width": 8, "training.lr": 0.2}]
    tree = with_anchors(space_tree, *given, training=recipe)
    whole, narrow = drawn(with_plans(loaded(tmp_path, tree), dataset), dataset)
    assert widths(whole) == [32, 64, 128, 256, 320]
    assert widths(narrow) == [8, 16, 32, 64, 80]
    assert (whole.training.lr, narrow.training.lr) == (0.1, 0.2)
    assert (narrow.training.clip, narrow.training.optimizer) == (1.0, "adamw")


def test_over_a_limit_it_is_scaled_down_and_no_longer_called_nnunet_s(
    tmp_path: Path, dataset: PreprocessedDataset, space_tree: dict[str, Any]
) -> None:
    write_plans(dataset, HIPPOCAMPUS)
    given = [{"plans": "nnUNetPlans", **width} for width in ({}, {"width": 24}, {"width": 2})]
    tree = with_anchors(space_tree, *given)
    tree["search"]["limits"] = {"gflops": 0.15}
    space = with_plans(loaded(tmp_path, tree), dataset)
    plans = [space.draw(anchor.trial(), dataset.sizes) for anchor in first_of(space)]
    assert all(0.005e9 < cost_plan(planned).flops <= 0.15e9 for planned in plans)
    whole, narrow, two = (planned.spec for planned in plans)
    assert widths(whole) == [8, 20, 44, 92]
    assert whole.title == "nnUNetPlans, scaled to limits: width 8"
    assert whole.name == "nnUNetPlans-3d_fullres-scaled-to-8"
    assert narrow.title == "nnUNetPlans, width 24, scaled to limits: width 8"
    assert two.title == "nnUNetPlans, width 2"


def test_a_search_trains_them_and_stores_what_they_are(
    tmp_path: Path, fakes: SimpleNamespace, curve: dict[str, Any]
) -> None:
    """In a folder that report, best and a resumed search read without the plans."""
    path = tmp_path / "space.yaml"
    path.write_text(dump(curve), encoding="utf-8")
    write_plans(fakes.fake_dataset(tmp_path / "preprocessed"), HIPPOCAMPUS)
    pool = fakes.FakePool(dice=lambda task, step: 0.5 + task.number / 100)
    study = fakes.run_fake(path, tmp_path / "run", 4, pool)
    labels = ["nnU-Net's planned network (nnUNetPlans)", "nnUNetPlans, width 4"]
    labels.append("nnUNetPlans, width 2")
    assert [trial.user_attrs.get("network") for trial in study.trials] == [None, *labels]
    assert [task.tree["encoder"]["stages"][0]["width"] for task in pool.tasks] == [2, 32, 4, 2]
    assert [task.tree["deep_supervision"]["heads"] for task in pool.tasks] == [1, 3, 3, 3]
    written = load(pool.tasks[2].folder / "spec.yaml")
    assert written.name == "tiny-0002-nnUNetPlans-3d_fullres-width4"
    assert written.title == "nnUNetPlans, width 4" and written.patch_size == (16, 16, 16)
    stored = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert stored["settings"]["anchors"][2] == {"plans": "nnUNetPlans", "width": 4}
    (tmp_path / "preprocessed" / "nnUNetPlans.json").unlink()
    assert best_trial(tmp_path / "run").spec.title == "nnUNetPlans, width 2"
    found = read_trials(tmp_path / "run", *open_run(tmp_path / "run"))
    assert [trial.network for trial in found] == ["", *labels]
    assert [trial.plans for trial in found] == [None, *["nnUNetPlans"] * 3]
    with pytest.raises(SpecError, match=r"anchor plans: .*no such plans file"):
        fakes.run_fake(path, tmp_path / "run", 6, fakes.FakePool())
    write_plans(fakes.fake_dataset(tmp_path / "preprocessed"), HIPPOCAMPUS)
    again = fakes.FakePool()
    resumed = fakes.run_fake(path, tmp_path / "run", 6, again)
    assert len(ended(resumed)) == 6
    assert not any(reference_of(resumed.trials[task.number]) for task in again.tasks)


def test_a_lost_one_is_gone_on_with_as_what_it_is(
    study: optuna.Study,
    make_loop: MakeLoop,
    fakes: SimpleNamespace,
    dataset: PreprocessedDataset,
    curve: dict[str, Any],
    tmp_path: Path,
) -> None:
    """Killed while it trains, and killed before it drew anything; each is queued once."""

    class KilledError(Exception):
        pass

    def die(event: Event) -> None:
        if event.number == 1 and event.kind == "rung":
            raise KilledError

    def loop(on_event: Callable[[Event], None] = lambda event: None) -> SearchLoop:
        made = make_loop(study, 4, curve, on_event)
        made.space = made.drawing.space = with_plans(made.space, dataset)
        made.recover()
        return made

    with pytest.raises(KilledError):
        loop(die).drive(fakes.FakePool())
    study.ask()  # the third is RUNNING now
    loop().drive(fakes.FakePool())
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    named = sorted(map(str, filter(None, map(reference_of, done))))
    assert named == sorted(str(Reference("plans", "nnUNetPlans", width)) for width in (None, 2, 4))
    heirs = [trial for trial in study.trials if "resumed_from" in trial.user_attrs]
    assert [trial.user_attrs["resumed_from"] for trial in heirs] == [1, 2]
    waiting = [trial for trial in study.trials if queued_params(trial) is not None]
    assert len(waiting) == 4 + 2


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (None, r"nnUNetPlans\.json: no such plans file \(found: none\)"),
        ({"dropout_op": "torch.nn.Identity"}, r"nnUNetPlans\.json.*arch_kwargs\.dropout_op: "),
        ({"features_per_stage": [2, 4]}, "width: must be at most 2, the width of the planned"),
    ],
)
def test_what_the_plans_do_not_hold_is_refused_before_anything_trains(
    tmp_path: Path,
    fakes: SimpleNamespace,
    space_tree: dict[str, Any],
    fields: dict[str, Any] | None,
    why: str,
) -> None:
    """A bundled space, which is not written for these data, leaves it out instead."""
    tree = with_anchors(space_tree, {}, {"plans": "nnUNetPlans", "width": 4})
    data = fakes.fake_dataset(tmp_path / "preprocessed")
    if fields is not None:
        write_plans(data, [32, 64], **fields)
    path = tmp_path / "space.yaml"
    path.write_text(dump(tree), encoding="utf-8")
    with pytest.raises(SpecError, match=f"anchor plans: .*{why}") as error:
        fakes.run_fake(path, tmp_path / "run", 3, fakes.FakePool())
    assert "\n" not in str(error.value) and str(error.value).startswith(f"{path}:")
    assert not (tmp_path / "run").exists()
    bundled = with_plans(load_space("mixers", overrides=(f"search.anchors={NARROW}",)), data)
    found = dry_run(bundled, data.sizes, seconds_per_step=1, count=1)
    (told,) = (anchor for anchor in found.anchors if isinstance(anchor, str))
    assert told.startswith("left out: the network of width 4 of nnUNetPlans: ") and "\n" not in told


NARROW = "[{plans: nnUNetPlans, width: 4}]"


def test_invalid_anchors_are_told_at_the_start_and_at_a_dry_run(
    tmp_path: Path,
    study: optuna.Study,
    make_loop: MakeLoop,
    dataset: PreprocessedDataset,
    space_tree: dict[str, Any],
) -> None:
    """Here a spec that suits the space's own patch, and not the dataset's, which is 2-D."""
    flat = load("small-unet").tree()
    flat["decoder"]["kernel_size"] = (1, 3, 3)
    (tmp_path / "flat.yaml").write_text(dump(flat), encoding="utf-8")
    tree = with_anchors(space_tree, {}, {"spec": str(tmp_path / "flat.yaml")})
    dataset.settings.update(patch_size=[16, 16], spacing=[1, 1])
    events: list[Event] = []
    loop = make_loop(study, 3, tree, events.append)
    (note,) = events
    assert (note.kind, note.number) == ("note", -1) and "\n" not in note.text
    assert note.text.startswith(f"invalid: search.anchors.1 ({tmp_path / 'flat.yaml'}): ")
    make_loop(study, 3, tree, events.append)
    assert len(events) == 1, "told once, by the search that queued it"
    found = dry_run(loop.space, dataset.sizes, seconds_per_step=1, count=1)
    assert found.anchors[1] == note.text


def test_without_a_dataset_they_are_left_out_in_one_line(
    cli: Cli, tmp_path: Path, curve: dict[str, Any]
) -> None:
    space = loaded(tmp_path, curve)
    line = ("search", tmp_path / "space.yaml", "--dry-run", "--seconds-per-step", 1)
    code, out, _ = cli(*line)
    assert code == 0
    assert "left out: 3 networks of nnUNetPlans: no dataset is given" in out.splitlines()
    found = dry_run(space, seconds_per_step=1).to_json()["anchors"]
    assert [one if isinstance(one, str) else one["plans"] for one in found] == [
        None,
        "left out: 3 networks of nnUNetPlans: no dataset is given",
    ]
    with pytest.raises(SpecError, match="nnUNetPlans, width 2: no dataset is given"):
        space.draw(Anchor(3, {}, Reference("plans", "nnUNetPlans", 2)).trial())


def test_a_dry_run_on_a_dataset_shows_them(
    cli: Cli,
    tmp_path: Path,
    fakes: SimpleNamespace,
    curve: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = fakes.fake_dataset(tmp_path / "preprocessed" / "Dataset901_X")
    plans = plans_of(HIPPOCAMPUS)
    plans["configurations"]["3d_fullres"] |= {**data.settings, "batch_size": 2}
    (data.folder / "nnUNetPlans.json").write_text(json.dumps(plans), encoding="utf-8")
    (data.folder / "dataset.json").write_text(json.dumps(data.dataset_json), encoding="utf-8")
    monkeypatch.setenv("nnUNet_preprocessed", str(data.folder.parent))
    loaded(tmp_path, curve)
    line = ("search", tmp_path / "space.yaml", "--dry-run", "--seconds-per-step", 1)
    code, out, _ = cli(*line, "--data", 901)
    shown = " ".join(out[out.index("anchors, tried first") :].split())
    assert code == 0 and "left out" not in shown
    assert "nnU-Net's planned network (nnUNetPlans), widths 32, 64, 128, 256" in shown
    assert "nnUNetPlans, width 2, widths 2, 4, 8, 16" in shown


def test_a_control_keeps_them(
    tmp_path: Path, dataset: PreprocessedDataset, curve: dict[str, Any]
) -> None:
    mixers = {"choice": [{"kind": "conv"}, {"kind": "mamba"}]}
    curve["encoder"] = {"stages": [{**s, "mixer": mixers} for s in curve["encoder"]["stages"]]}
    control = control_space(loaded(tmp_path, curve))
    assert list(control.settings.anchors) == curve["search"]["anchors"]
    assert [widths(spec)[0] for spec in drawn(with_plans(control, dataset), dataset)] == [32, 4, 2]


@pytest.mark.parametrize(
    ("anchor", "message"),
    [
        ({"plans": 3}, "anchor plans: must be the name of nnU-Net's plans, e.g. nnUNetPlans"),
        ({"plans": "../nnUNetPlans"}, "anchor plans: must be the name"),
        ({"plans": "nnUNetPlans", "width": 0}, "anchor width: must be an integer of at least 1"),
        ({"plans": "nnUNetPlans", "width": "8"}, "anchor width: must be an integer"),
        ({"plans": "nnUNetPlans", "width": True}, "anchor width: must be an integer"),
        ({"width": 8}, "anchor width: no such hole"),
        (
            {"plans": "nnUNetPlans", "encoder.stages.0.width": 2},
            r"anchor encoder\.stages\.0\.width: a planned network takes the recipe's holes only",
        ),
        ({"plans": "nnUNetPlans", "spec": "unet"}, "anchor plans: a spec takes the recipe's holes"),
    ],
)
def test_wrong_ones_are_refused_in_one_line_with_position(
    tmp_path: Path, space_tree: dict[str, Any], anchor: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message) as error:
        loaded(tmp_path, with_anchors(space_tree, anchor))
    text = str(error.value)
    assert text.startswith(f"{tmp_path / 'space.yaml'}:") and "\n" not in text
