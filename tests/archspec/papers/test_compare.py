"""Claimed figures beside built ones: that none is missing, what the pages say, and the numbers."""

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import archspec
from archspec.cli.main import main
from archspec.papers.compare import RESULTS, used
from archspec.papers.data import Benchmark, benchmarks, paper_of, papers
from archspec.papers.fidelity import fidelity_page
from archspec.papers.page import Page, shape
from archspec.spec.load import load
from blocks.base import SpecError

GOLDEN = Path(__file__).parents[2] / "golden" / "fidelity"
CLAIM = {"what": "parameters", "value": 1, "unit": "M", "source": "s", "confidence": "published"}


@cache
def page_of(name: str) -> Page:
    return fidelity_page(load(name))


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.txt")), ids=lambda path: path.stem)
def test_page(path: Path) -> None:
    assert page_of(path.stem).text() + "\n" == path.read_text(encoding="utf-8")


def test_pages_fit_80_columns_and_explain_what_they_miss(spec_name: str) -> None:
    page = page_of(spec_name)
    assert max(map(len, page.text().splitlines())) <= 80
    assert not page.unexplained


def test_json_has_everything(spec_name: str) -> None:
    page = page_of(spec_name)
    found = page.to_json()
    assert list(found) == [
        *("spec", "title", "paper", "read", "convention", "claims"),
        *("datasets", "compared", "open", "released", "counters"),
    ]
    assert json.loads(json.dumps(found)) == found
    assert len(found["claims"]) == len(load(spec_name).claims)
    assert found["convention"] == "convention v1"
    for claim in found["claims"]:
        computed = claim["what"] in ("parameters", "macs", "flops", "training_memory")
        number = not isinstance(claim["value"], str)
        relative = claim["unit"] in ("%", "x") and claim["against"] is None
        assert bool(claim["built"]) == (computed and number and not relative)


def test_papers_fit_the_specs() -> None:
    known = {benchmark.name: benchmark for benchmark in benchmarks()}
    for paper in papers():
        for name in paper.specs:
            page = page_of(name)
            assert page.paper == paper
            for point in (*paper.open, *paper.released):
                assert set(point.specs) <= set(paper.specs)
            for point, here in page.points("open") + page.points("released"):
                assert here, f"{name}: {point.what}: what is used?"
                assert "does not apply" not in here, f"{name}: {point.what}: {here}"
            stated = {found.claim.dataset for found in page.compares} - {""}
            assert not paper.datasets or stated <= {dataset.name for dataset in paper.datasets}
            assert all(c.claim.dataset for c in page.compares if c.claim.what in RESULTS)
        for dataset in paper.datasets:
            assert all(known[name].column(column) for name, column in dataset.columns.items())
            assert not dataset.columns or dataset.differs
    for name in archspec.list_specs():
        assert (paper_of(name) is None) == (not load(name).claims)


def test_what_is_used_is_read_from_the_spec() -> None:
    paper = paper_of("segmamba")
    assert paper is not None
    point = next(point for point in paper.open if "state size" in point.what)
    other = load("segmamba", overrides=["encoder.stages.1.mixer.d_state=8"])
    assert used(load("segmamba"), point) == "mixer.d_state 16, mixer.d_conv 4, mixer.expand 2"
    assert used(other, point).startswith("mixer.d_state 16, 8, 16, 16,")


def test_counts_of_segmamba() -> None:
    """The quoted 655.49 G is 96^3 with 2 classes: 600.99 G of convolutions, 610.49 G in all."""
    claims = page_of("segmamba-released").to_json()["claims"]
    quoted = next(claim for claim in claims if claim["value"] == 655.49)
    assert (quoted["input"], quoted["num_classes"]) == ([1, 1, 96, 96, 96], 2)
    built = {reading["as"]: reading["value"] for reading in quoted["built"]}
    assert built["convolutions only"] == 593_348_198_400 + 7_644_119_040
    assert built["as multiply-adds"] == 610_487_746_560
    ratios = {reading["as"]: round(reading["ratio"], 3) for reading in quoted["built"]}
    assert ratios == {
        "as FLOPs": 1.881,
        "as multiply-adds": 0.931,
        "convolutions only": 0.917,
    }
    params = next(claim for claim in claims if claim["value"] == 67.36)
    assert params["built"] == [{"as": "", "value": 67_362_674, "ratio": 67.362674 / 67.36}]


def test_counts_of_the_others() -> None:
    def built(name: str, value: object) -> list[tuple[str, float]]:
        claims = page_of(name).to_json()["claims"]
        claim = next(claim for claim in claims if claim["value"] == value)
        return [(reading["as"], round(reading["ratio"], 2)) for reading in claim["built"]]

    assert built("segresmamba-released", 111611336) == [("", 0.63)]
    assert built("segformer3d", 17.5) == [("as FLOPs", 1.78), ("as multiply-adds", 0.89)]
    assert built("segmaformer", 2.02) == [("", 0.95)]
    assert built("segmaformer", 15.2)[:2] == [("as FLOPs", 1.8), ("as multiply-adds", 0.89)]
    assert built("segmaformer", 75) == [("", 1.05)]
    memory = built("segmamba-released", 17976)
    assert [label for label, _ in memory] == ["float32, batch 2", "AMP, batch 2"]


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ((1, 4, 128, 128, 128), "1x4x128^3"),
        ((1, 1, 64, 96), "1x1x64x96"),
        ((1, 2, 8, 8), "1x2x8^2"),
    ],
)
def test_shape(sizes: tuple[int, ...], text: str) -> None:
    assert shape(sizes) == text


def test_a_wrong_claim_without_a_reason_is_a_negative_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(claim: dict[str, Any], *options: str) -> tuple[int, str]:
        tree = load("small-unet").tree() | {"name": "mine", "claims": [claim]}
        path = tmp_path / "mine.yaml"
        path.write_text(json.dumps(tree), encoding="utf-8")
        monkeypatch.setattr(sys, "argv", ["archspec", "fidelity", str(path), *options])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().out

    code, out = run(CLAIM)
    assert code == 1
    assert out.endswith("mine: parameters 1 M is not what is built, and no note says why\n")
    assert run({**CLAIM, "note": "another network"})[0] == 0
    assert run({**CLAIM, "value": 1.73})[0] == 0
    code, out = run(CLAIM, "--json")
    assert code == 1
    assert json.loads(out)[0]["claims"][0]["unexplained"] is True
    assert json.loads(out)[0]["counters"] is None


def test_sizes_of_a_claim_must_fit() -> None:
    tree = load("small-unet").tree()
    tree["claims"] = [{**CLAIM, "at": {"patch_size": [30, 32, 32]}}]
    with pytest.raises(SpecError, match=r"small-unet: claims\.0\.at: does not fit: .*patch_size"):
        fidelity_page(load(tree))


SEGMAMBA = """\
parameters 67.36; flops 655.49
dice 93.61 92.65 87.71 91.32; hd95 3.37 3.85 3.48 3.56
iou 88.59; detected_length 70.21; detected_branches 61.33
dice 48.46; hd95 28.52
training_memory 17976; inference_memory 6279; inference_time 1.51"""
SEGRESMAMBA = """\
parameters 111611336; macs 40; co2 15; dice 0.837 0.9147 0.8839
training_memory 3 'less than half of other state-of-the-art models'"""
SEGMAFORMER = """\
parameters 2.02 75; flops 15.2 15 12.0
dice 83.33 89.98 96.47 90.49 90.53 57.29 70.57 93.03 78.70
dice 83.8 91.7 91.11 90.06 89.1 94.14"""
FIGURES = {
    "segmamba-released": f"{SEGMAMBA}\n"
    "parameters 67416196 67363213 67362674 66.90 74.87; macs 1468.69 600.99",
    "segmamba": SEGMAMBA,
    "segmamba-figure": SEGMAMBA,
    "segresmamba-released": f"{SEGRESMAMBA}\nparameters 70471972 111.61; macs 183.80 77.54",
    "segresmamba": f"{SEGRESMAMBA}\nparameters 72032932; macs 185.41 78.26",
    "segmaformer": f"{SEGMAFORMER}\nparameters 1913025; macs 13.61",
    "segmaformer-2m": SEGMAFORMER,
    "segmaformer-synapse": "parameters 1831552",
    "segmaformer-acdc": "parameters 1822886",
    "segformer3d": """\
parameters 4525251 4511939 4.51; flops 17.5; macs 15.55 15.68 12.87 12.73 12.84 12.8
dice 82.1 89.9 74.2 82.2 90.96 88.50 88.86 95.53
dice 82.15 90.43 95.68 86.53 86.13 55.26 73.06 89.02 81.12""",
    "unet": """\
parameters 31199796 31.2; macs 482.80; training_memory 7.70; training_time 9
dice 83.08 91.54 80.09 91.24 86.04 88.64 80.73""",
    "resenc-unet": """\
parameters 102353972 102.4; macs 722.97; training_memory 22.70; training_time 35
dice 83.35 91.69 81.60 91.13 88.17 89.41 81.48 92.54 89.39 88.06 81.20""",
    "swin-unetr": "parameters 62191990 62.1",
    "segresnet": "parameters 18798660",
    "unetr": "parameters 102468164",
    "umamba-bot": "parameters 42124692",
    "umamba-enc": "parameters 42755220",
    "mednext-s-blocks": "parameters 5551076",
    "mednext-s": "parameters 5551076 5.6; flops 130",
    "primus-s": "parameters 25480960",
}
"""Every figure that was found about a bundled network: quantity, values; more quantities."""


def figures(text: str) -> list[tuple[str, str]]:
    """Return (quantity, value) pairs; a quoted value is one."""
    found = []
    for part in text.replace("\n", ";").split(";"):
        what, _, values = part.strip().partition(" ")
        numbers, _, words = values.partition("'")
        found += [(what, str(float(number))) for number in numbers.split()]
        found += [(what, words.removesuffix("'"))] if words else []
    return found


@pytest.mark.parametrize("name", FIGURES)
def test_no_published_figure_is_missing(name: str) -> None:
    stated = [
        (claim.what, claim.value if isinstance(claim.value, str) else str(float(claim.value)))
        for claim in load(name).claims
    ]
    assert sorted(stated) == sorted(figures(FIGURES[name]))


def test_every_spec_with_claims_is_listed() -> None:
    assert set(FIGURES) == {name for name in archspec.list_specs() if load(name).claims}


REVISITED = """\
nnU-Net (org.)        83.08 91.54 80.09 91.24 86.04 88.64
nnU-Net ResEnc M      83.31 91.99 80.75 91.26 86.79 88.77
nnU-Net ResEnc L      83.35 91.69 81.60 91.13 88.17 89.41
nnU-Net ResEnc XL     83.28 91.48 81.19 91.18 88.67 89.68
MedNeXt L k3          84.70 92.65 82.14 91.35 88.25 89.62
MedNeXt L k5          85.04 92.62 82.34 91.50 87.74 89.73
STU-Net B             83.05 91.30 79.19 90.85 86.32 88.46
STU-Net L             83.36 91.31 80.31 91.26 85.84 89.34
SwinUNETR             78.89 91.29 76.50 90.68 81.27 83.81
SwinUNETR V2          80.85 92.01 77.85 90.74 84.14 86.24
nnFormer              80.86 92.40 77.40 90.22 75.85 81.55
CoTr                  81.95 90.56 79.10 90.73 84.59 88.02
No-Mamba Base         83.69 91.89 80.57 91.26 85.98 89.04
U-Mamba Bot           83.51 91.79 80.40 91.26 86.22 89.13
U-Mamba Enc           82.41 91.22 80.27 90.91 86.34 88.38
Auto3DSeg SegResNet   80.69 90.69 79.28 90.79 81.11 87.27
Auto3DSeg DiNTS       78.18 82.97 69.05 87.75 65.28 82.35
Auto3DSeg SwinUNETR   76.54 82.68 68.59 89.90 52.82 85.05"""


def test_rows_of_nnunet_revisited() -> None:
    benchmark: Benchmark = benchmarks()[0]
    want = {
        line[:22].strip(): [float(n) for n in line[22:].split()] for line in REVISITED.split("\n")
    }
    assert {method: list(row.values()) for method, row in benchmark.rows.items()} == want
    columns = ["BTCV", "ACDC", "LiTS", "BraTS21", "KiTS23", "AMOS"]
    assert all(list(row) == columns for row in benchmark.rows.values())
