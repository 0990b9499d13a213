"""Stock nnU-Net trains and predicts with an encoder of timm, from random or from given weights."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from archspec.nnunet.export import export_nnunet

pytest.importorskip("nnunetv2")

SPEC: dict[str, Any] = {
    "name": "timm-stock",
    "patch_size": [32, 32],
    "decoder": {"kind": "sum"},
    "deep_supervision": {"heads": 2},
}
NAME = "test_convnext"


@pytest.mark.parametrize("start", ["random", "file"])
def test_two_steps_and_a_prediction(
    start: str,
    preprocessed: Path,
    hollow_case: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A training starts from the file; it goes on, and predicts, where the file is gone."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    file = tmp_path / "weights.pth"
    weights = timm.create_model(NAME, in_chans=3).state_dict()
    torch.save(weights, file)
    encoder = {"timm": NAME, "pretrained": str(file) if start == "file" else False}
    exported = export_nnunet({**SPEC, "encoder": encoder}, 901)
    hollow_case(preprocessed / "nnUNetPlans_2d" / "case_0")
    (preprocessed / "dataset_fingerprint.json").write_text("{}")
    plans = json.loads(exported.path.read_text())
    description = json.loads((preprocessed / "dataset.json").read_text())
    patch = plans["configurations"]["2d"]["patch_size"]
    assert patch == [16, 24]

    def trainer_of_nnunet() -> Any:
        given = plans | {"continue_training": False}
        found = nnUNetTrainer(given, "2d", 0, description, torch.device("cpu"))
        found.initialize()
        return found

    trainer, first = trainer_of_nnunet(), []

    def keep(encoder: Any, *_: Any) -> None:
        first.append({key: value.clone() for key, value in encoder.model.state_dict().items()})

    trainer.network.stages[0].register_forward_hook(keep)
    trainer.network.train()
    labels = torch.randint(3, (2, 1, *patch)).float()
    scales = trainer._get_deep_supervision_scales()
    target = [labels[..., :: round(1 / rows), :: round(1 / columns)] for rows, columns in scales]
    losses = [
        trainer.train_step({"data": torch.randn(2, 1, *patch), "target": target})["loss"]
        for _ in range(2)
    ]
    assert all(map(math.isfinite, losses))
    stem = "stem_0.weight"
    flat = {key.replace(".", "_"): value for key, value in weights.items()}
    same = [torch.equal(v, flat[k.replace(".", "_")]) for k, v in first[0].items() if k != stem]
    assert all(same) if start == "file" else not all(same)
    if start == "file":  # as timm sums the colours for one channel
        torch.testing.assert_close(first[0][stem], weights["stem.0.weight"].sum(1, keepdim=True))
    moved = [not torch.equal(first[0][key], value) for key, value in first[1].items()]
    assert sum(moved) > 0.7 * len(moved)

    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    file.unlink()
    monkeypatch.setattr("timm.models._builder.load_pretrained", _refuse)
    again = trainer_of_nnunet()
    again.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    again.train_step({"data": torch.randn(2, 1, *patch), "target": target})

    model = Path(trainer.output_folder_base)
    for name, tree in (("plans", plans), ("dataset", description)):
        (model / f"{name}.json").write_text(json.dumps(tree))
    moved_to = shutil.copytree(model, tmp_path / "elsewhere")
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False)
    predictor.initialize_from_trained_model_folder(str(moved_to), use_folds=(0,))
    logits = predictor.predict_logits_from_preprocessed_data(torch.randn(1, 2, 20, 30))
    assert logits.shape == (3, 2, 20, 30) and logits.isfinite().all()
    trained = trainer.network.state_dict()
    assert all(torch.equal(v, trained[k]) for k, v in predictor.network.state_dict().items())


def _refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("pretrained weights are loaded")
