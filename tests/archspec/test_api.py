"""What the public functions take and refuse that no room's own tests see."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import archspec
from archspec.network.published import key_table
from archspec.spec.schema import StageSpec
from blocks.base import SpecError

SIZES: dict[str, Any] = {"in_channels": 2, "num_classes": 3, "patch_size": (16, 16, 16)}
SLOTS = ("downsample", "local", "block", "mixer", "ffn", "post", "skip", "decoder")


@pytest.fixture
def spec() -> archspec.ArchSpec:
    """Return a network of one stage."""
    stage = {"width": 4, "mixer": {"kind": "conv"}}
    return archspec.load(
        {
            "name": "tiny",
            "patch_size": [16, 16, 16],
            "encoder": {"stages": [stage]},
            "decoder": {"kind": "sum"},
        }
    )


@pytest.mark.parametrize("ending", ["pth", "wrapped.pth", "safetensors"])
def test_weights_of_the_network_itself(
    spec: archspec.ArchSpec, tmp_path: Path, ending: str
) -> None:
    net = archspec.create_model(spec, **SIZES)
    state = {key: torch.randn_like(value) for key, value in net.state_dict().items()}
    file = tmp_path / f"net.{ending}"
    if ending == "safetensors":
        save_file(state, file)
    else:
        torch.save({"network_weights": state} if "wrapped" in ending else state, file)
    for weights in (file, str(file)):
        found = archspec.create_model(spec, **SIZES, weights=weights).state_dict()
        assert all(torch.equal(found[key], value) for key, value in state.items())


def test_weights_of_another_network(spec: archspec.ArchSpec, tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    torch.save(archspec.create_model(spec, **SIZES).state_dict(), file)

    def refused(name: Any, *parts: str, **sizes: Any) -> None:
        with pytest.raises(SpecError) as caught:
            archspec.create_model(name, **{**SIZES, **sizes}, weights=file)
        message = str(caught.value)
        assert message.startswith(f"{file}: ") and "\n" not in message
        for part in parts:
            assert part in message

    refused(spec, "2 have another shape, e.g. ", " (3, 4", "not (5, 4", num_classes=5)
    refused("small-unet", "are missing, e.g. ", "num_classes that they were trained with")
    assert key_table("segformer3d")
    large = {"patch_size": (64, 64, 64)}
    refused("segformer3d", "checkpoint for segformer3d: 0 of 232 tensors", **large)
    file.write_bytes(b"junk")
    refused(spec, "not a checkpoint")
    file.unlink()
    refused(spec, "no such file")


def test_components_of_every_slot() -> None:
    for slot in SLOTS:
        owner: Any = archspec.ArchSpec if slot == "decoder" else StageSpec
        schema = owner.model_json_schema()["properties"][slot]
        kinds = list(schema.get("discriminator", {}).get("mapping", {}))
        if not kinds:  # the first needs no kind, and the others are told from it by having one
            assert len(schema.get("oneOf", [schema])) == len(archspec.list_components(slot))
            kinds = [slot, *archspec.list_components(slot)[1:]]
        assert sorted(archspec.list_components(slot)) == sorted(kinds)
    with pytest.raises(SpecError) as caught:
        archspec.list_components("mixr")
    allowed = f"allowed: {', '.join(SLOTS)}; did you mean 'mixer'?"
    assert str(caught.value) == f"slot='mixr': not a slot for components; {allowed}"


def test_diff_refuses_another_number_of_dimensions(spec: archspec.ArchSpec) -> None:
    flat = archspec.load(spec, overrides=["name=flat", "patch_size=[16, 16]"])
    with pytest.raises(SpecError, match="flat: a 2-D network; tiny is 3-D"):
        archspec.diff(spec, flat)
    assert not archspec.diff(spec, flat, patch_size=(16, 16)).differences


def test_pages_are_those_of_the_verbs(
    cli: Any, spec: archspec.ArchSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from archspec.spec.yaml_file import dump

    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(dump(spec.tree()), encoding="utf-8")
    assert cli("describe", "tiny.yaml", "--batch", 3)[1] == f"{archspec.describe(spec, batch=3)}\n"
    wider = archspec.load(spec, overrides=["encoder.stages.0.width=8"])
    arguments = ("diff", "tiny.yaml", "tiny.yaml", "-s", "encoder.stages.0.width=8")
    assert cli(*arguments)[1] == f"{archspec.diff(spec, wider)}\n"
