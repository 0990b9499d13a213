"""The reference page and the JSON Schemas are made from the models, and hold to the files."""

import json
from pathlib import Path
from typing import Any

import pytest

from archspec.spec.bundled import bundled, bundled_names
from archspec.spec.json_schema import spec_schema
from archspec.spec.reference import page, references
from archspec.spec.tree import thawed
from blocks.base import ComponentSpec
from search.space.json_schema import space_schema
from search.space.settings import SECTIONS

jsonschema = pytest.importorskip("jsonschema")
PAGE = Path(__file__).parents[3] / "docs" / "reference.md"


def test_the_page_is_that_of_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(SECTIONS), (
        "archspec list --fields all --markdown > docs/reference.md"
    )


def test_every_field_says_what_it_takes() -> None:
    for one in references(SECTIONS):
        assert one.doc, one.name
        assert all(entry.values for entry in one.fields), one.name


@pytest.mark.parametrize("part", ["mixer", "block", "ffn", "decoder", "local", "post"])
def test_every_kind_is_there(part: str) -> None:
    from blocks.registry import slots

    names = [one.name for one in references()]
    assert all(f"{part}.{kind}" in names for kind in slots()[part].kinds())


@pytest.fixture(scope="module")
def spec_validator() -> Any:
    schema = spec_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


@pytest.fixture(scope="module")
def space_validator() -> Any:
    schema = space_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def as_json(tree: Any) -> Any:
    return json.loads(json.dumps(thawed(tree)))


def test_bundled_specs_satisfy_the_schema(spec_name: str, spec_validator: Any) -> None:
    spec_validator.validate(as_json(bundled(spec_name).tree))


@pytest.mark.parametrize("name", bundled_names("search"))
def test_bundled_spaces_satisfy_the_schema(name: str, space_validator: Any) -> None:
    space_validator.validate(as_json(bundled(name, "search").tree))


def small() -> dict[str, Any]:
    return {
        "name": "net",
        "patch_size": [16, 16],
        "encoder": {
            "defaults": {"mixer": {"kind": "mamba"}, "ffn": {"kind": "mlp"}},
            "stages": [{"width": 8, "mixer": {"d_state": 4}}, {"width": 8}],
        },
        "decoder": {"kind": "sum", "norm": "group(4)"},
    }


def test_a_stage_may_leave_to_the_defaults_what_they_say(spec_validator: Any) -> None:
    spec_validator.validate(small())


@pytest.mark.parametrize("where", ["stage", "defaults"])
@pytest.mark.parametrize("written", [["conv", "mamba"], ["tom", {"kind": "mamba", "d_state": 8}]])
def test_mixers_in_turn_may_be_a_list(
    written: list[Any], where: str, spec_validator: Any, space_validator: Any
) -> None:
    from archspec.spec.load import load

    for mixer in (written, {"kind": "cycle", "of": written}):
        tree = small()
        encoder = tree["encoder"]
        encoder["stages"] = [{"width": 8}, {"width": 8}]
        (encoder["defaults"] if where == "defaults" else encoder["stages"][0])["mixer"] = mixer
        spec_validator.validate(tree)
        assert load(tree).encoder.stages[0].mixer.kind == "cycle"
        members = [{"choice": ["conv", "mamba"]}, *written]
        encoder["stages"][1]["mixer"] = members
        assert not spec_validator.is_valid(tree)
        space_validator.validate({**tree, "search": {"steps": 10}})


WRONG: dict[str, dict[str, Any]] = {
    "unknown key": {"nme": "x"},
    "missing decoder": {"decoder": None},
    "decoder without kind": {"decoder": {"norm": "layer"}},
    "unknown kind": {"decoder": {"kind": "sun"}},
    "field of another kind": {"decoder": {"kind": "sum", "fue": True}},
    "unknown norm": {"decoder": {"kind": "sum", "norm": "lager"}},
    "width as text": {"encoder": {"stages": [{"width": "8", "mixer": {"kind": "conv"}}]}},
    "stages as mapping": {"encoder": {"stages": {}}},
    "unknown key of a stage": {"encoder": {"stages": [{"wdth": 8}]}},
    "unknown mixer in a list": {"encoder": {"stages": [{"width": 8, "mixer": ["conv", "sun"]}]}},
    "cycle in a list": {"encoder": {"stages": [{"width": 8, "mixer": ["cycle"]}]}},
    "no mixer in a list": {"encoder": {"stages": [{"width": 8, "mixer": []}]}},
    "too large": {"num_classes": 10**6},
    "unknown recipe": {"training": {"optimizer": "lion"}},
    "a hole": {"num_classes": {"choice": [2, 3]}},
}


@pytest.mark.parametrize("case", WRONG)
def test_the_schema_refuses_what_the_loader_does(case: str, spec_validator: Any) -> None:
    from archspec.spec.load import load
    from blocks.base import SpecError

    tree = {**small(), **WRONG[case]}
    assert not spec_validator.is_valid(tree)
    with pytest.raises(SpecError):
        load(tree)


@pytest.mark.parametrize(
    ("hole", "valid"),
    [
        ({"choice": [2, 3]}, True),
        ({"int": [2, 8], "step": 2, "name": "classes"}, True),
        ({"float": [0.1, 1.0], "log": True}, True),
        ({"choice": []}, False),
        ({"int": [2]}, False),
        ({"choice": [2], "nme": "x"}, False),
        ("two", False),
    ],
)
def test_holes_of_spaces(hole: Any, valid: bool, space_validator: Any) -> None:
    tree = {**small(), "num_classes": hole, "search": {"steps": 10}}
    assert space_validator.is_valid(tree) is valid
    assert not space_validator.is_valid({**small(), "search": {"stps": 10}})


def test_every_component_is_complete(component: dict[str, ComponentSpec]) -> None:
    """What a component writes of itself satisfies the schema of its place."""
    ((slot, example),) = component.items()
    tree = small()
    written = as_json(example.model_dump(mode="json"))
    if slot == "decoder":
        tree["decoder"] = written
    else:
        tree["encoder"]["stages"][1][slot] = written
    jsonschema.Draft7Validator(spec_schema()).validate(tree)
