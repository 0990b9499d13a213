"""The verb phantom: what it writes, lists and refuses."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import pytest

from archspec.cli.main import main
from archspec.phantom.tasks import TASKS

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def phantom(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Return a function that runs the verb here: (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["archspec", "phantom", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        return (code if isinstance(code, int) else 0, *capsys.readouterr())

    return call


def test_list_names_every_task_and_level(phantom: Cli) -> None:
    code, out, _ = phantom("--list")
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[::2]] == list(TASKS)
    for line, task in zip(lines[1::2], TASKS.values(), strict=True):
        assert line.endswith(f": {', '.join(task.levels)}")
    assert max(map(len, lines)) <= 80


def test_level_control_and_spacing_reach_the_files(phantom: Cli, tmp_path: Path) -> None:
    out = tmp_path / "Dataset907_Recall"
    arguments = ("--task", "recall", "--level", 8, "--control", "oracle", "--spacing", "5,2,1")
    code, said, _ = phantom(out, *arguments, "--cases", 5, "--test-cases", 1, "--seed", 3)
    assert code == 0
    assert "5 training and 1 test cases of task recall at level 8" in said
    content = json.loads((out / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "MR", "1": "oracle"}
    assert content["archspec"] == {
        "task": "recall",
        "level": "8",
        "pairs": 8,
        "noise": 0.1,
        "blur": 0.5,
        "control": "oracle",
        "augmentation": {"rotation": 0.0, "scaling": [0.92, 1.25], "foreground": 0.0},
        "seed": 3,
        "groups": {"either_target": ["on", "off"]},
    }
    image = nibabel.load(out / "imagesTr" / "case_0005_0001.nii.gz")
    assert image.header.get_zooms() == (1.0, 2.0, 5.0)
    assert image.shape == (192, 32, 16)


def test_data_level_says_how_many_cases(phantom: Cli, tmp_path: Path) -> None:
    out = tmp_path / "Dataset908_Data"
    code, _, _ = phantom(out, "--task", "data", "--level", 4, "--test-cases", 0)
    assert code == 0
    assert len(list((out / "labelsTr").iterdir())) == 5


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ("--task data --level 4 --cases 9", "--cases 9: level 4 of task data has 5 cases"),
        ("--task reach --level 24 --distance 30", "only for --task reach, without --level"),
        ("--task trace --distance 30", "only for --task reach, without --level"),
        ("--task reach --level 25", "task reach has distance (voxels) 24, 48, 96, 144, got '25'"),
        ("--task raech", "--task raech: not a task; allowed: reach, recall, "),
        ("--task raech", "; did you mean 'reach'?"),
        ("--task detail --control oracle", "task detail has no far evidence"),
        ("--task reach --control both", "control: must be one of none, erased, oracle"),
        ("--spacing 5,2", "--spacing 5,2: must be three sizes in mm"),
        ("--spacing 5,2,0", "spacing: must be three positive"),
    ],
)
def test_refusals_leave_nothing(phantom: Cli, tmp_path: Path, arguments: str, rule: str) -> None:
    code, out, err = phantom(tmp_path / "Dataset909_X", *arguments.split())
    assert (code, out) == (2, "")
    assert rule in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
