"""The bundled spaces: what they hold, and what they try first."""

from collections.abc import Callable
from functools import cache

import optuna
import pytest
import torch
from optuna.trial import FixedTrial
from torch.utils.flop_counter import FlopCounterMode

from archspec.costs.flops import cost_plan
from archspec.network.build import build_plan
from archspec.network.input_sizes import InputSizes
from archspec.network.plan import plan
from archspec.spec.hashing import arch_hash
from archspec.spec.load import load
from blocks.base import SpecError
from search.space.dry_run import Sample, dry_run
from search.space.first import first_of
from search.space.space import Space, list_spaces, load_space

PATCHES = [
    (40, 56, 40),
    (48, 64, 48),
    (16, 320, 256),
    (128, 128, 128),
    (512, 512),
    (320, 320),
    (16, 32, 48),
]
"""As nnU-Net plans them, thick slices and 2-D included, and the demo's own."""

loaded = cache(load_space)


@pytest.mark.parametrize("name", list_spaces())
def test_bundled_spaces_are_described_and_their_anchors_keep_the_limits(
    cli: Callable[..., tuple[int, str, str]], name: str
) -> None:
    code, out, _ = cli("validate", name)
    space = loaded(name)
    holes = [hole.name for hole in space.holes()]
    first, *listed = out.splitlines()
    assert code == 0 and f"{len(holes)} holes, {space.size().text()}" in first
    assert [line.split(": ")[0].strip() for line in listed] == holes
    found = dry_run(space, seconds_per_step=0.1, count=1)
    samples = [anchor for anchor in found.anchors if isinstance(anchor, Sample)]
    told = [anchor for anchor in found.anchors if isinstance(anchor, str)]
    planned = [anchor for anchor in space.settings.anchors if "plans" in anchor]
    assert len(samples) == len(space.settings.anchors) - len(planned) > 2
    assert not any(anchor.over for anchor in samples)
    if name == "demo":
        assert not planned and not told
    else:
        without = f"left out: {len(planned)} networks of nnUNetPlans: no dataset is given"
        assert told == [without]
    if space.settings.match is not None:
        assert not any(anchor.reference for anchor in samples), "specs are not matched"


def invalid(space: Space, patch: tuple[int, ...], draws: int, anchors: slice) -> list[str]:
    """Return why draws at random, and all that is asked for of the anchors, are no networks."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=sum(patch)))
    listed = [anchor.trial() for anchor in first_of(space)]
    sizes, found = InputSizes(in_channels=1, num_classes=3, patch_size=patch), []
    for trial in [*(study.ask() for _ in range(draws)), *listed[anchors]]:
        try:
            assert space.draw(trial, sizes).patch_size == patch
        except SpecError as error:
            assert not isinstance(trial, FixedTrial), error.line
            found.append(error.line)
    return found


@pytest.mark.parametrize("patch", PATCHES, ids=str)
@pytest.mark.parametrize("name", list_spaces())
def test_draws_and_an_anchor_are_networks_at_any_patch(name: str, patch: tuple[int, ...]) -> None:
    """In the dimension of the patch; a draw or an anchor where matching traces many widths."""
    space, turn = loaded(name), PATCHES.index(patch)
    matched = space.settings.match is not None
    draws = (1 - turn % 2) if matched else 10
    anchor = slice(turn, turn + 1) if turn % 2 or not matched else slice(0)
    assert not invalid(space, patch, draws, anchor)


@pytest.mark.long
@pytest.mark.parametrize("patch", PATCHES, ids=str)
@pytest.mark.parametrize("name", list_spaces())
def test_nearly_all_draws_and_all_anchors_are_networks_at_any_patch(
    name: str, patch: tuple[int, ...]
) -> None:
    draws = 100
    found = invalid(loaded(name), patch, draws, slice(None))
    assert len(found) <= 0.05 * draws, found


def test_the_demo_space_loads_and_every_sample_plans() -> None:
    space = loaded("demo")
    assert len(space.anchors()) >= 3
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(30):
        plan(space.suggest(study.ask()))


def test_costs_of_the_demo_anchors_are_those_of_a_real_run() -> None:
    """T16: what a search is told equals what PyTorch counts when the network runs."""
    space = loaded("demo")
    study = optuna.create_study()
    for anchor in space.anchors():
        study.enqueue_trial(anchor)
        planned = space.draw(study.ask())
        found, net = cost_plan(planned), build_plan(planned)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(torch.zeros(1, planned.in_channels, *planned.patch_size))
        assert counter.get_total_flops() == found.flops
        assert sum(p.numel() for p in net.parameters()) == found.params


def test_the_first_anchor_of_segmaformer_space_is_segmaformer() -> None:
    space, spec = loaded("segmaformer-space"), load("segmaformer")
    first = space.draw(FixedTrial(space.anchors()[0])).spec
    assert arch_hash(first) == arch_hash(spec)
    assert first.training.lr == spec.training.lr


def test_anchors_of_segmaformer_blocks_are_the_repository_s_layouts() -> None:
    """M H H A, H H H A, M M M A: parameters as counted of its code; the first is our spec."""
    space, sizes = loaded("segmaformer-blocks"), InputSizes(patch_size=(32, 32, 32))
    drawn = [space.draw(FixedTrial(anchor), sizes) for anchor in space.anchors()[:3]]
    assert [cost_plan(one).params for one in drawn] == [1_913_025, 1_922_961, 1_852_401]
    ours, spec = build_plan(drawn[0]).eval(), build_plan(plan(load("segmaformer"), sizes)).eval()
    spec.load_state_dict(ours.state_dict())
    x = torch.randn(1, 4, 32, 32, 32)
    with torch.no_grad():
        assert torch.equal(ours(x), spec(x))
