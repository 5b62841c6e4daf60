"""Which object a document is: `metadata`, with the names Kubernetes allows (DNS-1123 labels)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .problem import shown
from .shape import Record, Shaper

DEFAULT_NAMESPACE = "default"
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Identity:
    namespace: str
    name: str


def read_identity(shaper: Shaper, record: Record) -> Identity | None:
    """The identity of the object `record`, or None after its problems were added."""
    metadata = record.records.get("metadata")
    if metadata is None:
        if "metadata" not in record.broken:
            shaper.error(
                record.place("metadata"), record.path_of("metadata.name"), "is missing (write metadata: {name: …})"
            )
        return None
    name = _label(shaper, metadata, "name", None)
    namespace = _label(shaper, metadata, "namespace", DEFAULT_NAMESPACE)
    return Identity(namespace, name) if name and namespace else None


def _label(shaper: Shaper, metadata: Record, field: str, default: str | None) -> str | None:
    path = metadata.path_of(field)
    value = metadata.values.get(field)
    if value is None:
        if field in metadata.broken:
            return None
        if default is None:
            shaper.error(metadata.place(field), path, f"is missing (write {field}: …)")
        return default
    if is_label(value.text):
        return value.text
    shaper.error(
        value.node,
        path,
        f"{shown(value.text) or 'an empty string'} is not a DNS-1123 label (use lower-case letters, digits and -, "
        f"at most 63, a letter or digit first and last{_suggestion(value.text)})",
    )
    return None


def is_label(text: str) -> bool:
    """Whether `text` is a DNS-1123 label."""
    return _LABEL.match(text) is not None


def _suggestion(text: str) -> str:
    better = re.sub(r"[^a-z0-9]+", "-", text.lower())[:63].strip("-")
    return f", e.g. {better}" if better else ""
