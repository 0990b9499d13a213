"""Runs, plans and models that an earlier release wrote go on working.

See `fixtures/README.md`. Every test works on a copy, by the command line and by nnU-Net's own
readers; no fixture is ever written anew.
"""

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

RELEASE = Path(__file__).parent / "fixtures" / "releases" / "047295c"
DATASET = "Dataset902_Small"
CASES = [f"case_{number:04d}" for number in range(1, 11)]
MODEL = Path("results", DATASET, "nnUNetTrainerArchSpec__archspec_net__3d_fullres")
PLANS = ("archspec_net", "archspec_net_nnunet")
FRONT = [5, 1]
SHORT = ("-s", "search.steps=9", "-s", "search.rungs=2")

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of what the release wrote, with nnU-Net's variables set to it."""
    folder = Path(shutil.copytree(RELEASE, tmp_path / "release"))
    for part in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{part}", str(folder / part))
    monkeypatch.setenv("ARCHSPEC_SCAN", "reference")  # numba would compile for ten seconds
    return folder


@pytest.fixture
def raw(release: Path, cli: Cli) -> Path:
    """Return the phantom, which is the same bytes at every release."""
    folder = release / "raw" / DATASET
    code, _, err = cli("phantom", folder, "--distance", 16, "--cases", 10, "--test-cases", 1)
    assert code == 0, err
    return folder


@pytest.fixture
def cases(release: Path, raw: Path) -> Path:
    """Return the cases, preprocessed by nnU-Net as the stored plans say."""
    pytest.importorskip("nnunetv2")
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    folder = release / "preprocessed" / DATASET
    plans = PlansManager(str(folder / "nnUNetPlans.json"))
    configuration = plans.get_configuration("3d_fullres")
    data: Path = folder / configuration.data_identifier
    data.mkdir()
    preprocessor = configuration.preprocessor_class(verbose=False)
    for case in CASES:
        image, label = raw / f"imagesTr/{case}_0000.nii.gz", raw / f"labelsTr/{case}.nii.gz"
        description = str(folder / "dataset.json")
        preprocessor.run_case_save(
            str(data / case), [str(image)], str(label), plans, configuration, description
        )
    return data


@pytest.fixture
def named_cases(release: Path, hollow_case: Callable[[Path], None]) -> Path:
    """Return cases that are there by name, for what does not open them."""
    data = release / "preprocessed" / DATASET / "nnUNetPlans_3d_fullres"
    data.mkdir()
    for case in CASES:
        hollow_case(data / case)
    return data


def network_of(plans: dict[str, Any]) -> torch.nn.Module:
    """Build the plans' network as nnU-Net does for training."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    assert architecture["network_class_name"] == "archspec.nnunet.ArchSpecNet"
    net: torch.nn.Module = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        input_channels=1,
        output_channels=4,
        deep_supervision=True,
    )
    return net


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def reported(run: Path, cli: Cli) -> dict[str, Any]:
    code, out, err = cli("report", run, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_finished_run_is_reported(release: Path, cli: Cli) -> None:
    run = release / "finished"
    code, out, err = cli("report", run)
    assert code == 0, err
    assert "trained again with 2 seeds for 90 steps" in out
    assert (run / "report.html").stat().st_size and (run / "pareto.png").stat().st_size
    found = reported(run, cli)
    assert found["front"] == FRONT and found["confirmed"]["current"]
    done = {row["trial"]: round(row["dice"], 3) for row in found["trials"] if row["step"] == 90}
    assert done == {0: 0.222, 1: 0.502, 3: 0.208, 5: 0.226, 8: 0.333}
    assert found["sessions"][0]["versions"]["nnunetv2"] == "2.8.1"


def test_its_best_network_is_exported(release: Path, cli: Cli) -> None:
    pytest.importorskip("nnunetv2")
    winner = release / "winner.yaml"
    code, out, err = cli("best", release / "finished", "-o", winner)
    assert code == 0 and "trial 1, validation Dice 0.502" in out, err
    code, _, err = cli("export", winner, "--dataset", 902, "--plans-name", "winner")
    assert code == 0, err
    net = network_of(read(release / "preprocessed" / DATASET / "winner.json"))
    assert sum(p.numel() for p in net.parameters()) == 9052


def test_what_was_confirmed_is_not_trained_again(
    release: Path, named_cases: Path, cli: Cli
) -> None:
    run = release / "finished"
    before = read(run / "confirmed.json")
    (run / "confirmed.json").unlink()
    code, _, err = cli("confirm", run, "--seeds", 2, "--device", "cpu")
    assert code == 0 and "trainings to do" not in err, err
    found = read(run / "confirmed.json")
    assert found["points"] == before["points"]
    assert found["test_cases"] == before["test_cases"]


@pytest.mark.long
def test_confirming_goes_on(release: Path, cases: Path, cli: Cli) -> None:
    run = release / "finished"
    table = run / "confirm" / "trainings.jsonl"
    before = table.read_bytes()
    code, _, err = cli("confirm", run, "--seeds", 3, "--device", "cpu")
    assert code == 0 and "2 of 6 trainings to do" in err, err
    assert table.read_bytes().startswith(before)
    found = read(run / "confirmed.json")
    assert [len(point["test"]["seeds"]) for point in found["points"]] == [3, 3]
    old = read(RELEASE / "finished" / "confirmed.json")
    for now, then in zip(found["points"], old["points"], strict=True):
        assert now["test"]["seeds"][:2] == then["test"]["seeds"]


def test_an_interrupted_run_goes_on(release: Path, cases: Path, cli: Cli) -> None:
    run = release / "interrupted"
    rung = (run / "trials/0003/metrics.jsonl").read_text(encoding="utf-8")
    ended = [run / f"trials/{number:04d}/metrics.jsonl" for number in (0, 1)]
    before = [file.read_bytes() for file in ended]
    told = ("--trials", 4, "--confirm-seeds", 0, "--device", "cpu", "--out", run)
    code, out, err = cli("search", release / "space.yaml", "--data", 902, *told, *SHORT, "--resume")
    assert code == 0, err
    assert "[4/4]" in out and "failed" not in out
    assert [file.read_bytes() for file in ended] == before
    metrics = [file.read_text(encoding="utf-8") for file in run.glob("trials/*/metrics.jsonl")]
    (heir,) = (text for text in metrics if text.startswith(rung) and text != rung)
    assert [json.loads(line)["step"] for line in heir.splitlines()] == [3, 9]
    assert not list(run.rglob("*.unreadable"))
    assert [row["step"] for row in reported(run, cli)["trials"]].count(9) == 4


@pytest.mark.parametrize("name", PLANS)
def test_nnunet_builds_the_network_of_its_plans(name: str, release: Path) -> None:
    pytest.importorskip("nnunetv2")
    net = network_of(read(release / "preprocessed" / DATASET / f"{name}.json"))
    saved = torch.load(release / MODEL / "fold_0/checkpoint_final.pth", weights_only=False)
    net.load_state_dict(saved["network_weights"], strict=True)
    with torch.no_grad():
        outputs = net(torch.zeros(1, 1, 16, 32, 48))
    assert [tuple(part.shape[1:]) for part in outputs] == [
        (4, 16, 32, 48),
        (4, 8, 16, 24),
        (4, 4, 8, 12),
    ]


def test_nnunet_predicts_with_its_model(release: Path, raw: Path) -> None:
    """What was trained and predicted then is predicted now, without any variable of ours."""
    pytest.importorskip("nnunetv2")
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    with contextlib.redirect_stdout(io.StringIO()):
        predictor = nnUNetPredictor(
            use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False
        )
        predictor.initialize_from_trained_model_folder(str(release / MODEL), use_folds=(0,))
        image = str(raw / "imagesTs/case_9001_0000.nii.gz")
        ((mask, found),) = predictor.predict_from_files_sequential(
            [[image]], None, save_probabilities=True
        )
    expected = np.load(RELEASE / "probabilities.npz")["probabilities"]
    np.testing.assert_allclose(found[:, ::4, ::4, ::4], expected, atol=1e-3)
    assert np.ptp(expected, axis=(1, 2, 3)).min() > 0.1, "no constant would pass"
    assert mask.shape == (16, 32, 48)


def test_its_results_are_of_the_same_network(release: Path, cli: Cli) -> None:
    """Plans exported again may go on from its checkpoints: the network is the same."""
    export = ("export", release / "net.yaml", "--dataset", 902)
    file = release / "preprocessed" / DATASET / "archspec_net.json"
    code, _, err = cli(*export)
    assert code == 2 and "holds results of this network" in err, err
    code, out, err = cli(*export, "--force")
    assert code == 0, err
    assert "--c continues them" in " ".join(out.split())
    old, new = read(RELEASE / file.relative_to(release)), read(file)
    assert new["configurations"].keys() == old["configurations"].keys()
    assert list(network_of(new).state_dict()) == list(network_of(old).state_dict())
