"""Check reach's answers from its voxels, and the files that nnU-Net will read."""

import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from archspec.phantom.dataset import write_dataset
from archspec.phantom.reach import ReachTask, Scene
from blocks.base import SpecError

TASK = ReachTask(distance=40)
MANY = 400


def scenes(num_scenes: int) -> list[Scene]:
    return [TASK.draw(np.random.default_rng([7, index])) for index in range(num_scenes)]


def file_hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def centre_of(label: np.ndarray, name: str) -> np.ndarray:
    return np.argwhere(label == TASK.labels[name]).mean(axis=0)


@pytest.mark.parametrize("distance", [16, 24, 40, 64, 144])
@pytest.mark.parametrize("index", range(4))
def test_label_follows_landmark(distance: int, index: int) -> None:
    task = ReachTask(distance=distance)
    rng = np.random.default_rng([distance, index])
    label = task.render(task.draw(rng), rng).label
    organ, same, other = (centre_of(label, name) for name in ("organ", *task.twins))
    middle = (same[1] + other[1]) / 2
    assert (organ[1] > middle) == (same[1] > middle)
    assert (organ[1] > middle) != (other[1] > middle)
    assert abs(abs(same[2] - organ[2]) - distance) < 0.5
    assert abs(same[2] - other[2]) < 0.01


@pytest.mark.parametrize("distance", range(16, 145, 8))
def test_shape_suits_nnunet(distance: int) -> None:
    depth, height, width = ReachTask(distance=distance).shape
    assert (depth % 8, height % 8, width % 16) == (0, 0, 0)
    assert max(depth, height, width) / depth <= 3


def test_organs_are_whole() -> None:
    """No organ touches the rim or another organ, whatever is drawn."""
    extremes = [
        replace(scene, centre=tuple(np.subtract(TASK.shape, 1) / 2 + shift))
        for scene in scenes(4)
        for shift in np.array([(1.5, 1.5, 2.0), (-1.5, -1.5, -2.0)])
    ]
    for scene in extremes:
        scene = replace(scene, twin_radii=(4.95,) * 3, landmark_radii=(4.95,) * 3)
        label = TASK.render(scene, np.random.default_rng(0)).label
        assert not label[[0, -1]].any()
        assert not label[:, [0, -1]].any()
        assert not label[:, :, [0, -1]].any()
        foreground = np.isin(label, (2, 3)).sum()
        assert abs(foreground - 2 * (label == 2).sum()) < 0.05 * foreground


def test_mirror_image_is_the_mirrored_scene() -> None:
    """Flipping along any axis gives the volume of a legal scene, so flips keep labels right."""
    task = replace(TASK, noise=0.0)
    for scene in scenes(5):
        volume = task.render(scene, np.random.default_rng(0))
        for axis in range(3):
            centre = list(scene.centre)
            centre[axis] = task.shape[axis] - 1 - centre[axis]
            mirrored = replace(
                scene,
                centre=tuple(centre),
                landmark_side=-scene.landmark_side if axis == 1 else scene.landmark_side,
                landmark_end=-scene.landmark_end if axis == 2 else scene.landmark_end,
            )
            again = task.render(mirrored, np.random.default_rng(0))
            assert np.array_equal(np.flip(volume.label, axis), again.label)
            np.testing.assert_allclose(np.flip(volume.image, axis + 1), again.image, atol=1e-5)


def test_only_the_landmark_tells_its_side() -> None:
    """Moving the landmark to the other side changes no voxel that is not near the landmark."""
    for index, scene in enumerate(scenes(5)):
        moved = replace(scene, landmark_side=-scene.landmark_side)
        before = TASK.render(scene, np.random.default_rng([3, index]))
        after = TASK.render(moved, np.random.default_rng([3, index]))
        along = np.abs(
            np.argwhere(before.image[0] != after.image[0])[:, 2] - _landmark_width(scene)
        )
        assert along.max() < 10 < TASK.distance
        assert np.array_equal(np.isin(before.label, (2, 3)), np.isin(after.label, (2, 3)))
        assert np.array_equal(before.label == 2, after.label == 3)


def _landmark_width(scene: Scene) -> float:
    return scene.centre[2] + scene.landmark_end * TASK.distance / 2


def test_side_is_a_fair_coin_independent_of_the_rest() -> None:
    """Allow four standard errors, for the mean of a coin and for a correlation alike."""
    drawn = scenes(MANY)
    sides = np.array([scene.landmark_side for scene in drawn], float)
    assert abs(sides.mean()) < 4 / np.sqrt(MANY)
    for values in np.array(
        [(s.landmark_end, *s.centre, *s.twin_radii, *s.landmark_radii) for s in drawn]
    ).T:
        assert abs(np.corrcoef(sides, values)[0, 1]) < 4 / np.sqrt(MANY)


def test_nothing_but_the_landmark_differs_between_twins() -> None:
    """Mean and deviation of the two twins agree over cases, so intensity tells nothing."""
    differences = []
    for index in range(60):
        rng = np.random.default_rng([11, index])
        (image,), label, _ = TASK.render(TASK.draw(rng), rng)
        differences.append(
            (
                image[label == 2].mean() - image[label == 3].mean(),
                image[label == 2].std() - image[label == 3].std(),
            )
        )
    errors = np.std(differences, axis=0) / np.sqrt(len(differences))
    assert (np.abs(np.mean(differences, axis=0)) < 4 * errors).all()


def test_dataset_is_bit_identical_for_a_seed(tmp_path: Path) -> None:
    def write(place: str, *, num_cases: int, seed: int) -> dict[str, str]:
        out = tmp_path / place / "Dataset901_Reach"
        return file_hashes(
            write_dataset(out, TASK, num_cases=num_cases, num_test_cases=2, seed=seed)
        )

    first = write("a", num_cases=5, seed=3)
    assert write("b", num_cases=5, seed=3) == first
    larger = write("c", num_cases=6, seed=3)
    assert {name: larger[name] for name in first if name != "dataset.json"} == {
        name: value for name, value in first.items() if name != "dataset.json"
    }
    other_seed = write("d", num_cases=5, seed=4)
    assert not set(first.values()) & set(other_seed.values())
    images = [value for name, value in first.items() if name.startswith("images")]
    assert len(set(images)) == 7


def test_dataset_layout(tmp_path: Path) -> None:
    task = ReachTask(distance=24, spacing=(3.0, 1.0, 2.0))
    out = write_dataset(
        tmp_path / "raw" / "Dataset1001_Reach-24", task, num_cases=5, num_test_cases=1, seed=0
    )
    train = [f"case_{index:04d}" for index in range(1, 6)]
    names = {f"imagesTr/{case}_0000.nii.gz" for case in train}
    names |= {f"labelsTr/{case}.nii.gz" for case in train}
    names |= {"imagesTs/case_9001_0000.nii.gz", "labelsTs/case_9001.nii.gz", "dataset.json"}
    assert set(file_hashes(out)) == names
    assert [path.name for path in out.parent.iterdir()] == [out.name]

    content = json.loads((out / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "organ": 1, "twin_same": 2, "twin_other": 3}
    assert content["channel_names"] == {"0": "MR"}
    assert content["numTraining"] == 5
    assert content["file_ending"] == ".nii.gz"
    assert content["archspec"] == {
        "task": "reach",
        "distance": 24,
        "noise": 0.1,
        "blur": 0.7,
        "seed": 0,
        "groups": {"either_twin": ["twin_same", "twin_other"]},
    }

    rng = np.random.default_rng([0, 1])
    volume = task.render(task.draw(rng), rng)
    image = nibabel.load(out / "imagesTr/case_0001_0000.nii.gz")
    label = nibabel.load(out / "labelsTr/case_0001.nii.gz")
    assert image.header.get_zooms() == (2.0, 1.0, 3.0)
    assert np.array_equal(image.affine, label.affine)
    np.testing.assert_allclose(
        np.asarray(image.dataobj).transpose(2, 1, 0) / 1000, volume.image[0], atol=1e-3
    )
    assert np.array_equal(np.asarray(label.dataobj).transpose(2, 1, 0), volume.label)
    assert gzip.decompress((out / "labelsTr/case_0001.nii.gz").read_bytes())


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"distance": 15}, "distance: must lie in 16..144 voxels, got 15"),
        ({"distance": 145}, "distance: must lie in 16..144 voxels, got 145"),
        ({"spacing": (1.0, 0.0, 1.0)}, "spacing: must be three positive sizes"),
        ({"spacing": (1.0, 1.0)}, "spacing: must be three positive sizes"),
        ({"noise": -0.1}, "noise: must lie in 0..0.3"),
        ({"noise": float("nan")}, "noise: must lie in 0..0.3"),
        ({"blur": 2.5}, "blur: must lie in 0..2 voxels"),
        ({"bias": 1.5}, "bias: must lie in 0..1"),
        ({"control": "eraser"}, "control: must be one of none, erased, oracle"),
        ({"distance": 144, "volume": (16, 32, 176)}, "volume: must be at least (16, 32, 180)"),
    ],
)
def test_task_refuses(values: dict[str, object], rule: str) -> None:
    with pytest.raises(SpecError) as caught:
        ReachTask(**values)  # type: ignore[arg-type]
    assert rule in str(caught.value)


@pytest.mark.parametrize(
    ("name", "values", "rule"),
    [
        ("Reach", {}, "out: the folder's name must be 'Dataset', an id of three"),
        ("Dataset0901_Reach", {}, "got 'Dataset0901_Reach'"),
        ("Dataset1_Reach", {}, "got 'Dataset1_Reach'"),
        ("Dataset901_Reach", {"num_cases": 4}, "num_cases: must lie in 5..9000"),
        ("Dataset901_Reach", {"num_cases": 9001}, "got 9001"),
        ("Dataset901_Reach", {"num_test_cases": -1}, "num_test_cases: must lie in 0..999"),
        ("Dataset901_Reach", {"seed": -1}, "seed: must be at least 0, got -1"),
    ],
)
def test_writer_refuses(tmp_path: Path, name: str, values: dict[str, int], rule: str) -> None:
    counts = {"num_cases": 5, "num_test_cases": 0, "seed": 0} | values
    with pytest.raises(SpecError) as caught:
        write_dataset(
            tmp_path / name,
            TASK,
            num_cases=counts["num_cases"],
            num_test_cases=counts["num_test_cases"],
            seed=counts["seed"],
        )
    assert rule in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_existing_folder_is_kept_unless_forced(tmp_path: Path) -> None:
    out = tmp_path / "Dataset901_Reach"
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    with pytest.raises(SpecError, match="must not exist or be empty"):
        write_dataset(out, TASK, num_cases=5, num_test_cases=0, seed=0)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    write_dataset(out, TASK, num_cases=5, num_test_cases=0, seed=0, force=True)
    assert not (out / "mine.txt").exists()
    assert len(list((out / "imagesTr").iterdir())) == 5


def test_failure_leaves_the_old_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "Dataset901_Reach"
    write_dataset(out, TASK, num_cases=5, num_test_cases=0, seed=0)
    before = file_hashes(out)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(ReachTask, "render", fail)
    with pytest.raises(OSError, match="disk full"):
        write_dataset(out, TASK, num_cases=5, num_test_cases=0, seed=1, force=True)
    assert file_hashes(out) == before
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
