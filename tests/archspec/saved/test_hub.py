"""Hugging Face's mixin over the folders of `save`, without a connection."""

from pathlib import Path
from typing import Any

import pytest
import torch

import archspec

hub = pytest.importorskip("archspec.saved.hub")

TREE = {
    "name": "tiny",
    "patch_size": [8, 8],
    "encoder": {"stages": [{"width": 4, "mixer": {"kind": "conv"}}]},
    "decoder": {"kind": "sum"},
}


def same_weights(a: Any, b: Any) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in a.state_dict().items())


def test_a_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "snapshot_download", None)
    net, folder = archspec.build(TREE, num_classes=3), tmp_path / "model"
    hub.HubModel(net).save_pretrained(folder)
    assert archspec.model_info(folder).num_classes == 3
    assert same_weights(net, archspec.from_pretrained(folder))
    again = hub.HubModel.from_pretrained(folder)
    assert same_weights(net, again.net) and again.info == archspec.model_info(folder)
    again.save_pretrained(tmp_path / "again")  # what was read is written alike
    assert archspec.model_info(tmp_path / "again") == again.info
    assert "library_name: archspec-seg" in (folder / "README.md").read_text()


def test_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, folder = archspec.build(TREE), tmp_path / "model"
    archspec.save(net, folder, labels={"background": 0, "liver": 1})
    asked = []

    def download(name: str, *, allow_patterns: list[str], revision: str | None, **_: Any) -> str:
        asked.append((name, sorted(allow_patterns), revision))
        return str(folder)

    def config(**_: Any) -> str:
        return str(folder / "config.json")

    monkeypatch.setattr(hub, "snapshot_download", download)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", config)
    options = {"local_files_only": True, "revision": "v1"}
    found = hub.HubModel.from_pretrained("owner/name", **options)
    assert asked == [("owner/name", ["config.json", "model.safetensors"], "v1")]
    assert same_weights(net, found.net) and found.info.labels == {"background": 0, "liver": 1}
