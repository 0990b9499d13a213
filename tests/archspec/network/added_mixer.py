"""Use a mixer that was added to a copy of the packages; run in that copy by its test."""

import contextlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import torch
from torch.utils.flop_counter import FlopCounterMode

import archspec
import blocks
import search
from archspec.cli.main import main
from archspec.nnunet.network import ArchSpecNet
from archspec.spec.hashing import arch_hash
from archspec.spec.load import load, validate
from archspec.spec.yaml_file import dump, parse
from blocks.mixers import MIXERS
from search.space.space import load_space

NEW = "window_attention"
preprocessed = Path(sys.argv[1])

for package in (archspec, blocks, search):
    assert Path(package.__file__).parents[1] == Path.cwd(), package.__file__


def tree(window: Any, patch_size: tuple[int, ...], **fields: Any) -> dict[str, Any]:
    mixer = {"kind": NEW, "window_size": window, **fields}
    return {
        "name": "windows",
        "patch_size": patch_size,
        "encoder": {"stages": [{"width": 6, "downsample": {"stride": 2}, "mixer": mixer}]},
        "decoder": {"kind": "sum"},
    }


def refused(action: Callable[[], object], *parts: str) -> None:
    try:
        action()
    except ValueError as error:
        assert all(part in str(error) for part in parts), error
    else:
        raise AssertionError(parts)


# Builds, costs, round-trips, and reads only windows that it mixes.
for window, patch_size in ((2, (16, 8)), ([1, 2, 3], (6, 8, 12)), (None, (6, 10, 4))):
    spec = load(tree(window, patch_size, num_heads=2))
    assert validate(parse(dump(spec.tree()), "net.yaml")) == spec
    assert arch_hash(spec) != arch_hash(load(tree(1, patch_size, num_heads=2)))
    net, counted = archspec.build(spec), archspec.cost(spec)
    assert counted.params == sum(p.numel() for p in net.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.randn(1, 1, *patch_size))
    assert counted.flops == counter.get_total_flops() > 0
    grid = [size // 2 for size in patch_size]
    sizes = grid if window is None else [window] * 2 if window == 2 else window
    mixer, x = net.stages[0].blocks[0].mixer, torch.zeros(1, 6, *grid, requires_grad=True)
    first = (0,) * len(grid)
    mixer(x)[0, 0][first].backward()
    reached = x.grad[0].abs().sum(0).nonzero().max(0).values.tolist()
    assert reached == [size - 1 for size in sizes], reached

# Refuses as its own file and the plan say, and names itself where a kind is mistyped.
allowed = list(MIXERS.kinds())
assert NEW in allowed
wrong = tree(2, (16, 8), kind="window_atention")
refused(lambda: load(wrong), "mixer.kind", *allowed, "did you mean 'window_attention'?")
stage = "encoder.stages.0.mixer"
refused(
    lambda: archspec.plan(tree(3, (8, 12)), exact=True),
    f"{stage}.window_size: grid [4, 6] must divide by [3, 3]",
    "nearest: [6, 12] or [12, 12]",
)
refused(lambda: archspec.cost(tree([2, 2], (8, 8, 8))), f"{stage}.window_size: [2, 2] has 2")
refused(lambda: archspec.cost(tree(2, (8, 8), num_heads=4)), f"{stage}.num_heads: 4 must divide")
assert archspec.build(tree(2, (8, 8)))(torch.zeros(1, 1, 8, 10)).shape[2:] == (8, 10)


def cli(*arguments: str) -> str:
    sys.argv, out = ["archspec", *arguments], io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            main()
    except SystemExit as ended:
        assert not ended.code, ended.code
    return out.getvalue()


# Is described, searched, and exported; stock nnU-Net's class rebuilds it from the plans.
Path("net.yaml").write_text(dump(tree([1, 2, 2], (16, 16, 16))))
assert "1 x window_attention" in cli("describe", "net.yaml")
assert json.loads(cli("describe", "net.yaml", "--json"))["stages"][0]["mixer"] == NEW

open_tree = tree(2, (16, 8))
open_tree["encoder"]["stages"][0]["mixer"] = {
    "choice": [{"kind": "conv"}, {"kind": NEW, "window_size": {"choice": [1, 2, 4]}}]
}
Path("space.yaml").write_text(dump(open_tree))
assert "encoder.stages.0.mixer[window_attention].window_size" in cli("validate", "space.yaml")
space, drawn = load_space("space.yaml"), set()
study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
for _ in range(20):
    mixer = space.suggest(study.ask()).encoder.stages[0].mixer
    drawn.add((mixer.kind, getattr(mixer, "window_size", None)))
assert drawn == {("conv", None), *((NEW, window) for window in (1, 2, 4))}
open_tree["encoder"]["stages"][0]["mixer"]["choice"][1]["window_size"] = {"choice": [2, 3]}
Path("space.yaml").write_text(dump(open_tree))
load_space("space.yaml")  # where a window does not divide the grid, the patch is padded

assert "archspec_windows" in cli("export", "net.yaml", "--dataset", "901")
plans = json.loads((preprocessed / "archspec_windows.json").read_text())
settings = plans["configurations"]["3d_fullres"]["architecture"]
assert settings["network_class_name"] == "archspec.nnunet.ArchSpecNet"
ArchSpecNet(1, 3, **settings["arch_kwargs"])(torch.zeros(1, 1, 16, 16, 16))
