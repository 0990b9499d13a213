"""From a run folder to a verdict: who is compared, on which rows, and what the rule says."""

import bisect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from optuna.trial import FrozenTrial

from archspec.costs.memory import training_memory
from archspec.files import check_writable, write_text
from archspec.network.input_sizes import OF_SPEC
from archspec.network.plan import plan
from archspec.nnunet.persons import EVERY_CASE, Persons, read_persons
from archspec.scoring.statistics import ScoreArray
from archspec.spec.load import load
from archspec.text import command_line
from blocks.errors import Place, SpecError
from search.retrain.confirm import TABLE, jobs_of
from search.retrain.contest import SLACK, Contest, contest, cost_of, dice_of, needed
from search.retrain.noise import Entrant, matrix, shared_cases
from search.retrain.retrain import Trained, read_numbered
from search.space.objectives import CostName
from search.space.references import reference_of
from search.study.protocol import Protocol, check_digest, read_protocol
from search.study.record import RunRecord
from search.study.session import noted_sizes, read_sessions
from search.study.storage import open_run
from search.study.trial_record import TrialRecord
from search.trials.cases import CaseScores
from search.verdict import rule
from search.verdict.answers import Figures, Told, answer, counted
from search.verdict.verdict import Compared, Rows, Verdict

PAGE = "verdict.md"
_COST_WORDS: dict[CostName, str] = {"flops": "FLOPs", "latency": "latency"}


def verdict(folder: Path, *, groups: Path | None = None) -> Verdict:
    """Answer whether the best spec of a run should be used, or what its protocol asks else.

    With `groups`, a file that says whose the cases are, persons count in place of cases; those of
    a run that was made with one count anyway.

    Raises:
        SpecError: the run has no protocol or another one than its rows, lacks a width curve or
            trainings of what is compared, or a file is damaged.
    """
    study, record = open_run(folder)
    protocol = needed(folder, read_protocol(folder, record))
    found = contest(folder, study, protocol)
    return _Judge(folder, record, protocol, found, groups).verdict()


def write_page(folder: Path, found: Verdict) -> Path:
    """Write the verdict's page into the run folder, and return its path."""
    write_text(folder / PAGE, found.markdown())
    return folder / PAGE


def check_page(folder: Path) -> None:
    """Refuse, before anything is computed, a page that could not be written."""
    if folder.is_dir():  # else open_run refuses, and says how a run is made
        check_writable(folder / PAGE)


@dataclass(frozen=True)
class _Side:
    """A trial with the trainings that count, by line, in the order of their seeds."""

    trial: FrozenTrial
    rows: list[tuple[int, Trained]]

    @property
    def cost(self) -> TrialRecord:
        return TrialRecord.of(self.trial)


class _Judge:
    """The steps of a verdict on one run."""

    def __init__(
        self,
        folder: Path,
        record: RunRecord,
        protocol: Protocol,
        found: Contest,
        groups: Path | None,
    ) -> None:
        self.folder, self.record, self.protocol, self.contest = folder, record, protocol, found
        self.sessions = read_sessions(folder)
        self.persons = self._persons(groups)
        self.trained = read_numbered(folder / TABLE)
        for line, one in self.trained:
            check_digest(one.protocol, protocol, Place(str(folder / TABLE), line))

    def verdict(self) -> Verdict:
        """Return the verdict."""
        candidate, cost = self.contest.candidate, _COST_WORDS[self.protocol.cost]
        if candidate is None:
            sentence = (
                f"keep nnU-Net's network: none of the {self.contest.considered} networks of the "
                f"space that were trained to the end costs at most as much {cost} as it"
            )
            return self._found(Told("keep", sentence, ""))
        shares = self._shares(candidate)
        sides = [self._side(trial) for trial in (candidate, *(trial for trial, _ in shares))]
        scores = self._matrices(sides)
        a, b = scores[0], scores[1]
        if len(shares) > 1:
            b = rule.blended(scores[1], scores[2], shares[1][1])
        weights = [1.0, *(share for _, share in shares)]
        compared = [
            self._compared(side, share, values)
            for side, share, values in zip(sides, weights, scores, strict=True)
        ]
        # log-linear, as Dice is read off the curve: memory spans decades like cost
        beside = math.exp(sum(one.share * math.log(one.memory) for one in compared[1:]))
        mixer, margin = self.protocol.mixer, self.protocol.margin
        figures = Figures(
            candidate=compared[0].trial,
            rival=compared[1].trial,
            mixer=mixer,
            cost=cost,
            margin=margin,
            difference=rule.interval_of(a, b, self.record.seed),
            memory=compared[0].memory / beside,
            needed=rule.needed(a, b, margin, mixer=mixer is not None),
            unit=self.persons.unit,
            units=a.shape[1],
            seeds=min(len(a), len(b)),
        )
        return self._found(answer(figures), compared, figures)

    def _found(
        self, told: Told, compared: Sequence[Compared] = (), figures: Figures | None = None
    ) -> Verdict:
        return Verdict(
            run=self.folder.name,
            answer=told.answer,
            sentence=told.sentence,
            reasons=tuple(filter(None, (told.reason, _curve(compared), self._chosen()))),
            protocol=self.protocol,
            unit=self.persons.unit,
            units=len(self._test_units()) if figures is None else figures.units,
            difference=None if figures is None else figures.difference,
            memory=None if figures is None else figures.memory,
            needed=told.needed,
            compared=tuple(compared),
            notes=tuple(self._notes()),
        )

    def _chosen(self) -> str:
        """Say how the candidate was chosen."""
        if self.protocol.mixer is not None or self.contest.candidate is None:
            return ""
        return (
            f"trial {self.contest.candidate.number} was chosen by the search's validation Dice, as "
            f"the best of {self.contest.considered} networks of the space that costs at most as "
            "much as the dearest of the curve"
        )

    def _notes(self) -> Iterator[str]:
        if not self.persons.named or not self.sessions:
            return
        test = self._test_units()
        split = self.sessions[0].get("split", {})
        others = {
            self.persons.of(self.record.dataset, case)
            for part in split.values()
            for case in part
            if case not in self.protocol.test_cases
        }
        if shared := len(test & others):
            yield (
                f"{shared} of {counted(len(test), 'test person')} have other cases that trained "
                "or validated: the parts were made by case, so Dice flatters all networks alike"
            )

    def _test_units(self) -> set[str]:
        """Return the test persons, or cases."""
        return {self.persons.of(self.record.dataset, one) for one in self.protocol.test_cases}

    def _persons(self, groups: Path | None) -> Persons:
        if groups is None:
            own = self.record.persons
            return EVERY_CASE if own is None else Persons({self.record.dataset: own})
        split = self.sessions[0].get("split", {}) if self.sessions else {}
        wanted = {case for part in split.values() for case in part}
        return read_persons(
            groups, {self.record.dataset: sorted(wanted | set(self.protocol.test_cases))}
        )

    def _shares(self, candidate: FrozenTrial) -> list[tuple[FrozenTrial, float]]:
        """Return the rivals that the candidate is compared with, and their weights.

        On the curve at the candidate's cost: between two networks log-linearly, as the report draws
        it; below the cheapest that one, which costs more.
        """
        rivals, cost = self.contest.rivals, self.protocol.cost
        if self.protocol.mixer is not None:
            return [(rivals[0], 1.0)]
        costs, own = [cost_of(one, cost) for one in rivals], cost_of(candidate, cost)
        right = bisect.bisect_left(costs, own)
        if right == len(costs):
            assert own <= SLACK * costs[-1], "a candidate costs no more"
            return [(rivals[-1], 1.0)]
        if right == 0 or costs[right] == own:
            return [(rivals[right], 1.0)]
        share = math.log(own / costs[right - 1]) / math.log(costs[right] / costs[right - 1])
        return [(rivals[right - 1], 1 - share), (rivals[right], share)]

    def _side(self, trial: FrozenTrial) -> _Side:
        """Return a trial with the trainings that the protocol asks for.

        Raises:
            SpecError: some are not there.
        """
        jobs = jobs_of(self.folder, trial, self.record.seed, self.protocol.seeds)
        rows = {
            one.key: (line, one) for line, one in self.trained if one.steps == self.protocol.steps
        }
        found = [rows[job.key] for job in jobs if job.key in rows]
        if len(found) < len(jobs):
            name = f" ({named})" if (named := _name(trial)) else ""
            words = ("confirm", self.folder, "--rivals", "--seeds", self.protocol.seeds)
            raise SpecError(
                f"has {len(found)} of {counted(len(jobs), 'new training')} of trial "
                f"{trial.number}{name}, which is compared",
                where=self.folder / TABLE,
                suggestion=f"{command_line('archspec', *words)} trains what is missing",
            )
        return _Side(trial, found)

    def _matrices(self, sides: Sequence[_Side]) -> list[ScoreArray]:
        """Return the Dice of each, (seeds, persons or cases), on cases that all have a Dice on."""
        sought, name = self.record.objectives, self.record.dataset

        def score(scores: Mapping[str, float]) -> float:
            # of classes and groups: no group's Dice is below that of its worst class
            return sought.score(scores, [one for one in scores if one != "mean"])

        entrants = [
            Entrant(str(side.trial.number), [one.test for _, one in side.rows]).scored(score)
            for side in sides
        ]
        cases = shared_cases(entrants)
        if not cases:
            raise SpecError("has no test case on which all networks have a Dice", where=self.folder)

        def by_unit(seed: CaseScores) -> CaseScores:
            means = self.persons.means(name, ((case, seed[case]["mean"]) for case in cases))
            return {unit: {"mean": mean} for unit, mean in means.items()}

        units = sorted({self.persons.of(name, case) for case in cases})
        return [
            matrix(replace(one, seeds=[by_unit(seed) for seed in one.seeds]), units)
            for one in entrants
        ]

    def _compared(self, side: _Side, share: float, scores: ScoreArray) -> Compared:
        known, number = side.cost, side.trial.number
        assert known.flops is not None and known.params is not None, "it was trained"
        spec = f"trials/{number:04d}/spec.yaml"
        lines = tuple(line for line, _ in side.rows)
        return Compared(
            trial=number,
            name=_name(side.trial),
            is_candidate=side.trial is self.contest.candidate,
            share=share,
            gflops=known.flops / 1e9,
            latency=known.calibrated,
            params=known.params,
            memory=known.memory or self._memory(self.folder / spec),
            searched=dice_of(side.trial),
            dice=float(scores.mean()),
            by_seed=tuple(float(mean) for mean in scores.mean(axis=1)),
            rows=(Rows(TABLE.as_posix(), lines), Rows("study.db", trial=number), Rows(spec)),
        )

    def _memory(self, spec: Path) -> int:
        """Return the estimate for a training step, where the search did not keep it."""
        session = self.sessions[0] if self.sessions else {}
        sizes = noted_sizes(session) or OF_SPEC
        amp = any(str(one).startswith("cuda") for one in session.get("devices", ()))
        batch = int(self.record.settings.get("batch_size", 1))
        return training_memory(plan(load(spec), sizes), batch=batch, amp=amp).total


def _curve(compared: Sequence[Compared]) -> str:
    """Say what the curve is at the candidate's cost, where that is not one of its networks."""
    if len(compared) < 3:
        if compared and compared[1].name and compared[0].gflops < compared[1].gflops:
            return f"it costs less than all of the curve: trial {compared[1].trial}, its cheapest"
        return ""
    low, high = compared[1:]
    return (
        f"the curve there: {low.share:.2f} of trial {low.trial} and {high.share:.2f} of trial "
        f"{high.trial}, in Dice and in log memory, by how near they are in log cost"
    )


def _name(trial: FrozenTrial) -> str:
    """Return what the network is, where the space did not draw it."""
    reference = reference_of(trial)
    return "" if reference is None else TrialRecord.of(trial).network or reference.label
