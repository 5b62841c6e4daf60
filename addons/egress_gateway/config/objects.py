"""One document in, the rules it holds out: which version and kind it is decides who reads on.

A `kind: List`, as kubectl prints one, holds several objects.
"""

from __future__ import annotations

from dataclasses import dataclass

from egress_gateway.policy.rule import EgressRule, Source

from .identity import read_identity
from .istio_rule import read_istio_rule
from .nodes import Hole, Mapping, Node, Scalar, Sequence
from .own_rule import read_own_rule
from .problem import shown
from .scalars import kind_of
from .shape import Record, Shaper, offer
from .tables import EGRESS_RULE, ISTIO, KINDS_NOT_YET, OBJECTS, OURS

_READERS = {ISTIO: read_istio_rule, OURS: read_own_rule}
_LIST = "List"
_LIST_VERSION = "v1"


@dataclass(frozen=True, slots=True)
class Found:
    rule: EgressRule
    node: Node
    in_list: bool


def read_objects(shaper: Shaper, root: Node) -> list[Found]:
    """The sound rules of the document `root`."""
    if type(root) is Mapping and _peek(root, "kind") == _LIST:
        return _read_list(shaper, root)
    rule = _read_object(shaper, root, "")
    return [Found(rule, root, False)] if rule else []


def _read_list(shaper: Shaper, root: Mapping) -> list[Found]:
    for name, (key, _) in root.entries.items():
        if name not in ("apiVersion", "kind", "metadata", "items"):
            shaper.error(key, shown(name), "unknown field in a List (use apiVersion, kind, metadata, items)")
    version = _peek(root, "apiVersion")
    if version not in ("", _LIST_VERSION):
        shaper.error(root.entries["apiVersion"][1], "apiVersion", f"a List is of apiVersion {_LIST_VERSION}")
    items = root.entries.get("items")
    if items is None or type(items[1]) is not Sequence:
        shaper.error(items[1] if items else root, "items", "a List needs a list of items (write items: [])")
        return []
    found = []
    for index, item in enumerate(items[1].items):
        rule = _read_object(shaper, item, f"items[{index}]")
        if rule:
            found.append(Found(rule, item, True))
    return found


def _read_object(shaper: Shaper, node: Node, path: str) -> EgressRule | None:
    if type(node) is not Mapping:
        if type(node) is not Hole:
            shaper.error(node, path, f"an {EGRESS_RULE} is needed here (write apiVersion, kind, metadata and spec)")
        return None
    prefix = f"{path}." if path else ""
    version = _version(shaper, node, prefix)
    if version is None or not _is_egress_rule(shaper, node, prefix):
        return None
    record = shaper.read(node, path, OBJECTS[version])
    if record is None:
        return None
    identity = read_identity(shaper, record)
    spec = record.records.get("spec")
    if spec is None:
        if "spec" in record.broken:
            return None
        spec = Record(record.place("spec"), record.path_of("spec"))
    source = Source(shaper.problems.file, node.line, node.column)
    return _READERS[version](shaper, spec, identity, source)


def _version(shaper: Shaper, node: Mapping, prefix: str) -> str | None:
    if "apiVersion" not in node.entries:
        return ISTIO
    value = node.entries["apiVersion"][1]
    text = _peek(node, "apiVersion")
    if text in OBJECTS:
        return text
    if type(value) is not Hole:
        message = f"{shown(text) or 'nothing'} is not an API version here{offer(text, tuple(OBJECTS))}"
        shaper.error(value, f"{prefix}apiVersion", message)
    return None


def _is_egress_rule(shaper: Shaper, node: Mapping, prefix: str) -> bool:
    kind = _peek(node, "kind")
    if kind == EGRESS_RULE:
        return True
    place: Node = node.entries["kind"][1] if "kind" in node.entries else node
    if type(place) is Hole:
        return False
    if kind in KINDS_NOT_YET:
        message = f"{kind} is not supported yet (only {EGRESS_RULE} is)"
    elif kind:
        message = f"{shown(kind)} is not a kind here (write {EGRESS_RULE})"
    else:
        message = f"is missing (write kind: {EGRESS_RULE})"
    shaper.error(place, f"{prefix}kind", message)
    return False


def _peek(node: Mapping, name: str) -> str:
    """The text of a field, empty where there is none."""
    entry = node.entries.get(name)
    if entry is None or type(entry[1]) is not Scalar:
        return ""
    value = entry[1]
    return "" if value.plain and kind_of(value.text) == "null" else value.text
