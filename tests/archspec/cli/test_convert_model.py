"""The verb convert-model: a spec's, a run's and nnU-Net's trained network as one file."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import archspec
from archspec.network.checkpoint import read_checkpoint

RELEASE = Path(__file__).parents[2] / "fixtures" / "releases" / "047295c"
MODEL = Path("results", "Dataset902_Small", "nnUNetTrainerArchSpec__archspec_net__3d_fullres")

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of what an earlier release wrote, the working folder from here on."""
    folder = Path(shutil.copytree(RELEASE, tmp_path / "release"))
    monkeypatch.setenv("nnUNet_preprocessed", str(folder / "preprocessed"))
    monkeypatch.chdir(folder)
    return folder


def refused(result: tuple[int, str, str], *parts: str) -> None:
    code, out, err = result
    assert (code, out, err.count("\n")) == (2, "", 1), err
    for part in parts:
        assert part in err


def holds(file: Path, checkpoint: Path) -> bool:
    """Say whether the network of the file has the weights of the checkpoint."""
    found, want = archspec.from_pretrained(file).state_dict(), read_checkpoint(checkpoint)
    return found.keys() == want.keys() and all(torch.equal(found[key], want[key]) for key in want)


def test_a_trained_model_of_nnunet(cli: Cli, release: Path) -> None:
    out = Path("net.safetensors")
    code, said, err = cli("convert-model", MODEL, "-o", out)
    assert code == 0, err
    assert said.startswith(f"wrote {out}: {MODEL}, ")
    assert holds(out, MODEL / "fold_0/checkpoint_final.pth")
    info = archspec.model_info(out)
    assert info.spacing == (1.0, 1.0, 1.0) and info.patch_size == (16, 32, 48)
    (scheme,) = info.normalization or ()
    assert scheme["scheme"] == "ZScoreNormalization" and scheme["std"] > 0
    assert info.labels is not None and info.labels["background"] == 0
    said = info.preprocessing
    assert said is not None and said.mirror_axes == (0, 1, 2)
    assert said.resampling_fn_data_kwargs["order"] == 3 and said.channel_names == ("MR",)
    refused(cli("convert-model", MODEL, "-o", out), "net.safetensors: exists", "--force")
    # what was written is a source itself, and a folder a target
    assert cli("convert-model", out, "-o", "model")[0] == 0
    assert archspec.model_info("model") == info
    assert cli("convert-model", "model", "-o", out, "--force")[0] == 0
    assert holds(out, MODEL / "fold_0/checkpoint_final.pth")


def test_trained_models_that_are_refused(
    cli: Cli, release: Path, rewrite: Callable[..., None]
) -> None:
    def model(*options: object) -> tuple[int, str, str]:
        return cli("convert-model", MODEL, "-o", "net.safetensors", *options)

    refused(model("--fold", 3), f"{MODEL}: no such fold; allowed: 0")
    refused(model("--checkpoint", "checkpoint_best.pth"), "checkpoint_best.pth: no such file")
    refused(model("--trial", 3), "--trial is for a run, but the source is a model folder")
    shutil.copytree(MODEL / "fold_0", MODEL / "fold_1")
    refused(model(), "several folds were trained; allowed: 0, 1; give --fold")
    checkpoint = MODEL / "fold_0" / "checkpoint_final.pth"
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    refused(model("--fold", 0), "checkpoint_final.pth: not a checkpoint")
    torch.save({"network_weights": {"conv": torch.zeros(1)}}, checkpoint)
    refused(model("--fold", 0), "not the weights of this network")
    rewrite(MODEL / "plans.json", lambda tree: _architecture(tree).update(network_class_name="Net"))
    refused(model("--fold", 1), "network_class_name: 'Net' is not a network of a spec")
    rewrite(MODEL / "plans.json", lambda tree: _architecture(tree).pop("arch_kwargs"))
    refused(model("--fold", 1), "has no architecture with arch_kwargs")
    other = MODEL.with_name("mine")
    MODEL.rename(other)
    refused(cli("convert-model", other, "-o", "net.safetensors"), "does not say trainer, plans")
    (other / "dataset.json").unlink()
    refused(cli("convert-model", other, "-o", "net.safetensors"), "neither a run (run.json)")
    assert not Path("net.safetensors").exists()


def _architecture(plans: Any) -> Any:
    return plans["configurations"]["3d_fullres"]["architecture"]


def test_a_trial_of_a_run(cli: Cli, release: Path) -> None:
    def run(*options: object) -> tuple[int, str, str]:
        return cli("convert-model", "finished", "-o", "net.safetensors", *options)

    trial = Path("finished/trials/0003/checkpoint.pt")
    refused(run(), "trials/0001/checkpoint.pt: no such checkpoint")
    refused(run("--trial", 77), "finished: has no trial 77")
    refused(run("--trial", 3, "--confirmed"), "trial 3 has no confirmed training")
    spec = archspec.load(trial.with_name("spec.yaml"))
    trained = archspec.build(spec, in_channels=1, num_classes=4).state_dict()
    torch.save({"net": trained, "optimizer": {}}, trial)
    code, said, err = run("--trial", 3)
    assert code == 0, err
    assert "trial 3 of finished" in said and holds(Path("net.safetensors"), trial)
    trial.write_bytes(trial.read_bytes()[:-300])
    refused(run("--trial", 3, "--force"), "not a whole one")


def test_a_confirmed_network(cli: Cli, release: Path) -> None:
    spec = archspec.load("finished/trials/0005/spec.yaml")
    root = Path("finished/confirm/trainings")
    for seed in (1073741824, 1073741825):
        trained = archspec.build(spec, in_channels=1, num_classes=4).state_dict()
        torch.save({"net": trained}, root / f"21c2eca863720c2e-{seed}-90" / "checkpoint.pt")
    line = ("convert-model", "finished", "--trial", 5, "--confirmed", "-o", "net.safetensors")
    code, _, err = cli(*line)
    assert code == 0, err
    assert holds(Path("net.safetensors"), root / "21c2eca863720c2e-1073741824-90/checkpoint.pt")
    shutil.rmtree("preprocessed/Dataset902_Small")
    refused(cli(*line, "--force"), "Dataset902_Small")


def test_a_spec_with_weights(cli: Cli, release: Path) -> None:
    net = archspec.build("net.yaml", in_channels=2, num_classes=3)
    torch.save(net.state_dict(), "weights.pth")

    def spec(*options: object) -> tuple[int, str, str]:
        return cli("convert-model", "net.yaml", "-o", "net.safetensors", *options)

    sizes = ("--in-channels", 2, "--num-classes", 3)
    refused(spec(), "net.yaml: a spec has no weights; give --weights")
    refused(spec("--weights", "weights.pth"), "weights.pth: not the weights of this network")
    refused(spec("--weights", "none.pth", *sizes), "none.pth: no such file")
    refused(spec("--weights", "weights.pth", "--confirmed"), "--confirmed is for a run")
    refused(spec("--weights", "weights.pth", *sizes, "--to", "onyx"), "--to")
    refused(cli("convert-model", "nosuch", "-o", "a.safetensors"), "nosuch: not a bundled spec")
    refused(cli("convert-model", "net.yaml", "-o", "a.pth"), "must end in .safetensors")
    assert not Path("net.safetensors").exists()
    code, said, err = spec("--weights", "weights.pth", *sizes)
    assert code == 0, err
    assert "2 x 16 x 32 x 48, 3 classes" in said
    assert holds(Path("net.safetensors"), Path("weights.pth"))
