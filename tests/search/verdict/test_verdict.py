"""Verdicts on runs that deserve each answer, and on runs that deserve none."""

import json
import math
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blocks.base import SpecError
from search.retrain.confirm import TABLE
from search.study.protocol import LOCK, Terms
from search.study.session import SESSIONS, read_sessions
from search.verdict.judge import PAGE, verdict, write_page

Cli = Callable[..., tuple[int, str, str]]

CURVE = {4: 0.82, 5: 0.70}
AT = math.log(22011904 / 4743168) / math.log(70189056 / 4743168)
"""How far from trial 5 to trial 4 the candidate lies in log FLOPs."""
LINE = CURVE[5] + AT * (CURVE[4] - CURVE[5])
"""Dice of the curve there."""


def noisy(dice: dict[int, float], noise: float = 0.005) -> Callable[[int, int, int], float]:
    """Return scores around a Dice for each trial; noise differs from trial to trial."""

    def score(trial: int, seed: int, index: int) -> float:
        of_case = 0.02 * math.sin(7 * index) + noise * math.sin(11 * index * (trial + 1))
        return dice[trial] + of_case + noise * math.sin(5 * seed + trial)

    return score


def of_candidate(dice: float, noise: float = 0.005) -> Callable[[int, int, int], float]:
    return noisy({1: dice, **CURVE}, noise)


def test_a_spec_that_is_as_good_as_the_curve_there(run: Path, table: Any) -> None:
    table.write(of_candidate(LINE + 0.004))
    found = verdict(run)
    assert found.answer == "this spec" and found.difference is not None
    assert found.difference.mean == pytest.approx(0.004, abs=0.006)
    assert -0.01 < found.difference.low < found.difference.mean < found.difference.high
    own, low, high = found.compared
    assert [one.trial for one in found.compared] == [1, 5, 4]
    assert (low.share, high.share) == pytest.approx((1 - AT, AT))
    means = {one.trial: one.dice for one in found.compared}
    line = (1 - AT) * means[5] + AT * means[4]
    assert found.difference.mean == pytest.approx(means[1] - line), "the curve, not a point of it"
    assert found.memory == pytest.approx(own.memory / (low.memory ** (1 - AT) * high.memory**AT))
    assert found.sentence.endswith(f"margin 1, and {found.memory:.2f} x the memory")
    assert found.needed is None and (found.unit, found.units) == ("case", 18)


def test_a_worse_spec_keeps_nnunets_network(run: Path, table: Any) -> None:
    table.write(of_candidate(LINE - 0.03))
    found = verdict(run)
    assert found.answer == "keep" and "is worse than the width curve" in found.sentence


def test_a_spec_that_saves_nothing_keeps_it_too(
    run: Path, table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import search.verdict.judge

    same = SimpleNamespace(total=10**6)
    monkeypatch.setattr(search.verdict.judge, "training_memory", lambda *_, **__: same)
    table.write(of_candidate(LINE))
    found = verdict(run)
    assert (found.answer, found.memory) == ("keep", pytest.approx(1))
    assert "at 1.00 x the memory saves nothing" in found.sentence


def test_data_that_cannot_say_tell_what_would(run: Path, table: Any) -> None:
    table.write(of_candidate(LINE - 0.004, noise=0.03))
    found = verdict(run)
    assert found.answer == "cannot say" and found.needed is not None
    assert found.sentence == f"these data cannot say; {found.needed.text('case')}"
    assert found.difference is not None
    assert found.difference.low <= -0.01 and found.difference.high >= 0


def test_the_margin_is_the_protocols(run: Path, table: Any) -> None:
    """The same trainings under a margin of 3 points, and of a tenth of one."""
    for margin, want in ((0.03, "this spec"), (0.001, "cannot say")):
        table.fix(Terms(margin=margin))
        (run / TABLE).unlink(missing_ok=True)
        table.write(of_candidate(LINE - 0.004))
        assert verdict(run).answer == want


def test_an_interval_that_touches_the_margin_is_not_above_it(run: Path, table: Any) -> None:
    """Without noise all of the interval is the difference: 1/8 below, and a trifle less."""
    table.fix(Terms(margin=0.125))
    flat = {4: 0.75, 5: 0.75}
    for own, want in ((0.625, "keep"), (0.626, "this spec")):
        (run / TABLE).unlink(missing_ok=True)
        table.write(lambda trial, seed, index, own=own: flat.get(trial, own))
        found = verdict(run)
        assert found.difference is not None and found.answer == want
        assert found.difference.low == pytest.approx(found.difference.high, abs=1e-12)


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_seed_says_nothing(run: Path, table: Any, seeds: int) -> None:
    table.fix(Terms(seeds=seeds))
    table.write(of_candidate(LINE + 0.03), seeds=seeds)
    found = verdict(run)
    assert found.answer == ("cannot say" if seeds == 1 else "this spec")
    if seeds == 1:
        assert found.sentence == "these data cannot say; any answer needs 1 more seed"


def test_seeds_beyond_the_protocols_do_not_count(run: Path, table: Any) -> None:
    usual = of_candidate(LINE + 0.004)
    table.write(usual)
    before = verdict(run)
    (run / TABLE).unlink()
    table.write(lambda trial, seed, i: usual(trial, seed, i) if seed < 3 else 0.1, seeds=6)
    assert verdict(run).difference == before.difference


def test_too_few_cases_say_nothing_and_persons_count(run: Path, table: Any, tmp_path: Path) -> None:
    """Eighteen cases of nine persons, then of three."""
    every = [case for part in read_sessions(run)[0]["split"].values() for case in part]
    test = list(table.record.test_cases)
    table.write(of_candidate(LINE + 0.03))

    def grouped(persons: int) -> Any:
        owners = {case: f"alone {case}" for case in every}
        owners |= {case: f"p{number % persons}" for number, case in enumerate(test)}
        (tmp_path / "persons.json").write_text(json.dumps(owners))
        return verdict(run, groups=tmp_path / "persons.json")

    found = grouped(9)
    assert (found.answer, found.unit, found.units) == ("this spec", "person", 9)
    assert not found.notes
    owners = json.loads((tmp_path / "persons.json").read_text())
    content = {**table.record.to_json(), "persons": owners}
    (run / "run.json").write_text(json.dumps(content), encoding="utf-8")
    assert verdict(run) == found, "a run made with them counts them unasked"
    few = grouped(3)
    assert few.answer == "cannot say"
    assert few.sentence == "these data cannot say; any answer needs 3 more persons"
    owners = dict.fromkeys(every, "one") | {case: f"p{n % 9}" for n, case in enumerate(test)}
    owners[next(case for case in every if case not in test)] = "p0"
    (tmp_path / "persons.json").write_text(json.dumps(owners))
    (note,) = verdict(run, groups=tmp_path / "persons.json").notes
    assert note.startswith("1 of 9 test persons have other cases that trained or validated")


@pytest.mark.parametrize(
    ("worth", "noise", "want"),
    [(0.03, 0.005, "shown"), (0.003, 0.02, "not shown"), (-0.03, 0.005, "it costs Dice")],
)
def test_what_a_mixer_is_worth_over_convolution(
    run: Path, table: Any, worth: float, noise: float, want: str
) -> None:
    """Trial 1 attends; 0, the convolutions of its cost, is its rival, and not the better 2."""
    table.fix(Terms(mixer="attention"))
    table.write(noisy({1: 0.7 + worth, 0: 0.7}, noise), trials=(0, 1))
    found = verdict(run)
    assert found.answer == "mixer" and found.sentence.endswith(f"over convolution: {want}")
    assert [one.trial for one in found.compared] == [1, 0]
    assert (found.needed is not None) == (want == "not shown")


def test_a_mixer_that_no_network_has(run: Path, table: Any) -> None:
    table.fix(Terms(mixer="tom"))
    with pytest.raises(SpecError, match=r"no network whose mixers are tom .* was trained"):
        verdict(run)


def test_where_nothing_qualifies_nnunets_network_stays(
    run: Path, table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import search.retrain.contest

    def cost(trial: Any, cost: str) -> float:
        return 1.0 if trial.number > 3 else 2.0

    monkeypatch.setattr(search.retrain.contest, "cost_of", cost)
    found = verdict(run)
    assert found.answer == "keep" and "none of the 4 networks of the space" in found.sentence
    assert found.difference is None and found.compared == ()
    assert found.text() and found.markdown() and found.to_json()["difference"] is None


def test_a_class_may_be_what_counts(run: Path, table: Any) -> None:
    table.record.settings["objectives"] = [{"dice": {"class": "organ"}}, "flops"]
    table.fix(Terms())
    table.write(of_candidate(LINE + 0.004))
    found = verdict(run)
    assert found.answer == "this spec" and "Dice of organ" in found.text()


def test_latency_counts_where_it_was_sought(run: Path, table: Any) -> None:
    """Trial 1 is as slow as the whole planned network, and is held against that alone."""
    table.record.settings["objectives"] = ["dice", "latency"]
    table.fix(Terms())
    insert = "insert into trial_user_attributes (trial_id, key, value_json) values (?, ?, ?)"
    with sqlite3.connect(run / "study.db") as database:
        for trial, number in list(database.execute("select trial_id, number from trials")):
            latency = {1: 0.5, 4: 0.5, 5: 0.1}.get(number, 0.9)
            database.execute(insert, (trial, "latency", json.dumps(latency)))
            database.execute(insert, (trial, "calibration", json.dumps(0.1)))
    table.write(of_candidate(CURVE[4] + 0.004))
    found = verdict(run)
    assert found.answer == "this spec" and "the width curve at its latency" in found.sentence
    assert [(one.trial, one.latency) for one in found.compared] == [(1, 5.0), (4, 5.0)]
    assert "latency" in found.text().splitlines()[3]


def refused(run: Path) -> str:
    with pytest.raises(SpecError) as caught:
        verdict(run)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_a_run_that_was_not_confirmed_is_told_the_command(run: Path, table: Any) -> None:
    line = refused(run)
    assert "has 0 of 3 new trainings of trial 1, which is compared" in line
    assert f"archspec confirm {run} --rivals --seeds 3 trains what is missing" in line
    table.write(of_candidate(0.8), trials=(1, 5))
    table.write(of_candidate(0.8), trials=(4,), seeds=2)
    assert "has 2 of 3 new trainings of trial 4 (nnU-Net's planned network" in refused(run)
    (run / TABLE).unlink()
    table.write(of_candidate(0.8), steps=4)
    assert "has 0 of 3" in refused(run), "shorter trainings are others"


def test_a_run_without_a_width_curve(run: Path, table: Any) -> None:
    with sqlite3.connect(run / "study.db") as database:
        database.execute("delete from trial_user_attributes where key = 'anchor_plans'")
    assert "none of its trials is a network that nnU-Net planned" in refused(run)


def test_a_run_without_a_protocol(run: Path, table: Any) -> None:
    (run / LOCK).unlink()
    lines = [{k: v for k, v in one.items() if k != "protocol"} for one in read_sessions(run)]
    (run / SESSIONS).write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    assert "has no protocol.lock, which a search writes before its first training" in refused(run)


@pytest.mark.parametrize("other", ["", "0123456789ab"])
def test_rows_of_another_protocol_are_not_mixed_in(run: Path, table: Any, other: str) -> None:
    table.write(of_candidate(0.8))
    table.write(of_candidate(0.8), trials=(1,), seeds=4, protocol=other)
    line = refused(run)
    assert line.startswith(f"{run / TABLE}:10 ")
    assert f" was trained under the protocol {other or 'none'}, but protocol.lock is" in line


def test_a_changed_protocol_is_refused(run: Path, table: Any, cli: Cli) -> None:
    table.write(of_candidate(LINE - 0.03))
    file = run / LOCK
    file.write_text(file.read_text().replace('"margin": 0.01', '"margin": 0.05'))
    code, out, err = cli("verdict", run)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "but sessions.jsonl notes" in err and not (run / PAGE).exists()


def test_the_page_links_every_row(run: Path, table: Any, cli: Cli) -> None:
    table.write(of_candidate(LINE + 0.004))
    code, out, err = cli("verdict", run)
    assert (code, err) == (0, "")
    *told, wrote, after = out.splitlines()
    assert wrote == f"wrote {run / PAGE}"
    spec = run / "trials" / "0001" / "spec.yaml"
    assert after == f"next: archspec export {spec} --dataset Dataset901_X"
    assert max(map(len, told)) <= 80
    page = (run / PAGE).read_text(encoding="utf-8")
    links = re.findall(r"\[([^\]]+)\]\(([^)#]+)(?:#L(\d+))?\)", page)
    assert {"confirm/trainings.jsonl", "protocol.lock", "study.db"} <= {link[1] for link in links}
    assert all((run / target).is_file() for _, target, _ in links)
    lines = (run / TABLE).read_text(encoding="utf-8").splitlines()
    told = {int(trial): text for text, _, line in links if line for trial in [_trial(lines, line)]}
    assert told == {
        1: "confirm/trainings.jsonl, lines 1, 2, 3",
        4: "confirm/trainings.jsonl, lines 4, 5, 6",
        5: "confirm/trainings.jsonl, lines 7, 8, 9",
    }
    code, out, err = cli("verdict", run, "--json")
    assert json.loads(out)["answer"] == "this spec"
    found = verdict(run)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False)) == json.loads(out)
    assert write_page(run, found).read_text(encoding="utf-8") == page


def _trial(lines: list[str], number: str) -> str:
    return str(json.loads(lines[int(number) - 1])["name"].removeprefix("trial "))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--data, --hours, --out missing"),
        (("--data", "4"), "--hours, --out missing"),
        (("run", "--hours", "1"), "give a run, or --hours to make one"),
        (("run", "--margin", "0.02"), "the run's protocol.lock decides; --margin is for making"),
        (("run", "--mixer", "tom"), "the run's protocol.lock decides; --mixer is for making"),
    ],
)
def test_what_is_asked_for_wrongly(cli: Cli, options: tuple[str, ...], words: str) -> None:
    code, out, err = cli("verdict", *options)
    assert (code, out) == (2, "") and words in err and err.count("\n") == 1


def test_the_protocol_of_a_copied_run_goes_with_it(run: Path, table: Any, tmp_path: Path) -> None:
    table.write(of_candidate(LINE + 0.004))
    shutil.move(run, tmp_path / "moved run")
    assert verdict(tmp_path / "moved run").answer == "this spec"
