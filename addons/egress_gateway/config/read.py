"""One text in, its objects and everything wrong with it out. Knows no files; `load` reads those."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from egress_gateway.policy.rule import EgressRule, Source

from .compose import RawDocument, compose, decode
from .document import Document, object_ref, plain
from .limits import Limits
from .objects import Found, read_objects
from .problem import Problem, Problems
from .shape import Shaper
from .tables import EGRESS_RULE


@dataclass(frozen=True, slots=True)
class Piece:
    """A document of the text, and the objects in it: one, or the items of a List."""

    raw: RawDocument
    documents: tuple[Document, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    text: str
    pieces: tuple[Piece, ...]
    problems: tuple[Problem, ...]

    @property
    def documents(self) -> tuple[Document, ...]:
        return tuple(document for piece in self.pieces for document in piece.documents)


def read_text(data: str | bytes, file: str, limits: Limits) -> Reading:
    """Never raises: what is wrong is among the problems."""
    problems = Problems(file, limits.max_problems)
    text = decode(data, problems, limits)
    if text is None:
        return Reading("", (), problems.all())
    composed = compose(text, problems, limits)
    shaper = Shaper(problems)
    pieces = []
    count = 0
    for raw in composed.documents:
        found = read_objects(shaper, raw.root)
        pieces.append(Piece(raw, tuple(_document(text, raw, one) for one in found)))
        count += len(found)
        if count > limits.max_documents:
            message = f"more than {limits.max_documents} objects in one file (split it into several files)"
            problems.add(raw.root.line, raw.root.column, "", message)
            break
    for clash in clashes(document.rule for piece in pieces for document in piece.documents):
        problems.add(clash.line, clash.column, clash.field, clash.message)
    return Reading(text, tuple(pieces), problems.all())


def _document(text: str, raw: RawDocument, found: Found) -> Document:
    if found.in_list:
        return Document(found.rule, json.dumps(plain(found.node), ensure_ascii=False), generated=True)
    comments = text[raw.lead : raw.content].lstrip(" \t\r\n")
    header = text[: raw.header]
    return Document(found.rule, header + comments + text[raw.content : raw.end], len(header) + len(comments))


def clashes(rules: Iterable[EgressRule]) -> list[Problem]:
    """An error for every object whose namespace and name an earlier one has."""
    first: dict[tuple[str, str], EgressRule] = {}
    found = []
    for rule in rules:
        earlier = first.setdefault((rule.namespace, rule.name), rule)
        if earlier is not rule:
            here, there = rule.source or Source("", 0), earlier.source or Source("", 0)
            place = f"{there.file}:{there.line}:{there.column}"
            ref = object_ref(EGRESS_RULE, rule.namespace, rule.name)
            message = f"{ref} exists already at {place} (rename or delete one of them)"
            found.append(Problem(here.file, here.line, here.column, "metadata.name", message))
    return found
