"""What each part of a network is worth: train it with the part exchanged, and compare."""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from archspec.costs.flops import CONVENTION
from archspec.files import check_folder, make_folder, write_text
from archspec.nnunet.check_data import check_data
from archspec.nnunet.dataset import PreprocessedDataset
from archspec.nnunet.splits import split_cases
from archspec.spec.hashing import is_hash_of, trial_hash
from archspec.spec.schema import ArchSpec
from blocks.base import Grid, SpecError
from search.retrain.ablation import AblatedPart, Ablation, AblationSettings, Saving, SeedDice
from search.retrain.noise import Entrant, dice_differences, matrix, shared_cases
from search.retrain.retrain import Outcome, Progress, Retraining, retrain
from search.retrain.variants import Variants
from search.space.settings import SearchSettings
from search.trials.host import ONE_CPU, TrainingHost
from search.trials.ray_engine import engine_of
from search.trials.worker import WorkerSettings

RESULT, SETTINGS, TABLE = "ablation.json", "settings.json", "trainings.jsonl"
_RUNGS = 2
"""Where a killed training can go on from: half way and at the end."""


@dataclass(frozen=True, kw_only=True)
class Trainings:
    """How each network is trained: `seeds` times; `test_share` of the cases are held out.

    `patch_size` replaces the dataset's; the variants are planned for it.
    """

    steps: int
    seeds: int = 3
    batch_size: int = 2
    test_share: float = 0.0
    patch_size: Grid | None = None


def ablate(
    variants: Variants,
    dataset: PreprocessedDataset,
    *,
    folder: Path,
    trainings: Trainings,
    host: TrainingHost = ONE_CPU,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Ablation:
    """Train the original and its variants with the same seeds, and return what was found.

    They are compared on the fold's validation cases, by which nothing is chosen here; on test cases
    where `trainings` asks for some. Trainings of an earlier call with the same settings stand.

    Raises:
        SpecError: the data cannot be trained on, the folder holds something else, or the split
            leaves too few cases.
    """
    fold, seed = host.fold, host.seed
    check_folder(folder)
    dataset = dataset.with_patch(trainings.patch_size)
    check_data(dataset, fold=fold)
    split = split_cases(dataset, fold=fold, test_share=trainings.test_share, seed=seed)
    settings = AblationSettings(
        network=trial_hash(variants.original.spec),
        dataset=dataset.name,
        configuration=dataset.configuration,
        fold=fold,
        test_cases=list(split.test),
        steps=trainings.steps,
        batch_size=trainings.batch_size,
        seed=seed,
        convention=CONVENTION,
        patch_size=None if trainings.patch_size is None else list(trainings.patch_size),
    )
    _check_folder(folder, settings, variants.original.spec)
    everyone = [variants.original, *variants.others]
    jobs = {
        one.name: [
            Retraining(one.name, one.spec.tree(), 1000 * seed + number)
            for number in range(trainings.seeds)
        ]
        for one in everyone
    }
    outcome = retrain(
        [job for own in jobs.values() for job in own],
        table=folder / TABLE,
        settings=WorkerSettings(
            dataset, fold, trainings.batch_size, host.threads, host.grace, held_out=split.test
        ),
        rung_steps=SearchSettings(steps=trainings.steps, rungs=_RUNGS, eta=1).rung_steps,
        devices=host.devices,
        make_engine=engine_of(host),
        on_progress=on_progress,
        on_moves=host.on_moves,
    )
    part = "test" if split.test else "validation"
    entrants = {name: _entrant(name, own, outcome, part) for name, own in jobs.items()}
    trained = [entrant for entrant in entrants.values() if entrant.seeds]
    cases = shared_cases(trained)
    original = entrants[variants.original.name]
    pairs = [(original, entrants[variant.name]) for variant in variants.others]
    worth = {one.b: one for one in dice_differences(pairs, seed=seed)}
    found = Ablation(
        settings=settings,
        name=variants.original.spec.name,
        seeds=trainings.seeds,
        compared_on=part,
        num_cases=len(cases),
        original=_dice(original, cases),
        parts=tuple(
            AblatedPart(
                part=variant.part,
                instead=variant.instead,
                scores=_dice(entrants[variant.name], cases),
                worth=worth.get(variant.name),
                costs=Saving.of(variants.original.cost, variant.cost),
            )
            for variant in variants.others
        ),
        failed=outcome.failed,
        left_out=variants.refused,
    )
    _write(folder / RESULT, found.to_json())
    return found


def _check_folder(folder: Path, settings: AblationSettings, spec: ArchSpec) -> None:
    """Make the folder, or see that it holds an ablation with these settings.

    Raises:
        SpecError: it holds something else, or cannot be written.
    """
    file, now = folder / SETTINGS, asdict(settings)
    if file.is_file():
        old = _read(file)
        changed = [key for key in now if old.get(key) != now[key]]
        if "network" in changed and is_hash_of(str(old.get("network")), spec, "trial"):
            changed.remove("network")  # by another release's hash it is the same
        if changed:
            raise SpecError(
                f"holds an ablation with another {', '.join(changed)}",
                where=folder,
                suggestion="give another `folder`",
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise SpecError(
            "exists and is not an ablation", where=folder, suggestion="give another `folder`"
        )
    make_folder(folder)
    _write(file, now)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes().decode())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise SpecError(
            "damaged",
            where=file,
            suggestion="put back a copy of it, or give another `folder`; its trainings stand in "
            f"{TABLE}",
        )
    return found


def _write(file: Path, content: dict[str, Any]) -> None:
    write_text(file, json.dumps(content, indent=2) + "\n")


def _entrant(name: str, jobs: Sequence[Retraining], outcome: Outcome, part: str) -> Entrant:
    trained = [one for job in jobs if (one := outcome.of(job)) is not None]
    return Entrant(name, [one.test if part == "test" else one.validation for one in trained])


def _dice(entrant: Entrant, cases: Sequence[str]) -> SeedDice:
    """Return the mean Dice over seeds and cases, and the means of the seeds."""
    if not entrant.seeds or not cases:
        return SeedDice(None, [])
    means = [float(value) for value in matrix(entrant, cases).mean(axis=1)]
    return SeedDice(statistics.fmean(means), means)
