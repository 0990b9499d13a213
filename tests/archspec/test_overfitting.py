"""A network learns one patch by heart, or the report says what kept it from that."""

import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from typer.testing import CliRunner

from archspec.building import build_plan
from archspec.cli.main import app
from archspec.cli.overfit_display import OverfitDisplay
from archspec.fixed_patch import FixedPatch, Target
from archspec.non_finite import where_not_finite
from archspec.overfit_text import overfit_json, overfit_text
from archspec.overfitting import Step, nnunet_loss, overfit
from archspec.planning import Plan, plan
from archspec.resolution_cap import Cap, resolution_cap
from archspec.spec import ArchSpec
from blocks.base import SpecError
from blocks.decoders.mlp import MLPDecoderSpec
from blocks.decoders.sum import SumDecoderSpec
from blocks.mixers.conv import ConvMixerSpec
from blocks.mixers.tom import TomMixerSpec

pytest.importorskip("nnunetv2")

SpecFactory = Callable[..., ArchSpec]
AddCase = Callable[[str, NDArray[np.int16]], None]

LABELS = {"background": 0, "left": 1, "right": 2}
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


def two_blocks(size: int = 16) -> NDArray[np.int16]:
    label = np.zeros((size,) * 3, np.int16)
    label[4:8, 4:12, 3:7], label[5:12, 4:9, 9:14] = 1, 2
    return label


def patch_of(label: NDArray[np.int16], labels: Any = LABELS) -> FixedPatch:
    return FixedPatch(
        torch.from_numpy(label)[None].float(), Target.of(label, labels), "x", (0,) * 3, label.shape
    )


@pytest.fixture
def planned(small_spec: SpecFactory) -> Plan:
    spec = small_spec(
        3,
        mixer=TomMixerSpec(d_state=4),
        decoder=SumDecoderSpec(head="transpose"),
        strides=(2, 2, 2),
        heads=2,
        num_classes=3,
    )
    return plan(spec, patch_size=(16, 16, 16))


@pytest.fixture
def cli_case(preprocessed: Path, add_case: AddCase, tmp_path: Path) -> Path:
    """Return a spec file beside a dataset with one case."""
    add_case("case_0001", two_blocks())
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
    text = overfit_text(found)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "inter_slice" in text and "reached" in text


def test_not_reached(cli_case: Path) -> None:
    done = run(cli_case, "--data", 901, "--case", "case_0001", "--steps", 2)
    assert done.exit_code == 1
    assert "NOT reached" in done.stdout
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


def test_seeds(planned: Plan) -> None:
    patch = patch_of(two_blocks())
    losses: list[list[float]] = []
    for seed in (0, 0, 1):
        losses.append([])
        keep = losses[-1].append
        overfit(planned, patch, steps=3, seed=seed, on_step=lambda s, _, keep=keep: keep(s.loss))
    assert losses[0] == losses[1] != losses[2]


def test_gradients_are_those_before_clipping(
    planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only step is the first and the last."""
    monkeypatch.setattr("archspec.overfitting.CLIP", 1e-3)
    done = overfit(planned, patch_of(two_blocks()), steps=1)
    for path, norms in done.first.items():
        assert done.last[path] == pytest.approx(norms, rel=1e-4)
    assert done.dead == []


@pytest.mark.long
def test_half_resolution_reaches_its_own_cap(small_spec: SpecFactory) -> None:
    decoder = MLPDecoderSpec(width=32)
    spec = small_spec(3, mixer=ConvMixerSpec(), decoder=decoder, strides=(2, 2), num_classes=3)
    label = two_blocks()
    stages = [stage.model_copy(update={"width": 32}) for stage in spec.encoder.stages]
    encoder = spec.encoder.model_copy(update={"stages": tuple(stages)})
    wide = plan(spec.model_copy(update={"encoder": encoder}), patch_size=(16, 16, 16))
    done = overfit(wide, patch_of(label), steps=400)
    assert done.cap.grid == (8, 8, 8)
    assert done.reached
    assert done.first == done.last == {}


def test_ignored_and_empty_heads(planned: Plan) -> None:
    """The last of two heads has no weight in nnU-Net's loss, and is the only silent one."""
    label = two_blocks()
    label[0] = 3
    patch = patch_of(label, {**LABELS, "ignore": 3})
    done = overfit(planned, patch, steps=2)
    assert {name.rsplit(".", 1)[0] for name in done.silent} == {"decoder.seg_layers.1"}
    assert done.failure is None


@pytest.mark.parametrize("broken", ["weights", "output", "gradient"])
def test_not_finite(planned: Plan, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    def sabotaged(wanted: Plan) -> nn.Module:
        net = build_plan(wanted)
        module = net.get_submodule("stages.1.blocks.0")
        if broken == "weights":
            with torch.no_grad():
                next(module.mixer.parameters()).fill_(torch.nan)
        if broken == "output":
            module.register_forward_hook(lambda *found: found[-1] / 0)
        if broken == "gradient":
            module.register_forward_hook(lambda *found: (found[-1] * 0).sqrt())
        return net

    monkeypatch.setattr("archspec.overfitting.build_plan", sabotaged)
    done = overfit(planned, patch_of(two_blocks()), steps=5)
    assert not done.reached
    assert done.failure is not None and "\n" not in done.failure
    assert done.failure.startswith("step 1: ")
    expected = {
        "weights": "the weights stages.1.blocks.0.mixer.",
        "output": "stages.1.blocks.0 (",
        "gradient": "the gradient of ",
    }
    assert expected[broken] in done.failure
    target = {"dataset": "d", "seed": 0, "device": torch.device("cpu")}
    found = overfit_json(done, planned, patch_of(two_blocks()), **target)
    assert "NaN" not in json.dumps(found)
    assert overfit_text(found) == f"small failed at {done.failure}"


def test_inner_module_is_named(planned: Plan) -> None:
    net = build_plan(planned)
    net.get_submodule("stages.0.downsample").register_forward_hook(
        lambda *found: found[-1] * torch.inf
    )
    assert where_not_finite(net, torch.randn(1, 1, 16, 16, 16)).startswith("stages.0.downsample (")


def test_interrupted(cli_case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("archspec.overfitting.gradient_not_finite", interrupt)
    done = run(cli_case, "--data", 901)
    assert done.exit_code == 130
    assert "stopped before the first step" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", 901, "--case", "case_1"], "not among the 1 cases"),
        (["--data", 902], "902"),
        (["--data", 901, "--patch", "16,16"], "3-D network"),
        (["--data", 901, "--configuration", "2d"], "3-D network"),
        (["--data", 901, "--patch", "15,16,16"], "nearest"),
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
    assert f"--device {device}: " in str(done.exception)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        {"background": 0, "left": 1, "ignore": 2},
        {"background": 0, "whole": [1, 2], "right": 2},
        {"background": 0, "whole": [1], "both": [1, 1], "ignore": 2},
    ],
    ids=["classes", "ignored", "regions", "regions_ignored"],
)
def test_loss_is_nnunets(small_spec: SpecFactory, labels: Any, heads: int) -> None:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    label = two_blocks()
    target = Target.of(label, labels)
    foreground = [name for name in labels if name not in ("background", "ignore")]
    manager = LabelManager(labels, foreground)
    spec = small_spec(3, strides=(1, 2, 2), heads=heads, decoder=None)
    shaped = plan(spec, num_classes=len(target.wanted), patch_size=(16, 16, 16))
    stand_in: Any = SimpleNamespace(
        label_manager=manager,
        configuration_manager=SimpleNamespace(batch_dice=False),
        is_ddp=False,
        enable_deep_supervision=heads > 1,
        _do_i_compile=lambda: False,
        _get_deep_supervision_scales=lambda: [[1.0] * 3, [0.5] * 3],
    )
    theirs = nnUNetTrainer._build_loss(stand_in)
    outputs = [torch.randn(1, shaped.num_classes, *grid) for grid in shaped.output_grids]
    wanted = torch.from_numpy(label)[None, None].float()
    if manager.has_regions:
        regions: list[Any] = [*manager.foreground_regions]
        if manager.ignore_label is not None:
            regions.append(manager.ignore_label)
        masks = [np.isin(label, region) for region in regions]
        wanted = torch.from_numpy(np.stack(masks))[None].float()
    targets = [
        nn.functional.interpolate(wanted, g, mode="nearest-exact") for g in shaped.output_grids
    ]
    expected = theirs(outputs, targets) if heads > 1 else theirs(outputs[0], targets[0])
    torch.testing.assert_close(nnunet_loss(shaped, target, 1)(outputs), expected)


def test_cap_is_that_of_the_patch(small_spec: SpecFactory) -> None:
    """Half resolution, interpolated: the cap that the report states is what the function gives."""
    spec = small_spec(3, mixer=ConvMixerSpec(), strides=(2, 2), num_classes=3)
    patch = patch_of(two_blocks())
    done = overfit(plan(spec, patch_size=(16, 16, 16)), patch, steps=1)
    assert done.cap == resolution_cap(patch.target, (8, 8, 8))
    assert done.first == done.last == {}
