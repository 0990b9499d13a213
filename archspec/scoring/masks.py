"""Read masks with their spacing and place: NIfTI by nibabel, other formats by nnU-Net."""

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blocks.errors import SpecError, reason

_NIFTI = (".nii.gz", ".nii")
_LARGEST_LABEL = 65535


@dataclass(frozen=True, slots=True)
class MaskFile:
    """Labels of one case, 2-D or 3-D, with the spacing of their axes in mm.

    `affine` (4, 4) places voxels in mm; a format without a place has its spacing only. A volume of
    one slice is 2-D: the axis is gone from `labels` and `spacing`.
    """

    path: Path
    labels: NDArray[np.unsignedinteger[Any]]
    spacing: tuple[float, ...]
    affine: NDArray[np.float64]
    shape: tuple[int, ...]

    def same_grid(self, other: "MaskFile") -> None:
        """Check that both lie on one grid: no corner farther apart than a tenth of a voxel.

        Raises:
            SpecError: shapes or places that differ.
        """
        if self.shape != other.shape:
            raise SpecError(
                f"shape {self.shape} must be that of {other.path}, {other.shape}", where=self.path
            )
        corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(self.shape) - 1)
        places = np.column_stack([corners, np.ones(8)])
        apart = np.abs(places @ (self.affine - other.affine).T).max()
        if not apart <= min(other.spacing) / 10:
            raise SpecError(
                f"voxels lie up to {apart:.3g} mm from those of {other.path}",
                where=self.path,
                suggestion="spacing, origin and direction must agree",
            )


def mask_names(folder: Path, ending: str) -> list[str]:
    """Return the sorted names of the folder's files with this ending.

    Raises:
        SpecError: no such folder.
    """
    if not folder.is_dir():
        raise SpecError("no such folder", where=folder)
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.name.endswith(ending) and not path.name.startswith(".")
    )


def read_mask(path: Path, dataset_json: Mapping[str, Any]) -> MaskFile:
    """Read a mask; the dataset.json names nnU-Net's reader where the file is no NIfTI.

    Raises:
        SpecError: unreadable, not of two or three dimensions, or values that are no labels.
    """
    read = _read_nifti if path.name.endswith(_NIFTI) else _read_as_nnunet
    try:
        volume, affine = read(path, dataset_json)
    except SpecError:
        raise
    except Exception as error:  # each format's library has errors of its own
        raise SpecError(f"cannot be read as a mask: {reason(error)}", where=path) from error
    while volume.ndim > 3 and volume.shape[-1] == 1:
        volume = volume[..., 0]
    if volume.ndim == 2:
        volume = volume[..., None]
    if volume.ndim != 3 or not volume.size:
        raise SpecError(f"shape {volume.shape} must have two or three axes", where=path)
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    if not (np.isfinite(affine).all() and (sizes > 0).all()):
        raise SpecError("its header has no valid spacing", where=path)
    # Headers hold float32: 0.8 mm comes as 0.80000001, and 2 voxels would miss 1.6 mm.
    spacing = tuple(float(f"{size:.6g}") for size in sizes)
    labels = _labels(path, volume)
    flat = [axis for axis in range(3) if volume.shape[axis] == 1][:1]
    kept = [axis for axis in range(3) if axis not in flat]
    return MaskFile(
        path,
        labels.squeeze(tuple(flat)),
        tuple(spacing[axis] for axis in kept),
        affine,
        volume.shape,
    )


def _labels(path: Path, volume: NDArray[Any]) -> NDArray[np.unsignedinteger[Any]]:
    """Return the values as unsigned integers."""
    low, high = volume.min(), volume.max()
    if not (low >= 0 and high <= _LARGEST_LABEL):
        raise SpecError(f"labels must lie in 0..{_LARGEST_LABEL}, got {low}..{high}", where=path)
    small: NDArray[np.unsignedinteger[Any]] = volume.astype(np.uint8 if high < 256 else np.uint16)
    if not np.issubdtype(volume.dtype, np.integer) and not (small == volume).all():
        wrong = volume[small != volume].flat[0]
        raise SpecError(
            f"labels must be integers, got {wrong:.4g}", where=path, suggestion="a probability map?"
        )
    return small


def _read_nifti(
    path: Path, dataset_json: Mapping[str, Any]
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    import nibabel

    image: Any = nibabel.load(path)
    return np.asanyarray(image.dataobj), np.asarray(image.affine, dtype=np.float64)


def _read_as_nnunet(
    path: Path, dataset_json: Mapping[str, Any]
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Read with the reader that nnU-Net takes for the dataset; its arrays are (1, D, H, W)."""
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    # A .tif is an image or a volume: nnU-Net tries its readers on an example, and prints failures.
    example = str(path) if path.suffix == ".tif" else None
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        reader = determine_reader_writer_from_dataset_json(
            dict(dataset_json), example, verbose=False
        )()
        volume, properties = reader.read_seg(str(path))
    if volume.shape[0] != 1:
        raise SpecError(
            f"{volume.shape[0]} channels", where=path, suggestion="a mask must have one"
        )
    spacing = np.array(properties["spacing"], dtype=np.float64)
    affine = np.diag([*spacing, 1.0])
    geometry = properties.get("sitk_stuff")
    if geometry is not None and len(geometry["spacing"]) == 3:
        # SimpleITK orders axes the other way round; rows of the affine keep its order.
        direction = np.array(geometry["direction"]).reshape(3, 3)
        affine[:3, :3] = (direction * geometry["spacing"])[:, ::-1]
        affine[:3, 3] = geometry["origin"]
    return volume[0], affine
