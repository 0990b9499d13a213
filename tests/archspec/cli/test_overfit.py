"""The verb overfit: its page and exit codes, what it says while it runs, and what it refuses."""

import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from archspec.cli.display import OverfitDisplay
from archspec.cli.main import app
from archspec.overfit.cap import Cap
from archspec.overfit.train import Step
from blocks.base import SpecError

pytest.importorskip("nnunetv2")

Rewrite = Callable[[Path, Callable[[dict[str, Any]], object]], None]
AddCase = Callable[[str, NDArray[np.int16]], None]

TINY = """\
name: tiny
patch_size: [32, 32, 32]
encoder:
  defaults: {width: 12, block: {kind: residual, norm: layer}, mixer: {kind: conv}}
  stages:
    - {downsample: {stride: 1}}
    - {mixer: {kind: tom, d_state: 4}}
decoder: {kind: sum, head: conv}
"""


@pytest.fixture
def cli_case(preprocessed: Path, add_case: AddCase, tmp_path: Path) -> Path:
    """Return a spec file beside a dataset with one case."""
    label = np.zeros((16,) * 3, np.int16)
    label[4:8, 4:12, 3:7], label[5:12, 4:9, 9:14] = 1, 2
    add_case("case_0001", label)
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return path


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["overfit", *map(str, arguments), "--device", "cpu"])


def test_reached(cli_case: Path) -> None:
    done = run(cli_case, "--data", 901, "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["reached"] and found["share"] >= 0.99
    assert found["cap"] == {
        "head_grid": [16, 16, 16],
        "mean": 1.0,
        "classes": {"left": 1.0, "right": 1.0},
        "averaged": 1.0,
    }
    assert (found["case"], found["patch"], found["start"]) == (
        "case_0001",
        [1, 16, 16, 16],
        [0] * 3,
    )
    assert found["steps"] < 400
    (norms,) = found["directions"].values()
    assert list(norms) == ["forward", "reverse", "inter_slice"]
    assert all(norm[when] > 0 for norm in norms.values() for when in ("first", "last"))
    assert found["dead_directions"] == found["parameters_without_gradient"] == []
    assert "the dataset wins" in done.stderr and "padding" not in done.stderr


def test_not_reached(cli_case: Path) -> None:
    done = run(cli_case, "--data", 901, "--case", "case_0001", "--steps", 2)
    assert done.exit_code == 1
    assert "NOT reached" in done.stdout and "inter_slice" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert "step 1: loss" in done.stderr
    no_time = run(cli_case, "--data", 901, "--minutes", 0, "--json")
    assert no_time.exit_code == 1
    found = json.loads(no_time.stdout)
    assert (found["steps"], found["directions"], found["dead_directions"]) == (0, {}, [])


def test_a_patch_that_is_mostly_padding_is_told(cli_case: Path) -> None:
    done = run(cli_case, "--data", 901, "--patch", "32,32,32", "--steps", 1)
    said = (
        "note: 88 % of the patch [32, 32, 32] is padding, since case_0001 has [16, 16, 16] voxels"
    )
    assert f"{said}; --patch 16,16,16 holds all of it and is faster\n" in done.stderr
    text = cli_case.read_text().replace("d_state: 4", "d_state: 4, num_slices: 1024")
    cli_case.write_text(text)
    done = run(cli_case, "--data", 901, "--patch", "32,32,32", "--steps", 1)
    assert f"{said}\n" in done.stderr  # 512 tokens would not divide by 1024


def test_a_padded_patch_is_trained(cli_case: Path) -> None:
    """Its cap is that of the padded grid; --patch exact refuses it."""
    text = cli_case.read_text(encoding="utf-8").replace("head: conv", "head: interpolate")
    cli_case.write_text(text.replace("stride: 1", "stride: 4, kernel_size: 5"), encoding="utf-8")
    done = run(cli_case, "--data", 901, "--patch", "15,16,14", "--steps", 1, "--json")
    assert done.exit_code == 1, done.exception
    assert "patch_size: [15, 16, 14], padded to [16, 16, 16] inside the network" in done.stderr
    found = json.loads(done.stdout)
    assert (found["patch"], found["cap"]["head_grid"]) == ([1, 15, 16, 14], [4, 4, 4])
    assert 0.7 < found["cap"]["mean"] < 1
    done = run(cli_case, "--data", 901, "--steps", 1, "--patch", "exact", "-s", STRIDE_3)
    assert "must divide" in str(done.exception) and "nearest" in str(done.exception)


STRIDE_3 = "encoder.stages.0.downsample.stride=3"


def test_stages_fitted_to_the_dataset(cli_case: Path, preprocessed: Path, rewrite: Rewrite) -> None:
    rewrite(
        preprocessed / "nnUNetPlans.json",
        lambda tree: tree["configurations"]["3d_fullres"].update(spacing=[5.0, 1.0, 1.0]),
    )
    done = run(cli_case, "--data", 901, "--steps", 1, "--stages-from-dataset")
    wanted = "note: --stages-from-dataset: spacing 5 x 1 x 1 mm: strides [[1, 1, 1], [1, 2, 2]]"
    assert wanted in done.stderr and "16 x 8 x 8" not in done.stderr


def test_a_network_of_another_dimension_is_built_in_the_dataset_s(cli_case: Path) -> None:
    done = run(cli_case, "--data", 901, "--configuration", "2d", "--steps", 1)
    assert "note: tiny is 3-D as it is written; built in 2-D, as 2d is\n" in done.stderr
    assert "patch 1 x 16 x 24 from" in done.stdout


class _Heard(io.StringIO):
    """A standard error that is no terminal, and tells when these words are written."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words, self.heard = words, threading.Event()

    def write(self, text: str) -> int:
        if self.words in text:
            self.heard.set()
        return super().write(text)


@pytest.mark.parametrize("steps", [[], [1, 7]])
def test_silence_is_broken_off_a_terminal(
    monkeypatch: pytest.MonkeyPatch, steps: list[int]
) -> None:
    known = "after step 7: loss 0.500, Dice 0.250 of cap 1.000, "
    err = _Heard(known if steps else "before the first step, ")
    monkeypatch.setattr("sys.stderr", err)
    with OverfitDisplay(2000, silence=0.01) as display:
        for number in steps:
            display.show(Step(number, 0.5, 0.25, 1.0), Cap((8, 8, 8), {"left": 1.0}, 1.0))
        assert err.heard.wait(60), err.getvalue()
    assert not display.watch.is_alive()
    assert all(line.endswith(" s") for line in err.getvalue().splitlines())


def test_interrupted(cli_case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("archspec.overfit.train.gradient_not_finite", interrupt)
    done = run(cli_case, "--data", 901)
    assert done.exit_code == 130
    assert "stopped before the first step" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", 901, "--case", "case_1"], "not among the 1 cases"),
        (["--data", 902], "902"),
        (["--data", 901, "--patch", "16,16"], "3-D network"),
    ],
)
def test_refusals(cli_case: Path, arguments: list[object], message: str) -> None:
    done = run(cli_case, *arguments)
    assert isinstance(done.exception, SpecError)
    assert message in str(done.exception) and "\n" not in str(done.exception)


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "meta"])
def test_devices_that_are_not_here(cli_case: Path, device: str) -> None:
    done = CliRunner().invoke(app, ["overfit", str(cli_case), "--data", "901", "--device", device])
    assert isinstance(done.exception, SpecError)
    assert f"device='{device}': " in str(done.exception)
