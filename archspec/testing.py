"""What archspec relies on in a component, as a check that a package's tests can call.

    from archspec.testing import check_component

    def test_my_mixer():
        check_component(MyMixerSpec)

Our own components pass the same check.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from archspec.costs.flops import cost_plan
from archspec.network.build import build_plan
from archspec.network.input_sizes import OF_SPEC, InputSizes
from archspec.network.plan import Plan, plan
from archspec.network.segnet import SegNet
from archspec.nnunet.contract import check_contract, network_arguments, target_sizes
from archspec.spec.hashing import arch_hash, trial_hash
from archspec.spec.load import load, validate
from archspec.spec.schema import ArchSpec
from archspec.spec.yaml_file import dump, parse
from blocks.base import ComponentSpec
from blocks.registry import slots

PATCHES = {2: (16, 32), 3: (16, 32, 16)}
WIDTH = 16


class ComponentError(AssertionError):
    """A component breaks a rule; the text says which one, and in which network."""


def check_component(
    component: ComponentSpec | type[ComponentSpec], *, ndims: Sequence[int] = tuple(PATCHES)
) -> None:
    """Build small networks around a component, in 2-D and 3-D, and hold them to every rule.

    A class stands for itself with its defaults; give the rest as examples, one call each, in the
    `ndims` that they suit where a field has an entry per axis. It must be registered. Rules: the
    spec survives YAML; the network has the shapes that the plan says, at other input sizes too;
    every parameter gets a finite gradient; the same network on the meta device has the same weights
    and counted FLOPs; weights reload to the same logits; copies and bfloat16 autocast work; and
    nnU-Net can build, train and reload it.

    Raises:
        ComponentError: a rule is broken.
        SpecError: the component is not registered, or refuses its own defaults.
    """
    example = component() if isinstance(component, type) else component
    for ndim in ndims:
        spec = network_around(example, ndim)
        for rule in _RULES:
            torch.manual_seed(0)
            try:
                rule(spec)
            except ComponentError as error:
                where = f"{type(example).__name__} in {ndim}-D, {rule.__name__.strip('_')}"
                raise ComponentError(f"{where}: {error}") from error.__cause__


def slot_of(component: ComponentSpec) -> str:
    """Return the name of the place that the component fills.

    Raises:
        ComponentError: it is registered for none.
    """
    for name, slot in slots().items():
        if type(component) in slot.kinds().values():
            return name
    raise ComponentError(f"{type(component).__name__} is not registered, see archspec.register_*")


def network_around(
    component: ComponentSpec,
    ndim: int,
    *,
    strides: Sequence[Any] = (2, 2, 2),
    patch_size: Sequence[int] | None = None,
) -> ArchSpec:
    """Return a small network of stages that all have the component, or whose decoder it is."""
    slot, tree = slot_of(component), component.model_dump(mode="json")
    stage: dict[str, Any] = {"width": WIDTH, "mixer": {"kind": "conv"}}
    decoder = tree if slot == "decoder" else {"kind": "sum"}
    if slot != "decoder":
        stage[slot] = tree
    entered = stage.get("downsample", {})
    free = "kind" not in entered  # the strides of another kind are its own matter
    stages = [
        {**stage, "downsample": {**entered, "stride": stride} if free else entered}
        for stride in strides
    ]
    return load(
        {
            "name": "around",
            "patch_size": list(patch_size or PATCHES[ndim]),
            "encoder": {"stages": stages},
            "decoder": decoder,
            "deep_supervision": {"heads": 2},
        }
    )


def check_shapes(net: SegNet, planned: Plan, x: Tensor) -> None:
    """Hold a forward pass, with and without deep supervision, to what the plan says.

    Raises:
        ComponentError: a shape differs.
    """
    shapes: list[tuple[int, ...]] = []
    hooks = [
        stage.register_forward_hook(lambda _, __, out: shapes.append(tuple(out[0].shape)))
        for stage in net.stages
    ]
    out = net(x)
    for hook in hooks:
        hook.remove()
    behind = [one.out for one in planned.stages] or planned.skips[-1:]
    wanted = [(len(x), at.channels, *at.grid) for at in behind]
    _same("the stages give", shapes, wanted)
    _same("logits are", tuple(out.shape), (len(x), planned.num_classes, *x.shape[2:]))
    net.decoder.deep_supervision = True
    grids = [tuple(one.shape[2:]) for one in net(x)]
    net.decoder.deep_supervision = False
    if len(planned.output_grids) > 1:
        _same("heads are on grids", grids, list(planned.output_grids))
    _same("nnU-Net's targets are on grids", target_sizes(planned), grids)


def _yaml_round_trip(spec: ArchSpec) -> None:
    text = dump(spec.tree())
    again = validate(parse(text, "net.yaml"))
    _same("read from YAML it is", again, spec)
    _same("written again it is", dump(again.tree()), text)
    _same(
        "its hashes are", (arch_hash(again), trial_hash(again)), (arch_hash(spec), trial_hash(spec))
    )


def _shapes(spec: ArchSpec) -> None:
    planned = _planned(spec, InputSizes(in_channels=3, num_classes=4))
    net = build_plan(planned)
    x = torch.randn(2, 3, *planned.patch_size)
    check_shapes(net, planned, x)
    _require(bool(torch.isfinite(net(x)).all()), "logits are not finite")


def _other_sizes(spec: ArchSpec) -> None:
    net = build_plan(_planned(spec))
    for size in (3, 5):
        grid = tuple(size * step + (size > 3) for step in net.total_stride)
        _same(f"at {list(grid)} logits are", tuple(net(torch.randn(1, 1, *grid)).shape[2:]), grid)


def _gradients(spec: ArchSpec) -> None:
    planned = _planned(spec)
    net = build_plan(planned)
    net.decoder.deep_supervision = True
    outputs = net(torch.randn(2, 1, *planned.patch_size))
    sum(out.square().mean() for out in outputs).backward()
    for name, parameter in net.named_parameters():
        _require(parameter.grad is not None, f"{name} gets no gradient")
        finite = parameter.grad is not None and bool(torch.isfinite(parameter.grad).all())
        _require(finite, f"the gradient of {name} is not finite")


def _meta_device(spec: ArchSpec) -> None:
    planned = _planned(spec)
    with torch.device("meta"):
        net = build_plan(planned)
        check_shapes(net, planned, torch.empty(1, 1, *planned.patch_size))
    real = build_plan(planned)
    stray = [name for name, one in _tensors(net) if not one.is_meta]
    _require(not stray, f"{', '.join(stray)} is not on the device that it is built on")
    _same("weights on meta are", _weights(net), _weights(real))
    counted = cost_plan(planned)
    _same("parameters counted", counted.params, sum(p.numel() for p in real.parameters()))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        real.eval()(torch.randn(1, 1, *planned.patch_size))
    _same("FLOPs of a real run", counter.get_total_flops(), counted.flops)


def _state_dict(spec: ArchSpec) -> None:
    planned = _planned(spec)
    first, second = build_plan(planned).eval(), build_plan(planned).eval()
    x = torch.randn(1, 1, *planned.patch_size)
    second.decoder.deep_supervision = True
    _same("keys are", list(second.state_dict()), list(first.state_dict()))
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        same = torch.equal(first(x), second(x)[0]) and torch.equal(first(x), first(x))
        _require(same, "equal weights do not give equal logits in evaluation")
        copied = copy.deepcopy(first)
        _require(torch.equal(copied(x), first(x)), "a deep copy gives other logits")


def _autocast(spec: ArchSpec) -> None:
    planned = _planned(spec)
    net = build_plan(planned)
    with _without_onednn():
        with torch.autocast("cpu", torch.bfloat16):
            out = net(torch.randn(2, 1, *planned.patch_size))
        out.float().square().mean().backward()
    finite = all(bool(torch.isfinite(p.grad).all()) for p in net.parameters() if p.grad is not None)
    _require(bool(torch.isfinite(out).all()) and finite, "not finite under bfloat16 autocast")


def _nnunet(spec: ArchSpec) -> None:
    planned = _planned(spec)
    check_contract(planned, network_arguments(planned), batch_size=2)


_RULES: tuple[Callable[[ArchSpec], None], ...] = (
    _yaml_round_trip,
    _shapes,
    _other_sizes,
    _gradients,
    _meta_device,
    _state_dict,
    _autocast,
    _nnunet,
)


@contextmanager
def _without_onednn() -> Iterator[None]:
    """On CPUs with AVX512_BF16 its bfloat16 weight gradient reads memory that nobody wrote."""
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


def _planned(spec: ArchSpec, sizes: InputSizes = OF_SPEC) -> Plan:
    return plan(spec, sizes)


def _tensors(net: nn.Module) -> list[tuple[str, Tensor]]:
    return [*net.named_parameters(), *net.named_buffers()]


def _weights(net: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in net.state_dict().items()}


def _same(what: str, found: object, wanted: object) -> None:
    _require(found == wanted, f"{what} {found}, not {wanted}")


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise ComponentError(text)
