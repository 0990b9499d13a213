"""Masks of archspec predict beside nnU-Net's own of the same images, and what is refused."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from skimage.io import imread, imsave

import archspec
from archspec.inference.predict import predict
from archspec.sources import of_trained

pytest.importorskip("nnunetv2")

Cli = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]
Volume = Callable[..., None]


def nnunet_masks(folder: Path, cases: list[list[Path]], out: Path) -> None:
    """Predict as nnUNetv2_predict -npp 0 -nps 0 does, in this process."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    out.mkdir()
    with contextlib.redirect_stdout(io.StringIO()):
        predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(folder), (0,))
        ending = predictor.dataset_json["file_ending"]
        names = [str(out / files[0].name[: -len(f"_0000{ending}")]) for files in cases]
        files = [[str(path) for path in case] for case in cases]
        predictor.predict_from_files_sequential(files, names)


def agreement(ours: Path, theirs: Path) -> float:
    """Return the share of equal voxels of two masks with the same geometry."""
    a, b = nibabel.load(ours), nibabel.load(theirs)
    assert np.allclose(a.affine, b.affine)
    assert a.get_data_dtype() == b.get_data_dtype()
    one, other = np.asarray(a.dataobj), np.asarray(b.dataobj)
    assert one.shape == other.shape and len(np.unique(other)) == 3
    return float((one == other).mean())


@pytest.fixture(scope="module")
def turned_reference(turned: Path, turned_images: Path) -> Path:
    out = turned.parent / "theirs"
    nnunet_masks(turned, [sorted(turned_images.iterdir())], out)
    return out / "a.nii.gz"


@pytest.fixture
def turned_file(turned: Path, tmp_path: Path, cli: Cli) -> Path:
    file = tmp_path / "net.safetensors"
    code, _, err = cli("convert-model", turned, "-o", file)
    assert code == 0, err
    return file


def test_masks_of_a_turned_anisotropic_model_are_nnunets(
    cli: Cli,
    turned: Path,
    turned_file: Path,
    turned_images: Path,
    turned_reference: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "masks"
    code, said, err = cli("predict", turned_file, turned_images, "-o", out, "--device", "cpu")
    assert (code, said, err) == (0, "1 mask written\n", "image 1 of 1: a\n")
    assert [one.name for one in out.iterdir()] == ["a.nii.gz"]
    assert agreement(out / "a.nii.gz", turned_reference) == 1
    image, mask = nibabel.load(turned_images / "a_0000.nii.gz"), nibabel.load(out / "a.nii.gz")
    assert np.allclose(image.affine, mask.affine) and image.shape == mask.shape
    # by the model folder itself, and one file of the case
    one = tmp_path / "mask.nii.gz"
    code, _, err = cli("predict", turned, turned_images / "a_0001.nii.gz", "-o", one)
    assert code == 0, err
    assert agreement(one, turned_reference) == 1


WRONG = {
    "axes": {"transpose_forward": (0, 1, 2)},
    "resampling": {"resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 0}},
    "mirroring": {"mirror_axes": (0, 1)},
    "preprocessing": {},
}


@pytest.mark.parametrize("name", [*WRONG, "spacing", "normalization"])
def test_each_fact_matters(
    turned: Path, turned_images: Path, turned_reference: Path, tmp_path: Path, name: str
) -> None:
    model = of_trained(turned)
    info = model.info
    assert info.preprocessing is not None and info.normalization is not None
    said = {**info.preprocessing.to_json(), **WRONG.get(name, {})}
    facts: dict[str, Any] = {
        "spacing": info.spacing,
        "normalization": info.normalization,
        "labels": info.labels,
        "preprocessing": WRONG[name] if name == "preprocessing" else said,
    }
    if name == "spacing":
        facts["spacing"] = (4.0, 1.0, 1.0)
    if name == "normalization":
        facts["normalization"] = ["ZScoreNormalization"] * 2
    file, mask = tmp_path / "net.safetensors", tmp_path / "mask.nii.gz"
    archspec.save(model.net, file, **facts)
    predict(file, turned_images, mask, device="cpu")
    assert agreement(mask, turned_reference) < 0.999


@pytest.fixture(scope="module")
def pictures(flat: Path) -> Path:
    folder = flat.parent / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("small", (11, 24)), ("large", (37, 50))):
        coarse = rng.integers(1, 256, (7, 9, 3), dtype=np.uint8)
        picture = np.kron(coarse, np.ones((6, 6, 1), np.uint8))[: size[0], : size[1]]
        imsave(folder / f"{name}_0000.png", picture, check_contrast=False)
    return folder


def test_masks_of_pictures_are_nnunets(
    cli: Cli, flat: Path, pictures: Path, tmp_path: Path
) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    cases = sorted(pictures.iterdir())
    nnunet_masks(flat, [[one] for one in cases], theirs)
    code, said, err = cli("predict", flat, pictures, "-o", ours, "--device", "cpu")
    assert (code, said) == (0, "2 masks written\n"), err
    assert err.splitlines() == ["image 1 of 2: large", "image 2 of 2: small"]
    for name in ("large.png", "small.png"):
        mask, reference = imread(ours / name), imread(theirs / name)
        assert mask.dtype == reference.dtype and len(np.unique(reference)) > 1
        assert (mask == reference).all()


def test_masks_of_slices_in_regions_are_nnunets(
    cli: Cli, trained_folder: Callable[..., Path], volume: Volume, tmp_path: Path
) -> None:
    """A 2-D network of labels that overlap, on the slices of a volume."""
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    said = {"labels": labels, "regions_class_order": [1, 2]}
    folder = trained_folder(tmp_path, [8, 12], [1.0, 0.8], ["MR"], said=said)
    image, file, masks = tmp_path / "a_0000.nii.gz", tmp_path / "net.safetensors", tmp_path / "ours"
    volume(image, (15, 13, 7))
    nnunet_masks(folder, [[image]], tmp_path / "theirs")
    assert cli("convert-model", folder, "-o", file)[0] == 0
    code, _, err = cli("predict", file, image, "-o", masks, "--device", "cpu")
    assert code == 0, err
    assert agreement(masks / "a.nii.gz", tmp_path / "theirs" / "a.nii.gz") == 1


def test_files_without_a_number_and_masks_that_are_there(
    cli: Cli, refused: Refused, volume: Volume, grey: Path, tmp_path: Path
) -> None:
    images, out = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    sources = ("a.nii.gz", "b_0000.nii.gz", "c.nii")
    for name in sources:
        volume(images / name, (9, 10, 8))
    (images / "notes.txt").write_text("mine")
    (images / ".hidden.nii.gz").write_text("no image")
    line = ("predict", grey, images, "-o", out, "--no-mirroring")
    code, said, err = cli(*line)
    assert code == 0, err
    assert said.splitlines() == [
        "3 masks written",
        "1 other files passed by, which are no images of this kind",
    ]
    names = ["a.nii.gz", "b.nii.gz", "c.nii"]
    assert sorted(one.name for one in out.iterdir()) == names
    for source, name in zip(sources, names, strict=True):
        image, mask = (nibabel.load(file) for file in (images / source, out / name))
        assert mask.shape == (9, 10, 8) and np.allclose(mask.affine, image.affine)
    (out / "b.nii.gz").unlink()
    (out / "c.nii").write_text("mine")
    kept = (out / "a.nii.gz").read_bytes()
    assert cli(*line)[2].splitlines()[0] == (
        f"archspec: {out / 'a.nii.gz'}: exists; --force replaces it, --continue keeps it and "
        "predicts the others"
    )
    code, said, err = cli(*line, "--continue", "--json")
    assert code == 0, err
    assert json.loads(said) == {"masks": [str(out / "b.nii.gz")], "kept": 2, "others": 1}
    assert (out / "c.nii").read_text() == "mine" and (out / "a.nii.gz").read_bytes() == kept
    refused((*line, "--continue", "--force"), "--force and --continue do not go together")
    # one image alone, to a file of any name; images are never written over
    target = tmp_path / "mask.nii.gz"
    assert cli("predict", grey, images / "b_0000.nii.gz", "-o", target)[0] == 0
    assert np.array_equal(nibabel.load(target).dataobj, nibabel.load(out / "b.nii.gz").dataobj)
    refused(("predict", grey, images, "-o", target, "--force"), "one file, but there are 3 images")
    before = (images / "a.nii.gz").read_bytes()
    refused(("predict", grey, images / "a.nii.gz", "-o", images, "--force"), "is an image itself")
    assert (images / "a.nii.gz").read_bytes() == before
