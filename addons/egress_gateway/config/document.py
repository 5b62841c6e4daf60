"""One object of a rule file: the rule it means, and the text its author wrote."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from egress_gateway.policy.rule import EgressRule, Source

from .compose import compose
from .limits import DEFAULT_LIMITS
from .nodes import Mapping, Node, Scalar, Sequence
from .problem import Problems
from .scalars import boolean, decimal, kind_of

_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Document:
    rule: EgressRule
    written: str
    """One document of YAML that means the object: its author's, or JSON where the object was an item of a List."""
    lead: int = 0
    """How many characters of `written` are comments in front of the object."""
    generated: bool = False
    """`written` is not its author's text."""
    kind: str = "EgressRule"

    @property
    def source(self) -> Source:
        return self.rule.source or Source("", 0)

    @property
    def namespace(self) -> str:
        return self.rule.namespace

    @property
    def name(self) -> str:
        return self.rule.name

    @property
    def api_version(self) -> str:
        return self.rule.api_version

    @property
    def key(self) -> tuple[str, str, str]:
        """`(kind, namespace, name)`, which is unique in a rules directory."""
        return (self.kind, self.namespace, self.name)

    @property
    def ref(self) -> str:
        """As istioctl writes it: `egress-rule/default/googleapis`."""
        return object_ref(self.kind, self.namespace, self.name)

    @property
    def text(self) -> str:
        """The object as YAML, its author's comments included; ends in a newline, holds no `---`."""
        if self.generated:
            return dump_yaml(self.data())
        return self.written if self.written.endswith("\n") else self.written + "\n"

    def data(self) -> dict[str, Any]:
        """The object as plain dicts, lists, strings, numbers and booleans, for `-o json`."""
        documents = compose(self.written, Problems("", 1), DEFAULT_LIMITS).documents
        data = plain(documents[0].root) if documents else {}
        return data if isinstance(data, dict) else {}


def object_ref(kind: str, namespace: str, name: str) -> str:
    """`egress-rule/default/googleapis` for an EgressRule."""
    return f"{_HUMP.sub('-', kind).lower()}/{namespace}/{name}"


def dump_yaml(data: dict[str, Any]) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=False, width=110)


def plain(node: Node) -> Any:
    """`node` without its positions. Only what a rule may hold is interpreted; a date, say, stays the text it is."""
    if type(node) is Mapping:
        return {name: plain(value) for name, (_, value) in node.entries.items()}
    if type(node) is Sequence:
        return [plain(item) for item in node.items]
    if type(node) is not Scalar:
        return None
    if not node.plain:
        return node.text
    kind = kind_of(node.text)
    if kind == "null":
        return None
    if kind == "bool":
        return boolean(node.text)
    number = decimal(node.text) if kind == "int" else None
    return node.text if number is None else number
