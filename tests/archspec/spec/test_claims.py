"""Claims: what a spec may state about a network, and that nothing follows from it."""

from typing import Any

import pytest

from archspec.costs.flops import cost
from archspec.spec.hashing import arch_hash, trial_hash
from archspec.spec.load import load, validate
from archspec.spec.yaml_file import dump, parse
from blocks.base import SpecError

CLAIM = {"what": "dice", "value": 0.9, "source": "a paper", "confidence": "published"}
SCALES = {None: 1, "M": 1e6, "G": 1e9}


def with_claims(*claims: Any) -> Any:
    return {**load("small-unet").tree(), "claims": list(claims)}


@pytest.mark.parametrize("value", [2.02, 1913025, 10**30, -1, "less than half"])
def test_value_is_kept_as_printed(value: Any) -> None:
    spec = load(with_claims({**CLAIM, "value": value, "unit": "M", "setting": "mean of 3"}))
    claim = validate(parse(dump(spec.tree()), "net.yaml")).claims[0]
    assert claim == spec.claims[0]
    assert (claim.value, type(claim.value)) == (value, type(value))


def test_claims_change_no_hash() -> None:
    sized = {**CLAIM, "at": {"patch_size": [32, 32, 32]}, "dataset": "d", "note": "because"}
    without, stated = load("small-unet"), load(with_claims(CLAIM, sized))
    assert len(stated.claims) == 2
    assert arch_hash(stated) == arch_hash(without)
    assert trial_hash(stated) == trial_hash(without)


REFUSED = {
    "no source": ({"source": ""}, "source: string must have at least 1 character"),
    "boolean": ({"value": True}, "value: must be a number, or the source's words where it gives"),
    "nothing": ({"value": None}, "value: must be a number, or the source's words where it gives"),
    "infinity": ({"value": float("inf")}, "value: must be a number, or the source's words"),
    "quantity": ({"what": "param"}, "what: 'param' is not allowed; allowed: parameters, macs"),
    "unit": ({"unit": "percent"}, "unit: 'percent' is not allowed; allowed: M, G, %, mm"),
    "confidence": ({"confidence": "sure"}, "confidence: 'sure' is not allowed; allowed: published"),
    "size": ({"at": {"patch_size": [96, 0, 96]}}, "at.patch_size: sizes must be positive integers"),
    "batch": ({"at": {"batch": 0}}, "at.batch: must be greater than 0"),
    "unknown size": ({"at": {"patch": [96, 96]}}, "at.patch: unknown key; allowed: in_channels"),
    "against": ({"against": 0}, "against: must be greater than 0"),
    "unknown key": ({"units": "M"}, "units: unknown key; allowed: what, value, unit, setting"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_claims_are_refused(case: str) -> None:
    change, want = REFUSED[case]
    with pytest.raises(SpecError) as caught:
        load(with_claims(CLAIM, {**CLAIM, **change}))
    assert str(caught.value).startswith(f"spec: claims.1.{want}")


def test_claims_of_bundled_specs(spec_name: str) -> None:
    """Results say on what data; what the published code counts is what is built."""
    spec = load(spec_name)
    for claim in spec.claims:
        if claim.what not in ("parameters", "macs", "flops"):
            assert claim.setting, f"{claim.what} {claim.value}: on what data?"
        elif claim.confidence == "code" and not claim.setting:
            assert not isinstance(claim.value, str)
            counted = cost(
                spec,
                in_channels=claim.at.in_channels,
                num_classes=claim.at.num_classes,
                patch_size=claim.at.patch_size,
            )
            built = counted.params if claim.what == "parameters" else counted.macs
            assert built / SCALES[claim.unit] == pytest.approx(claim.value, abs=0.005), claim.what
