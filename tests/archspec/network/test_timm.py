"""Models of timm as encoders: what the decoder gets, what it costs, where weights come from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import archspec
from archspec.costs.flops import cost_plan
from archspec.network.build import build_plan
from archspec.network.stages import fit_stages
from archspec.network.start_weights import load_start_weights
from archspec.nnunet.contract import check_contract, network_arguments
from archspec.nnunet.network import ArchSpecNet
from archspec.spec.hashing import arch_hash, trial_hash
from archspec.testing import check_shapes
from blocks.base import SpecError
from search.space.space import load_space

NAME = "test_resnet"
SMALL: dict[str, Any] = {
    "name": "small",
    "in_channels": 2,
    "num_classes": 3,
    "patch_size": [64, 64],
    "encoder": {"timm": NAME},
    "decoder": {"kind": "mlp", "width": 8},
}


def spec(decoder: dict[str, Any] | None = None, **encoder: Any) -> dict[str, Any]:
    return {**SMALL, "encoder": {"timm": NAME, **encoder}, "decoder": decoder or SMALL["decoder"]}


def features_of(net: nn.Module) -> nn.Module:
    """Return timm's own pyramid in the network."""
    found: nn.Module = net.stages[0].model  # type: ignore[index, union-attr, assignment]
    return found


def whole_model(in_chans: int = 3, name: str = NAME) -> nn.Module:
    torch.manual_seed(5)
    model: nn.Module = timm.create_model(name, in_chans=in_chans)
    return model


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody load pretrained weights."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("pretrained weights are loaded")

    monkeypatch.setattr("timm.models._builder.load_pretrained", refuse)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit", "test_mambaout"])
def test_skips_are_timm_s_features(name: str) -> None:
    """Of models that start at stride 2, 4 and 16, and of one that has channels last."""
    planned = archspec.plan(spec(timm=name))
    net = build_plan(planned).eval()
    sized = {"img_size": (64, 64)} if name == "test_vit" else {}
    own = timm.create_model(name, features_only=True, in_chans=2, **sized).eval()
    own.load_state_dict(features_of(net).state_dict())
    x = torch.randn(2, 2, 64, 64)
    with torch.no_grad():
        _, skips = net.stages[0](x)
        wanted = own(x)
    if name == "test_mambaout":
        wanted = [one.permute(0, 3, 1, 2) for one in wanted]
    assert len(skips) == len(wanted) and all(map(torch.equal, skips, wanted))
    assert [(s.channels, *s.grid) for s in planned.skips] == [tuple(w.shape[1:]) for w in wanted]
    assert [64 // s.grid[0] for s in planned.skips] == own.feature_info.reduction()
    assert [s.channels for s in planned.skips] == own.feature_info.channels()


DECODERS: dict[str, dict[str, Any]] = {
    "mlp": {"kind": "mlp", "width": 8, "head": "transpose"},
    "sum": {"kind": "sum"},
    "concat": {"kind": "concat", "skip_block": "none"},
    "input": {"kind": "concat", "skip_block": "none", "input_skip": True, "head": "conv"},
}


@pytest.mark.parametrize(
    ("above", "indices"), [*((above, None) for above in DECODERS), ("input", [1, 3])]
)
def test_any_decoder(above: str, indices: list[int] | None) -> None:
    tree = spec(DECODERS[above], out_indices=indices) | {"deep_supervision": {"heads": 2}}
    planned = archspec.plan(tree, patch_size=(40, 64))
    assert len(planned.skips) == (5 if indices is None else 2)
    assert planned.padded_size == ((64, 64) if indices is None else (48, 64))
    net = build_plan(planned)
    check_shapes(net, planned, torch.randn(2, 2, 40, 64))
    net.decoder.deep_supervision = True
    sum(out.square().mean() for out in net(torch.randn(2, 2, 40, 64))).backward()
    gradients = [p.grad for name, p in net.named_parameters()]
    assert all(one is not None and one.isfinite().all() for one in gradients)


def test_costs_are_those_of_a_real_run() -> None:
    planned = archspec.plan(spec(timm="test_convnext"))
    net = build_plan(planned)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.randn(1, 2, 64, 64))
    counted = cost_plan(planned)
    assert counted.flops == counter.get_total_flops() > 0
    assert counted.params == sum(p.numel() for p in net.parameters())
    page = archspec.describe(planned.spec)
    assert page.encoder is not None and page.encoder.widths == (24, 32, 48, 64)
    assert page.encoder.share.params == sum(p.numel() for p in features_of(net).parameters())
    assert page.to_json()["encoder"]["grids"][0] == [16, 16]
    assert "\nencoder  test_convnext " in page.text() and "\ndecoder  mlp " in page.text()


def test_start_values_are_timm_s_whatever_init_is() -> None:
    found = []
    for init in ("default", "nnunet"):
        torch.manual_seed(3)
        found.append(archspec.build(spec() | {"init": init}))
    ours, other = (net.stages.state_dict() for net in found)
    assert all(torch.equal(ours[key], other[key]) for key in ours)
    ours, other = (net.decoder.state_dict() for net in found)
    assert not all(torch.equal(ours[key], other[key]) for key in ours)


def test_the_bundled_spec_is_convnext_tiny() -> None:
    planned = archspec.plan("timm-convnext-tiny")
    with torch.device("meta"):
        own = timm.create_model("convnext_tiny", features_only=True, in_chans=4)
        net = build_plan(planned)
    assert features_of(net).state_dict().keys() == own.state_dict().keys()
    assert [64 // s.grid[0] for s in planned.skips] == [1, 2, 4, 8]


def saved(weights: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save({"state_dict": weights}, path)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_are_those_of_the_file(tmp_path: Path, suffix: str) -> None:
    given = whole_model().state_dict()
    path = saved(given, tmp_path / f"weights{suffix}")
    net = archspec.build(spec(pretrained=str(path)), in_channels=3)
    ours = features_of(net).state_dict()
    assert ours and all(torch.equal(ours[key], given[key]) for key in ours)


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit"])
def test_other_channels_are_fitted_as_timm_does(tmp_path: Path, name: str, channels: int) -> None:
    path = saved(whole_model(name=name).state_dict(), tmp_path / "weights.safetensors")
    net = archspec.build(spec(timm=name, pretrained=str(path)), in_channels=channels)
    sized = {"img_size": (64, 64)} if name == "test_vit" else {}
    own = timm.create_model(
        name,
        pretrained=True,
        features_only=True,
        in_chans=channels,
        pretrained_cfg_overlay={"file": str(path)},
        **sized,
    ).state_dict()
    ours = features_of(net).state_dict()
    assert all(torch.equal(ours[key], own[key]) for key in own)


def test_weights_for_the_network_s_channels_are_taken_as_they_are(tmp_path: Path) -> None:
    given = whole_model(in_chans=2).state_dict()
    path = saved(given, tmp_path / "weights.pth")
    ours = features_of(archspec.build(spec(pretrained=str(path)))).state_dict()
    assert all(torch.equal(ours[key], given[key]) for key in ours)
    with pytest.raises(SpecError, match="weights for 2 input channels, but the network has 4"):
        archspec.build(spec(pretrained=str(path)), in_channels=4)


WRONG_FILES: dict[str, tuple[Callable[[], dict[str, Tensor]], str]] = {
    "another model": (
        lambda: whole_model(name="test_convnext").state_dict(),
        "encoder.pretrained: not the weights of test_resnet: of its 45 parameters 45 are missing",
    ),
    "part": (
        lambda: {k: v for k, v in whole_model().state_dict().items() if "conv1.3" not in k},
        "encoder.pretrained: not the weights of test_resnet: of its 45 parameters 1 are missing, "
        "e.g. conv1_3_weight",
    ),
    "another shape": (
        lambda: whole_model().state_dict() | {"layer1.0.conv1.weight": torch.zeros(2, 2, 3, 3)},
        "encoder.pretrained: timm cannot load these weights of test_resnet: RuntimeError: Error",
    ),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_a_wrong_file_is_one_line(tmp_path: Path, case: str) -> None:
    weights, want = WRONG_FILES[case]
    path = saved(weights(), tmp_path / "weights.pth")
    with pytest.raises(SpecError) as caught:
        archspec.build(spec(pretrained=str(path)))
    message = str(caught.value)
    assert want in message and str(path) in message and "\n" not in message


def test_a_file_that_is_gone_is_refused_where_a_training_starts(
    tmp_path: Path, preprocessed: Path
) -> None:
    tree = spec(pretrained=str(tmp_path / "gone.pth"))
    assert archspec.plan(tree).skips
    with pytest.raises(SpecError, match=r"gone\.pth: no such file"):
        archspec.build(tree)
    with pytest.raises(SpecError, match=r"gone\.pth.* no such file"):
        archspec.export_nnunet(tree, 901)
    assert not list(preprocessed.glob("archspec_*"))


def test_nothing_is_loaded_before_a_training(no_loading: None, tmp_path: Path) -> None:
    for pretrained in (True, str(tmp_path / "weights.pth")):
        tree = spec(pretrained=pretrained)
        archspec.describe(tree)
        archspec.cost(tree)
        planned = archspec.plan(tree)
        check_contract(planned, network_arguments(planned), batch_size=2)
        build_plan(planned)(torch.randn(1, 2, 64, 64))
        ArchSpecNet(2, 3, **network_arguments(planned))


def test_timm_s_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """`pretrained: true` asks timm, whose words stand in one line where there is no network."""
    given = whole_model().state_dict()
    hub = "timm.models._builder.load_state_dict_from_hf"
    monkeypatch.setattr(hub, lambda *_, **__: dict(given))
    net = archspec.build(spec(pretrained=True), in_channels=3)
    ours = features_of(net).state_dict()
    assert all(torch.equal(ours[key], given[key]) for key in ours)

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("We couldn't connect to the hub\nto load the files")

    monkeypatch.setattr(hub, offline)
    with pytest.raises(SpecError) as caught:
        archspec.build(spec(pretrained=True))
    assert str(caught.value) == (
        "encoder.pretrained: timm cannot load its weights of test_resnet: OSError: We couldn't "
        "connect to the hub; give a file of weights, or false"
    )


def test_nnunet_s_network_starts_from_the_file_unless_it_goes_on(tmp_path: Path) -> None:
    """Built alike for both, it loads at its first pass; a state dict loaded before stays."""
    given = whole_model(in_chans=2).state_dict()
    path = saved(given, tmp_path / "weights.pth")
    arguments = network_arguments(archspec.plan(spec(pretrained=str(path))))
    assert arguments["spec"]["encoder"]["pretrained"] == str(path)
    assert arguments["packages"] == {"timm": timm.__version__}
    fresh, compiled = (ArchSpecNet(2, 3, **arguments).eval() for _ in range(2))
    x = torch.randn(1, 2, 64, 64)
    with torch.no_grad():
        fresh(x)
        torch.compile(compiled, backend="eager")(x)
        path.unlink()
        again = ArchSpecNet(2, 3, **arguments).eval()
        again.load_state_dict(fresh.state_dict())
        assert torch.equal(again(x), fresh(x))
    for net in (fresh, compiled, again):
        ours = features_of(net).state_dict()
        assert all(torch.equal(ours[key], given[key]) for key in ours)
    with pytest.raises(SpecError, match="no such file"):
        ArchSpecNet(2, 3, **arguments)(x)


def test_weights_are_found_from_the_spec_s_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "specs").mkdir()
    (tmp_path / "elsewhere").mkdir()
    saved(whole_model(in_chans=2).state_dict(), tmp_path / "specs" / "weights.pth")
    file = tmp_path / "specs" / "net.yaml"
    file.write_text(json.dumps(spec(pretrained="weights.pth")))  # YAML, too
    wanted = str(tmp_path / "specs" / "weights.pth")
    monkeypatch.chdir(tmp_path / "elsewhere")
    loaded = archspec.load(file)
    assert loaded.encoder.pretrained == wanted  # type: ignore[union-attr]
    load_start_weights(build_plan(archspec.plan(loaded)))
    here = archspec.load(file, overrides=["encoder.pretrained=own.pth"])
    assert here.encoder.pretrained == str(tmp_path / "elsewhere" / "own.pth")  # type: ignore[union-attr]
    choice = {"choice": [False, "weights.pth"]}
    file.write_text(json.dumps({**spec(pretrained=choice), "search": {"steps": 4}}))
    (hole,) = load_space(file).holes()
    assert hole.options == (False, wanted)


def test_hashes_tell_models_apart_and_starts_of_trainings() -> None:
    first, other, started = (
        archspec.load(one) for one in (spec(), spec(timm="test_convnext"), spec(pretrained=True))
    )
    assert len({arch_hash(first), arch_hash(other)}) == 2
    assert arch_hash(first) == arch_hash(started) and trial_hash(first) != trial_hash(started)


def test_trees_keep_the_form() -> None:
    tree = archspec.load(spec(out_indices=[0, 2])).tree()
    assert tree["encoder"] == {"timm": NAME, "pretrained": False, "out_indices": [0, 2]}
    assert archspec.load(tree).tree() == tree


def test_batch_norms_ask_for_a_second_position() -> None:
    assert archspec.plan(spec(), patch_size=(32, 32)).padded_size == (32, 64)
    assert archspec.plan(spec(timm="test_convnext"), patch_size=(32, 32)).padded_size == (32, 32)


def test_a_model_for_one_size_refuses_others() -> None:
    net = archspec.build(spec(timm="test_vit"), patch_size=(48, 64))
    assert net(torch.randn(1, 2, 48, 64)).shape == (1, 3, 48, 64)
    with pytest.raises(ValueError, match=r"built for \(48, 64\) and runs at no other size"):
        net(torch.randn(1, 2, 64, 64))


def test_widths_that_meta_cannot_compute_are_those_of_the_host() -> None:
    planned = archspec.plan(spec(timm="regnetx_002"))
    assert [skip.channels for skip in planned.skips] == [32, 24, 56, 152, 368]


def test_the_model_is_a_hole_of_a_space(tmp_path: Path) -> None:
    names, indices = ["test_resnet", "test_convnext"], [[0, 1, 2, 3], [1, 3]]
    encoder = {"timm": {"choice": names}, "out_indices": {"choice": indices}}
    tree = {**SMALL, "encoder": encoder, "search": {"steps": 4}}
    file = tmp_path / "space.yaml"
    file.write_text(json.dumps(tree))
    space = load_space(file)
    assert {hole.name: len(hole.options) for hole in space.holes()} == {
        "encoder.timm": 2,
        "encoder.out_indices": 2,
    }
    file.write_text(json.dumps({**tree, "encoder": {"timm": {"choice": [*names, "test_resnot"]}}}))
    with pytest.raises(SpecError, match="has no model 'test_resnot'"):
        load_space(file)


def test_nothing_of_it_is_fitted_to_a_spacing() -> None:
    loaded = archspec.load(spec())
    assert fit_stages(loaded, spacing=(1.0, 5.0), patch_size=(64, 64)) == loaded


def test_command_line(cli: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = cli("validate", "timm-convnext-tiny", "--patch", "60,64")
    assert code == 0 and out == (
        "timm-convnext-tiny: ok, patch [60, 64], padded to [64, 64] -> [16, 16] -> [8, 8] -> "
        "[4, 4] -> [2, 2]\n"
    )
    code, out, err = cli("ablate", "timm-convnext-tiny", "--dry-run")
    assert code == 0 and "decoder" in out, err
