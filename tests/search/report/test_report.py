"""Report and best, on a run of an early release whose trials were put there by hand."""

import csv
import json
import math
from pathlib import Path

import optuna
import pytest

import archspec
from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.report.write import best_trial, front_table, write_report
from search.study.storage import open_run

# (GFLOPs, Dice): trial 1 costs more than trial 0 and is worth less
TRIALS = [(0.1, 0.6), (0.2, 0.5), (0.3, 0.8), (0.9, 0.9)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    record = {"dataset": "Dataset901_X", "configuration": "3d_fullres", "fold": 0, "seed": 3}
    record |= {"settings": {"steps": 5}, "convention": "convention v1", "synthetic_task": "reach"}
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    study = optuna.create_study(
        study_name="search",
        storage=f"sqlite:///{folder / 'study.db'}",
        directions=["maximize", "minimize"],
    )
    for number, (gflops, dice) in enumerate(TRIALS):
        attributes = {
            "flops": int(gflops * 1e9),
            "macs": int(gflops * 5e8),
            "scan_flops": 0,
            "params": 1000 + number,
            "seconds": 1.5,
            "scores": {"mean": dice, "organ": dice, "<b>tumour": dice - 0.1},
        }
        values = [dice, math.log10(gflops * 1e9)]
        params = {"encoder.stages.0.width": number} if number else {}
        study.add_trial(
            optuna.trial.create_trial(
                values=values,
                user_attrs=attributes,
                params=params,
                distributions={name: optuna.distributions.IntDistribution(0, 9) for name in params},
            )
        )
        spec = folder / "trials" / f"{number:04d}" / "spec.yaml"
        spec.parent.mkdir(parents=True)
        spec.write_text(dump(archspec.load("small-unet").tree()), encoding="utf-8")
    study.add_trial(
        optuna.trial.create_trial(
            state=optuna.trial.TrialState.FAIL, user_attrs={"reason": "loss is <nan>"}
        )
    )
    pruned = optuna.trial.TrialState.PRUNED
    rung = {"step": 9, "scores": {"mean": 0.4}, "smoothed": 0.41, "stop": True}
    for why in ({"rungs": [rung]}, {"rejected": "61 GFLOPs, over the limit of 50"}):
        study.add_trial(optuna.trial.create_trial(state=pruned, user_attrs=why))
    return folder


def test_front_and_all_trials_are_written(run: Path) -> None:
    files = write_report(run)
    assert [file.name for file in files] == [
        "pareto.csv",
        "trials.csv",
        "pareto.png",
        "report.html",
    ]
    rows = list(csv.DictReader(files[0].open(encoding="utf-8")))
    assert [row["trial"] for row in rows] == ["0", "2", "3"]
    assert float(rows[1]["gflops"]) == pytest.approx(0.3)
    assert [row["encoder.stages.0.width"] for row in rows] == ["", "2", "3"]
    rows = list(csv.DictReader(files[1].open(encoding="utf-8")))
    trained = ["front", "dominated", "front", "front"]
    assert [row["state"] for row in rows] == [*trained, "failed", "stopped", "over limit"]
    assert rows[4]["reason"] == "loss is <nan>" and rows[4]["dice"] == ""
    assert rows[3]["seconds_per_step"] == "0.3", "1.5 s for 5 steps"
    assert files[2].read_bytes().startswith(b"\x89PNG")
    assert "    2    0.300" in front_table(run)


def test_page_of_an_early_release_says_what_it_does_not_know(run: Path) -> None:
    page = write_report(run)[-1].read_text(encoding="utf-8")
    assert "<b>tumour" not in page and "&lt;b&gt;tumour" in page
    assert "loss is &lt;nan&gt;" in page
    assert "at step 9: cheaper ones are ahead" in page and "0.410" in page
    assert "over the limit of 50" in page
    assert "Synthetic data" in page
    assert "small-unet" in page
    assert "not recorded by the release that made this run" in page
    assert "the first that was trained, since there is no anchor" in page
    assert "This space names no anchors" in page


def test_report_can_be_written_again(run: Path) -> None:
    first = [file.read_bytes() for file in write_report(run)]
    assert [file.read_bytes() for file in write_report(run)] == first


def test_a_refused_trial_stands_at_the_flops_that_its_constraint_tells(run: Path) -> None:
    """Before refused trials kept their FLOPs, only log10 of the excess over the limit was kept."""
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    record["settings"]["limits"] = {"gflops": 2}
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    study, _ = open_run(run)
    refused = optuna.trial.create_trial(
        state=optuna.trial.TrialState.PRUNED,
        user_attrs={"rejected": "20.000 GFLOPs, over the limit of 2"},
        system_attrs={"constraints:gflops": 1.0},
    )
    study.add_trial(refused)
    files = write_report(run)
    row = list(csv.DictReader(files[1].open(encoding="utf-8")))[-1]
    assert (row["state"], float(row["gflops"])) == ("over limit", pytest.approx(20))


def test_best_respects_the_limit(run: Path) -> None:
    assert best_trial(run).number == 3
    found = best_trial(run, max_gflops=0.5)
    assert found.number == 2
    assert "Dice 0.800" in found.summary
    with pytest.raises(SpecError, match=r"no finished trial of at most 0\.05 GFLOPs"):
        best_trial(run, max_gflops=0.05)


def test_empty_run_is_said_to_be_empty(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(study_name="search", storage=storage, directions=["maximize", "minimize"])
    assert open_run(tmp_path)[0].trials == []
    with pytest.raises(SpecError, match="no trial has finished"):
        write_report(tmp_path)
