"""The report of a whole search, whose trials were stopped, refused, failed, lost and trained."""

import csv
import html
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import markupsafe
import matplotlib
import pytest
from typer.testing import CliRunner

from archspec.cli.main import app
from archspec.spec.yaml_file import dump
from search.pareto import hypervolume, pareto_front
from search.report.write import report_json, write_report
from search.study.session import read_sessions
from search.study.storage import open_run
from search.trials.worker import Message

CLASS = "<img src=x onerror=alert(1)>"
SCRIPT = "</script><script>alert(2)</script>"
SPACE: dict[str, Any] = {
    "name": "tiny",
    "title": SCRIPT,
    "patch_size": [16, 16, 16],
    "encoder": {
        "stages": [
            {"width": {"int": [2, 48]}, "mixer": {"kind": "conv"}},
            {
                "width": {"choice": [4, 8, 16, 32]},
                "depth": {"int": [1, 3]},
                "mixer": {"choice": [{"kind": "conv"}, {"kind": "mamba"}, {"kind": "identity"}]},
            },
        ]
    },
    "decoder": {"kind": {"choice": ["sum", "concat"]}},
    "search": {
        "steps": 27,
        "limits": {"gflops": 0.15},
        "anchors": [{}, {"encoder.stages.0.width": 16, "encoder.stages.1.mixer": "conv"}],
    },
}
TRIALS = 34


def make_run(folder: Path, fakes: SimpleNamespace) -> Path:
    """Search with a pool that does not train; trial 4 is lost once, 6 diverges, 9 runs out."""

    class Pool(fakes.FakePool):  # type: ignore[misc, name-defined]
        def messages(self) -> Iterator[Message]:
            for message in super().messages():
                if message.rung is None:
                    self.fate.pop(message.number, None)
                    yield message
                    continue
                step, dice = message.rung.step, message.rung.dice
                scores = {"mean": dice, "organ": min(1.0, dice + 0.05), CLASS: dice - 0.05}
                seconds = step * (0.05 + 0.001 * (message.number % 7))
                yield replace(message, rung=replace(message.rung, scores=scores, seconds=seconds))

    def dice(task: Any, step: int) -> float:
        first, second = task.tree["encoder"]["stages"]
        size = math.log(first["width"] * second["width"] * second.get("depth", 1))
        noise = 0.06 * math.sin(12.9 * task.number)
        worse = 0.0 if second["mixer"]["kind"] == "mamba" else 0.08
        return (0.3 + 0.06 * size - worse + noise) * (0.6 + 0.4 * step / 27)

    fate = {
        4: Message(4, "lost", reason="worker ended with code -9"),
        6: Message(6, "failed", reason="loss is <nan> at step 3"),
        9: Message(9, "failed", reason="out of memory on cpu"),
    }
    space = folder / "space.yaml"
    space.write_text(dump(SPACE), encoding="utf-8")
    fakes.run_fake(space, folder / "run", TRIALS, Pool(jobs=2, dice=dice, fate=fate), seed=5)
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, fakes: SimpleNamespace) -> Path:
    folder = make_run(tmp_path_factory.mktemp("report"), fakes)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    """Return the page without plotly.js."""
    from plotly.offline import get_plotlyjs

    text = (run / "report.html").read_text(encoding="utf-8")
    assert text.count(get_plotlyjs()) == 1, "inlined once"
    return text.replace(get_plotlyjs(), "")


def figures_of(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page)
    assert match is not None
    found: dict[str, Any] = json.loads(match[1])
    return found


def rows_of(run: Path, name: str = "trials.csv") -> list[dict[str, str]]:
    with (run / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_trial_is_there_with_what_became_of_it(run: Path, page: str) -> None:
    study, _ = open_run(run)
    rows = rows_of(run)
    assert [int(row["trial"]) for row in rows] == [trial.number for trial in study.trials]
    states = {row["state"] for row in rows}
    assert states >= {"front", "dominated", "stopped", "over limit", "failed", "lost", "not new"}
    points = {
        number for trace in figures_of(page)["pareto"]["data"] for number in trace["customdata"]
    }
    assert points == {int(r["trial"]) for r in rows if r["state"] not in ("lost", "not new")}
    panels = re.findall(r'<details id="trial-(\d+)">', page)
    trained = [t.number for t in study.trials if "trial_hash" in t.user_attrs]
    assert list(map(int, panels)) == trained


def test_front_is_that_of_the_finished_trials(run: Path, page: str) -> None:
    done = [t for t in open_run(run)[0].trials if t.values]
    best = pareto_front([(t.values[1], t.values[0]) for t in done])
    expected = [done[index].number for index in best]
    assert [int(row["trial"]) for row in rows_of(run, "pareto.csv")] == expected
    (line,) = (t for t in figures_of(page)["pareto"]["data"] if t["name"].startswith("Pareto"))
    assert line["customdata"] == expected
    assert line["line"]["shape"] == "hv", "a cost buys what the cheaper ones before it reach"
    assert line["x"] == sorted(line["x"]) and line["y"] == sorted(line["y"])


def test_nothing_is_fetched_and_nothing_of_the_run_is_markup(page: str) -> None:
    assert not re.search(r"https?:|url\(|import\(", page, re.IGNORECASE)
    assert "default-src 'none'" in page and "form-action 'none'" in page
    assert "modeBarButtons:" in page and 'plotlyServerURL: ""' in page, "no button that uploads"
    assert not re.search(r"\b(src|href)=\"(?!#)", page)
    assert CLASS not in page and html.escape(CLASS) in page
    assert SCRIPT not in page and html.escape(SCRIPT) in page
    assert "loss is &lt;nan&gt; at step 3" in page
    names = [trace["name"] for trace in figures_of(page)["classes"]["data"]]
    assert html.escape(CLASS) in names, "plotly.js reads tags"
    assert page.count("<script") == 3


def test_figures_are_what_plotly_takes(page: str) -> None:
    from plotly.graph_objects import Figure

    figures = figures_of(page)
    assert set(figures) == {"pareto", "hypervolume", "flops", "latency", "classes"}
    for name, figure in figures.items():
        assert f'id="figure-{name}"' in page
        drawn = Figure(figure)  # refuses what plotly's schema does not know
        assert len(drawn.data) == len(figure["data"]) > 0


def test_the_page_depends_on_the_study_only(run: Path) -> None:
    first = [file.read_bytes() for file in write_report(run)]
    with matplotlib.rc_context({"font.size": 40, "axes.facecolor": "red"}):
        assert [file.read_bytes() for file in write_report(run)] == first


def test_hypervolume_grows_to_that_of_the_front(run: Path) -> None:
    found = report_json(run)
    points = found["hypervolume"]["points"]
    assert [point["trials"] for point in points] == list(range(1, TRIALS + 1))
    areas = [point["hypervolume"] for point in points]
    assert areas == sorted(areas)
    assert found["hypervolume"]["reference"] == {"gflops": 0.15, "dice": 0.0}
    rows = [row for row in found["trials"] if row["state"] in ("front", "dominated")]
    front = [(math.log10(row["gflops"]), row["dice"]) for row in rows]
    assert areas[-1] == pytest.approx(hypervolume(front, (math.log10(0.15), 0.0)))
    assert points[-1]["seconds"] == pytest.approx(sum(row["seconds"] for row in found["trials"]))


def test_budget_counts_a_resumed_trial_once(run: Path) -> None:
    found = report_json(run)
    by_state = {spent["state"]: spent for spent in found["budget"]}
    assert sum(spent["count"] for spent in found["budget"]) == len(found["trials"])
    assert by_state["lost"] == {"state": "lost", "count": 1, "seconds": 0.0}
    assert by_state["over limit"]["seconds"] == 0
    stopped = [row for row in found["trials"] if row["state"] == "stopped"]
    assert all(0 < row["step"] < 27 and row["dice"] != "" for row in stopped)
    assert by_state["stopped"]["seconds"] == pytest.approx(sum(r["seconds"] for r in stopped))
    reasons = {(r["state"], r["reason"]): r["trials"] for r in found["reasons"]}
    assert reasons["failed", "out of memory on cpu"] == 1
    assert reasons["over limit", "GFLOPs over the limit of 0.15"] == by_state["over limit"]["count"]
    assert reasons["lost", "worker ended with code -9"] == 1
    json.dumps(found, allow_nan=False)


def test_verb_prints_the_front_or_json(run: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(run)])
    assert done.exit_code == 0
    front = [line.split()[0] for line in done.output.splitlines()[1:] if "wrote" not in line]
    assert front == [row["trial"] for row in rows_of(run, "pareto.csv")]
    assert re.search(r"wrote .+report\.html \(\d\.\d MB\)", done.output)
    done = CliRunner().invoke(app, ["report", str(run), "--json"])
    assert json.loads(done.output) == json.loads(json.dumps(report_json(run)))


def test_box_of_a_point_tells_what_it_is(page: str) -> None:
    traces = figures_of(page)["pareto"]["data"]
    boxes = {
        number: box
        for trace in traces
        for number, box in zip(
            trace["customdata"], trace.get("hovertext", trace["text"]), strict=True
        )
    }
    assert boxes[1].startswith("<b>trial 1</b>, dominated, anchor<br>Dice 0.")
    for text in ("GFLOPs, ", " parameters", " s per step", "encoder.stages.0.width: 16"):
        assert text in boxes[1]
    assert "loss is &lt;nan&gt; at step 3" in boxes[6]


def test_columns_are_those_of_every_row(run: Path) -> None:
    rows = rows_of(run)
    assert list(rows[0]) == [
        *("trial", "dice", "gflops", "gmac", "scan_gflops", "params", "seconds"),
        *("seconds_per_step", "step", "state", "anchor", "network", "seed", "reason"),
        *("organ", CLASS),
        *(key for key in rows[0] if key.startswith(("encoder", "decoder"))),
    ]
    assert [row["trial"] for row in rows if row["anchor"] == "True"] == ["0", "1"]
    assert all(float(row["gflops"]) > 0.15 for row in rows if row["state"] == "over limit")


def test_diffs_are_to_the_first_anchor(page: str) -> None:
    assert "Compared with trial 0, the first anchor" in page
    panel = page[page.index('<details id="trial-1">') :].partition("</details>")[0]
    assert "encoder.stages.0.width" in panel
    assert re.search(r'<td class="text">2</td>\s*<td class="text">16</td>', panel)
    assert "the reference" in page[page.index('id="trial-0"') :].partition("</summary>")[0]
    assert "Forward pass at batch 1, convention v1" in page, "the front's diffs tell costs"


def test_networks_of_the_front_are_drawn(run: Path, page: str) -> None:
    front = {row["trial"] for row in rows_of(run, "pareto.csv")}
    for number, panel in re.findall(r'<details id="trial-(\d+)">(.*?)</details>', page, re.DOTALL):
        assert panel.count("<svg") == (number in front)


def test_page_tells_how_the_run_was_made(run: Path, page: str) -> None:
    (session,) = read_sessions(run)
    assert {len(cases) for cases in session["split"].values()} == {4, 1}
    for text in (session["date"], session["command"], session["versions"]["torch"], "case_0"):
        assert markupsafe.escape(text) in page
    assert "differences within seed noise are not differences" in page
    assert "Synthetic data" not in page, "this dataset is no phantom"
    assert "optuna-dashboard" in page
