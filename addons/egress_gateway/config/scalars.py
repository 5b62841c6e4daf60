"""What YAML 1.1 reads in a value without quotes: `no` is false, `22:22` is 1342, `0177` is 127, `1.10` is 1.1.

Readers of the same file (kubectl, istioctl, editors) disagree on these, so a rule file must not depend on them: where a
string is meant it is quoted, where a number is meant it is plain decimal.
"""

from __future__ import annotations

import re

import yaml

from .problem import shown

_RESOLVERS: dict[str, list[tuple[str, re.Pattern[str]]]] = yaml.SafeLoader.yaml_implicit_resolvers
_TAG = "tag:yaml.org,2002:"
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\Z")
NULLS = frozenset({"", "~", "null", "Null", "NULL"})
"""The texts of kind `null`."""
_TRUE = frozenset({"yes", "true", "on"})
_KINDS = {"bool": "boolean", "int": "number", "float": "number", "timestamp": "date"}


def kind_of(text: str) -> str:
    """`str`, `null`, `bool`, `int`, `float`, `timestamp`, `merge` or `value`: what the plain `text` is to YAML 1.1."""
    for tag, pattern in _RESOLVERS.get(text[:1], ()):
        if pattern.match(text):
            return tag.removeprefix(_TAG)
    return "str"


def boolean(text: str) -> bool:
    """The value of a plain `text` of kind `bool`."""
    return text.lower() in _TRUE


def decimal(text: str) -> int | None:
    """The value of a plain decimal number, None for every other spelling."""
    return int(text) if _DECIMAL.match(text) else None


def reading(text: str) -> str:
    """How YAML 1.1 reads the plain `text`, for messages: `YAML 1.1 reads 22:22 as the number 1342`."""
    kind = _KINDS.get(kind_of(text), "value")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OverflowError):
        return f"YAML 1.1 reads {shown(text)} as a {kind}"
    spelled = str(value).lower() if isinstance(value, bool) else str(value)
    return f"YAML 1.1 reads {shown(text)} as the {kind} {shown(spelled)}"
