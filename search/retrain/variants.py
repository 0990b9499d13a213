"""The networks of an ablation: a spec with one part exchanged or left out."""

import fnmatch
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from archspec.costs.flops import CONVENTION, Cost, cost_plan
from archspec.network.plan import Plan, plan
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from archspec.spec.tree import frozen, node_at, with_node
from archspec.text import table
from blocks.base import ComponentSpec
from blocks.decoders import DECODERS
from blocks.errors import SpecError, argument
from search.space.match import match_spec
from search.space.settings import MatchSpec

_TOLERANCES = (0.005, 0.03)
_MULTIPLES = (8, 4, 1)
"""Of channels; some norms ask for 8, and hardware prefers it."""

Tree = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """A network without `part`, or with something `instead` of it; the original has neither."""

    part: str
    instead: str
    spec: ArchSpec
    cost: Cost

    @property
    def name(self) -> str:
        return f"{self.part} -> {self.instead}" if self.instead else self.part


@dataclass(frozen=True)
class Variants:
    """The original, what it is compared with, and why some variants cannot be."""

    original: Variant
    others: list[Variant]
    refused: dict[str, str]


@dataclass(frozen=True)
class _Proposal:
    part: str
    instead: str
    makes: tuple[Callable[[], Tree], ...]
    """Ways to write it; the first that is a valid spec stands."""


def variants_of(planned: Plan, *, only: str = "*") -> Variants:
    """Return the variants of a planned network whose names match the shell pattern.

    Per stage: the mixer becomes identity, and a convolution with the stage's width changed so that
    the network keeps its multiply-adds within 0.5 %, or 3 % where widths allow no better; a block's
    convolution beside the mixer, the local module, the FFN's convolution and the convolution after
    the blocks are left out. The decoder becomes each other kind, with the fields that both kinds
    have, and loses FUE.

    Raises:
        SpecError: no name matches, or the network is a library's, which has no parts of ours.
    """
    if planned.spec.network is not None:
        raise SpecError(
            f"{planned.spec.name} is a network of a library, which has no parts to exchange",
            field="network",
            suggestion="ablate a spec with encoder and decoder",
        )
    proposals = list(_proposals(planned))
    chosen = [p for p in proposals if fnmatch.fnmatchcase(f"{p.part} -> {p.instead}", only)]
    if not chosen:
        names = "; ".join(f"{p.part} -> {p.instead}" for p in proposals)
        raise SpecError(
            "no variant has such a name",
            where=argument("only", only),
            suggestion=f"there are: {names or 'none'}",
        )
    original = Variant(planned.spec.name, "", planned.spec, cost_plan(planned))
    others, refused = [], {}
    for proposal in chosen:
        made = _first_valid(proposal, planned)
        if isinstance(made, Variant):
            others.append(made)
        else:
            refused[f"{proposal.part} -> {proposal.instead}"] = made
    return Variants(original, others, refused)


def variants_text(variants: Variants) -> str:
    """Return what the variants cost, and what that differs from the original."""
    base = variants.original.cost
    rows = [["", "GMAC", "scan GFLOP", "parameters"]]
    rows.append([variants.original.name, *_figures(base.macs, base.scan_flops, base.params)])
    for one in variants.others:
        cost = one.cost
        more = (cost.macs - base.macs, cost.scan_flops - base.scan_flops, cost.params - base.params)
        rows.append([one.name, *_figures(*more, sign="+")])
    lines = [*table(rows), "Variants: what they cost more than the original (-: less)."]
    lines += [f"left out: {name}: {reason}" for name, reason in variants.refused.items()]
    return "\n".join(lines)


def variants_json(variants: Variants) -> dict[str, Any]:
    """Return the costs of one forward pass at batch 1, and the reasons of what was left out."""
    everyone = (variants.original, *variants.others)
    return {
        "convention": CONVENTION,
        "networks": [
            {
                "name": one.name,
                "macs": one.cost.macs,
                "scan_flops": one.cost.scan_flops,
                "flops": one.cost.flops,
                "params": one.cost.params,
            }
            for one in everyone
        ],
        "left_out": variants.refused,
    }


def _figures(macs: int, scan_flops: int, params: int, sign: str = "") -> list[str]:
    return [f"{macs / 1e9:{sign}.3f}", f"{scan_flops / 1e9:{sign}.3f}", f"{params:{sign},}"]


def _first_valid(proposal: _Proposal, planned: Plan) -> Variant | str:
    """Return the variant, or why it cannot be."""
    reason = ""
    for make in proposal.makes:
        try:
            tree = make()
            candidate = load({**tree, "name": _word(f"{tree['name']}-{proposal.part}")})
            made = plan(candidate, planned.sizes)
            instead = proposal.instead
            if instead == "matched conv":
                index = int(proposal.part.split()[1])
                instead = f"conv of width {made.stages[index].out.channels}"
            return Variant(proposal.part, instead, candidate, cost_plan(made))
        except SpecError as error:
            reason = error.line
    return reason


def _proposals(planned: Plan) -> Iterator[_Proposal]:
    tree = planned.spec.tree()
    macs = cost_plan(planned).macs
    for index, stage in enumerate(planned.spec.encoder.stages):
        at = f"stage {index}"
        if stage.depth > 0:
            yield from _mixer_proposals(tree, index, stage.mixer.kind, macs, planned)
        block = stage.block.model_dump(mode="json")
        if stage.depth > 0 and block.get("gate", "none") != "none":
            made = _staged(tree, index, block={**block, "gate": "none"})
            yield _Proposal(f"{at} gate {block['gate']}", "none", (made,))
        if stage.has_local:
            made = _staged(tree, index, local={"kind": "none"})
            yield _Proposal(f"{at} local {stage.local.kind}", "none", (made,))
        if stage.depth > 0 and stage.ffn.kind == "mix":
            made = _staged(tree, index, ffn={"kind": "mlp", "ratio": stage.ffn.ratio})
            yield _Proposal(f"{at} ffn mix", "mlp", (made,))
        if stage.post.kind != "none":
            made = _staged(tree, index, post={"kind": "none"})
            yield _Proposal(f"{at} post {stage.post.kind}", "none", (made,))
    yield from _decoder_proposals(tree)


def _mixer_proposals(
    tree: Tree, index: int, kind: str, macs: int, planned: Plan
) -> Iterator[_Proposal]:
    part = f"stage {index} mixer {kind}"
    if kind != "identity":
        yield _Proposal(part, "identity", (_staged(tree, index, mixer={"kind": "identity"}),))
    if kind in ("identity", "conv"):
        return

    def matched(tolerance: float, multiple: int) -> Callable[[], Tree]:
        target = MatchSpec(
            macs=macs,
            widths=(f"encoder.stages.{index}.width",),
            multiple=multiple,
            tolerance=tolerance,
        )
        changed = _staged(tree, index, mixer={"kind": "conv"})
        return lambda: match_spec(changed(), target, planned.sizes).tree()

    makes = tuple(matched(t, multiple) for t in _TOLERANCES for multiple in _MULTIPLES)
    yield _Proposal(part, "matched conv", makes)


def _decoder_proposals(tree: Tree) -> Iterator[_Proposal]:
    own = tree["decoder"]
    for kind, member in DECODERS.kinds().items():
        if kind != own["kind"]:
            makes = tuple(_decoder(tree, fields) for fields in _shared(own, member))
            yield _Proposal(f"decoder {own['kind']}", kind, makes)
    if own.get("fue"):
        yield _Proposal("decoder fue", "none", (_decoder(tree, {**own, "fue": False}),))


def _shared(own: Tree, member: type[ComponentSpec]) -> Iterator[Tree]:
    """Yield the other kind's fields: those that both have, then less the head, then defaults."""
    kind = member.model_fields["kind"].default
    both = {key: value for key, value in own.items() if _takes(member, key, value)}
    yield {**both, "kind": kind}
    yield {**{key: value for key, value in both.items() if key != "head"}, "kind": kind}
    yield {"kind": kind}


def _takes(member: type[ComponentSpec], field: str, value: Any) -> bool:
    """Say whether the kind has the field, and the value for it: a word may be another kind's."""
    if field == "kind" or field not in member.model_fields:
        return False
    try:
        member.model_validate({field: frozen(value)})
    except ValidationError:
        return False
    return True


def _staged(tree: Tree, index: int, **parts: Any) -> Callable[[], Tree]:
    """Return a function that gives the tree with parts of one stage replaced."""
    stage = ("encoder", "stages", index)
    changed: Tree = with_node(tree, stage, {**node_at(tree, stage), **parts})
    return lambda: changed


def _decoder(tree: Tree, fields: Tree) -> Callable[[], Tree]:
    return lambda: {**tree, "decoder": fields}


def _word(text: str) -> str:
    return text.replace(" ", "-")
