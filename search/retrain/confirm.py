"""Re-train the front of a run with new seeds, and look at the test cases once."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from archspec.files import check_folder, write_text
from archspec.nnunet.check_data import check_data
from archspec.nnunet.dataset import PreprocessedDataset, find_dataset
from archspec.nnunet.splits import split_cases
from archspec.spec.hashing import is_hash_of
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from blocks.base import SpecError
from search.pareto import non_dominated
from search.retrain.confirmation import RESULT, Confirmation, ConfirmedPoint, Part, SeedScores
from search.retrain.contest import contest, needed
from search.retrain.noise import Entrant, dice_differences, matrix, shared_cases
from search.retrain.retrain import Outcome, Progress, Retraining, retrain
from search.space.objectives import Objectives
from search.study.data import classes_of
from search.study.protocol import read_protocol
from search.study.record import RECORD, RunRecord, read_settings
from search.study.run import open_run
from search.study.trial_record import TrialRecord
from search.trials.cases import CaseScores
from search.trials.checkpoint import CHECKPOINT
from search.trials.host import ONE_CPU, TrainingHost
from search.trials.own import Data, OwnCases
from search.trials.ray_engine import engine_of
from search.trials.worker import WorkerSettings

TABLE = Path("confirm", "trainings.jsonl")
_FIRST_SEED = 1 << 30
"""Far from the seeds of searches: from small ones, and from 48 bits of a hash (`trial_seed`)."""


def confirm(
    folder: Path,
    *,
    seeds: int = 3,
    rivals: bool = False,
    host: TrainingHost = ONE_CPU,
    cases: OwnCases | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Confirmation:
    """Train every point of the run's front `seeds` times, and return what `confirmed.json` holds.

    Trainings go to the run's full number of steps and are not stopped. Those of an earlier call
    stand. Test cases are scored at the end of each training, once; a run without a test part has
    its validation cases compared, by which it chose. Fold and seed are the run's, not the host's.
    A run on cases of the user's own is given them again. With `rivals` those networks are trained
    too that a verdict compares, see `contest`.

    Raises:
        SpecError: no run, no finished trial, its protocol was changed, or the data are not what the
            run was made with, or cannot be trained on.
    """
    study, record = open_run(folder)
    check_folder(folder)
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    points = non_dominated([(trial.values[1:], trial.values[0]) for trial in finished])
    if not points:
        raise SpecError("no trial has finished yet", where=folder)
    front = [finished[index] for index in points]
    protocol = read_protocol(folder, record)
    beside: Sequence[FrozenTrial] = ()
    if rivals:
        beside = contest(folder, study, needed(folder, protocol)).trials
    # nothing is stopped here, and earlier releases had stoppers that are gone
    search = read_settings(folder / RECORD, {**record.settings, "stopper": "none"})
    dataset: Data
    if (own := _own(folder, record, cases)) is not None:
        dataset, held_out = own, own.test
    else:
        nnunet = find_dataset(
            record.dataset, configuration=record.configuration, plans_name=host.plans
        )
        dataset = nnunet.with_patch(search.given_patch)
        check_data(dataset, fold=record.fold)
        held_out = _test_cases(folder, record, dataset)
    settings = WorkerSettings(
        dataset, record.fold, search.batch_size, host.threads, host.grace, held_out=held_out
    )
    under = protocol.digest if protocol else ""
    jobs = {
        one.number: jobs_of(folder, one, record.seed, seeds, under) for one in (*front, *beside)
    }
    outcome = retrain(
        [job for own in jobs.values() for job in own],
        table=folder / TABLE,
        settings=settings,
        rung_steps=search.rung_steps,
        devices=host.devices,
        make_engine=engine_of(host),
        checkpoint_every=search.checkpoint_every,
        average=search.averages,
        on_progress=on_progress,
        on_moves=host.on_moves,
    )
    parts: tuple[Part, ...] = ("validation", "test") if held_out else ("validation",)
    sought, classes = search.objectives, classes_of(dataset)
    entrants: dict[Part, list[Entrant]] = {
        part: [
            _entrant(trial, jobs[trial.number], outcome, part).scored(
                lambda scores: sought.score(scores, classes)
            )
            for trial in front
        ]
        for part in parts
    }
    persons = record.persons
    shared = {part: shared_cases([e for e in own if e.seeds]) for part, own in entrants.items()}
    final = entrants[parts[-1]]
    pairs = list(zip(final[1:], final[:-1], strict=True))
    found = Confirmation(
        compared_on=parts[-1],
        num_cases={part: len(own) for part, own in shared.items()},
        num_persons=len({persons[case] for case in shared[parts[-1]]})
        if persons is not None
        else None,
        points=tuple(
            _point(
                trial,
                {part: _summary(entrants[part][index], shared[part]) for part in parts},
                comparable=sought.measure != "worst_class",
            )
            for index, trial in enumerate(front)
        ),
        differences=tuple(dice_differences(pairs, seed=record.seed, persons=persons)),
        failed=outcome.failed,
        dataset=record.dataset,
        fold=record.fold,
        steps=search.rung_steps[-1],
        seeds=seeds,
        test_cases=held_out,
        convention=record.convention,
        measure=_measure(sought),
    )
    write_text(folder / RESULT, json.dumps(found.to_json(), indent=2) + "\n")
    return found


def confirmed_checkpoints(folder: Path, spec: ArchSpec) -> list[Path]:
    """Return the checkpoints of a spec's trainings in a run, the longest and lowest seed first."""
    return confirmed_files(folder, spec, CHECKPOINT)


def confirmed_files(folder: Path, spec: ArchSpec, name: str) -> list[Path]:
    """Return the files of a name that the trainings of a spec left, in that order."""
    found = []
    for file in (folder / TABLE).with_suffix("").glob(f"*-*-*/{name}"):
        stored, seed, steps = file.parent.name.rsplit("-", 2)
        if is_hash_of(stored.replace("-", ":"), spec, "trial") and f"{seed}{steps}".isdecimal():
            found.append((-int(steps), int(seed), file))
    return [file for *_, file in sorted(found)]


def _measure(sought: Objectives) -> str:
    """Return what Dice is compared, where it is not the mean of the classes."""
    if sought.is_mean:
        return ""
    return sought.dice_label + " of each case" * (sought.of_class is None)


def _own(folder: Path, record: RunRecord, given: OwnCases | None) -> OwnCases | None:
    """Return the cases of a run that is on the user's own, which must be those."""
    if record.cases is None and given is None:
        return None
    if given is None:
        raise SpecError(
            f"was made on a program's own cases, {record.dataset}, which it has to give again",
            where=folder,
            suggestion="search.run with `cases`, `resume` and `confirm_seeds` trains its front",
        )
    now = (given.name, given.to_json(), given.test)
    if now != (record.dataset, record.cases, record.test_cases or ()):
        raise SpecError("the cases are not those of the run", where=folder)
    return given


def _test_cases(folder: Path, record: RunRecord, dataset: PreprocessedDataset) -> tuple[str, ...]:
    """Return the run's test cases, if they still are training cases of its fold."""
    held_out = record.test_cases or ()
    gone = set(held_out) - set(split_cases(dataset, fold=record.fold).train)
    if gone:
        raise SpecError(
            f"its test cases {', '.join(sorted(gone))} are no training cases of fold {record.fold} "
            f"of {dataset.name} any more",
            where=folder,
            suggestion="has splits_final.json changed?",
        )
    return held_out


def jobs_of(
    folder: Path, trial: FrozenTrial, seed: int, seeds: int, protocol: str = ""
) -> list[Retraining]:
    """Return the trainings of a trial's network in a run that has the seed."""
    spec = load(folder / "trials" / f"{trial.number:04d}" / "spec.yaml")
    first = _FIRST_SEED + 1000 * seed
    name = f"trial {trial.number}"
    return [Retraining(name, spec.tree(), first + number, protocol) for number in range(seeds)]


def _entrant(
    trial: FrozenTrial, jobs: Sequence[Retraining], outcome: Outcome, part: Part
) -> Entrant:
    trained = [one for job in jobs if (one := outcome.of(job)) is not None]
    scores: list[CaseScores] = [one.test if part == "test" else one.validation for one in trained]
    return Entrant(f"trial {trial.number}", scores)


def _summary(entrant: Entrant, cases: Sequence[str]) -> SeedScores:
    """Return the mean over seeds and cases, and how the means of the seeds spread."""
    if not entrant.seeds or not cases:
        return SeedScores(None, None, [])
    means = [float(value) for value in matrix(entrant, cases).mean(axis=1)]
    spread = statistics.stdev(means) if len(means) > 1 else None
    return SeedScores(statistics.fmean(means), spread, means)


def _point(
    trial: FrozenTrial, scores: Mapping[Part, SeedScores], *, comparable: bool
) -> ConfirmedPoint:
    """Return a point; the drop is what the search saw less what the new trainings have.

    There is none where the search saw another Dice than is compared: that of one worst class over
    all cases, and not the worst class of each.
    """
    known, searched = TrialRecord.of(trial), trial.values[0]
    assert known.flops is not None and known.macs is not None and known.params is not None
    test = scores.get("test")
    validation, last = scores["validation"].mean, (test or scores["validation"]).mean
    by_cases = None if validation is None or last is None else validation - last
    if not comparable:
        validation = last = None
    return ConfirmedPoint(
        trial=trial.number,
        gflops=known.flops / 1e9,
        gmac=known.macs / 1e9,
        params=known.params,
        searched=searched,
        validation=scores["validation"],
        test=test,
        drop=None if last is None else searched - last,
        drop_by_seed=None if validation is None else searched - validation,
        drop_by_cases=by_cases,
    )
