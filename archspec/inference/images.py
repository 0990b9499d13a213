"""The cases among image files, named as nnU-Net names them, and whether a network takes them.

All of it is told from names and heads of files, before anything is predicted.
"""

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from skimage import io

from archspec.saved.info import ModelInfo
from archspec.saved.preprocessing import Preprocessing
from archspec.spec.words import listed, shown
from blocks.errors import Place, Problem, SpecError, reason

_NIFTI = (".nii.gz", ".nii")
_ITK = ("SimpleITKIO", "SimpleITKIOWithReorient")
_NIBABEL = ("NibabelIO", "NibabelIOWithReorient")
_NUMBERED = re.compile(r"(.+)_(\d{4})")
_CHUNK = 2**20
_ALIKE = 1e-4
"""By how much, of itself, spacing may differ between the files of a case: NIfTI has float32."""


@dataclass(frozen=True, slots=True)
class Case:
    """An image: a file for each channel, or one that holds all of them."""

    name: str
    files: tuple[Path, ...]
    ending: str


@dataclass(frozen=True, slots=True)
class Images:
    """The cases of a folder, and how many other files it holds."""

    cases: tuple[Case, ...]
    others: int


def find_images(images: Path, info: ModelInfo) -> Images:
    """Return the cases of a folder, or the one that a file belongs to.

    CASE_0000.nii.gz is the first channel of CASE; without a number a file is a case of its own,
    which has to hold all channels.

    Raises:
        SpecError: there is none, a channel is missing or is one too many, or two files are the
            same; the network is of images that are neither NIfTI nor natural ones.
    """
    said = info.preprocessing
    assert said is not None
    endings = _endings(said)
    paths = _paths(images, endings)
    found: dict[str, list[tuple[int | None, Path, str]]] = {}
    for path in paths:
        if (parts := _parts(path, endings)) is not None:
            name, number, ending = parts
            found.setdefault(name, []).append((number, path, ending))
    if not found:
        other = sorted({path.suffix for path in paths})
        raise SpecError(
            f"no image that ends in {' or '.join(endings)}, as those do that the network was "
            f"trained on (found: {listed(other) or 'none'})",
            where=images,
        )
    problems = [one for name, files in found.items() for one in _faults(name, files, info)]
    if problems:
        raise SpecError(problems)
    cases = tuple(
        Case(name, tuple(path for _, path, _ in sorted(files)), files[0][2])
        for name, files in sorted(found.items())
    )
    return Images(cases, len(paths) - sum(len(one.files) for one in cases))


def check_images(cases: Iterable[Case], info: ModelInfo) -> None:
    """Refuse files that are not whole, or that the network does not take.

    Raises:
        SpecError: a problem for each file.
    """
    said = info.preprocessing
    assert said is not None
    natural = _endings(said) != _NIFTI
    faults = _natural_faults if natural else _nifti_faults
    problems = [one for case in cases for one in faults(case, info)]
    if problems:
        raise SpecError(problems)


def _endings(said: Preprocessing) -> tuple[str, ...]:
    reader = said.image_reader_writer
    if reader == "NaturalImage2DIO":
        return (said.file_ending,)
    if reader in (*_ITK, *_NIBABEL) and said.file_ending in _NIFTI:
        return _NIFTI
    raise SpecError(
        f"takes images that end in {said.file_ending}, read by nnU-Net's {reader}, but only NIfTI "
        "and natural images such as PNG are predicted"
    )


def _paths(images: Path, endings: tuple[str, ...]) -> list[Path]:
    """Return the files of a folder; for a file those of its case."""
    if images.is_dir():
        paths = [one for one in images.iterdir() if not one.name.startswith(".")]
        return sorted(one for one in paths if one.is_file())
    if not images.is_file():
        raise SpecError("no such file or folder", where=images)
    own = _parts(images, endings)
    if own is None or own[1] is None:
        return [images]
    return sorted(
        path
        for path in images.parent.iterdir()
        if (parts := _parts(path, endings)) is not None
        and parts[0] == own[0]
        and parts[1] is not None
        and path.is_file()
    )


def _parts(path: Path, endings: tuple[str, ...]) -> tuple[str, int | None, str] | None:
    """Return case, channel and ending, as the name has them; None for no image."""
    name = path.name
    ending = next((one for one in endings if name.lower().endswith(one)), None)
    if ending is None or len(name) == len(ending):
        return None
    stem, ending = name[: -len(ending)], name[-len(ending) :]
    numbered = _NUMBERED.fullmatch(stem)
    return (stem, None, ending) if numbered is None else (numbered[1], int(numbered[2]), ending)


def _faults(
    name: str, files: list[tuple[int | None, Path, str]], info: ModelInfo
) -> Iterator[Problem]:
    """Yield what is wrong with the numbers of a case's files."""
    said = info.preprocessing
    assert said is not None
    numbers = [number for number, _, _ in files]
    where, ending = Place(str(files[0][1].parent / name)), files[0][2]
    if len(set(numbers)) < len(numbers) or (None in numbers and len(numbers) > 1):
        names = listed(sorted(path.name for _, path, _ in files))
        yield Problem(f"several files for the same channel: {names}", where)
        return
    count, there = info.in_channels, {number or 0 for number in numbers}
    if more := sorted(number for number in there if number >= count):
        yield Problem(
            f"has a channel {more[0]}, but the network takes {count}, counted from 0",
            where,
            suggestion="four digits at the end of a name are the channel",
        )
        return
    if said.image_reader_writer == "NaturalImage2DIO":  # one file may hold several
        count = max(there) + 1
    if numbers == [None] and count > 1:
        yield Problem(
            f"the network takes {count} channels, each a file of its own: {name}_0000{ending}, "
            f"{name}_0001{ending}...",
            where,
        )
        return
    for number in sorted(set(range(count)) - there):
        named = f" ({said.channel_names[number]})" if said.channel_names is not None else ""
        yield Problem(f"channel {number}{named} is missing: {name}_{number:04}{ending}", where)


def _natural_faults(case: Case, info: ModelInfo) -> Iterator[Problem]:
    """Yield what is wrong with pictures; one in colour holds several channels."""
    shapes = []
    for path in case.files:
        try:
            shapes.append(io.imread(path).shape)
        except Exception as error:  # damaged files raise anything
            yield Problem(f"cannot be read: {reason(error)}", Place(str(path)))
            return
        if not (len(shapes[-1]) == 2 or (len(shapes[-1]) == 3 and shapes[-1][2] in (3, 4))):
            yield Problem(
                f"is of shape {shown(shapes[-1])}, but must be grey, RGB or RGBA", Place(str(path))
            )
            return
    where = Place(str(case.files[0]))
    channels = sum(1 if len(shape) == 2 else shape[2] for shape in shapes)
    if channels != info.in_channels:
        yield Problem(
            f"{channels} channels in {len(shapes)} file{'s' * (len(shapes) > 1)}, but the network "
            f"takes {info.in_channels}",
            where,
        )
    if len({shape[:2] for shape in shapes}) > 1:
        yield Problem(f"its channels are of several sizes: {_several(shapes)}", where)


def _nifti_faults(case: Case, info: ModelInfo) -> Iterator[Problem]:
    """Yield what heads and sizes of the files tell; readers take what is cut off for zeros."""
    heads = []
    for path in case.files:
        try:
            image: Any = nibabel.load(path)
            shape, spacing = image.shape, np.array(image.header.get_zooms(), dtype=float)
            needed = image.header.get_data_offset() + np.prod(shape) * (
                image.get_data_dtype().itemsize
            )
            whole = _is_whole(path, int(needed))
        except Exception as error:  # damaged heads raise anything
            yield Problem(f"cannot be read: {reason(error)}", Place(str(path)))
            return
        fault = _head_fault(shape, spacing, info)
        if not whole:
            fault = "is cut off: it holds fewer voxels than its head says"
        if fault is not None:
            yield Problem(fault, Place(str(path)))
            return
        heads.append((shape, spacing))
    shapes, spacings = zip(*heads, strict=True)
    where = Place(str(case.files[0]))
    if len(set(shapes)) > 1:
        yield Problem(f"its channels are of several sizes: {_several(shapes)}", where)
    elif not all(np.allclose(one, spacings[0], rtol=_ALIKE, atol=0) for one in spacings):
        yield Problem(f"its channels are of several spacings: {_several(spacings)}", where)


def _several(values: Any) -> str:
    return listed(list(dict.fromkeys(" x ".join(f"{n:g}" for n in one) for one in values)))


def _head_fault(shape: tuple[int, ...], spacing: Any, info: ModelInfo) -> str | None:
    said = info.preprocessing
    assert said is not None
    by_itk = said.image_reader_writer in _ITK
    while by_itk and len(shape) > 3 and shape[-1] == 1:  # which it leaves out
        shape = shape[:-1]
    size = " x ".join(map(str, shape))
    if 0 in shape or not (np.isfinite(spacing[: len(shape)]) & (spacing[: len(shape)] > 0)).all():
        return f"an image of {size} voxels with spacing {shown(spacing.tolist())}"
    if len(shape) == 2 and len(info.patch_size) == 3:
        return f"a 2-D image ({size}), but the network takes 3-D ones"
    if len(shape) > 3:
        return f"has {len(shape)} axes ({size}), but each channel is to be a file of its own"
    if len(shape) < 2 or (len(shape) == 2 and not by_itk):
        return f"has {len(shape)} axes ({size}), but an image has 3"
    return None


def _is_whole(path: Path, needed: int) -> bool:
    """Say whether a file holds so many bytes, once unpacked.

    A gzip file ends in the number, of its last part; only where that is another one is it unpacked.
    """
    if path.suffix.lower() != ".gz":
        return path.stat().st_size >= needed
    with path.open("rb") as file:
        file.seek(-4, 2)
        if int.from_bytes(file.read(4), "little") == needed % 2**32:
            return True
    total = 0
    try:
        with gzip.open(path) as opened:
            while part := opened.read(_CHUNK):
                total += len(part)
    except (EOFError, OSError, zlib.error):
        return False
    return total >= needed
