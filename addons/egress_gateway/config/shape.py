"""Typed records out of a tree, by tables of fields.

A table says once which fields there are, of which type, and what is known but refused; `read` holds a tree against it
and reports every difference. `schema` writes the same tables as JSON Schema. What a value *means* (a port twice, a
CIDR with http) is not said here.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, field
from enum import StrEnum

from .nodes import Hole, Mapping, Node, Scalar, Sequence
from .problem import Problems, Severity, shown
from .scalars import NULLS, boolean, decimal, kind_of, reading


class Type(StrEnum):
    STRING = "a string"
    INTEGER = "a number"
    BOOLEAN = "true or false"
    OBJECT = "an object"
    LIST = "a list"
    STRINGS = "an object whose values are strings"
    ANYTHING = "anything"
    """Accepted and ignored: what Kubernetes writes into `metadata`."""


@dataclass(frozen=True, slots=True)
class Field:
    type: Type
    description: str
    table: Table | None = None
    """Of an object, or of the objects of a list."""
    items: Field | None = None
    """Of a list."""
    choices: tuple[str, ...] = ()
    """In lower case; compared without regard to case."""
    not_yet: tuple[str, ...] = ()
    """Choices that are known and not supported yet."""
    choices_message: str = ""
    """Said of a value that is none of the choices."""
    least: int | None = None
    most: int | None = None
    range_message: str = "{value} must be in the range {least}..{most}"


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    fields: MappingOf[str, Field]
    required: tuple[str, ...] = ()
    """For the schema; what is said of a missing field is the caller's."""
    not_yet: frozenset[str] = frozenset()
    """Fields that are known and not supported yet."""
    refused: MappingOf[str, str] = field(default_factory=dict)
    """Fields that exist elsewhere, with the message that refuses them."""


@dataclass(frozen=True, slots=True)
class Value:
    """A string, number or boolean of a record, with its place."""

    of: str | int | bool
    node: Scalar
    path: str

    @property
    def text(self) -> str:
        return self.of if isinstance(self.of, str) else ""

    @property
    def number(self) -> int:
        return self.of if isinstance(self.of, int) else 0


@dataclass(slots=True)
class Record:
    """The sound fields of an object. `broken` holds the names of those that were there and were reported."""

    node: Node
    path: str
    values: dict[str, Value] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    lists: dict[str, list[Value | Record]] = field(default_factory=dict)
    keys: dict[str, Scalar] = field(default_factory=dict)
    """Where each field's name stands."""
    empty: dict[str, Scalar] = field(default_factory=dict)
    """Where the names of fields stand that have nothing after them, which is as good as left out."""
    broken: set[str] = field(default_factory=set)

    def place(self, name: str) -> Node:
        """Where to say that the field is missing."""
        return self.empty.get(name, self.node)

    def has(self, name: str) -> bool:
        return name in self.keys

    def text(self, name: str, default: str = "") -> str:
        value = self.values.get(name)
        return value.text if value else default

    def flag(self, name: str) -> bool:
        value = self.values.get(name)
        return value is not None and value.of is True

    def path_of(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


class Shaper:
    """Reads records; everything wrong goes to `problems`."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems

    def error(self, node: Node, path: str, message: str) -> None:
        self.problems.add(node.line, node.column, path, message)

    def warn(self, node: Node, path: str, message: str) -> None:
        self.problems.add(node.line, node.column, path, message, Severity.WARNING)

    def read(self, node: Node, path: str, table: Table) -> Record | None:
        """The record that `node` holds, or None after it was reported as no object at all."""
        if type(node) is not Mapping:
            self._mistyped(node, path, Type.OBJECT)
            return None
        record = Record(node, path)
        for name, (key, value) in node.entries.items():
            known = table.fields.get(name)
            if known is None:
                self._unknown(key, record.path_of(name), table)
                continue
            record.keys[name] = key
            if not self._store(record, name, known, value):
                record.broken.add(name)
        return record

    def _store(self, record: Record, name: str, known: Field, node: Node) -> bool:
        path = record.path_of(name)
        if known.type is Type.ANYTHING:
            return True
        if _is_empty(node):
            record.empty[name] = record.keys.pop(name)
            return True
        if known.type is Type.OBJECT and known.table is not None:
            inner = self.read(node, path, known.table)
            if inner is not None:
                record.records[name] = inner
            return inner is not None
        if known.type is Type.LIST:
            return self._list(record, name, known, node, path)
        if known.type is Type.STRINGS:
            return self._texts(node, path)
        value = self._value(node, path, known)
        if value is not None:
            record.values[name] = value
        return value is not None

    def _list(self, record: Record, name: str, known: Field, node: Node, path: str) -> bool:
        if type(node) is not Sequence:
            self._mistyped(node, path, Type.LIST)
            return False
        found: list[Value | Record] = []
        sound = True
        for index, item in enumerate(node.items):
            item_path = f"{path}[{index}]"
            read: Value | Record | None
            if known.table is not None:
                read = self.read(item, item_path, known.table)
            elif known.items is not None:
                read = self._value(item, item_path, known.items)
            else:
                continue
            if read is None:
                sound = False
            else:
                found.append(read)
        record.lists[name] = found
        return sound

    def _texts(self, node: Node, path: str) -> bool:
        if type(node) is not Mapping:
            self._mistyped(node, path, Type.STRINGS)
            return False
        sound = True
        for key, (_, item) in node.entries.items():
            if self._value(item, f"{path}.{shown(key)}", _ANY_STRING) is None:
                sound = False
        return sound

    def _value(self, node: Node, path: str, known: Field) -> Value | None:
        if type(node) is not Scalar:
            self._mistyped(node, path, known.type)
            return None
        if known.type is Type.INTEGER:
            return self._integer(node, path, known)
        if known.type is Type.BOOLEAN:
            return self._boolean(node, path)
        return self._string(node, path, known)

    def _string(self, node: Scalar, path: str, known: Field) -> Value | None:
        text = node.text
        if node.plain and kind_of(text) != "str":
            if _is_empty(node):
                self.error(node, path, 'a string is needed (write "" if it is meant to be empty)')
            else:
                self.error(node, path, f'{reading(text)} (write "{shown(text)}")')
            return None
        if known.choices and text.lower() not in known.choices:
            if text.lower() in known.not_yet:
                self.error(node, path, f"{shown(text)} is not supported yet (use {' or '.join(known.choices)})")
            else:
                message = known.choices_message or f"{shown(text) or 'an empty string'} is not a choice here"
                self.error(node, path, message + offer(text.lower(), known.choices))
            return None
        return Value(text, node, path)

    def _integer(self, node: Scalar, path: str, known: Field) -> Value | None:
        number = decimal(node.text)
        if not node.plain or number is None:
            self.error(node, path, _why_no_number(node, number))
            return None
        least, most = known.least, known.most
        if least is not None and most is not None and not least <= number <= most:
            message = known.range_message.format(value=number, least=least, most=most)
            self.error(node, path, f"{message} (use a number from {least} to {most})")
            return None
        return Value(number, node, path)

    def _boolean(self, node: Scalar, path: str) -> Value | None:
        if not node.plain or kind_of(node.text) != "bool":
            quoted = "" if node.plain else " in quotes"
            self.error(node, path, f"{shown(node.text)}{quoted} is not a boolean (write true or false)")
            return None
        return Value(boolean(node.text), node, path)

    def _mistyped(self, node: Node, path: str, wanted: Type) -> None:
        if type(node) is Hole:
            return
        found = {Mapping: "an object", Sequence: "a list"}.get(type(node), "")
        if type(node) is Scalar:
            found = "nothing" if _is_empty(node) else f"the value {shown(node.text, 30)}"
        self.error(node, path, f"{wanted} is needed, not {found}{_HOW.get(wanted, '')}")

    def _unknown(self, key: Scalar, path: str, table: Table) -> None:
        name = key.text
        path = shown(path, 120)
        if name in table.refused:
            self.error(key, path, table.refused[name])
        elif name in table.not_yet:
            self.error(key, path, "is not supported yet (leave it out)")
        else:
            self.error(key, path, f"unknown field{offer(name, tuple(table.fields))}")


def offer(name: str, known: tuple[str, ...]) -> str:
    """What to write instead of `name`, in parentheses: the nearest of `known`, or all of them."""
    if len(name) <= 60:
        lower = {candidate.lower(): candidate for candidate in reversed(known)}
        close = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=0.6)
        if close:
            return f" (did you mean {lower[close[0]]}?)"
    return f" (use {', '.join(known)})" if known else ""


def _is_empty(node: Node) -> bool:
    return type(node) is Scalar and node.plain and node.text in NULLS


def _why_no_number(node: Scalar, number: int | None) -> str:
    text = shown(node.text, 30)
    if number is not None:
        return f'"{text}" in quotes is a string (write {text} without quotes)'
    if node.plain and kind_of(node.text) in ("int", "float", "timestamp", "bool"):
        return f"{reading(node.text)} (write a plain decimal number)"
    return f"{text or 'nothing'} is not a number (write a plain decimal number)"


_HOW = {
    Type.OBJECT: " (write fields, `name: value`, below it)",
    Type.LIST: " (write items, `- …`, below it)",
    Type.STRINGS: " (write `name: text` pairs below it)",
}
_ANY_STRING = Field(Type.STRING, "")
