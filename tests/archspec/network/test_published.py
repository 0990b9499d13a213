"""Published weights: what loads, what is refused, and the command that converts a checkpoint."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import archspec
from archspec.network.published import key_table, key_tables, load_official
from archspec.network.segnet import SegNet
from blocks.base import SpecError

FILE = Path(__file__).parents[2] / "golden" / "segmamba" / "model_small.npz"
WIDTHS, DEPTHS = (8, 16, 24, 32), (2, 1, 1, 1)
SMALL = ["decoder.bottleneck_width=40"] + [
    f"encoder.stages.{i}.{field}={values[i]}"
    for i in range(4)
    for field, values in (("width", WIDTHS), ("depth", DEPTHS))
]
FORWARD = [f"encoder.stages.{i}.mixer.orders=[forward]" for i in range(4)]
Weights = dict[str, Tensor]
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def weights() -> Weights:
    with np.load(FILE, allow_pickle=False) as file:
        return {k[3:]: torch.from_numpy(file[k]) for k in file.files if k.startswith("sd/")}


def small_net(name: str = "segmamba-released", overrides: list[str] | None = None) -> SegNet:
    spec = archspec.load(name, overrides=[*SMALL, *(overrides or [])])
    return archspec.build(spec, in_channels=2, num_classes=3, patch_size=(32, 32, 32))


def forward_only(weights: Weights) -> Weights:
    """Return the weights as a checkpoint without ToM has them."""
    return {k: v for k, v in weights.items() if not re.search(r"(_b|_s)(_log|\.|$)", k)}


def refused(net: SegNet, weights: Any, *parts: str, **options: Any) -> None:
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(SpecError) as caught:
        load_official(net, weights, **options)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_all_or_nothing(weights: Weights) -> None:
    net = small_net()
    report = archspec.load_official(net, weights)
    assert report.complete
    assert set(report.matched) == set(net.state_dict())
    assert not report.ignored and not report.missing and not report.unused
    assert report.remark is None
    some = dict(list(weights.items())[:-1])
    refused(small_net(), some, "215 of 216 tensors", "1 are missing, e.g. decoder.seg_layers.0")
    report = load_official(net, some, allow_partial=True)
    assert report.missing == ("decoder.seg_layers.0.conv.bias",)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_wrappers(weights: Weights, prefix: str) -> None:
    assert load_official(small_net(), {prefix + k: v for k, v in weights.items()}).complete


def test_other_shape_or_key(weights: Weights) -> None:
    shape = {**weights, "out.conv.conv.bias": torch.zeros(5)}
    refused(small_net(), shape, "1 do not fit, e.g. out.conv.conv.bias is (5,), not (3,)")
    report = load_official(small_net(), shape, allow_partial=True)
    assert report.unused == ("out.conv.conv.bias",)
    assert report.missing == ("decoder.seg_layers.0.conv.bias",)
    refused(small_net(), {**weights, "head.bias": torch.zeros(5)}, "head.bias has no place")
    for foreign in ({"head.bias": torch.zeros(5)}, {"head": torch.zeros(5)}):
        refused(small_net(), foreign, "0 of 216 tensors", allow_partial=True)


@pytest.mark.parametrize("wrong", [{}, {"a": 1}, {1: torch.zeros(1)}, [torch.zeros(1)], None])
def test_not_a_state_dict(wrong: Any) -> None:
    refused(small_net(), wrong, "state_dict: ")


def test_checkpoint_without_tom(weights: Weights) -> None:
    old = forward_only(weights)
    refused(small_net(), old, "without ToM keys", "issue 69", "mixer.orders to [forward]")
    report = load_official(small_net(), old, allow_partial=True)
    assert report.remark is not None and "issue 69" in report.remark
    assert all(re.search(r"mixer\.branches\.[12]\.", key) for key in report.missing)
    fits = load_official(small_net(overrides=FORWARD), old)
    assert fits.complete
    both = {k: v for k, v in weights.items() if not re.search(r"_s(_log|\.|$)", k)}
    refused(small_net(), both, "without inter-slice keys", "[forward, reverse]")


def test_other_readings_take_a_part_only(weights: Weights) -> None:
    refused(
        small_net("segmamba"), weights, "32 do not fit, e.g. vit.gscs.0.proj.weight has no place"
    )
    report = load_official(small_net("segmamba"), weights, allow_partial=True)
    assert not report.complete
    with pytest.raises(SpecError, match=r"small-unet: no published weights .* known: .*segmamba-"):
        load_official(archspec.build("small-unet"), weights)


def test_meta_network(weights: Weights) -> None:
    with torch.device("meta"):
        net = small_net()
    with pytest.raises(SpecError, match="meta device"):
        load_official(net, weights)


def test_own_name_needs_the_bundled_one(weights: Weights) -> None:
    net = small_net(overrides=["name=mine"])
    refused(net, weights, "mine: no published weights are known")
    assert load_official(net, weights, spec_name="segmamba-released").complete


def test_tables_are_sound() -> None:
    names = [name for table in key_tables() for name in table.specs]
    assert len(set(names)) == len(names)
    assert set(names) <= set(archspec.list_specs())
    for table in key_tables():
        assert set(table.sizes) == {"in_channels", "num_classes"}
        for pattern, ours in table.keys.items():
            groups = re.compile(pattern).groups
            assert {int(n) for n in re.findall(r"\\(\d)", ours)} == set(range(1, groups + 1))
        for pattern in (*table.ignored, *(variant.absent for variant in table.variants)):
            re.compile(pattern)


@pytest.fixture
def cli(cli: Cli) -> Cli:
    """Return a function that runs `archspec convert`: (exit code, stdout, stderr)."""

    def call(checkpoint: Path, out: Path, *more: str) -> tuple[int, str, str]:
        small = [word for override in SMALL for word in ("-s", override)]
        return cli("convert", checkpoint, "--as", "segmamba-released", "-o", out, *small, *more)

    return call


def cli_refused(result: tuple[int, str, str], *parts: str) -> None:
    code, out, err = result
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert "Traceback" not in err
    for part in parts:
        assert part in err


@pytest.mark.parametrize("wrapper", [None, "state_dict", "network_weights", "model"])
def test_convert(cli: Cli, tmp_path: Path, weights: Weights, wrapper: str | None) -> None:
    checkpoint, out = tmp_path / "official.pth", tmp_path / "ours.safetensors"
    torch.save(weights if wrapper is None else {wrapper: weights, "epoch": 3}, checkpoint)
    code, said, err = cli(checkpoint, out)
    assert code == 0, err
    assert "216 tensors of segmamba-released, 2 input channels, 3 classes" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["official.pth", "ours.safetensors"]
    net, want = small_net(), small_net()
    net.load_state_dict(load_file(out))
    load_official(want, weights)
    for key, value in want.state_dict().items():
        assert torch.equal(net.state_dict()[key], value), key
    with safe_open(out, framework="pt") as file:
        metadata = file.metadata()
    assert (metadata["in_channels"], metadata["num_classes"]) == ("2", "3")
    assert "name: segmamba-released" in metadata["spec"]


def test_convert_reads_safetensors(cli: Cli, tmp_path: Path, weights: Weights) -> None:
    checkpoint = tmp_path / "official.safetensors"
    save_file(weights, checkpoint)
    assert cli(checkpoint, tmp_path / "ours.safetensors")[0] == 0


def test_convert_keeps_what_is_there(cli: Cli, tmp_path: Path, weights: Weights) -> None:
    checkpoint, out = tmp_path / "official.pth", tmp_path / "ours.safetensors"
    torch.save(weights, checkpoint)
    out.write_text("mine", encoding="utf-8")
    cli_refused(cli(checkpoint, out), "exists", "--force")
    assert out.read_text(encoding="utf-8") == "mine"
    assert cli(checkpoint, out, "--force")[0] == 0
    assert len(load_file(out)) == 216
    cli_refused(cli(checkpoint, tmp_path / "no" / "ours.safetensors"), "does not exist")
    cli_refused(cli(tmp_path / "none.pth", tmp_path / "b.safetensors"), "none.pth: no such file")
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    cli_refused(cli(checkpoint, folder, "--force"), "a folder stands where")
    names = ["folder.safetensors", "official.pth", "ours.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_convert_partial(cli: Cli, tmp_path: Path, weights: Weights) -> None:
    checkpoint, out = tmp_path / "old.pth", tmp_path / "ours.safetensors"
    torch.save(forward_only(weights), checkpoint)
    cli_refused(cli(checkpoint, out), "old.pth", "issue 69", "missing")
    assert not out.exists()
    code, said, _ = cli(checkpoint, out, "--allow-partial")
    assert code == 0
    assert "left at start values" in said
    assert "issue 69" in said
    forward = [word for override in FORWARD for word in ("-s", override)]
    code, said, _ = cli(checkpoint, out, "--force", *forward)
    assert code == 0
    assert "left at start values" not in said


class Hostile:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit('ran')",)


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04 torn", b"\x80\x04K\x01."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_bad_files(cli: Cli, tmp_path: Path, content: bytes, suffix: str) -> None:
    checkpoint, out = tmp_path / f"bad{suffix}", tmp_path / "ours.safetensors"
    checkpoint.write_bytes(content)
    cli_refused(cli(checkpoint, out), f"bad{suffix}: ")
    assert not out.exists()


@pytest.mark.parametrize("content", [Hostile(), {"state_dict": {}}, {"epoch": 1}, [1], 7])
def test_files_without_weights(cli: Cli, tmp_path: Path, content: Any) -> None:
    checkpoint, out = tmp_path / "bad.pth", tmp_path / "ours.safetensors"
    torch.save(content, checkpoint)
    cli_refused(cli(checkpoint, out), "bad.pth: ")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pth"]


def test_table_of_the_spec() -> None:
    assert "segmamba-released" in key_table("segmamba").specs
