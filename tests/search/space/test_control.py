"""The control space, and when its runs allow to say that mixers matter."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import FixedTrial, create_trial

from archspec.spec.yaml_file import Source, dump
from blocks.base import SpecError
from search.retrain.control import ControlVerdict, compare_with_control
from search.space.control import control_source, control_space
from search.space.space import load_space

CONV, IDENTITY, TOM = {"kind": "conv", "act": "gelu"}, {"kind": "identity"}, {"kind": "tom"}
BOTH = {"choice": ({"kind": "conv"}, IDENTITY)}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"choice": (IDENTITY, CONV, TOM)}, {"choice": (IDENTITY, CONV)}),
        ({"choice": (TOM, CONV), "name": "m"}, {"choice": (CONV, IDENTITY), "name": "m"}),
        ({"choice": (TOM, {"kind": "attention"})}, BOTH),
        ({"kind": "tom", "d_state": {"choice": (4, 8)}}, BOTH),
        ({"kind": {"choice": ("conv", "tom")}}, BOTH),
        (CONV, CONV),
        ({"choice": (CONV, IDENTITY)}, {"choice": (CONV, IDENTITY)}),
        ({"kind": "conv", "kernel_size": {"choice": (3, 5)}},) * 2,
    ],
)
def test_a_mixer_becomes_convolution_or_identity(given: Any, expected: Any) -> None:
    tree = {"encoder": {"stages": ({"width": {"choice": (4, 8)}, "mixer": given},)}}
    found = control_source(Source("x", tree)).tree
    assert found == {"encoder": {"stages": ({"width": {"choice": (4, 8)}, "mixer": expected},)}}


def test_fields_over_a_default_go_with_it() -> None:
    tree = {
        "encoder": {
            "defaults": {"mixer": TOM},
            "stages": ({"width": 4}, {"width": 4, "mixer": {"d_state": 8}}),
        }
    }
    found = control_source(Source("x", tree)).tree["encoder"]
    assert found == {"defaults": {"mixer": BOTH}, "stages": ({"width": 4}, {"width": 4})}
    local = {**tree["encoder"], "defaults": {"mixer": CONV}}
    assert control_source(Source("x", {"encoder": local})).tree == {"encoder": local}


def test_members_that_become_equal_are_one() -> None:
    stage = {"choice": ({"width": 4, "mixer": TOM}, {"width": 4, "mixer": {"kind": "mamba"}})}
    found = control_source(Source("x", {"encoder": {"stages": (stage,)}})).tree
    assert found["encoder"]["stages"] == ({"choice": ({"width": 4, "mixer": BOTH},)},)


@pytest.mark.parametrize("name", ["mixers", "demo", "full", "segmaformer-space"])
def test_the_bundled_spaces_have_a_control(name: str, tmp_path: Path) -> None:
    """Only mixers change, every anchor left is in the space, and every member is valid."""
    space = load_space(name)
    control = control_space(space)
    assert control.name == f"{name}-control"
    before = {hole.name: hole for hole in space.holes()}
    for hole in control.holes():
        if hole.name.endswith("mixer"):
            assert set(hole.options) == {"conv", "identity"}
            assert set(hole.options) < set(before[hole.name].options)
        else:
            assert hole == before[hole.name]
    assert control.settings.anchors
    assert len(control.settings.anchors) < len(space.settings.anchors)
    for anchor in control.anchors():
        kinds = {stage.mixer.kind for stage in control.suggest(FixedTrial(anchor)).encoder.stages}
        assert kinds <= {"conv", "identity"}
    assert control.settings.steps == space.settings.steps
    tree = {**control.source.tree, "search": control.settings.model_dump(mode="json")}
    (tmp_path / "control.yaml").write_text(dump(tree), encoding="utf-8")
    again = load_space(tmp_path / "control.yaml")  # which validates every member and anchor
    assert again.source.tree == control.source.tree


def test_a_space_of_convolutions_is_its_own_control(
    space_tree: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "space.yaml").write_text(dump(space_tree), encoding="utf-8")
    with pytest.raises(SpecError, match="it is its own control"):
        control_space(load_space(tmp_path / "space.yaml"))


def make_run(
    folder: Path, dice: float, trials: int = 2, drawn: Sequence[int] = (), **record: Any
) -> Path:
    """Write a run whose trials cost 1e8, 1e9, ... FLOPs; each has 0.1 more Dice than the last.

    `drawn` are the widths that the trials drew.
    """
    folder.mkdir()
    content = {"dataset": "Dataset901_X", "fold": 0, "settings": {"steps": 5}, **record}
    (folder / "run.json").write_text(json.dumps(content), encoding="utf-8")
    study = optuna.create_study(
        study_name="search",
        storage=f"sqlite:///{folder / 'study.db'}",
        directions=["maximize", "minimize"],
    )
    for number in range(trials):
        values = [dice + 0.1 * number, 8.0 + number]
        params = {"width": drawn[number]} if drawn else {}
        known = {name: IntDistribution(0, 99) for name in params}
        study.add_trial(create_trial(values=values, params=params, distributions=known))
    return folder


def test_one_run_each_cannot_tell(tmp_path: Path) -> None:
    search, control = make_run(tmp_path / "a", 0.8), make_run(tmp_path / "b", 0.2)
    found = compare_with_control([search], [control])
    # from (10, 0): 0.8 over two decades and 0.1 more over the last one
    assert found.searches == {str(search): pytest.approx(1.7)}
    assert found.controls == {str(control): pytest.approx(0.5)}
    assert math.isnan(found.low)
    assert found.verdict.startswith("cannot tell whether mixers matter from 1 and 1 runs")


@pytest.mark.parametrize(
    ("searches", "controls", "verdict"),
    [
        ((0.80, 0.81, 0.82), (0.50, 0.52, 0.51), "mixers matter: hypervolume +0.3"),
        ((0.50, 0.52, 0.51), (0.80, 0.81, 0.82), "the control is better: hypervolume -0.3"),
        ((0.50, 0.60), (0.40,), "cannot tell"),
        ((0.50, 0.60, 0.70), (0.50, 0.58, 0.71), "no difference shown"),
        ((0.80, 0.80), (0.50, 0.50), "cannot tell"),
    ],
)
def test_the_strong_word_needs_an_interval_without_zero(
    searches: tuple[float, ...], controls: tuple[float, ...], verdict: str
) -> None:
    from scipy.stats import ttest_ind

    named = [{f"run {n}": one for n, one in enumerate(own)} for own in (searches, controls)]
    found = ControlVerdict.of(*named)
    assert found.verdict.startswith(verdict)
    if not math.isnan(found.low):
        expected = ttest_ind(searches, controls, equal_var=False).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_space_without_more_networks_needs_no_more_trials(tmp_path: Path) -> None:
    """Two trials are all of two networks; of a range, or of three, they are not."""
    search = make_run(tmp_path / "a", 0.8, trials=3)
    for name, width, fits in (
        ("all", {"choice": [4, 8]}, True),
        ("some", {"choice": [4, 8, 16]}, False),
        ("range", {"float": [4, 8]}, False),
    ):
        space = {"encoder": {"stages": [{"width": width}]}}
        control = make_run(tmp_path / name, 0.5, space=space, drawn=[4, 8])
        if fits:
            assert compare_with_control([search], [control]).mean > 0
        else:
            with pytest.raises(SpecError, match="number of trials differ from others', 2 against"):
                compare_with_control([search], [control])


def test_both_sides_held_out_the_same_cases(tmp_path: Path) -> None:
    """Which cases depends on the seed; so one control per seed."""
    runs = {
        name: make_run(tmp_path / name, 0.6 + number / 100, test_cases=[cases])
        for number, (name, cases) in enumerate({"s0": "a", "s1": "b", "c0": "a", "c1": "b"}.items())
    }
    searches, controls = [runs["s0"], runs["s1"]], [runs["c0"], runs["c1"]]
    assert len(compare_with_control(searches, controls).searches) == 2
    with pytest.raises(SpecError, match="held other test cases out"):
        compare_with_control(searches, controls[:1])


def test_runs_with_other_budgets_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", 0.8)
    with pytest.raises(SpecError, match="number of trials differ"):
        compare_with_control([run], [make_run(tmp_path / "b", 0.8, trials=3)])
    with pytest.raises(SpecError, match="its fold, steps differ"):
        other = make_run(tmp_path / "c", 0.8, fold=1, settings={"steps": 9})
        compare_with_control([run], [other])
    with pytest.raises(SpecError, match="given twice"):
        compare_with_control([run], [run])
