"""The JSON Schema of rule files, for editors, written from the tables that rules are read by.

It knows shapes: names, types, choices, ranges. What values mean together (a CIDR block with http) only loading tells.
"""

from __future__ import annotations

from typing import Any

from .shape import Field, Table, Type
from .tables import EGRESS_RULE, OBJECTS

_TYPES = {
    Type.STRING: "string",
    Type.INTEGER: "integer",
    Type.BOOLEAN: "boolean",
    Type.OBJECT: "object",
    Type.LIST: "array",
    Type.STRINGS: "object",
}


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of one document of a rule file, in either API version."""
    definitions: dict[str, Any] = {}
    for version, table in OBJECTS.items():
        _define(table, definitions)
        properties = definitions[table.name]["properties"]
        properties["apiVersion"]["const"] = version
        properties["kind"]["const"] = EGRESS_RULE
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": EGRESS_RULE,
        "description": "A rule of the egress gateway: what it lets out, or refuses. Files may hold several documents.",
        "oneOf": [_reference(table) for table in OBJECTS.values()],
        "$defs": definitions,
    }


def _reference(table: Table) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{table.name}"}


def _define(table: Table, definitions: dict[str, Any]) -> None:
    if table.name in definitions:
        return
    definitions[table.name] = {}  # keeps its place in front of the tables it leads to
    definitions[table.name] = {
        "type": "object",
        "additionalProperties": False,
        "required": list(table.required),
        "properties": {name: _property(known, definitions) for name, known in table.fields.items()},
    }


def _property(known: Field, definitions: dict[str, Any]) -> dict[str, Any]:
    written: dict[str, Any] = {"description": known.description} if known.description else {}
    if known.table is not None:
        _define(known.table, definitions)
    if known.type is Type.OBJECT and known.table is not None:
        return {**written, **_reference(known.table)}
    if known.type in _TYPES:
        written["type"] = _TYPES[known.type]
    if known.type is Type.STRINGS:
        written["additionalProperties"] = {"type": "string"}
    if known.type is Type.LIST:
        written["minItems"] = 1
        if known.table is not None:
            written["items"] = _reference(known.table)
        elif known.items is not None:
            written["items"] = _property(known.items, definitions)
    if known.choices:
        # Case does not matter to the gateway; the two usual spellings are offered.
        upper = (choice.upper() for choice in known.choices)
        written["enum"] = list(dict.fromkeys((*known.choices, *upper)))
    if known.least is not None:
        written["minimum"] = known.least
    if known.most is not None:
        written["maximum"] = known.most
    return written
