"""Anchors that are whole specs: sized for the search, trained once, resumed as what they are."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import BaseTrial, FixedTrial, TrialState

from archspec import plan
from archspec.costs.flops import cost_plan
from archspec.network.input_sizes import InputSizes
from archspec.spec.hashing import arch_hash
from archspec.spec.load import load
from archspec.spec.yaml_file import Source, dump
from blocks.base import SpecError
from search.space.anchors import Anchor, plan_anchor
from search.space.control import control_space
from search.space.references import Reference, reference_of
from search.space.settings import SearchSettings
from search.space.space import Space, load_space
from search.study.ledger import ended
from search.study.loop import Event, SearchLoop, trial_seed
from search.study.storage import queued_params

MakeLoop = Callable[..., SearchLoop]

SPECS = ("small-unet", "mamba-unet")
BOTH = [{"spec": name} for name in SPECS]


def named(spec: str) -> FixedTrial:
    return Anchor(0, {}, Reference("spec", spec)).trial()


def spec_of(trial: BaseTrial) -> str | None:
    reference = reference_of(trial)
    return None if reference is None else reference.name


def with_specs(tree: dict[str, Any], *anchors: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**tree, **fields, "search": {**tree["search"], "anchors": list(anchors)}}


def loaded(folder: Path, tree: dict[str, Any]) -> Space:
    path = folder / "space.yaml"
    path.write_text(dump(tree), encoding="utf-8")
    return load_space(path)


def test_every_spec_is_scaled_to_a_limit_and_no_further(some_spec: str) -> None:
    name = some_spec
    patch = (64,) * len(load(name).patch_size)
    source = Source("space", {"patch_size": patch, "training": {"lr": 0.5}})
    trial, sizes = named(name), InputSizes(in_channels=1, num_classes=2)
    whole = plan_anchor(trial, source, SearchSettings(), sizes)
    assert arch_hash(whole.spec) == arch_hash(load(name)), "no limit, no change"
    assert (whole.in_channels, whole.patch_size, whole.spec.training.lr) == (1, patch, 0.5)
    gflops = cost_plan(whole).flops / 4e9
    settings = SearchSettings.model_validate({"limits": {"gflops": gflops}})
    found = plan_anchor(trial, source, settings, sizes)
    if not whole.spec.encoder.stages:
        kept = found.spec.encoder, found.spec.network
        assert kept == (whole.spec.encoder, whole.spec.network), "a library's has no widths of ours"
        return
    assert gflops / 3 < cost_plan(found).flops / 1e9 <= gflops
    before = [stage.width for stage in whole.spec.encoder.stages]
    scales = [s.width / w for s, w in zip(found.spec.encoder.stages, before, strict=True)]
    assert max(scales) / min(scales) < 2.1, "one factor, as far as rounding allows"
    assert [s.mixer for s in found.spec.encoder.stages] == [
        s.mixer for s in load(name).encoder.stages
    ]


def test_what_no_width_keeps_comes_back_narrow() -> None:
    source = Source("space", {"patch_size": (32, 32, 32)})
    settings = SearchSettings.model_validate({"limits": {"params": 1}})
    found = plan_anchor(named("small-unet"), source, settings)
    assert {stage.width for stage in found.spec.encoder.stages} == {4}


def test_a_spec_that_does_not_suit_the_patch_has_its_strides_fitted() -> None:
    trial, source = named("unet"), Source("space", {"patch_size": (20, 96, 96)})
    with pytest.raises(SpecError, match="must divide"):
        plan(load("unet"), patch_size=(20, 96, 96), exact=True)
    found = plan_anchor(trial, source, SearchSettings(), InputSizes(spacing=(5.0, 1.0, 1.0)))
    strides = [stage.downsample.strides(3) for stage in found.spec.encoder.stages]
    depth, width = (math.prod(stride[axis] for stride in strides) for axis in (0, 2))
    assert depth < width and 20 % depth == 0 and 96 % width == 0


def test_specs_are_queued_once_and_trained_by_the_recipe_of_the_space(
    study: optuna.Study, make_loop: MakeLoop, fakes: SimpleNamespace, space_tree: dict[str, Any]
) -> None:
    """Also two of one recipe, and without using up the six networks of the space."""
    rate = {"lr": {"choice": [0.1, 0.2]}}
    given = (*BOTH, {"spec": "small-unet", "training.lr": 0.2}, {})
    tree = with_specs(space_tree, *given, training=rate)
    loop = make_loop(study, 99, tree)
    waiting = [(spec_of(t), queued_params(t)) for t in study.trials]
    assert waiting[1:] == [
        ("small-unet", {"training.lr": 0.1}),
        ("mamba-unet", {"training.lr": 0.1}),
        ("small-unet", {"training.lr": 0.2}),
    ]
    make_loop(study, 99, tree)
    assert len(study.trials) == 4
    events: list[Event] = []
    loop = make_loop(study, 99, tree, events.append)
    pool = fakes.FakePool()
    loop.drive(pool)
    assert "every one of the 12 combinations was drawn" in events[-1].text
    assert len(pool.tasks) == len(ended(study)) == 12 + 3
    trained = {trial.number: trial for trial in study.trials if spec_of(trial)}
    assert len(trained) == 3
    for task in pool.tasks:
        if task.number not in trained:
            continue
        name = trained[task.number].user_attrs["anchor_spec"]
        spec = load(task.tree)
        assert spec.training.lr == trained[task.number].params["training.lr"]
        assert arch_hash(spec) == arch_hash(load(name))
        written = load(task.folder / "spec.yaml")
        assert written.name == f"tiny-{task.number:04d}-{name}"
        assert not written.claims and written.patch_size == (16, 16, 16)
    make_loop(study, 99, tree).drive(fakes.FakePool())
    assert len(ended(study)) == 15, "nothing twice"


def test_a_lost_spec_is_gone_on_with_as_what_it_is(
    study: optuna.Study, make_loop: MakeLoop, fakes: SimpleNamespace, space_tree: dict[str, Any]
) -> None:
    """Killed while it trains, and killed before it drew anything."""

    class KilledError(Exception):
        pass

    def die(event: Event) -> None:
        if event.kind == "rung" and "step 3" in event.text:
            raise KilledError

    tree = with_specs(space_tree, *BOTH)
    with pytest.raises(KilledError):
        make_loop(study, 2, tree, die).drive(fakes.FakePool())
    study.ask()  # the second is RUNNING now
    pool = fakes.FakePool()
    make_loop(study, 2, tree).drive(pool)
    heirs = {
        t.user_attrs["resumed_from"]: t for t in study.trials if "resumed_from" in t.user_attrs
    }
    assert [spec_of(heirs[number]) for number in (0, 1)] == list(SPECS)
    assert {t.state for t in heirs.values()} == {TrialState.COMPLETE}
    stages = [len(task.tree["encoder"]["stages"]) for task in pool.tasks]
    assert stages == [4, 4]
    assert [step for seed, step in pool.trained if seed == trial_seed(7, 0)] == [9, 27], (
        "from its last rung"
    )
    assert len(ended(study)) == 2


@pytest.mark.long
def test_tpe_goes_on_beside_trials_without_parameters(
    tmp_path: Path, fakes: SimpleNamespace, space_tree: dict[str, Any]
) -> None:
    """The sampler of a search models 25 trials, two of them specs with no parameters at all."""
    tree = with_specs(space_tree, *BOTH)
    width = {"int": [2, 60]}
    tree["encoder"] = {"stages": [{**s, "width": width} for s in tree["encoder"]["stages"]]}
    path = tmp_path / "space.yaml"
    path.write_text(dump(tree), encoding="utf-8")
    pool = fakes.FakePool()
    study = fakes.run_fake(path, tmp_path / "run", 25, pool)
    assert isinstance(study.sampler, optuna.samplers.TPESampler)
    specs = [trial for trial in study.trials if spec_of(trial)]
    assert [trial.params for trial in specs] == [{}, {}]
    assert len(ended(study)) == len(pool.tasks) == 25
    resumed = fakes.run_fake(path, tmp_path / "run", 30, fakes.FakePool())
    assert len(ended(resumed)) == 30
    assert sum(spec_of(trial) is not None for trial in resumed.trials) == 2


def test_a_control_keeps_the_specs_that_are_local(
    tmp_path: Path, space_tree: dict[str, Any]
) -> None:
    tree = with_specs(space_tree, *BOTH, {})
    mixers = {"choice": [{"kind": "conv"}, {"kind": "mamba"}]}
    tree["encoder"] = {"stages": [{**s, "mixer": mixers} for s in tree["encoder"]["stages"]]}
    control = control_space(loaded(tmp_path, tree))
    assert control.settings.anchors == ({"spec": "small-unet"}, {})


def test_the_dry_run_shows_the_anchors(
    cli: Callable[..., tuple[int, str, str]], tmp_path: Path, space_tree: dict[str, Any]
) -> None:
    tree = with_specs(space_tree, {}, *BOTH)
    loaded(tmp_path, tree)
    line = ("search", tmp_path / "space.yaml", "--dry-run", "--seconds-per-step", 1)
    code, out, _ = cli(*line, "--max-params", 20_000)
    assert code == 0
    shown = out[out.index("anchors, tried first") :].splitlines()[1:4]
    assert shown[0].endswith("2, conv")
    assert "small-unet, widths 4, 4, " in shown[1] and "mamba-unet, widths " in shown[2]
    assert all(int(line.split()[1].replace(",", "")) <= 20_000 for line in shown)


@pytest.mark.parametrize(
    ("anchor", "message"),
    [
        ({"spec": "unett"}, "anchor spec: unett: not a bundled spec.*did you mean 'unet'"),
        ({"spec": 3}, "anchor spec: 3: not a bundled spec"),
        (
            {"spec": "unet", "encoder.stages.0.width": 2},
            r"anchor encoder\.stages\.0\.width: a spec takes the recipe's holes only \(none\)",
        ),
    ],
)
def test_wrong_spec_anchors_are_refused_in_one_line_with_position(
    tmp_path: Path, space_tree: dict[str, Any], anchor: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message) as error:
        loaded(tmp_path, with_specs(space_tree, anchor))
    text = str(error.value)
    assert re.match(rf"{re.escape(str(tmp_path))}/space\.yaml:\d+:\d+  anchor", text), text
    assert "\n" not in text
