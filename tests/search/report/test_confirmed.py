"""The report of a front that was trained again, of one that was not, and of one that has moved."""

import base64
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import search.report.gallery
import search.report.page
import search.retrain.confirm
from archspec.spec.hashing import trial_hash
from archspec.spec.load import load
from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.report.gallery import LARGEST_PAGE
from search.report.write import STALE, front_table, report_json, write_report
from search.retrain.confirm import TABLE, confirm
from search.retrain.confirmation import RESULT
from search.trials.pictures import (
    BOTH,
    LABEL,
    LARGEST,
    PICTURES,
    PREDICTION,
    Drawn,
    Picture,
    write_pictures,
)

START = b"\x89PNG\r\n\x1a\n"
CASES = [f"case_{number}" for number in range(12)]
NEVER_REPEATED = "no seed was repeated"


@pytest.fixture
def make(
    tmp_path: Path,
    fakes: SimpleNamespace,
    space_tree: dict[str, Any],
    scoring_pool: Callable[..., Any],
    in_place_of_workers: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Path]:
    """Return a function that searches six networks and trains their front again, all of it faked.

    Widths 3 and 4 are alike on the cases, though the search saw 0.1 between them.
    """

    def width(task: Any) -> int:
        return int(task.tree["encoder"]["stages"][0]["width"])

    def searched(task: Any, step: int) -> float:
        return 0.3 + 0.1 * width(task)

    def scored(task: Any, part: str, index: int) -> float:
        noise = 0.002 * math.sin(7 * index) + 0.003 * math.sin(task.seed)
        return 0.3 + 0.1 * min(width(task), 3) - 0.05 * (part == "test") + noise

    def run(test_share: float, seeds: int = 2) -> Path:
        path = tmp_path / "space.yaml"
        settings = {"steps": 27, "stopper": "none", "test_share": test_share}
        path.write_text(dump({**space_tree, "search": settings}), encoding="utf-8")
        dataset = fakes.fake_dataset(tmp_path / "preprocessed", cases=len(CASES))
        folds = [{"train": CASES[4:], "val": CASES[:4]}]
        (dataset.folder / "splits_final.json").write_text(json.dumps(folds), encoding="utf-8")
        fakes.run_fake(path, tmp_path / "run", 6, fakes.FakePool(dice=searched))
        if seeds:
            monkeypatch.setattr(search.retrain.confirm, "find_dataset", lambda *_, **__: dataset)
            in_place_of_workers(scoring_pool(scored))
            confirm(tmp_path / "run", seeds=seeds)
        return tmp_path / "run"

    return run


def page_of(run: Path) -> tuple[str, dict[str, Any]]:
    """Return the page without plotly.js, and its figures."""
    from plotly.offline import get_plotlyjs

    page = write_report(run)[-1].read_text(encoding="utf-8").replace(get_plotlyjs(), "")
    match = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page)
    assert match is not None
    return page, json.loads(match[1])


def test_a_confirmed_front_is_shown_with_its_noise(make: Callable[..., Path]) -> None:
    run = make(0.25)
    found = json.loads((run / RESULT).read_text(encoding="utf-8"))
    page, figures = page_of(run)
    assert "<h1>Search of tiny on Dataset901_X (3d_fullres, fold 0)</h1>" in page
    assert NEVER_REPEATED not in page
    assert "trained again with 2 new seeds and scored on 3 test cases" in page
    section = page[page.index('<h2 id="again">') : page.index("Hypervolume over time")]
    for point in found["points"]:
        row = section[section.index(f'href="#trial-{point["trial"]}"') :].partition("</tr>")[0]
        for value in (point["searched"], point["validation"]["mean"], point["test"]["mean"]):
            assert f"<td>{value:.3f}</td>" in row
        assert f"{point['test']['sd']:.3f}" in row and f"{point['drop']:+.3f}" in row
    verdicts = re.findall(r"(exceeds noise|within noise)", section)
    expected = [
        "exceeds noise" if d["exceeds_noise"] else "within noise" for d in found["differences"]
    ]
    assert verdicts == expected and set(verdicts) == {"exceeds noise", "within noise"}
    (trace,) = (t for t in figures["pareto"]["data"] if t["name"].startswith("trained again"))
    assert trace["name"] == "trained again, test: mean of 2 seeds, bars: sd"
    assert trace["y"] == pytest.approx([point["test"]["mean"] for point in found["points"]])
    assert trace["error_y"]["array"] == [point["test"]["sd"] for point in found["points"]]
    low, high = figures["pareto"]["layout"]["yaxis"]["range"]
    assert low < min(trace["y"]) and max(trace["y"]) < high
    assert report_json(run)["confirmed"] == {"current": True, **found}
    table = front_table(run)
    assert "trained again with 2 seeds" in table and "within noise" in table


def test_without_a_test_part_the_page_says_that_it_flatters(make: Callable[..., Path]) -> None:
    page, _ = page_of(make(0.0))
    assert NEVER_REPEATED not in page
    assert "this run holds no test cases out" in page and "flatters" in page
    assert "<th>validation</th><th>sd</th><th>drop</th>" in page


def test_a_front_that_moved_on_is_not_confirmed(make: Callable[..., Path]) -> None:
    run = make(0.25)
    found = json.loads((run / RESULT).read_text(encoding="utf-8"))
    found["points"] = found["points"][:-1]
    (run / RESULT).write_text(json.dumps(found), encoding="utf-8")
    page, figures = page_of(run)
    assert f"{NEVER_REPEATED} for this front" in page
    assert "confirmed.json is of another front" in page
    assert '<h2 id="again">' not in page
    assert not [t for t in figures["pareto"]["data"] if t["name"].startswith("trained again")]
    assert report_json(run)["confirmed"]["current"] is False
    assert front_table(run).endswith(STALE)


def test_a_front_that_was_never_confirmed_says_so(make: Callable[..., Path]) -> None:
    run = make(0.25, seeds=0)
    page, _ = page_of(run)
    assert NEVER_REPEATED in page and "trained again" not in page
    assert report_json(run)["confirmed"] is None
    (run / RESULT).write_text('{"points": 3}', encoding="utf-8")
    with pytest.raises(SpecError, match=r"confirmed\.json: damaged; archspec confirm"):
        write_report(run)


def kept(run: Path, part: str = "test", size: int = 300) -> list[int]:
    """Put pictures beside the trainings of the front, as workers do; return the front."""
    front = [point["trial"] for point in json.loads((run / RESULT).read_text())["points"]]
    for number in front:
        spec = load(run / "trials" / f"{number:04d}" / "spec.yaml")
        for seed in (1 << 30, (1 << 30) + 1):
            folder = run / TABLE.with_suffix("") / f"{hashed(spec)}-{seed}-27"
            folder.mkdir(parents=True, exist_ok=True)
            found = [
                Picture(which, f"<b>{number}", dice, Drawn(2, 9, START + bytes(size)))
                for which, dice in (("best", 0.9), ("median", 0.5), ("worst", 0.125))
            ]
            write_pictures(folder / PICTURES, part, found)  # type: ignore[arg-type]
    return front


def hashed(spec: Any) -> str:
    return trial_hash(spec).replace(":", "-")


def gallery_of(page: str) -> str:
    return page[page.index('<h3 id="pictures">') :].partition("<h2")[0]


def test_pictures_of_the_front(make: Callable[..., Path], cli: Callable[..., Any]) -> None:
    run = make(0.25)
    page, _ = page_of(run)
    assert "trained again by a release that kept none" in gallery_of(page)
    front = kept(run)
    page, _ = page_of(run)
    found = gallery_of(page)
    assert re.findall(r'<p><a href="#trial-(\d+)">', found) == list(map(str, front))
    assert found.count(f"</a>, seed {1 << 30}</p>") == len(front), "the lowest seed's"
    pngs = re.findall(r'<img src="data:image/png;base64,([^"]+)"', found)
    assert [base64.b64decode(one) for one in pngs] == [START + bytes(300)] * 3 * len(front)
    assert f"worst: Dice 0.125, &lt;b&gt;{front[0]}, plane 2 of 9" in found
    for color in (LABEL, PREDICTION, BOTH):
        assert f"background: {color}" in found

    assert cli("report", run, "--no-images")[0] == 0
    text = gallery_of((run / "report.html").read_text(encoding="utf-8"))
    assert "<img" not in text and "Pictures are left out (--no-images)." in text

    file = next(run.rglob(PICTURES))
    file.write_text("{}", encoding="utf-8")
    code, out, err = cli("report", run)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"archspec: {file}: damaged")
    assert cli("report", run, "--no-images")[0] == 0


@pytest.mark.long
def test_pictures_of_another_part_are_not_shown(make: Callable[..., Path]) -> None:
    run = make(0.25)
    kept(run, "validation")
    assert "that kept none" in gallery_of(page_of(run)[0])


@pytest.mark.long
def test_a_page_stays_below_its_size(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(0.25)
    front = kept(run, size=LARGEST)
    without = len(write_report(run, images=False)[-1].read_bytes())
    assert without < LARGEST_PAGE == 8_000_000
    whole = len(write_report(run)[-1].read_bytes())
    assert len(front) > 2
    limit = whole - (whole - without) // len(front)
    for module in (search.report.page, search.report.gallery):
        monkeypatch.setattr(module, "LARGEST_PAGE", limit)
    page = write_report(run)[-1].read_bytes()
    text = gallery_of(page.decode())
    assert len(page) <= limit
    (left_out,) = re.findall(r"The pictures of trials? ([\d, ]+) are left out", text)
    shown = re.findall(r'<p><a href="#trial-(\d+)">', text)
    assert len(shown) > 0 and text.count("<img") == 3 * len(shown)
    assert sorted([*left_out.split(", "), *shown]) == sorted(map(str, front))
