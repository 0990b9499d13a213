"""JSON Schema of YAML files, for editors: what stands where, and how it may be left out."""

from copy import deepcopy
from typing import Any, Literal

from archspec.spec.bundled import schema_file
from archspec.spec.schema import ArchSpec
from archspec.spec.training import OF_OPTIMIZERS
from archspec.spec.tree import walk
from blocks.mixers.cycle import CycleMixerSpec

DIALECT = "http://json-schema.org/draft-07/schema#"
"""What the YAML language servers of editors read; `$defs`, which is younger, is found by path."""
Schema = dict[str, Any]


def spec_schema() -> Schema:
    """Return the schema of a spec file, installed components included.

    It holds files to their structure: the loader refuses more, such as a `kind` that neither a
    stage nor `encoder.defaults` names.
    """
    schema = deepcopy(ArchSpec.model_json_schema())
    defs = schema["$defs"]
    stage, encoder = defs["StageSpec"], defs["EncoderSpec"]
    encoder["allOf"] = [_in_stages_or_defaults(name) for name in stage.pop("required")]
    stage["properties"] = {name: _any_kind(one) for name, one in stage["properties"].items()}
    mixers = _with_words(defs[CycleMixerSpec.__name__]["properties"]["of"])
    stage["properties"]["mixer"]["anyOf"].append(
        {"description": "The mixers of the blocks in turn.", **mixers}
    )
    encoder["properties"]["defaults"] = {
        "$ref": "#/$defs/StageSpec",
        "description": "What every stage has where it does not say otherwise.",
    }
    training = defs["TrainingSpec"]["properties"]
    for name in OF_OPTIMIZERS:  # null leaves it out
        training[name] = {"anyOf": [training[name], {"type": "null"}]}
    decoder = schema["properties"]["decoder"]
    for member in decoder["oneOf"]:
        defs[member["$ref"].rpartition("/")[2]].setdefault("required", []).append("kind")
    schema["properties"]["decoder"] = _any_kind(decoder)
    ours = ["encoder", "decoder"]
    schema["required"] = [name for name in schema["required"] if name not in ours]
    schema["oneOf"] = [{"required": ours}, {"required": ["network"]}]
    return {"$schema": DIALECT, **in_dialect(schema)}


def in_dialect(schema: Schema) -> Schema:
    """Return a schema of pydantic's as the dialect writes it."""
    schema = deepcopy(schema)
    for _, node in walk(schema):
        if not isinstance(node, dict):
            continue
        if isinstance(node.get("prefixItems"), list):
            first, *others = node.pop("prefixItems")
            node["items"] = first if all(one == first for one in others) else [first, *others]
        if node.get("type") == "array":  # pydantic takes what a validator stands before for text
            for ours, theirs in (("minItems", "minLength"), ("maxItems", "maxLength")):
                if theirs in node:
                    node[ours] = node.pop(theirs)
    return schema


def editor_line(of: Literal["spec", "space"]) -> str:
    """Return the comment by which an editor finds the installed schema, for a user's own file."""
    return f"# yaml-language-server: $schema={schema_file(of).absolute().as_uri()}"


def with_holes(schema: Schema) -> Schema:
    """Return the schema with a hole of a search space allowed in the place of every value."""
    schema = deepcopy(schema)
    del schema["$defs"]["EncoderSpec"]["allOf"]  # `search.holes` may give what no stage does
    for model in (schema, *schema["$defs"].values()):
        for name, one in model.get("properties", {}).items():
            if name != "kind" or "const" not in one:
                model["properties"][name] = {"anyOf": [_list_of_holes(one), _HOLE]}
            else:
                model["properties"][name] = one
    schema["$defs"]["Hole"] = _hole()
    return schema


def _in_stages_or_defaults(name: str) -> Schema:
    """Demand a field of every stage, or once of the defaults."""
    given: Schema = {"required": [name]}
    stages = {"properties": {"stages": {"items": given}}}
    return {"anyOf": [stages, {"required": ["defaults"], "properties": {"defaults": given}}]}


_HOLE = {"$ref": "#/$defs/Hole"}


def _any_kind(schema: Schema) -> Schema:
    """Return a union without its demand for a kind, which a stage may leave to the defaults."""
    if "oneOf" not in schema:
        return schema
    rest = {k: v for k, v in schema.items() if k not in ("oneOf", "discriminator")}
    return {**rest, "anyOf": schema["oneOf"]}


def _with_words(of: Schema) -> Schema:
    """Let a word stand for its kind in the list of a cycle, and return the list."""
    members = of["items"]
    words = {"enum": list(members["discriminator"]["mapping"]), "title": "Kind"}
    of["items"] = {"anyOf": [words, *members["oneOf"]]}
    return {key: of[key] for key in ("type", "minItems", "maxItems", "items")}


def _list_of_holes(schema: Schema) -> Schema:
    """Return a list whose entries may be holes as well, also where it is one of several forms."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [_list_of_holes(one) for one in schema["anyOf"]]}
    if schema.get("type") != "array" or not isinstance(schema.get("items"), dict):
        return schema
    return {**schema, "items": {"anyOf": [schema["items"], _HOLE]}}


def _hole() -> Schema:
    name = {"type": "string", "description": "What tables call it; its path by default."}
    log = {"type": "boolean", "description": "Draw the logarithm evenly."}
    ends = {"type": "array", "minItems": 2, "maxItems": 2}

    def hole(kind: str, value: Schema, **more: Schema) -> Schema:
        return _mapping({kind: value, **more, "name": name})

    step = {"type": "integer", "exclusiveMinimum": 0}
    return {
        "description": "An open choice of a search space, or the same value as another's.",
        "anyOf": [
            hole("choice", {"type": "array", "minItems": 1}),
            hole("int", {**ends, "items": {"type": "integer"}}, step=step, log=log),
            hole("float", {**ends, "items": {"type": "number"}}, log=log),
            _mapping({"tie": name}),
        ],
    }


def _mapping(properties: Schema) -> Schema:
    """Return the schema of a mapping that has these keys alone, the first of them always."""
    return {
        "type": "object",
        "properties": properties,
        "required": [next(iter(properties))],
        "additionalProperties": False,
    }
