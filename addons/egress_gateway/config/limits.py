"""How much of a rule file is read before it is refused, so that no file can exhaust the process that reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    max_file_bytes: int = 1 << 20
    """Also what a Kubernetes ConfigMap holds at most."""
    max_depth: int = 32
    """Nesting of mappings and lists."""
    max_documents: int = 10_000
    """Objects in one file, the items of a `kind: List` included."""
    max_problems: int = 100
    """Errors and warnings that are reported of one file; after them one line says how many were left out."""


DEFAULT_LIMITS = Limits()
