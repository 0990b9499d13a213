"""What to run after an export: nnU-Net's commands, and the environment that they need."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from archspec.nnunet.dataset import PreprocessedDataset, dataset_id
from archspec.spec.training import TrainingSpec
from archspec.text import assignment, command_line
from blocks.base import SpecError

Recipe = Literal["spec", "nnunet"]
TRAINER = "nnUNetTrainerArchSpec"
TRAINERS = Path(__file__).parent / "trainers"
_VARIABLE = "nnUNet_extTrainer"


def check_recipe(recipe: str) -> None:
    """Refuse words other than those of `Recipe`.

    Raises:
        SpecError: see above.
    """
    if recipe not in get_args(Recipe):
        raise SpecError(
            f"must be {' or '.join(get_args(Recipe))}, but is {recipe!r}", field="recipe"
        )


def environment(recipe: str) -> tuple[str, ...]:
    """Return the lines that let nnU-Net find the trainer of the recipe."""
    if recipe == "nnunet":
        return ()
    ours = str(TRAINERS)
    others = [
        path for path in os.environ.get(_VARIABLE, "").split(os.pathsep) if path not in ("", ours)
    ]
    return (assignment(_VARIABLE, os.pathsep.join([ours, *others])),)


def commands(configurations: Sequence[PreprocessedDataset], name: str, recipe: str) -> list[str]:
    """Return how to train and to predict each configuration, a cascade's first stage first."""
    lines = []
    for dataset in sorted(configurations, key=lambda found: found.previous_stage is not None):
        trainer = ["-tr", TRAINER] if recipe == "spec" else []
        common = ["-p", name, *trainer]
        train = ["nnUNetv2_train", dataset.name, dataset.configuration, "0", *common]
        predict = ["nnUNetv2_predict", "-d", dataset.name, "-c", dataset.configuration, "-f", "0"]
        folders = "-i INPUT_FOLDER -o OUTPUT_FOLDER"
        if dataset.previous_stage is not None:
            folders += f" -prev_stage_predictions OUTPUT_FOLDER_OF_{dataset.previous_stage}"
        lines += [command_line(*train), f"{command_line(*predict, *common)} {folders}"]
    return lines


def preprocess_command(dataset: PreprocessedDataset) -> str:
    """Return how nnU-Net makes the data of a configuration; never by plans that borrow them.

    Preprocessing by the name of borrowing plans would delete what it replaces.
    """
    folder, names = dataset.data_folder.name, dataset.plans.get("configurations", {})
    owner = max((name for name in names if folder.endswith(f"_{name}")), key=len, default=None)
    options: list[object] = ["-d", dataset_id(dataset.name) or dataset.name]
    if owner is not None:
        options += ["-plans_name", folder.removesuffix(f"_{owner}")]
    return command_line("nnUNetv2_preprocess", *options, "-c", owner or dataset.configuration)


def recipe_note(training: TrainingSpec, recipe: str) -> str:
    """Return which recipe trains, and what the other would be."""
    ours = f"{training.optimizer}, lr {training.lr:g}, {training.schedule}"
    if recipe == "nnunet":
        return f"recipe: nnU-Net's own (SGD, lr 0.01, poly); the spec's ({ours}) is not used"
    return (
        f"recipe: the spec's ({ours}), by {TRAINER}; training needs {_VARIABLE} for it, "
        "predicting does not"
    )
