"""Every mistake in a spec: one line with position, path, what is wrong, what is allowed."""

from pathlib import Path
from typing import Any

import pytest

import archspec
from archspec.network.plan import plan
from archspec.spec.load import load
from blocks.base import SpecError
from blocks.registry import slots

TEXT = Path(__file__).with_name("net.yaml").read_text(encoding="utf-8")

WRONG = {
    "unknown key at top level": (
        ("decoder: {", "decodr: {"),
        "net.yaml:11:1  decodr: unknown key; allowed: schema_version, name, title, sources, "
        "claims, in_channels, num_classes, patch_size, encoder, decoder, network, "
        "deep_supervision, init, training; did you mean 'decoder'?",
    ),
    "unknown key in a stage": (
        ("- width: 32", "- widht: 32"),
        "net.yaml:9:7  encoder.stages.1.widht: unknown key; allowed: width, depth, downsample, "
        "local, block, mixer, ffn, post, norm, skip; did you mean 'width'?",
    ),
    "unknown key in a component": (
        ("d_state", "d_stat"),
        "net.yaml:10:28  encoder.stages.1.mixer.d_stat: unknown key; allowed: kind, d_state, "
        "d_conv, expand, directions, reduction, orders; did you mean 'd_state'?",
    ),
    "unknown key in the decoder": (
        ("act: relu", "actt: relu"),
        "net.yaml:11:22  decoder.actt: unknown key; allowed: head, kind, norm, act, num_blocks, "
        "kernel_size, up, block, ratio, grn; "
        "did you mean 'act'?",
    ),
    "unknown key in defaults": (
        ("ratio", "rat"),
        "net.yaml:6:22  encoder.defaults.ffn.rat: unknown key; allowed: kind, ratio, grn; "
        "did you mean 'ratio'?",
    ),
    "unknown key in the encoder": (
        ("  defaults", "  default"),
        "net.yaml:4:3  encoder.default: unknown key; allowed: stages, defaults; "
        "did you mean 'defaults'?",
    ),
    "key that is its own kind": (
        ("kernel_size", "conv"),
        "net.yaml:8:39  encoder.stages.0.mixer.conv: unknown key; allowed: kind, kernel_size, act, "
        "bias, groups, dilation",
    ),
    "string for integer": (
        ("width: 32", "width: '32'"),
        "net.yaml:9:7  encoder.stages.1.width: must be a valid integer, but is '32'",
    ),
    "boolean for integer": (
        ("width: 32", "width: true"),
        "net.yaml:9:7  encoder.stages.1.width: must be a valid integer, but is true",
    ),
    "float for integer": (
        ("width: 32", "width: 32.5"),
        "net.yaml:9:7  encoder.stages.1.width: must be a valid integer, but is 32.5",
    ),
    "null for integer": (
        ("width: 32", "width:"),
        "net.yaml:9:7  encoder.stages.1.width: must be a valid integer, but is null",
    ),
    "zero": (
        ("width: 32", "width: 0"),
        "net.yaml:9:7  encoder.stages.1.width: must be greater than 0, but is 0",
    ),
    "boolean for a choice of integers": (
        ("d_state: 8", "directions: true"),
        "net.yaml:10:28  encoder.stages.1.mixer.directions: must be a valid integer, but is true",
    ),
    "boolean for number": (
        ("ratio: 2", "ratio: true"),
        "net.yaml:6:22  encoder.defaults.ffn.ratio: must be a valid number, but is true",
    ),
    "infinite number": (
        ("lr: 1e-3", "lr: 1e999"),
        "net.yaml:12:12  training.lr: must be a finite number, but is inf",
    ),
    "on is a word": (
        ("lr: 1e-3", "lr: on"),
        "net.yaml:12:12  training.lr: must be a valid number, but is 'on'",
    ),
    "list of wrong length": (
        ("kernel_size: 3", "kernel_size: [3]"),
        "net.yaml:8:39  encoder.stages.0.mixer.kernel_size: a list must have 2 or 3 entries, "
        "one per axis, but is [3]",
    ),
    "list of words": (
        ("kernel_size: 3", "kernel_size: [3, 3, x]"),
        "net.yaml:8:39  encoder.stages.0.mixer.kernel_size: must be a positive integer, or a list "
        "with one per axis, at most 63 each, but is [3, 3, 'x']",
    ),
    "patch of one axis": (
        ("[32, 32, 32]", "[32]"),
        "net.yaml:2:1  patch_size: must be a list of 2 or 3 sizes in voxels, e.g. [96, 96, 96], "
        "but is [32]",
    ),
    "patch of words": (
        ("[32, 32, 32]", "[32, 32, big]"),
        "net.yaml:2:1  patch_size: sizes must be positive integers, in voxels, "
        "at most 8192, but is [32, 32, 'big']",
    ),
    "unknown mixer": (
        ("kind: mamba", "kind: mambo"),
        "net.yaml:10:15  encoder.stages.1.mixer.kind: 'mambo' is not a mixer; allowed: {mixers}; "
        "did you mean 'mamba'?",
    ),
    "mixer kind of another type": (
        ("kind: mamba", "kind: 3"),
        "net.yaml:10:15  encoder.stages.1.mixer.kind: 3 is not a mixer; allowed: {mixers}",
    ),
    "mixer without kind": (
        ("kind: mamba, ", ""),
        "net.yaml:10:7  encoder.stages.1.mixer.kind: missing; allowed: {mixers}",
    ),
    "mixer is a word": (
        ("{kind: mamba, d_state: 8}", "mamba"),
        "net.yaml:10:7  encoder.stages.1.mixer: must be a mapping, but is 'mamba'; "
        "write {kind: mamba}",
    ),
    "unknown decoder": (
        ("kind: sum", "kind: summ"),
        "net.yaml:11:11  decoder.kind: 'summ' is not a decoder; allowed: {decoders}; "
        "did you mean 'sum'?",
    ),
    "unknown norm": (
        ("norm: layer", "norm: layr"),
        "net.yaml:5:29  encoder.defaults.block.norm: 'layr' is not allowed; allowed: none, "
        "instance, instance_affine, layer, batch, group1, group(<groups>); did you mean 'layer'?",
    ),
    "unknown activation": (
        ("act: relu", "act: rleu"),
        "net.yaml:11:22  decoder.act: 'rleu' is not allowed; allowed: relu, leaky_relu, gelu, "
        "silu; did you mean 'relu'?",
    ),
    "missing key": (
        ("width: 16, ", ""),
        "net.yaml:8:7  encoder.stages.0.width: missing; this key is required",
    ),
    "missing section": (
        ("decoder: {kind: sum, act: relu}\n", ""),
        "net.yaml:1:1  decoder: missing; allowed: {kind: sum | mlp | concat}; this key is required",
    ),
    "stage is a word": (
        ("{width: 16, mixer: {kind: conv, kernel_size: 3}}", "conv"),
        "net.yaml:8:7  encoder.stages.0: must be a mapping, but is 'conv'",
    ),
    "defaults is no mapping": (
        ("\n    block: {kind: residual, norm: layer}\n    ffn: {kind: mlp, ratio: 2}", " 3"),
        "net.yaml:3:1  encoder: defaults must be a mapping",
    ),
    "name with a space": (
        ("name: net", "name: my net"),
        "net.yaml:1:1  name: string must match pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$', "
        "but is 'my net'",
    ),
    "duplicate key": (
        ("training: {lr: 1e-3}", "name: other"),
        "net.yaml:12:1  name: duplicate key; keep one of them",
    ),
    "newer schema": (
        ("name: net", "schema_version: 2\nname: net"),
        "net.yaml:1:1  schema_version: 2 is newer than this archspec reads (1); "
        "upgrade archspec-seg",
    ),
    "odd schema": (
        ("name: net", "schema_version: true\nname: net"),
        "net.yaml:1:1  schema_version: must be a valid integer, but is true",
    ),
    "not YAML": (
        ("[32, 32, 32]", "[32, 32"),
        "net.yaml:3:8  not valid YAML: expected ',' or ']', but got ':'",
    ),
}


def kinds(slot: str) -> str:
    return ", ".join(slots()[slot].kinds())


def write(folder: Path, text: str) -> str:
    path = folder / "net.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def message_of(source: Any, *, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(SpecError) as caught:
        plan(load(source, overrides=overrides))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("case", WRONG)
def test_wrong_file(case: str, tmp_path: Path) -> None:
    (old, new), want = WRONG[case]
    assert TEXT.count(old) == 1 or case == "unknown key in the decoder"
    want = want.replace("{mixers}", kinds("mixer")).replace("{decoders}", kinds("decoder"))
    message = message_of(write(tmp_path, TEXT.replace(old, new, 1)))
    assert message.replace(f"{tmp_path}/", "") == want


@pytest.mark.parametrize("stages", ["[]", "null", "3", "{a: 1}"])
def test_stages_must_be_a_list(stages: str, tmp_path: Path) -> None:
    head, tail = TEXT.split("  stages:\n")
    text = f"{head}  stages: {stages}\n{tail[tail.index('decoder') :]}"
    message = message_of(write(tmp_path, text))
    assert "net.yaml:7:3  encoder.stages: must " in message
    assert ("not be empty" if stages == "[]" else "be a list, but is") in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patch_size", 32),
        ("patch_size", "32"),
        ("patch_size", (32,)),
        ("patch_size", (32, 32, 32.0)),
        ("in_channels", "4"),
        ("in_channels", 0),
        ("num_classes", 2.0),
    ],
)
@pytest.mark.parametrize("function", [archspec.build, archspec.cost])
@pytest.mark.parametrize("loaded", [False, True])
def test_sizes_of_a_wrong_type(function: Any, loaded: bool, name: str, value: Any) -> None:
    spec = archspec.load("small-unet") if loaded else "small-unet"
    with pytest.raises(SpecError) as caught:
        function(spec, **{name: value})
    assert f"{name}: must be" in str(caught.value)
    assert str(caught.value).endswith(f"but is {value!r}")


@pytest.mark.parametrize("source", [3, None, ["small-unet"], b"small-unet"])
def test_what_names_no_spec(source: Any) -> None:
    with pytest.raises(SpecError, match="not a spec; give a bundled name"):
        load(source)
