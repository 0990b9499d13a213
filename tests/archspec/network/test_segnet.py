"""SegNet: outputs, deep supervision, inputs, and what building takes and leaves alone."""

from collections.abc import Callable

import pytest
import torch

import archspec
from archspec.network.build import build_plan
from archspec.network.plan import plan
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from blocks.base import ComponentSpec

SpecFactory = Callable[..., ArchSpec]


def test_one_head_is_returned_twice(decoder: ComponentSpec, small_spec: SpecFactory) -> None:
    net = build_plan(plan(small_spec(2, decoder=decoder)))
    x = torch.randn(1, 1, 16, 32)
    logits = net(x)
    for mode in (net.train, net.eval):
        mode()
        net.decoder.deep_supervision = True
        full, thinned = net(x)
        net.decoder.deep_supervision = False
        torch.testing.assert_close(full, logits)
        torch.testing.assert_close(thinned, logits[..., ::2])


def test_flag_leaves_the_state_dict_alone(decoder: ComponentSpec, small_spec: SpecFactory) -> None:
    net = build_plan(plan(small_spec(3, decoder=decoder, heads=2)))
    assert net.decoder.deep_supervision is False
    off = {name: value.clone() for name, value in net.state_dict().items()}
    net.decoder.deep_supervision = True
    on = net.state_dict()
    assert list(on) == list(off)
    assert all(torch.equal(on[name], off[name]) for name in off)
    assert {name.split(".")[2] for name in on if name.startswith("decoder.seg_layers")} == {
        "0",
        "1",
    }


@pytest.mark.parametrize("head", ["transpose", "interpolate"])
@pytest.mark.parametrize("stride", [2, 3, [1, 2, 4]])
def test_heads_close_the_gap(
    decoder: ComponentSpec, head: str, stride: int | list[int], small_spec: SpecFactory
) -> None:
    down = load("small-unet").encoder.stages[0].downsample.model_copy(update={"kernel_size": 5})
    closing = decoder.model_copy(update={"head": head})
    spec = small_spec(
        3, decoder=closing, downsample=down, strides=[stride, 1], patch_size=[6, 12, 12]
    )
    assert build_plan(plan(spec))(torch.randn(1, 1, 6, 12, 12)).shape == (1, 2, 6, 12, 12)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((1, 32, 32, 32), r"where the batch axis is missing, give x\[None\]"),
        ((32, 32), r"takes \(batch, channels, depth, height, width\), which are 5 axes and not 2"),
        ((1, 1, 32, 32, 32, 32), "which are 5 axes and not 6"),
        ((1, 3, 32, 32, 32), "3 channels, but this network was built for 1; build it with in_chan"),
    ],
)
def test_wrong_input_is_refused(shape: tuple[int, ...], said: str) -> None:
    net = archspec.build("mamba-unet")
    with pytest.raises(ValueError, match=said):
        net(torch.randn(shape))


def test_build_arguments_win() -> None:
    net = archspec.build("small-unet", in_channels=3, num_classes=5, patch_size=(16, 16))
    assert net(torch.randn(2, 3, 16, 24)).shape == (2, 5, 16, 24)


def test_same_seed_same_weights() -> None:
    nets = []
    for _ in range(2):
        torch.manual_seed(3)
        nets.append(archspec.build("mamba-unet").state_dict())
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[0])


def test_blocks_of_a_stage_share_nothing(mixer: ComponentSpec, small_spec: SpecFactory) -> None:
    spec = small_spec(2, mixer=mixer).tree()
    spec["encoder"]["stages"][0]["depth"] = 3
    net = archspec.build(spec)
    assert len(net.stages[0].blocks) == 3
    total = sum(p.numel() for p in net.parameters(recurse=True))
    assert total == sum(
        value.numel()
        for name, value in net.state_dict(keep_vars=True).items()
        if isinstance(value, torch.nn.Parameter)
    )


def test_outputs_of_a_batch_are_independent(mixer: ComponentSpec, small_spec: SpecFactory) -> None:
    net = build_plan(plan(small_spec(2, mixer=mixer))).eval().double()
    x = torch.randn(3, 1, 16, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(net(x)[1:2], net(x[1:2]))
