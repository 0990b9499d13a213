"""Images -> masks: all that can be refused first, then case by case."""

from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from archspec.files import check_folder, check_writable, make_folder
from archspec.inference.images import Case, check_images, find_images
from archspec.nnunet.trained import CHECKPOINT, is_trained
from archspec.saved.info import ModelInfo
from archspec.sources import Model, of_saved, of_trained
from archspec.training.devices import device_named
from blocks.errors import Place, Problem, SpecError, argument

FACTS = ("spacing", "normalization", "labels", "preprocessing")
_OF_CT = ("mean", "std", "percentile_00_5", "percentile_99_5")


@dataclass(frozen=True, slots=True)
class Step:
    """A forward pass that is done: which of how many in the case, and which case of how many."""

    case: str
    index: int
    num_cases: int
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Predicted:
    """The masks that were written, how many cases had theirs before, and other files passed by."""

    masks: tuple[Path, ...]
    kept: int
    others: int

    def to_json(self) -> dict[str, Any]:
        """Return it as a tree for JSON."""
        return {"masks": [str(one) for one in self.masks], "kept": self.kept, "others": self.others}

    def text(self) -> str:
        """Return the page of it."""
        count = len(self.masks)
        lines = [f"{count} mask{'s' * (count != 1)} written"]
        if self.kept:
            lines.append(f"{self.kept} kept that had been there")
        if self.others:
            lines.append(f"{self.others} other files passed by, which are no images of this kind")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text()


def predict(
    model: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    fold: str | None = None,
    checkpoint: str = CHECKPOINT,
    device: str = "auto",
    mirroring: bool = True,
    step_size: float = 0.5,
    force: bool = False,
    resume: bool = False,
    on_step: Callable[[Step], None] | None = None,
) -> Predicted:
    """Write the mask of each image as nnU-Net would: resampled, normalized, by sliding windows.

    The model is a file or folder of `save`, or a model folder of nnU-Net's results, with its
    `fold`. The images are a folder of NIfTI or PNG files, or a file; CASE_0000.nii.gz is the first
    channel of CASE. `out` is the folder for the masks, or the file for that of one image.
    `resume` keeps the masks that are there, `force` replaces them. Mirroring is along the axes that
    the training mirrored along. `step_size` is how far a window moves, of its own size.

    Raises:
        SpecError: the model does not say all that this takes, an image does not fit it or cannot be
            read, or a mask is there or cannot be written; before the first mask, but for what only
            the voxels themselves tell.
    """
    source, target = Path(images), Path(out)
    chosen = device_named(device)
    if not 0 < step_size <= 1:
        raise SpecError("must be above 0 and at most 1", where=argument("step_size", step_size))
    if force and resume:
        raise SpecError("`force` and `resume` do not go together: replace masks, or keep them")
    found = _model(Path(model), fold, checkpoint)
    try:
        check_facts(found.info)
        listed = find_images(source, found.info)
    except SpecError as error:
        raise error.at(Path(model)) from None
    targets = _targets(listed.cases, target, force=force or resume)
    todo = [one for one in listed.cases if not (resume and targets[one.name].exists())]
    check_images(todo, found.info)
    masks = []
    if todo:
        with redirect_stdout(StringIO()):  # nnU-Net says which of its folders are not set
            from archspec.inference.engine import Engine
        try:
            engine = Engine(
                found.net, found.info, device=chosen, mirroring=mirroring, step_size=step_size
            )
        except SpecError as error:
            raise error.at(Path(model)) from None
        if target not in targets.values():
            make_folder(target)
        for index, case in enumerate(todo):

            def on_tile(done: int, total: int, name: str = case.name, index: int = index) -> None:
                if on_step is not None:
                    on_step(Step(name, index, len(todo), done, total))

            engine.predict(case, targets[case.name], on_tile)
            masks.append(targets[case.name])
    return Predicted(tuple(masks), len(listed.cases) - len(todo), listed.others)


def check_facts(info: ModelInfo) -> None:
    """Refuse a network of which too little is known to predict as it was trained.

    Raises:
        SpecError: see above.
    """
    missing = [name for name in FACTS if getattr(info, name) is None]
    if missing:
        raise SpecError(
            f"does not say {', '.join(missing)}, without which no image can be prepared as in its "
            "training",
            suggestion="give them to archspec.save, or convert the trained model folder again",
        )
    for index, one in enumerate(info.normalization or ()):
        lacking = [key for key in _OF_CT if key not in one]
        if one["scheme"] == "CTNormalization" and lacking:
            raise SpecError(
                f"CTNormalization takes {', '.join(lacking)} too", field=f"normalization.{index}"
            )


def _model(path: Path, fold: str | None, checkpoint: str) -> Model:
    if path.suffix == ".safetensors" or (path / "config.json").is_file():
        if fold is not None:
            raise SpecError("`fold` is for a model folder of nnU-Net", where=path)
        return of_saved(path)
    if is_trained(path):
        return of_trained(path, fold=fold, checkpoint=checkpoint)
    if not path.exists():
        raise SpecError("no such file or folder", where=path)
    if path.suffix in (".onnx", ".pt2"):
        raise SpecError(
            "computes the logits of one patch, and is for other programs",
            where=path,
            suggestion="give the .safetensors file or the model folder that it was made of",
        )
    raise SpecError(
        "neither a saved network (.safetensors, or config.json) nor a model folder of nnU-Net "
        "(plans.json, dataset.json)",
        where=path,
        suggestion="archspec convert-model makes a file of a run or a spec with weights",
    )


def _targets(cases: tuple[Case, ...], out: Path, *, force: bool) -> dict[str, Path]:
    """Return the file for the mask of each case.

    Raises:
        SpecError: one is there already, or is an image itself, or cannot be written.
    """
    is_file = not out.is_dir() and out.name.endswith(cases[0].ending)
    if is_file and len(cases) > 1:
        raise SpecError(f"is one file, but there are {len(cases)} images", where=out)
    targets = {one.name: out if is_file else out / f"{one.name}{one.ending}" for one in cases}
    if is_file:
        check_writable(out)
    else:
        check_folder(out)
    images = {path.resolve() for one in cases for path in one.files}
    problems = []
    for path in targets.values():
        if path.resolve() in images:
            problems.append(Problem("is an image itself; give another `out`", Place(str(path))))
        elif path.exists() and not force:
            problems.append(
                Problem(
                    "exists",
                    Place(str(path)),
                    suggestion="`force` replaces it, `resume` keeps it and predicts the others",
                )
            )
    if problems:
        raise SpecError(problems)
    return targets
