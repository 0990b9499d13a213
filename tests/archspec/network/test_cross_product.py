"""Every mixer in every block with every FFN under every decoder, on odd and anisotropic grids.

As they come, components refuse nothing: any mixer fits any stage, any decoder any encoder. With a
field changed, a combination works or is refused by the plan, which names the field.
"""

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from archspec import plan
from archspec.costs.flops import cost_plan
from archspec.network.build import build_plan
from archspec.network.plan import Plan
from archspec.network.segnet import SegNet
from archspec.spec.load import load, validate
from archspec.spec.schema import ArchSpec
from archspec.spec.yaml_file import dump, parse
from blocks.base import ComponentSpec, Grid, SpecError
from blocks.decoders import AnyDecoder
from blocks.downsample import AnyDownsample
from blocks.ffn import AnyFFN
from blocks.local import AnyLocal
from blocks.mixers import AnyMixer
from blocks.post import AnyPost
from blocks.registry import classes_in
from blocks.skip import AnySkip
from blocks.wrappers import AnyBlock

UNIONS = {"mixer": AnyMixer, "block": AnyBlock, "ffn": AnyFFN, "decoder": AnyDecoder}
OTHERS = {"local": AnyLocal, "post": AnyPost, "skip": AnySkip, "downsample": AnyDownsample}


def members(union: Any) -> tuple[type[ComponentSpec], ...]:
    return tuple(classes_in(union))


MEMBERS = {part: members(union) for part, union in UNIONS.items()}
DRAWN = MEMBERS | {part: members(union) for part, union in OTHERS.items()}
WIDTHS = (6, 5, 4)


@dataclass(frozen=True)
class Layout:
    """Strides of the stages at a patch size that they divide, and the number of heads."""

    patch_size: Grid
    strides: tuple[Grid, ...]
    heads: int = 1


LAYOUTS = {
    "2d-odd": Layout((6, 10), ((2, 1), (1, 2), (1, 1)), heads=2),
    "2d-full": Layout((10, 7), ((1, 1), (2, 1))),
    "2d-point": Layout((6, 6), ((3, 2), (2, 3))),
    "3d-odd": Layout((6, 10, 6), ((2, 1, 2), (1, 2, 1), (1, 1, 1)), heads=2),
    "3d-thin": Layout((1, 6, 10), ((1, 1, 1), (1, 2, 2))),
    "3d-cube": Layout((6, 6, 12), ((1, 2, 2), (2, 1, 2))),
}

Row = tuple[str, ...]
Variants = Callable[[ComponentSpec], dict[str, list[ComponentSpec]]]


def kind(member: type[ComponentSpec]) -> str:
    return str(member.model_fields["kind"].default)


ROWS: list[Row] = list(product(*(map(kind, found) for found in MEMBERS.values()), LAYOUTS))


def covering(rows: Iterable[Row]) -> set[Row]:
    """Return few of the rows, in which every pair of words of any two columns occurs.

    Greedy: rows with the most pairs that are new come first.
    """
    order, seen, kept = list(rows), set[Any](), set[Row]()
    random.Random(0).shuffle(order)
    for wanted in range(len(order[0]) * (len(order[0]) - 1) // 2, 0, -1):
        for row in order:
            pairs = set(combinations(enumerate(row), 2))
            if len(pairs - seen) >= wanted:
                seen |= pairs
                kept.add(row)
    return kept


SAMPLED = {
    row for ndim in "23" for row in covering([row for row in ROWS if row[-1].startswith(ndim)])
}


def network(parts: dict[str, ComponentSpec], layout: Layout) -> ArchSpec:
    """Declare a network with the mixer, block and FFN in all stages, the others in the first."""
    trees = {part: component.model_dump(mode="json") for part, component in parts.items()}
    stages: list[dict[str, Any]] = [
        {"width": width, **{part: trees[part] for part in ("mixer", "block", "ffn")}}
        for width, _ in zip(WIDTHS, layout.strides, strict=False)
    ]
    stages[0] |= {part: trees[part] for part in OTHERS if part in trees}
    for stage, stride in zip(stages, layout.strides, strict=True):
        stage["downsample"] = {**stage.get("downsample", {}), "stride": stride}
    return load(
        {
            "name": "cross",
            "patch_size": layout.patch_size,
            "encoder": {"stages": stages},
            "decoder": trees["decoder"],
            # heads sit on the grids of skips: a stage without one leaves fewer
            "deep_supervision": {
                "heads": 1 if stages[0].get("skip", {}).get("tap") == "none" else layout.heads
            },
        }
    )


def trace(net: SegNet, x: Tensor) -> tuple[list[Any], list[Tensor]]:
    """Run the network; return the shapes that mixers get and stages give, and the outputs."""
    shapes: list[Any] = []
    hooks = []

    def skip_of(index: int) -> Callable[..., None]:
        def note(_module: Any, _inputs: Any, outs: Any) -> None:
            shapes.extend(("skip", index, *one.shape) for one in outs[1:] if one is not None)

        return note

    for index, stage in enumerate(net.stages):
        for name, module in stage.named_modules():
            if name.rpartition(".")[2] == "mixer":
                note = lambda _m, inputs, i=index: shapes.append(("mixed", i, *inputs[0].shape))  # noqa: E731
                hooks.append(module.register_forward_pre_hook(note))
        hooks.append(stage.register_forward_hook(skip_of(index)))
    out = net(x)
    for hook in hooks:
        hook.remove()
    return shapes, [out] if isinstance(out, Tensor) else out


def check_shapes(net: SegNet, planned: Plan, x: Tensor, *, flag: bool) -> None:
    """Compare what a run gives, with the flag of deep supervision or without, with the plan."""
    want: list[Any] = []
    for index, stage in enumerate(planned.stages):
        mixed = ("mixed", index, len(x), stage.mixed.channels, *stage.mixed.grid)
        want += [mixed] * stage.spec.depth
        if stage.spec.skip.tap != "none":
            want.append(("skip", index, len(x), stage.out.channels, *stage.out.grid))
    net.decoder.deep_supervision = flag
    shapes, outputs = trace(net, x)
    net.decoder.deep_supervision = False
    assert shapes == want
    assert all(tuple(out.shape[:2]) == (len(x), planned.num_classes) for out in outputs)
    grids = tuple(tuple(out.shape[2:]) for out in outputs)
    assert grids[0] == planned.patch_size
    assert len(grids) == (len(planned.strides) - 1 if flag else 1)
    if flag and len(planned.output_grids) > 1:
        assert grids == planned.output_grids


def check_step(net: SegNet, x: Tensor) -> None:
    """Train one step on all outputs; every parameter gets a finite gradient."""
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    net.decoder.deep_supervision = True
    sum(out.square().mean() for out in net(x)).backward()
    net.decoder.deep_supervision = False
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert any(parameter.grad.any() for parameter in net.stages.parameters())
    optimizer.step()
    assert all(torch.isfinite(out).all() for out in (net(x), *net.parameters()))


def check_flag(net: SegNet) -> None:
    """Compare the state dict with the flag on and off."""
    off = {name: value.clone() for name, value in net.state_dict().items()}
    net.decoder.deep_supervision = True
    on = net.state_dict()
    net.decoder.deep_supervision = False
    assert list(on) == list(off)
    assert all(torch.equal(on[name], value) for name, value in off.items())


def check_other_size(net: SegNet, planned: Plan) -> None:
    """Run at another size, which the network must take or refuse as the plan does."""
    size = tuple(3 * step for step in planned.total_stride)
    try:
        plan(planned.spec, patch_size=size)
    except SpecError:
        with pytest.raises(ValueError, match="must divide"):
            net(torch.zeros(1, 1, *size))
    else:
        assert net(torch.zeros(1, 1, *size)).shape[2:] == size


def check(spec: ArchSpec) -> None:
    """Check a spec and its network in every way that this file is about."""
    text = dump(spec.tree())
    assert validate(parse(text, "net.yaml")) == spec
    assert dump(validate(parse(text, "net.yaml")).tree()) == text
    planned = plan(spec)
    with torch.device("meta"):
        meta = build_plan(planned)
        x = torch.empty(1, 1, *planned.patch_size)
    check_shapes(meta, planned, x, flag=True)
    net = build_plan(planned)
    shapes = [{k: v.shape for k, v in one.state_dict().items()} for one in (meta, net)]
    assert shapes[0] == shapes[1]
    check_flag(net)
    check_other_size(net, planned)
    x = torch.randn(2, 1, *planned.patch_size)
    check_shapes(net, planned, x, flag=False)
    check_shapes(net, planned, x, flag=True)
    counted = cost_plan(planned)
    assert counted.params == sum(parameter.numel() for parameter in net.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x[:1])
    assert counted.flops == counter.get_total_flops() > 0
    check_step(net, x)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(r, id="-".join(r), marks=[] if r in SAMPLED else [pytest.mark.long])
        for r in ROWS
    ],
)
def test_as_they_come(row: Row) -> None:
    *kinds, layout = row
    parts = {
        part: next(member() for member in found if kind(member) == word)
        for (part, found), word in zip(MEMBERS.items(), kinds, strict=True)
    }
    check(network(parts, LAYOUTS[layout]))


def test_sample_has_every_pair() -> None:
    for first, second in combinations(range(len(ROWS[0]) - 1), 2):
        for ndim in "23":
            pairs = [
                {(row[first], row[second]) for row in rows if row[-1].startswith(ndim)}
                for rows in (ROWS, SAMPLED)
            ]
            assert pairs[0] == pairs[1]
    assert len(SAMPLED) < len(ROWS) / 10


@dataclass(frozen=True)
class Draw:
    """Components with some fields changed, by part, and the layout around them."""

    parts: dict[str, ComponentSpec]
    changed: dict[str, str]
    layout: str


def draw(seed: int, variants: Variants) -> Draw:
    """Change a field of about a third of the components of a random combination."""
    rng = random.Random(seed)
    parts, changed = {}, {}
    for part, found in DRAWN.items():
        parts[part] = rng.choice(found)()
        fields = variants(parts[part])
        if fields and rng.random() < 0.3:
            changed[part] = rng.choice(list(fields))
            parts[part] = rng.choice(fields[changed[part]])
    return Draw(parts, changed, rng.choice(list(LAYOUTS)))


def refusal(drawn: Draw) -> str | None:
    """Return why the plan refuses, after checking that the reason is one field that was changed."""
    spec = network(drawn.parts, LAYOUTS[drawn.layout])
    try:
        plan(spec)
    except SpecError as error:
        for line, one in zip(str(error).splitlines(), error.problems, strict=True):
            path = one.field.removeprefix("encoder.stages.").lstrip("0123456789").lstrip(".")
            part, _, field = path.partition(".")
            assert field in ("kind", drawn.changed.get(part)), line
            assert re.search(r"\b(must|needs|use|leave|give)\b", line), line
        return str(error)
    return None


def test_refusals_name_a_field_and_are_few(variants: Variants) -> None:
    draws = [draw(seed, variants) for seed in range(2000)]
    refused = [drawn for drawn in draws if refusal(drawn) is not None]
    assert len(refused) < len(draws) / 3
    taken = [drawn for drawn in draws if drawn not in refused]
    for part, found in DRAWN.items():
        for member in found:
            assert sum(type(drawn.parts[part]) is member for drawn in taken) > 100


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=[] if n < 20 else [pytest.mark.long]) for n in range(300)]
)
def test_with_fields_changed(seed: int, variants: Variants) -> None:
    drawn = draw(seed, variants)
    if refusal(drawn) is None:
        check(network(drawn.parts, LAYOUTS[drawn.layout]))
