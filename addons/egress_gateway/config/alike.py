"""Rules out of a text at a fraction of the cost, where its documents are alike.

Whoever has thousands of rules has written them by a program: the same document again and again, with other names and
other hosts. The first two of each sort are read in full; of the others only the words are, as long as everything around
the words is the same to the letter. That is safe because of what is taken for a word:

- It is one whole scalar of the document that was read in full, letters, digits and `._/-`, beginning and ending
  in a letter or digit (in quotes also after a star), so that no word in its place changes how the rest is read.
- It is the value of a field whose meaning hangs on nothing else: a name, a namespace, a label, a destination. All other
  words, every port and protocol and flag, must be the same.
- It goes through the same functions as in the full reading, and if one of them had anything to say of it, be it only a
  warning, the document is read in full as well.

Comments in front of a document make no difference. What is not sure is read as ever: a document alone if it is of a new
sort, the whole text if anything in it is wrong, so that what is said of it is the same too. `tests/config` holds all of
it against the full reading.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum

from egress_gateway.policy.rule import EgressRule, Source

from .compose import compose
from .destination import BadService, parse_service
from .identity import is_label
from .limits import Limits
from .nodes import Mapping, Node, Scalar, Sequence
from .objects import read_objects
from .problem import Problem, Problems
from .reach import is_plain
from .scalars import kind_of
from .shape import Shaper
from .tables import ISTIO

MOST_SORTS = 500
"""Of documents that are remembered; the one that was met longest ago makes room."""
MOST_VARIANTS = 50
"""Of one sort, with other ports, say."""

_MARKER = re.compile(r"^---(?:\n|\Z)", re.MULTILINE)
# At the start of a document nothing is open that such lines could be part of.
_COMMENTS = re.compile(r"(?:[ ]*(?:#[^\n]*)?\n)*")
_WORD = re.compile(
    r"""(?:(?<=[:,-][ ])|(?<=[\[{]))  # in front: `: `, `, `, `- `, or the bracket of a list
    (["']?)
    ((?:(?<=["'])\*[.-]?)?[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?)
    \1(?=[\n,}\]])""",
    re.VERBOSE,
)
_STEP = 3  # `_WORD.split` gives text, quote, word, text, quote, word, ..., text


class _Role(Enum):
    """What a word is in its document."""

    FIXED = "fixed"
    NAME = "name"
    NAMESPACE = "namespace"
    LABEL = "label"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class _Sort:
    """Documents that are equal but for words which need not be the same."""

    fixed: tuple[int, ...]
    """Which words must be the same."""
    free: tuple[tuple[int, _Role, bool], ...]
    """Which need not, what they are, and whether they stand without quotes."""
    rules: dict[tuple[str, ...], EgressRule] = field(default_factory=dict)
    """The rule that was read in full, by the words that must be the same; its line counts from its document's."""


@dataclass(slots=True)
class Sorts:
    """The sorts of documents seen so far. May be used for many texts, of many files."""

    by_text: dict[str, _Sort | None] = field(default_factory=dict)
    """By all that is no word; what was met last stands last. None: met once, which is not yet worth a closer look."""


@dataclass(frozen=True, slots=True)
class Alike:
    """What a text without errors holds."""

    rules: tuple[EgressRule, ...]
    warnings: tuple[Problem, ...]


def read_alike(
    text: str, file: str, limits: Limits, sorts: Sorts, between: Callable[[], None] = lambda: None
) -> Alike | None:
    """The rules of `text`, or None where it is not certain that it holds them and no error.

    `between` is called after each document.
    """
    if "\r" in text:
        return None
    reader = _Reader(file, limits, sorts)
    line = 0
    # A body may still hold several documents, by rarer markers; then it is read in full as it is.
    for body in _MARKER.split(text):
        if not reader.read(body, line):
            return None
        line += body.count("\n") + 1
        between()
    rules = reader.rules
    if len(rules) > limits.max_documents or len({(rule.namespace, rule.name) for rule in rules}) < len(rules):
        return None
    return Alike(tuple(rules), reader.problems.all())


class _Reader:
    def __init__(self, file: str, limits: Limits, sorts: Sorts) -> None:
        self.rules: list[EgressRule] = []
        self.problems = Problems(file, limits.max_problems)
        self._file = file
        self._limits = limits
        self._sorts = sorts

    def read(self, body: str, line: int) -> bool:
        """Takes in the document `body` that begins after `line` lines; False where something is wrong with it."""
        comments = _COMMENTS.match(body)
        if comments:
            line += comments.group().count("\n")
            body = body[comments.end() :]
        parts = _WORD.split(body)
        words = parts[2::_STEP]
        del parts[2::_STEP]
        around = "\0".join(parts)  # which no text has in it
        sort = self._sorts.by_text.get(around)
        rule = _alike(sort, words, self._file, line) if sort is not None else None
        if rule is None:
            return self._read_in_full(body, line, around, words)
        self._sorts.by_text[around] = self._sorts.by_text.pop(around)
        self.rules.append(rule)
        return True

    def _read_in_full(self, body: str, line: int, around: str, words: list[str]) -> bool:
        problems = Problems(self._file, self._limits.max_problems)
        composed = compose(body, problems, self._limits)
        found = [one for raw in composed.documents for one in read_objects(Shaper(problems), raw.root)]
        said = problems.all()
        if any(problem.is_error for problem in said):
            return False
        for problem in said:
            self.problems.add(
                problem.line + line if problem.line else 0,
                problem.column,
                problem.field,
                problem.message,
                problem.severity,
            )
        if not said and len(found) == 1 and not found[0].in_list:
            self._remember(around, words, body, found[0].node, found[0].rule)
        self.rules += (_moved(one.rule, line) for one in found)
        return True

    def _remember(self, around: str, words: list[str], body: str, root: Node, rule: EgressRule) -> None:
        sorts = self._sorts.by_text
        met = around in sorts
        sort = sorts.pop(around, None)
        if met and sort is None:
            sort = _sort(body, root, rule)
        if sort is not None and len(sort.rules) < MOST_VARIANTS:
            sort.rules[_fixed(sort, words)] = rule
        sorts[around] = sort
        if len(sorts) > MOST_SORTS:
            del sorts[next(iter(sorts))]


def _sort(body: str, root: Node, rule: EgressRule) -> _Sort:
    places = _roles(root)
    found = list(_WORD.finditer(body))
    roles = tuple(places.get(match.span(), _Role.FIXED) for match in found)
    if roles.count(_Role.SERVICE) != len(rule.destinations):
        # One of them is written in a way that is no word here, so that it is part of what must be the same.
        roles = tuple(_Role.FIXED if role is _Role.SERVICE else role for role in roles)
    return _Sort(
        tuple(index for index, role in enumerate(roles) if role is _Role.FIXED),
        tuple(
            (index, role, not match.group(1))
            for index, (role, match) in enumerate(zip(roles, found, strict=True))
            if role is not _Role.FIXED
        ),
    )


def _alike(sort: _Sort, words: list[str], file: str, line: int) -> EgressRule | None:
    """The rule of a document of this `sort`, or None where it must be read in full."""
    like = sort.rules.get(_fixed(sort, words))
    if like is None or like.source is None:
        return None
    name, namespace = like.name, like.namespace
    services: list[str] = []
    for index, role, plain in sort.free:
        word = words[index]
        if plain and kind_of(word) != "str":
            return None
        if role is _Role.SERVICE:
            services.append(word)
        elif role is not _Role.LABEL:
            if not is_label(word):
                return None
            if role is _Role.NAME:
                name = word
            else:
                namespace = word
    try:
        found = [parse_service(service, istio=like.api_version == ISTIO) for service in services]
    except BadService:
        return None
    destinations = tuple(service.destination for service in found) or like.destinations
    if len(set(destinations)) < len(like.destinations) or not all(is_plain(service, like.ports) for service in found):
        return None
    return EgressRule(
        namespace,
        name,
        destinations,
        like.ports,
        like.action,
        like.allow_private,
        like.check,
        like.api_version,
        Source(file, like.source.line + line, like.source.column),
    )


def _fixed(sort: _Sort, words: list[str]) -> tuple[str, ...]:
    return tuple([words[index] for index in sort.fixed])


def _moved(rule: EgressRule, line: int) -> EgressRule:
    source = rule.source
    return replace(rule, source=Source(source.file, source.line + line, source.column)) if source else rule


def _roles(root: Node) -> dict[tuple[int, int], _Role]:
    """Where the words stand that may be others in a document of the same sort."""
    found: dict[tuple[int, int], _Role] = {}

    def mark(node: Node | None, role: _Role) -> None:
        if type(node) is Scalar:
            found[node.start, node.end] = role

    metadata = _field(root, "metadata")
    mark(_field(metadata, "name"), _Role.NAME)
    mark(_field(metadata, "namespace"), _Role.NAMESPACE)
    for name in ("labels", "annotations"):
        values = _field(metadata, name)
        if type(values) is Mapping:
            for _, value in values.entries.values():
                mark(value, _Role.LABEL)
    destination = _field(_field(root, "spec"), "destination")
    mark(_field(destination, "service"), _Role.SERVICE)
    services = _field(destination, "services")
    if type(services) is Sequence:
        for item in services.items:
            mark(item, _Role.SERVICE)
    return found


def _field(node: Node | None, name: str) -> Node | None:
    if type(node) is not Mapping or name not in node.entries:
        return None
    return node.entries[name][1]
