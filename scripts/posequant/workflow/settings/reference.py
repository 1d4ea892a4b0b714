"""The JSON schema of config.yaml, for editors, and the same as a page to read. Both come from the settings' classes."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from posequant.base.markdown import table
from posequant.workflow.settings.config import Config

Schema = Mapping[str, Any]

_INTRODUCTION = """\
# config.yaml

Every key, with its values and its default. NAME stands for a name that you choose. Unknown keys are refused.
`make schema` writes this page and [rules/config.schema.json](../rules/config.schema.json), which editors read, from the
classes in `scripts/posequant/workflow/settings/`."""


def json_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of config.yaml."""
    return {"$schema": GenerateJsonSchema.schema_dialect, **Config.model_json_schema(schema_generator=_Generator)}


def page() -> str:
    """Return the description of all keys of config.yaml, as Markdown."""
    schema = json_schema()
    parts = {"": _INTRODUCTION}
    for path, title, part in _sections(schema, schema["$defs"]):
        heading = f"## {path or 'The file'}" + (f" ({title})" if title else "")
        parts[heading] = f"{heading}\n\n{part['description']}\n\n{table(_lines(part, schema['$defs']))}"
    return "\n\n".join(parts.values()) + "\n"


def schema_text() -> str:
    """Return the JSON schema as the text of a file."""
    return json.dumps(json_schema(), indent=2) + "\n"


class _Generator(GenerateJsonSchema):
    """Leaves out what editors need not know: titles made from names, and that keys without a value are None inside."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        found = super().default_schema(schema)
        return {key: value for key, value in found.items() if (key, value) != ("default", None)}

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        found = super().dict_schema(schema)
        return found | ({"additionalProperties": False} if "patternProperties" in found else {})

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        found = super().model_schema(schema)
        if found.get("title") == schema["cls"].__name__:
            del found["title"]
        # The lines of a docstring are broken where the source needs it.
        paragraphs = found["description"].split("\n\n")
        return found | {"description": "\n\n".join(" ".join(paragraph.split("\n")) for paragraph in paragraphs)}


def _sections(schema: Schema, defs: Schema, path: str = "") -> Iterator[tuple[str, str, Schema]]:
    """Yield each mapping with known keys: its path, its kind where it can be of several, its schema."""
    if "$ref" in schema:
        schema = _resolved(schema, defs)
    for one in schema.get("oneOf", schema.get("anyOf", [])) if "properties" not in schema else []:
        yield from _sections(one, defs, path)
    if "properties" in schema and schema["additionalProperties"] is False:
        yield path, schema.get("title", "") if path else "", schema
        for name, value in schema["properties"].items():
            yield from _sections(value, defs, f"{path}.{name}".lstrip("."))
    for value in schema.get("patternProperties", {}).values():
        yield from _sections(value, defs, f"{path}.NAME")
    if "items" in schema:
        yield from _sections(schema["items"], defs, f"{path}[]")


def _lines(schema: Schema, defs: Schema) -> Iterator[dict[str, str]]:
    for name, value in schema["properties"].items():
        described = _resolved(value, defs)
        required = name in schema.get("required", [])
        yield {
            "Key": f"`{name}`",
            "Value": _value(value, defs) + (f" ({described['unit']})" if "unit" in described else ""),
            "Default": _default(described, required),
            "Meaning": described["description"].split("\n\n")[0],
        }


def _resolved(schema: Schema, defs: Schema) -> Schema:
    """Return a schema with what it refers to; its own words come first."""
    return {**defs[schema["$ref"].rpartition("/")[2]], **schema} if "$ref" in schema else schema


def _default(schema: Schema, required: bool) -> str:
    if required:
        return "required"
    if "default" not in schema or isinstance(schema["default"], dict):
        return "-"
    return f"`{json.dumps(schema['default'])}`"


def _value(schema: Schema, defs: Schema) -> str:
    schema = _resolved(schema, defs)
    match schema:
        case {"enum": values}:
            return ", ".join(f"`{value}`" for value in values)
        case {"const": value}:
            return f"`{value}`"
        case {"prefixItems": [first, *_] as items}:
            return f"list of {len(items)}: {_value(first, defs)}"
        case {"items": items}:
            return f"list: {_value(items, defs)}"
        case {"type": "boolean"}:
            return "`true`, `false`"
        case {"type": "integer" | "number" as kind}:
            return ", ".join(["whole number" if kind == "integer" else "number", *_range(schema)])
        case {"type": "string"}:
            return "text"
        case {"anyOf": [{"type": "string"}, {"type": "integer"}]}:
            return "text or whole number"
        case {"propertyNames": {"enum": names}, "additionalProperties": value}:
            return f"{', '.join(f'`{name}`' for name in names)}, each a {_value(value, defs)}"
    return "keys below" if schema.get("additionalProperties") is False or "oneOf" in schema else "keys"


def _range(schema: Schema) -> Iterator[str]:
    words = {
        "minimum": "{} or more",
        "exclusiveMinimum": "above {}",
        "maximum": "at most {}",
        "exclusiveMaximum": "below {}",
    }
    return (words[key].format(schema[key]) for key in words if key in schema)
