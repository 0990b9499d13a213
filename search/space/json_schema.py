"""JSON Schema of the YAML files of search spaces."""

from archspec.spec.json_schema import Schema, in_dialect, spec_schema, with_holes
from search.space.settings import SearchSettings


def space_schema() -> Schema:
    """Return the schema of a space file: that of a spec with holes, and the section `search`."""
    schema = with_holes(spec_schema())
    settings = in_dialect(SearchSettings.model_json_schema())
    schema["$defs"] |= settings.pop("$defs")
    schema["$defs"]["SearchSettings"] = settings
    schema["properties"]["search"] = {"$ref": "#/$defs/SearchSettings"}
    schema["title"] = "Space"
    return schema
