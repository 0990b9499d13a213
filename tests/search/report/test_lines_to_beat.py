"""What a front has to beat: nnU-Net's plan by width, and finished trainings of nnU-Net."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.report.curve import Standing, width_curves
from search.report.page import render_page
from search.report.trials import ReportTrial, State, TrialCosts, read_trials
from search.report.write import front_table, report_json, write_report
from search.study.session import read_sessions
from search.study.storage import open_run

Cli = Callable[..., tuple[int, str, str]]

TRAINING = "nnUNetTrainer__nnUNetPlans__3d_fullres"


def trial(
    number: int,
    gflops: float,
    dice: float,
    state: State = "front",
    width: int | None = None,
    plans: str = "nnUNetPlans",
) -> ReportTrial:
    """Return a trial, of a planned network where a width is given; 0 is the whole one."""
    label = f"{plans}, width {width}" if width else f"nnU-Net's planned network ({plans})"
    named: dict[str, Any] = {} if width is None else {"network": label, "plans": plans}
    costs = TrialCosts(flops=round(gflops * 1e9))
    return ReportTrial(number, state, {}, anchor=bool(named), dice=dice, costs=costs, **named)


CURVE = [
    trial(0, 10, 0.9, "dominated", 0),
    trial(1, 0.1, 0.5, "dominated", 4),
    trial(2, 1, 0.7, width=8),
    trial(3, 1, 0.6, "dominated", 8),
    trial(4, 4, 0.2, "stopped", 16),
]


def test_the_front_is_compared_at_equal_flops() -> None:
    """Log-linear between the best trainings of each width; the curve's own points aside."""
    front = [
        trial(5, 0.05, 0.4),
        trial(6, math.sqrt(0.1), 0.62),
        trial(7, math.sqrt(10), 0.78),
        trial(8, 10, 0.95),
        trial(9, 20, 0.96),
    ]
    (curve,) = width_curves([*CURVE, *front])
    assert [point.number for point in curve.points] == [1, 2, 0]
    assert [curve.label(point) for point in curve.points] == ["width 4", "width 8", "whole"]
    assert curve.dice_at(0.1) == 0.5 and curve.dice_at(10) == 0.9
    assert curve.dice_at(math.sqrt(0.1)) == pytest.approx(0.6)
    assert curve.dice_at(0.09) is None and curve.dice_at(10.1) is None
    found = Standing.of(curve, [*CURVE, *front])
    assert [number for number, _ in found.above] == [6, 8]
    assert dict(found.above) == pytest.approx({6: 0.02, 8: 0.05})
    assert dict(found.below) == pytest.approx({7: -0.02})
    assert (found.cheaper, found.dearer, found.own) == ((5,), (9,), (2,))
    assert found.text() == (
        "nnUNetPlans by width, 0.1 to 10 GFLOPs, and the front at equal FLOPs (log-linear between "
        "points, one training each): trials 6 (+0.020), 8 (+0.050) lie above it; trial 7 (-0.020) "
        "lies not above it; trial 5 is cheaper than all of it; trial 9 is dearer than all of it; "
        "trial 2 is part of it; not trained to the end: width 16: stopped"
    )
    told = found.to_json()
    assert [one["trial"] for one in told["front"]] == [6, 7, 8]
    assert told["points"][2]["network"] == "nnU-Net's planned network (nnUNetPlans)"


def test_every_plans_file_has_a_curve_and_one_may_be_empty() -> None:
    other = trial(5, 1, 0.1, "stopped", 8, plans="nnUNetResEncUNetMPlans")
    first, second = width_curves([*CURVE, other])
    assert (first.plans, second.plans) == ("nnUNetPlans", "nnUNetResEncUNetMPlans")
    assert Standing.of(second, [*CURVE, other]).text() == (
        "nnUNetResEncUNetMPlans by width: no line to beat, not trained to the end: width 8: stopped"
    )
    assert not width_curves([trial(0, 1, 0.5)])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, fakes: SimpleNamespace) -> Path:
    """Return a run of one network and two planned ones, whose validation case is case_1."""
    folder = tmp_path_factory.mktemp("beat")
    data = fakes.fake_dataset(folder / "preprocessed")
    kwargs = {
        "n_stages": 2,
        "features_per_stage": [8, 16],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * 2,
        "strides": [[1, 1, 1], [2, 2, 2]],
        "n_conv_per_stage": [2, 2],
        "n_conv_per_stage_decoder": [2],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    name = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
    architecture = {"network_class_name": name, "arch_kwargs": kwargs}
    full = {"patch_size": [16, 16, 16], "architecture": architecture}
    plans = {"plans_name": "nnUNetPlans", "configurations": {"3d_fullres": full}}
    (data.folder / "nnUNetPlans.json").write_text(json.dumps(plans), encoding="utf-8")
    stage = {"width": {"choice": [2, 3, 4]}, "mixer": {"kind": "conv"}}
    tree = {
        "name": "tiny",
        "patch_size": [16, 16, 16],
        "encoder": {"stages": [stage]},
        "decoder": {"kind": "sum"},
        "search": {
            "steps": 27,
            "stopper": "none",
            "anchors": [{}, {"plans": "nnUNetPlans"}, {"plans": "nnUNetPlans", "width": 4}],
        },
    }
    (folder / "space.yaml").write_text(dump(tree), encoding="utf-8")
    pool = fakes.FakePool(dice=lambda task, step: 0.8 - task.number / 10)
    fakes.run_fake(folder / "space.yaml", folder / "run", 3, pool)
    return folder / "run"


@pytest.fixture
def fold(tmp_path: Path, run: Path) -> Path:
    """Return the folder of a finished training on the run's validation cases."""
    (session,) = read_sessions(run)
    return finished(tmp_path / "Dataset901_X", session["split"]["validation"])


def finished(dataset: Path, cases: list[str], dice: float = 0.75) -> Path:
    fold = dataset / TRAINING / "fold_0"
    (fold / "validation").mkdir(parents=True, exist_ok=True)
    (fold.parent / "plans.json").write_text(json.dumps({"dataset_name": dataset.name}))
    summary = {
        "foreground_mean": {"Dice": dice},
        "metric_per_case": [{"prediction_file": f"/old/place/{case}.nii.gz"} for case in cases],
    }
    (fold / "validation" / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return fold


def test_the_curve_is_drawn_and_told(run: Path) -> None:
    page = write_report(run)[-1].read_text(encoding="utf-8")
    assert "The line to beat" in page and "trained by nnU-Net" not in page.lower()
    assert "nnU-Net&#39;s planned network (nnUNetPlans)" in page
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.S)
    assert found is not None
    traces = {trace["name"]: trace for trace in json.loads(found[1])["pareto"]["data"]}
    line = traces["nnUNetPlans by width: to beat"]
    assert line["text"] == ["width 4", "whole"] and line["customdata"] == [2, 1]
    assert line["x"] == sorted(line["x"]) and line["y"] == pytest.approx([0.6, 0.7])
    (told,) = (line for line in front_table(run).splitlines() if "by width" in line)
    assert told.endswith("trial 0 is cheaper than all of it")
    (curve,) = report_json(run)["curves"]
    assert (curve["plans"], curve["cheaper"]) == ("nnUNetPlans", [0])
    row = (run / "trials.csv").read_text(encoding="utf-8").splitlines()[3]
    assert '"nnUNetPlans, width 4"' in row


def test_a_finished_training_is_drawn_and_told(cli: Cli, run: Path, fold: Path) -> None:
    write_report(run)
    without = (run / "pareto.png").read_bytes()
    code, out, err = cli("report", run, "--baseline", fold)
    assert code == 0, err
    line = f"{TRAINING}, fold_0: Dice 0.750 on 1 case, the validation cases of this run"
    assert line in out.splitlines()
    page = (run / "report.html").read_text(encoding="utf-8")
    assert f"<p>{line}.</p>" in page and "finished nnU-Net training" in page
    assert (run / "pareto.png").read_bytes() != without


@pytest.mark.parametrize("place", ["", "validation", "validation/summary.json"])
def test_a_training_is_found_by_any_of_its_places(
    cli: Cli, run: Path, fold: Path, place: str
) -> None:
    code, out, err = cli("report", run, "--json", "--baseline", fold / place)
    assert code == 0, err
    (told,) = json.loads(out)["baselines"]
    assert (told["dice"], told["cases"], told["same_cases"]) == (0.75, 1, True)
    assert told["label"] == f"{TRAINING}, fold_0"
    assert told["file"] == str((fold / "validation" / "summary.json").resolve())


def test_other_cases_are_warned_of(run: Path, tmp_path: Path) -> None:
    fold = finished(tmp_path / "Dataset901_X", ["case_0", "case_7"])
    page = write_report(run, [fold])[-1].read_text(encoding="utf-8")
    (warning,) = (
        line for line in re.findall(r'<p class="warning">(.*?)</p>', page) if "fold" in line
    )
    assert "on 2 cases, not the validation cases of this run (" in warning
    assert "the figures do not compare" in warning
    assert report_json(run, [fold])["baselines"][0]["same_cases"] is False


def test_a_run_that_did_not_note_its_cases_says_so(run: Path, fold: Path) -> None:
    from search.report.baseline import read_baselines

    study, record = open_run(run)
    (found,) = read_baselines([fold], record, [])
    assert found.same_cases is None and "is not known" in found.text()
    page = render_page(record, read_trials(run, study, record), [], None, [found])
    assert "not note its own" in page


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (None, None, r"no summary\.json there, nor in its folder validation; give the fold"),
        ("Dataset901_X", "{", r"summary\.json: cannot be read as JSON: "),
        ("Dataset901_X", "[" * 100_000, r"summary\.json: cannot be read as JSON: "),
        ("Dataset901_X", "[]", "must hold a JSON object"),
        ("Dataset901_X", {"foreground_mean": {"Dice": 0.5}}, "not nnU-Net's summary"),
        ("Dataset901_X", {"foreground_mean": 3}, "not nnU-Net's summary"),
        ("Dataset901_X", {"foreground_mean": {"Dice": "0.5"}}, "not nnU-Net's summary"),
        ("Dataset901_X", {"metric_per_case": [3]}, "not nnU-Net's summary"),
        ("Dataset901_X", {"foreground_mean": {"Dice": math.nan}}, "between 0 and 1, but is nan"),
        ("Dataset901_X", {"foreground_mean": {"Dice": 75}}, "between 0 and 1, but is 75"),
        ("Dataset902_Y", {}, "a training on Dataset902_Y, but the run is on Dataset901_X"),
    ],
)
def test_what_is_no_such_training_is_refused_in_one_line(
    cli: Cli, run: Path, tmp_path: Path, name: str | None, content: Any, message: str
) -> None:
    fold = tmp_path / "elsewhere"
    if name is not None:
        fold = finished(tmp_path / name, ["case_0"])
        file = fold / "validation" / "summary.json"
        if isinstance(content, dict):
            whole = json.loads(file.read_text(encoding="utf-8"))
            missing = ["metric_per_case"] if content == {"foreground_mean": {"Dice": 0.5}} else []
            kept = {key: value for key, value in whole.items() if key not in missing}
            content = json.dumps({**kept, **content})
        file.write_text(content, encoding="utf-8")
    code, out, err = cli("report", run, "--baseline", fold)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1 and re.search(message, err), err
    with pytest.raises(SpecError, match=message):
        report_json(run, [fold])


def test_the_folder_tells_the_dataset_where_no_plans_do(run: Path, tmp_path: Path) -> None:
    fold = finished(tmp_path / "Dataset902_Y", ["case_0"])
    (fold.parent / "plans.json").unlink()
    with pytest.raises(SpecError, match="a training on Dataset902_Y"):
        report_json(run, [fold])
