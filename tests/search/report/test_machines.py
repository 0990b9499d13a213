"""Trials of a cluster: where each was trained stands in the report, in its files and the status."""

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import search.study.run
from archspec.spec.yaml_file import dump
from search.report.status import read_status
from search.report.write import report_json, write_report
from search.study.session import read_sessions
from search.study.storage import open_run
from search.trials.host import Cluster
from search.trials.worker import Message

PLACES = (("node1", "NVIDIA H200", "bfloat16"), ("node<2>", None, "float32"))
NAMES = ("node1 (NVIDIA H200, bfloat16)", "node<2> (float32)")


@pytest.fixture
def run(
    tmp_path: Path,
    fakes: SimpleNamespace,
    space_tree: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Return the folder of a search whose trials were on two machines by turns."""

    class LentPool(fakes.FakePool):  # type: ignore[misc, name-defined]
        def messages(self) -> Iterator[Message]:
            for message in super().messages():
                host, gpu, precision = PLACES[message.number % 2]
                yield replace(message, host=host, gpu=gpu, precision=precision)

    monkeypatch.setattr(search.study.run, "engine_of", lambda host: lambda *_: LentPool())
    space = tmp_path / "space.yaml"
    space.write_text(dump(space_tree), encoding="utf-8")
    cluster = Cluster(address="head:1", gpus_per_job=0.5)
    fakes.run_fake(
        space, tmp_path / "run", 3, fakes.FakePool(), cluster=cluster, devices=cluster.devices(2)
    )
    return tmp_path / "run"


def test_where_trials_were_trained_is_told(run: Path) -> None:
    recorded = [
        tuple(trial.user_attrs.get(name) for name in ("trained_on", "gpu", "precision"))
        for trial in open_run(run)[0].trials
    ]
    assert recorded == [PLACES[number % 2] for number in range(len(recorded))]
    status = read_status(run)
    assert dict(status.machines) == {NAMES[0]: 2, NAMES[1]: 1}
    assert f"on {NAMES[0]}: 2 trials" in status.text().splitlines()
    write_report(run, images=False)
    rows = list(csv.DictReader((run / "trials.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["machine"] for row in rows] == [NAMES[number % 2] for number in range(len(rows))]
    assert report_json(run)["trials"][1]["machine"] == NAMES[1]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<h2>Machines</h2>" in page
    assert "node&lt;2&gt; (float32)" in page and "node<2>" not in page


def test_a_session_names_the_places_of_the_cluster(run: Path) -> None:
    (session,) = read_sessions(run)
    place = "a place of the Ray cluster at head:1: 1 CPUs, 0.5 GPUs"
    assert session["devices"] == [place] * 2


def test_a_search_of_this_machine_has_none(
    tmp_path: Path, fakes: SimpleNamespace, space_tree: dict[str, Any]
) -> None:
    space, run = tmp_path / "space.yaml", tmp_path / "run"
    space.write_text(dump(space_tree), encoding="utf-8")
    fakes.run_fake(space, run, 1, fakes.FakePool())
    assert not read_status(run).machines
    write_report(run, images=False)
    assert "machine" not in (run / "trials.csv").read_text(encoding="utf-8").splitlines()[0]
    assert "<h2>Machines</h2>" not in (run / "report.html").read_text(encoding="utf-8")
