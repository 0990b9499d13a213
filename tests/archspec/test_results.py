"""What verbs return has one style: a frozen dataclass, its page, its JSON."""

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import archspec
from archspec.costs.counters import Count, Counts
from archspec.costs.describe import describe_plans
from archspec.costs.flops import cost_plan
from archspec.costs.profile import Energy, Estimated, Measured, Profile
from archspec.doctor import BackendReport, Diagnosis
from archspec.network.build import build_plan
from archspec.network.input_sizes import InputSizes
from archspec.network.resolve import resolve
from archspec.network.weights import LoadedWeights
from archspec.overfit.cap import Cap
from archspec.overfit.result import Overfit
from archspec.papers.fidelity import fidelity
from archspec.saved.info import ModelInfo
from archspec.saved.save import info_of
from archspec.scoring.evaluate import Evaluated
from archspec.scoring.pairs import compare
from archspec.scoring.scores import Evaluation, Scores
from archspec.scoring.statistics import Interval
from archspec.scoring.summary import folder_scores
from search.bench.result import Bench, Standing, Versus
from search.bench.settings import BenchSettings
from search.retrain.noise import DiceDifference
from search.study.protocol import Protocol, Terms
from search.study.record import RunRecord
from search.verdict.rule import Needed
from search.verdict.verdict import Compared, Rows, Verdict

SIZES = InputSizes(patch_size=(16, 16, 16))
PLAN = resolve("small-unet", SIZES)
ATTENDING = ["encoder.stages.0.mixer={kind: attention, num_heads: 1}"]


@cache
def described() -> Any:
    """A network with a note that is longer than a line."""
    return describe_plans([resolve("small-unet", SIZES, overrides=ATTENDING)], available=10**6)


@cache
def compared() -> Any:
    other = resolve("small-unet", SIZES, overrides=ATTENDING)
    return describe_plans([PLAN, other], available=10**9)


@cache
def profiled() -> Profile:
    return Profile(
        name="net",
        input=(2, 1, 16, 16, 16),
        amp="bfloat16",
        measured=Measured(0.5, 1.5, None, Energy("a counter", 2.5), 2, (1.0, 2.0)),
        estimated=Estimated(flops=3 * 10**9, macs=10**9, scan_flops=10**9, memory_bytes=2**30),
        device="cpu",
        hardware="a processor " * 9,
        versions={"torch": "2.13.0"},
        scan_backend="numba",
        date="2026-01-01",
    )


@cache
def differing() -> Any:
    other = archspec.load("small-unet", overrides=["encoder.stages.0.width=8"])
    return archspec.diff("small-unet", other, patch_size=(16, 16, 16))


@cache
def counted() -> Counts:
    counts = (Count("one", 1e9, 1e6, None), Count("other", None, None, "not installed"))
    return Counts("small-unet", (1, 1, 16, 16, 16), 2, cost_plan(PLAN), counts)


@cache
def claimed() -> Any:
    """One claim that is missed without a reason, and a network without claims."""
    claim = {
        **{"what": "parameters", "value": 1, "unit": "M"},
        **{"source": "s", "confidence": "published", "at": {"patch_size": [16, 16, 16]}},
    }
    small = archspec.load("small-unet")
    return fidelity([archspec.load({**small.tree(), "claims": [claim]}), small])


@cache
def evaluated() -> Evaluated:
    """Twelve cases of two networks, one class that neither mask ever holds."""

    def folder(name: str, dice: float) -> Evaluation:
        none = Scores(*[math.nan] * 4, 0.0, 0.0)
        organ = [Scores(dice + k / 50, 3.0 + k, dice, dice, 10.0 + k, 9.0) for k in range(12)]
        cases = tuple(f"case_{k}" for k in range(12))
        scores = {"organ": organ, "absent": [none] * 12}
        return Evaluation(Path(name), cases, (), 3, 1.0, scores)

    a, b = folder("a", 0.6), folder("b", 0.5)
    return Evaluated(
        references="labels",
        tolerance_mm=0.5,
        seed=0,
        cases=12,
        missing=("case_12",),
        dimensions=3,
        finest_spacing_mm=1.0,
        classes=("organ", "absent"),
        groups=(),
        evaluations=tuple(folder_scores(one, ("organ", "absent")) for one in (a, b)),
        comparison=compare(a, b, ("organ", "absent"), seed=0),
    )


@cache
def overfitted() -> Overfit:
    """Reached, with a gradient that overflowed, a dead direction and silent parameters."""
    return Overfit(
        name="net",
        dataset="Dataset901_Blobs",
        case="case_0001",
        patch=(1, 16, 16, 16),
        start=(0, 8, 8),
        cap=Cap((8, 8, 8), {"left": 0.9}, 0.5),
        scores={"left": 0.9},
        steps=7,
        seconds=1.5,
        failure=None,
        first={"stages.0.blocks.0.mixer": {"forward": math.inf, "reverse": 1.0}},
        last={"stages.0.blocks.0.mixer": {"forward": 1.0, "reverse": 0.0}},
        silent=tuple("abcdefgh"),
        unweighted_head="decoder.seg_layers.1",
        recipe="a recipe",
        seed=0,
        device="cpu",
    )


@cache
def diagnosed() -> Diagnosis:
    return Diagnosis(
        python="3.12.0",
        system="Linux x86_64",
        threads=1,
        versions={"torch": "2.13.0", "numba": None},
        cuda=None,
        devices={"cpu": "x86_64"},
        forced="kscan",
        scans={"cpu": [BackendReport("kscan", None, 1.5, used=True)]},
        trouble=["the fast scan is missing"],
    )


@cache
def benched() -> Bench:
    """Two networks with long names, of which one was never trained with the second seed."""
    settings = BenchSettings(
        networks={},
        datasets={"Dataset901_X": {"configuration": "3d_fullres", "patch_size": [16, 16, 16]}},
        folds=[0, 1],
        seeds=[0],
        steps=1000,
        batch_size=2,
        stock=False,
        convention="v1",
        versions={"archspec-seg": "0", "nnunetv2": "0", "torch": "0"},
    )
    names = ("a network with a long name", "another network with a long name")
    costs = {"dataset": "Dataset901_X", "gflops": 1234.5, "params": 102_353_972, "seconds": 9e4}
    ends = {"mean": 0.8123, "low": 0.7999, "high": 0.8233, "by_seed": (0.8123,)}
    difference = DiceDifference(names[1], names[0], 0.1234, 0.1111, 0.1333, 0.001, 0.002)
    return Bench(
        settings=settings,
        baseline=names[0],
        score="mean",
        margin=0.005,
        unit="person",
        num_units={"Dataset901_X": 40},
        standings=tuple(Standing(network=name, **costs, **ends) for name in names),
        ranks=dict(zip(names, (2.0, 1.0), strict=True)),
        num_blocks=2,
        differences=(Versus("Dataset901_X", difference, 40, 10**6),),
        recipes=dict.fromkeys(names, "adamw"),
        failed={"Dataset901_X fold 1: another network with a long name, seed 1": "out of memory"},
        notes=(
            "recipes differ: a difference is that of a network with its recipe, whatever it is",
        ),
    )


@cache
def saved() -> ModelInfo:
    labels = {"background": 0, "a label with a name that is longer than most names are, 1": 1}
    return info_of(build_plan(PLAN), spacing=(2.5, 1.0, 1.0), labels=labels)


@cache
def judged() -> Verdict:
    """A spec beside two networks of the curve, with long names, and nothing decided."""
    terms = Terms(margin=0.005)
    record = RunRecord(dataset="Dataset901_X", test_cases=("a", "b"), settings={"steps": 5400})
    rows = (Rows("confirm/trainings.jsonl", (1, 2)), Rows("study.db", trial=3))
    costs = {"gflops": 1234.5, "latency": 12.25, "params": 102_353_972, "memory": 79_123 * 10**6}
    scores = {"searched": 0.8, "dice": 0.79, "by_seed": (0.78, 0.8, 0.79), "rows": rows}
    names = ("", "nnUNetPlans, width 16, scaled to limits: width 12", "nnUNetPlans, width 32")
    return Verdict(
        run="run",
        answer="cannot say",
        sentence="these data cannot say; 1,034 more persons or 2 more seeds would",
        reasons=("a reason that is longer than a line of a terminal is, because it tells it all",),
        protocol=replace(Protocol.of(terms, record), digest="0123456789ab"),
        unit="person",
        units=2,
        difference=Interval(0.01, math.nan, math.nan),
        memory=0.4,
        needed=Needed(1034, 2),
        compared=tuple(
            Compared(trial, name, trial == 103, 0.5, **costs, **scores)  # type: ignore[arg-type]
            for trial, name in enumerate(names, start=103)
        ),
        notes=(),
    )


RESULTS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "describe": (described, ["note: stage 0 attends", "nothing smaller fits"]),
    "describe several": (compared, ["memory of training", "fits, up to batch"]),
    "fit": (lambda: described().fit, ["nothing smaller fits"]),
    "profile": (profiled, ["2.5 J a step (a counter)", "not measured here"]),
    "diff": (differing, ["encoder.stages.0.width: 16 -> 8"]),
    "counters": (counted, ["other: not installed"]),
    "fidelity": (claimed, ["no note says why", "nothing is claimed"]),
    "fidelity of one": (lambda: claimed().pages[0], ["parameters", "1 M"]),
    "evaluate": (evaluated, ["PARTIAL", "exceeds noise"]),
    "overfit": (overfitted, ["reached: 1.0000", "DEAD", "and 2 more"]),
    "bench": (benched, ["+12.34 [+11.11, +13.33]", ">99,999", "One seed", "failed: Dataset901_X"]),
    "model_info": (saved, ["2 classes", "spacing 2.5 x 1 x 1 mm", "a label with a name"]),
    "load_weights": (
        lambda: LoadedWeights(("a", "b"), ("c",), (), ("d",)),
        ["2 of 3 tensors loaded", "1 are not in the file", "1 of the file have no place"],
    ),
    "verdict": (judged, ["1,034 more persons", "trial 104: nnUNetPlans", "5,400 steps", "12.2"]),
    "doctor": (diagnosed, ["forces the scan backend", "the fast scan is missing"]),
}
"""What a verb returns -> an example, and words that its page holds."""


@pytest.mark.parametrize("verb", RESULTS)
def test_result(verb: str) -> None:
    make, words = RESULTS[verb]
    found = make()
    assert dataclasses.is_dataclass(found)
    field = dataclasses.fields(found)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(found, field, None)
    page = found.text()
    assert max(len(line) for line in page.splitlines()) <= 80 or verb == "fit"  # one line, long
    assert all(word in page for word in words)
    plain = found.to_json()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


@pytest.mark.parametrize(
    "verb", ["describe", "describe several", "diff", "evaluate", "model_info", "load_weights"]
)
def test_results_of_public_functions_print_as_their_page(verb: str) -> None:
    found = RESULTS[verb][0]()
    assert str(found) == found.text()


def test_what_has_no_value_is_null() -> None:
    norms = overfitted().to_json()["directions"]["stages.0.blocks.0.mixer"]
    assert norms == {"forward": {"first": None, "last": 1.0}, "reverse": {"first": 1.0, "last": 0}}
    folder = evaluated().to_json()["evaluations"][0]
    assert folder["per_case"]["case_0"]["absent"]["dice"] is None
    assert folder["per_class"]["absent"]["dice"] is folder["terciles"]["absent"] is None
