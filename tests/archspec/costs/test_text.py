"""What `describe` and `diff` print, word for word; `make golden` rewrites the texts."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import archspec
from archspec.cli.main import app
from archspec.costs import fit
from archspec.costs.fit import Fit
from archspec.costs.memory import training_memory
from archspec.network.plan import Plan

GOLDEN = Path(__file__).parents[2] / "golden" / "text"
PAGES = {
    "describe_segformer3d": ["describe", "segformer3d"],
    "describe_mamba-unet_2d": ["describe", "mamba-unet", "--patch", "64,96", "--batch", "8"],
    "describe_several": ["describe", "segmamba", "segresmamba", "segformer3d", "resenc-unet"],
    "diff_segmamba": ["diff", "segmamba-released", "segmamba"],
    "diff_stages": ["diff", "segmamba", "segmamba-figure"],
    "diff_papers": ["diff", "segformer3d", "segmaformer"],
    "diff_nothing": ["diff", "small-unet", "small-unet"],
    "kinds": ["describe", "segmamba", "--kinds", "--patch", "64,64,64"],
    "fit": ["describe", "segresmamba", "--gpu-memory", "12GB", "--batch", "4"],
}


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    return result.exit_code, result.stdout


@pytest.mark.parametrize("page", PAGES)
def test_golden_text(page: str) -> None:
    _, text = run(*PAGES[page])
    path = GOLDEN / f"{page}.txt"
    if os.environ.get("ARCHSPEC_GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
    long = [line for line in text.splitlines() if len(line) > 80]
    assert not long, long


def test_json_holds_what_the_text_rounds() -> None:
    code, text = run("describe", "segformer3d", "--json")
    assert code == 0
    found, counted = json.loads(text), archspec.cost("segformer3d")
    assert found["flops"] == counted.flops
    assert found["by_kind"] == counted.by_kind
    parts = [*found["stages"], found["decoder"]]
    for key, whole in (
        ("params", counted.params),
        ("macs", counted.macs),
        ("saved_bytes", found["training"]["float32"]["saved"]),
    ):
        assert sum(part[key] for part in parts) == whole
    training = found["training"]["float32"]
    assert training["total"] == sum(
        training[key] for key in ("parameters", "optimizer", "saved", "transient")
    )


def test_json_of_several_is_a_list_at_the_first_one_s_input() -> None:
    _, text = run("describe", "segformer3d", "small-unet", "--json")
    found = json.loads(text)
    assert [item["name"] for item in found] == ["segformer3d", "small-unet"]
    assert found[0]["input"] == found[1]["input"] == [1, 4, 128, 128, 128]


@pytest.mark.parametrize(("share", "batch"), [(5.3, 1), (0.7, 1), (0.3, 4), (0.001, 1)])
def test_what_fits_really_fits(share: float, batch: int) -> None:
    """The advice is held to the same estimate: what it names fits, the next larger does not."""

    planned = archspec.plan("small-unet", patch_size=(64, 64, 32))
    needed = training_memory(planned, batch=batch, amp=True).total
    available = int(share * needed)
    found = Fit.of(planned, batch, available)
    assert (found.needed, found.fits) == (needed, share > 1)
    if found.batch_that_fits:
        assert training_memory(planned, batch=found.batch_that_fits, amp=True).total <= available
    above = training_memory(planned, batch=found.batch_that_fits + 1, amp=True)
    assert above.total > available
    assert (found.patch_that_fits is None) == (share > 1 or share < 0.01)
    if found.patch_that_fits:
        smaller = archspec.plan("small-unet", patch_size=found.patch_that_fits)
        assert training_memory(smaller, batch=batch, amp=True).total <= available


def test_a_batch_of_thousands_is_found_by_halving(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second case of a small network adds less than later ones: a first guess is too large."""
    planned, asked = archspec.plan("small-unet", patch_size=(16, 16, 16)), []

    def needed(planned: Plan, batch: int) -> int:
        asked.append(batch)
        return training_memory(planned, batch=batch, amp=True).total

    monkeypatch.setattr(fit, "_needed", needed)
    found = Fit.of(planned, 1, 10**10).batch_that_fits
    assert len(asked) < 50 < 1000 < found
    assert needed(planned, found) <= 10**10 < needed(planned, found + 1)


CHEAPER = ["decoder.skip_block=none", "decoder.num_convs=2", "decoder.bottleneck_width=null"]


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("segmamba", "skip_block: none, num_convs: 2, bottleneck_width: null"),
        ("segmamba-figure", "skip_block: none, num_convs: 2"),
    ],
)
def test_the_cheaper_concat_decoder_costs_what_the_note_says(name: str, setting: str) -> None:
    sizes: Any = {"in_channels": 2, "num_classes": 3, "patch_size": (64, 64, 64)}
    *_, note = archspec.describe(name, **sizes).notes
    cheaper = archspec.describe(archspec.load(name, overrides=CHEAPER), **sizes)
    gmac = f"{cheaper.macs / 1e9:.3f} GMAC"
    assert note == f"a decoder as nnU-Net's ({{{setting}}}) would make the whole network {gmac}"
    assert not [line for line in cheaper.notes if "as nnU-Net's" in line]


@pytest.mark.parametrize("name", ["resenc-unet", "unet", "segresmamba", "segformer3d"])
def test_no_note_where_that_decoder_is_not_there_or_costs_no_less(name: str) -> None:
    """One convolution a level is less than two; the others hold less, or are of another kind."""
    found = archspec.describe(name, patch_size=(64, 64, 64))
    assert not [line for line in found.notes if "as nnU-Net's" in line]


def test_exit_code_says_whether_it_fits() -> None:
    assert run("describe", "small-unet", "--patch", "32,32,32", "--gpu-memory", "9GB")[0] == 0
    code, text = run("describe", "small-unet", "--patch", "32,32,32", "--gpu-memory", "1MB")
    assert code == 1
    assert text.splitlines()[-1].endswith("too much; nothing smaller fits")


@pytest.mark.parametrize("size", ["12", "12 parsec", "-1GB", "0GB", "GB", "1e400GB"])
def test_memory_sizes_that_are_none(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(archspec.SpecError, match="must be a size"):
        CliRunner().invoke(
            app, ["describe", "small-unet", "--gpu-memory", size], catch_exceptions=False
        )


def _leaf(tree: Any, path: str) -> Any:
    for part in path.split("."):
        tree = tree[int(part)] if part.isdigit() else tree[part]
    return tree


@pytest.mark.parametrize("verb", ["diff", "describe"])
def test_two_and_three_dimensions_are_not_compared(verb: str, tmp_path: Path) -> None:
    path = tmp_path / "flat.yaml"
    tree = archspec.load("small-unet").tree() | {"name": "flat", "patch_size": [64, 64]}
    path.write_text(json.dumps(tree), encoding="utf-8")
    with pytest.raises(archspec.SpecError, match="a 2-D network; small-unet is 3-D"):
        CliRunner().invoke(app, [verb, "small-unet", str(path)], catch_exceptions=False)
    at = ["--patch", "32,32,32", "--json"]  # that of both, in as many axes
    assert run(verb, "small-unet", str(path), *at)[0] == 0


def test_memory_follows_the_optimizer() -> None:
    totals = []
    for name in ("sgd", "adamw"):
        arguments = ["small-unet", "--patch", "32,32,32", "-s", f"training.optimizer={name}"]
        _, text = run("describe", *arguments, "--json")
        training = json.loads(text)["training"]
        assert training["optimizer"] == name
        totals.append(training["float32"]["total"])
    assert totals[1] - totals[0] == 4 * archspec.cost("small-unet").params


def test_diff_lists_what_differs_and_nothing_else() -> None:
    _, text = run("diff", "segmamba-released", "segmamba", "--json")
    found = json.loads(text)
    first, second = (archspec.load(found[key]).tree() for key in "ab")
    for change in found["differences"]:
        for path in change["paths"]:
            before, after = (archspec.load(found[key]).model_dump(mode="json") for key in "ab")
            assert _leaf(before, path) == change["before"] != change["after"]
            assert _leaf(after, path) == change["after"]
    assert first != second
    fue = next(c for c in found["differences"] if c["paths"] == ["decoder.fue"])
    assert (fue["before"], fue["after"], fue["params"], fue["macs"]) == (False, True, 0, 0)
    assert found["params"][1] - found["params"][0] == sum(c["params"] for c in found["differences"])


def test_diff_says_when_changes_do_not_add_up() -> None:
    said = "add up to the difference"  # in the pages that test_golden_text compares
    assert said in (GOLDEN / "diff_papers.txt").read_text(encoding="utf-8")
    assert said not in (GOLDEN / "diff_segmamba.txt").read_text(encoding="utf-8")
