"""The JSON Schemas that ship, by which editors complete files and mark what is wrong in them."""

import json
import random
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from archspec.spec.bundled import bundled_names, schema_file
from archspec.spec.json_schema import editor_line, spec_schema
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from archspec.spec.short_forms import written_out
from archspec.spec.tree import frozen, thawed
from archspec.spec.yaml_file import Source, compose
from blocks.errors import SpecError
from search.space.json_schema import space_schema
from tests.archspec.spec.test_messages import TEXT, WRONG
from tests.fuzz.mutate import mutate

jsonschema = pytest.importorskip("jsonschema")
ROOT = Path(__file__).parents[3]
POINTER = "# yaml-language-server: $schema="

NOT_SEEN = {"mixer without kind", "duplicate key"}
"""What the schema lets pass: a kind may stand in the defaults; a parser keeps one key of two."""
STRUCTURE = {
    *("extra_forbidden", "missing", "literal_error", "union_tag_invalid", "model_attributes_type"),
    *("tuple_type", "string_type", "bool_type", "float_type", "greater_than", "less_than_equal"),
    *("greater_than_equal", "less_than", "too_long", "too_short", "string_pattern_mismatch"),
}


@pytest.mark.parametrize("of", ["spec", "space"])
def test_what_ships_is_of_this_code(of: Literal["spec", "space"]) -> None:
    schema = spec_schema() if of == "spec" else space_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    for file in (schema_file(of), ROOT / "docs" / f"{of}.schema.json"):
        assert file.read_text(encoding="utf-8") == f"{json.dumps(schema, indent=2)}\n", (
            f"archspec schema {of} --force -o specs/{of}.schema.json"
        )


@pytest.mark.parametrize("of", ["spec", "space"])
def test_bundled_files_point_to_it(of: Literal["spec", "space"]) -> None:
    section: Literal["", "search"] = "" if of == "spec" else "search"
    for name in bundled_names(section):
        file = ROOT / "specs" / section / f"{name}.yaml"
        first = file.read_text(encoding="utf-8").partition("\n")[0]
        assert (file.parent / first.removeprefix(POINTER)).samefile(schema_file(of)), name


def test_the_line_for_a_file_elsewhere() -> None:
    line = editor_line("space")
    assert line == f"{POINTER}{schema_file('space').as_uri()}"
    assert len(line.split()) == 3, "language servers read it up to a blank"


@pytest.fixture(scope="module")
def validator() -> Any:
    return jsonschema.Draft7Validator(json.loads(schema_file("spec").read_text(encoding="utf-8")))


@pytest.mark.parametrize("case", WRONG)
def test_it_refuses_the_mistakes_that_messages_are_for(case: str, validator: Any) -> None:
    (old, new), _ = WRONG[case]
    try:
        source = compose(TEXT.replace(old, new, 1), "net.yaml")
    except SpecError:
        return  # not YAML, which every editor knows
    assert validator.is_valid(thawed(source.tree)) is (case in NOT_SEEN)


def test_it_takes_what_the_loader_takes_and_sees_every_mistake_of_structure(
    validator: Any,
) -> None:
    trees = [load(name).tree() for name in ("mamba-unet", "segmaformer", "umamba-bot")]
    keys = sorted({str(key) for tree in trees for key in tree} | {"width", "kind", "norm", "rope"})
    seen = {True: 0, False: 0}
    for seed in range(200):
        draws = random.Random(seed)
        tree = {**draws.choice(trees), "claims": []}
        for _ in range(draws.choice((1, 1, 2))):
            tree = mutate(tree, draws, keys)
        wrong = mistakes(tree)
        if not wrong or wrong & STRUCTURE:
            taken = validator.is_valid(tree)
            assert taken is not bool(wrong), (seed, wrong)
            seen[taken] += 1
    assert min(seen.values()) > 20


def mistakes(tree: Any) -> set[str]:
    """Return what kinds of mistakes the loader finds."""
    try:
        ArchSpec.model_validate(written_out(Source("spec", frozen(tree))).tree)
    except ValidationError as errors:
        return {one["type"] for one in errors.errors()}
    return set()
