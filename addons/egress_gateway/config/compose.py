"""Text in, trees with positions out (`nodes`); the only file that drives the YAML parser.

Only the plain part of YAML is taken: no anchors and aliases (so no file is larger than it looks), no tags, no merge
keys, no duplicate keys, one encoding (UTF-8), and bounded size, depth and number of documents. JSON is YAML here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from .limits import Limits
from .nodes import Hole, Mapping, Node, Scalar, Sequence
from .problem import Problems, shown

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NOT_TEXT = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# YAML 1.1 ends a line at these as well, editors and people do not.
_ODD_LINE_END = re.compile("\r(?!\n)|[\x85\u2028\u2029]")
_ODD_LINE_END_MESSAGE = "ends a line to some readers and not to others (end lines with a newline)"
# What `_NOT_TEXT` lets through of ASCII, but for the carriage return that needs a second look.
_PLAIN_BYTES = bytes((9, 10, *range(0x20, 0x7F)))
_WORD = re.compile(r"[^\s,\]}]*")


@dataclass(frozen=True, slots=True)
class RawDocument:
    """One non-empty document of a text, with the offsets that an editor of the text needs."""

    root: Node
    header: int
    """Where the comments above the first `---` of the text end, for its first document; else 0."""
    marker: int | None
    """Where its `---` begins; None where it has none."""
    lead: int
    """Where its own text begins, comments in front of `root` included: after `---`, or the start of the text."""
    content: int
    """Where `root` begins, at the start of its line if nothing else stands before it there."""
    end: int
    """After the last line of `root`."""


@dataclass(slots=True)
class Composed:
    text: str
    documents: list[RawDocument] = field(default_factory=list)


class _Stop(Exception):
    """The rest of the text cannot be read; the reason is already among the problems."""


def decode(data: str | bytes, problems: Problems, limits: Limits) -> str | None:
    """`data` as text, or None after a problem was added."""
    # Size first: nothing else may look at a file that is too large.
    size = len(data)
    if size > limits.max_file_bytes:
        problems.add(
            0,
            0,
            "",
            f"the file has {size} bytes, more than the {limits.max_file_bytes} that are read "
            "(split it into several files)",
        )
        return None
    if isinstance(data, bytes) and not data.translate(None, _PLAIN_BYTES):
        return data.decode("ascii")  # as most files are; the searches below take longer than reading the file
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data.encode("utf-8").decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        column = error.start - error.object.rfind(b"\n", 0, error.start)
        problems.add(line, column, "", f"byte 0x{error.object[error.start]:02x} is not UTF-8 (save the file as UTF-8)")
        return None
    except UnicodeEncodeError as error:
        line, column = position(error.object, error.start)
        problems.add(line, column, "", "half of a surrogate pair is not text (save the file as UTF-8)")
        return None
    text = text.removeprefix("\ufeff")
    for pattern, what in ((_NOT_TEXT, "is not text (is this a binary file?)"), (_ODD_LINE_END, _ODD_LINE_END_MESSAGE)):
        bad = pattern.search(text)
        if bad:
            line, column = position(text, bad.start())
            problems.add(line, column, "", f"character U+{ord(bad.group()):04X} {what}")
            return None
    return text


def position(text: str, offset: int) -> tuple[int, int]:
    """Line and column, from 1, of an offset."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def compose(text: str, problems: Problems, limits: Limits) -> Composed:
    """The documents of `text`; those before a syntax error are kept, so that everything wrong is said at once."""
    composed = Composed(text)
    try:
        _Composer(composed, problems, limits).run()
    except _Stop:
        pass
    except yaml.MarkedYAMLError as error:
        _add_syntax_error(error, text, problems)
    except (yaml.YAMLError, ValueError) as error:
        problems.add(0, 0, "", f"not valid YAML: {shown(str(error), 120)}")
    return composed


class _Composer:
    def __init__(self, composed: Composed, problems: Problems, limits: Limits) -> None:
        self._composed = composed
        self._text = composed.text
        self._problems = problems
        self._limits = limits
        self._loader = _Loader(composed.text)
        # What `yaml.parse` does, without its two calls in Python for each event.
        self._events: Iterator[Any] = iter(self._loader.get_event, None)
        self._end = 0  # of the last token that is no comment

    def run(self) -> None:
        try:
            self._run()
        finally:
            self._loader.dispose()

    def _run(self) -> None:
        for event in self._events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            # Only the first document can be without a marker.
            explicit, mark = event.explicit, event.end_mark
            marker = mark.index - 3 if explicit and mark else None
            lead = mark.index if explicit and mark else 0
            root = self._tree(next(self._events))
            if not (isinstance(root, Scalar) and root.plain and root.text == ""):
                self._keep(root, marker, lead)

    def _keep(self, root: Node, marker: int | None, lead: int) -> None:
        if len(self._composed.documents) >= self._limits.max_documents:
            self._problems.add(
                root.line,
                root.column,
                "",
                f"more than {self._limits.max_documents} documents in one file (split it into several files)",
            )
            raise _Stop
        text = self._text
        line_start = text.rfind("\n", 0, root.start) + 1
        content = line_start if not text[line_start : root.start].strip() else root.start
        newline = text.find("\n", self._end)
        end = len(text) if newline < 0 else newline + 1
        if self._end > 0 and text[self._end - 1] == "\n":
            end = self._end  # a block scalar ends after its newline
        header = 0
        if marker and not self._composed.documents and _only_comments(text[:marker]):
            header = marker
        self._composed.documents.append(RawDocument(root, header, marker, min(lead, content), content, end))

    def _tree(self, event: Any) -> Node:
        """The node that begins with `event`. A loop, not a recursion: depth is the file's choice, not the stack's."""
        leaf = self._leaf(event)
        if leaf is not None:
            return leaf
        root = self._branch(event)
        stack: list[tuple[Mapping | Sequence, bool]] = [(root, bool(event.flow_style))]
        node: Mapping | Sequence = root
        key: Scalar | None = None  # of `node`, while its value is awaited
        for event in self._events:
            kind = type(event)
            if kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                _, flow = stack.pop()
                if flow:
                    self._end = event.end_mark.index
                node.end = self._end
                if not stack:
                    return root
                node = stack[-1][0]
                continue
            leaf = self._leaf(event)
            if type(node) is Mapping and key is None:
                key = self._key(event, leaf)
                if leaf is None:
                    self._skip(event, len(stack))
                continue
            branch = None
            if leaf is None:
                self._check_depth(len(stack), event)
                branch = self._branch(event)
            child: Node | None = branch or leaf
            if child is None:
                continue
            if type(node) is Mapping:
                if key is not None:
                    self._put(node, key, child)
                key = None
            elif type(node) is Sequence:
                node.items.append(child)
            if branch is not None:
                stack.append((branch, bool(event.flow_style)))
                node = branch
        raise _Stop  # the parser ends a stream only after its documents; kept for the type checker

    def _leaf(self, event: Any) -> Scalar | Hole | None:
        """The node of an event that has no children; None for the start of a mapping or list."""
        kind = type(event)
        mark = event.start_mark
        if kind is yaml.ScalarEvent:
            end = self._end = event.end_mark.index
            if event.anchor is not None or event.tag is not None:
                return self._refuse(event)
            return Scalar(event.value, not event.style, mark.line + 1, mark.column + 1, mark.index, end)
        if kind is yaml.AliasEvent:
            self._end = event.end_mark.index
            self._problems.add(
                mark.line + 1,
                mark.column + 1,
                "",
                f"aliases are not supported, write the value out "
                f'(or, if a wildcard is meant, in quotes: "*{shown(event.anchor)}")',
            )
            return Hole(mark.line + 1, mark.column + 1, mark.index, self._end)
        return None

    def _branch(self, event: Any) -> Mapping | Sequence:
        mark = event.start_mark
        if event.anchor is not None or event.tag is not None:
            self._refuse(event)
        if type(event) is yaml.MappingStartEvent:
            return Mapping({}, mark.line + 1, mark.column + 1, mark.index)
        return Sequence([], mark.line + 1, mark.column + 1, mark.index)

    def _refuse(self, event: Any) -> Hole:
        mark = event.start_mark
        if event.anchor is not None:
            message = (
                f"anchors are not supported (leave &{shown(event.anchor)} out and write the value where it is used)"
            )
        else:
            message = f"tags are not supported (leave {shown(event.tag)} out)"
        self._problems.add(mark.line + 1, mark.column + 1, "", message)
        return Hole(mark.line + 1, mark.column + 1, mark.index, self._end)

    def _key(self, event: Any, node: Scalar | Hole | None) -> Scalar:
        """The key that `node` is; where it cannot be one, a stand-in under which `_put` stores nothing."""
        if isinstance(node, Scalar):
            if not (node.plain and node.text == "<<"):
                return node
            self._problems.add(node.line, node.column, "", "merge keys are not supported (write the merged fields out)")
        elif node is None:
            mark = event.start_mark
            self._problems.add(mark.line + 1, mark.column + 1, "", "a field name must be a plain word")
        mark = event.start_mark
        return Scalar("", False, 0, 0, mark.index, mark.index)

    def _put(self, mapping: Mapping, key: Scalar, value: Node) -> None:
        if key.line == 0:
            return
        known = mapping.entries.get(key.text)
        if known is None:
            mapping.entries[key.text] = (key, value)
            return
        first = known[0]
        self._problems.add(
            key.line,
            key.column,
            shown(key.text),
            f"duplicate key, the first one is at {first.line}:{first.column} (keep one of them)",
        )

    def _skip(self, start: Any, depth: int) -> None:
        """Leaves out a mapping or list that was written as a key."""
        opened = 1
        for event in self._events:
            kind = type(event)
            if kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                self._check_depth(depth + opened, event)
                opened += 1
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                opened -= 1
                if opened == 0:
                    self._end = max(self._end, start.end_mark.index)
                    return

    def _check_depth(self, depth: int, event: Any) -> None:
        # Also against the parser, whose time grows with the square of the depth.
        if depth >= self._limits.max_depth:
            mark = event.start_mark
            message = f"nested deeper than {self._limits.max_depth} levels (write it flatter)"
            self._problems.add(mark.line + 1, mark.column + 1, "", message)
            raise _Stop


def _only_comments(text: str) -> bool:
    return all(not line.strip() or line.lstrip().startswith("#") for line in text.split("\n"))


def _add_syntax_error(error: yaml.MarkedYAMLError, text: str, problems: Problems) -> None:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        problems.add(0, 0, "", f"not valid YAML: {shown(str(error.problem or error), 120)}")
        return
    if error.context == "while scanning an alias" and error.context_mark is not None:
        start = error.context_mark
        word = _WORD.match(text, start.index)
        problems.add(
            start.line + 1,
            start.column + 1,
            "",
            f'a value that begins with * must be quoted (write "{shown(word.group() if word else "*")}")',
        )
        return
    message = f"not valid YAML: {shown(str(error.problem), 120)}"
    if error.context and error.context_mark is not None and error.context_mark.index != mark.index:
        message += f", {error.context} that begins at {error.context_mark.line + 1}:{error.context_mark.column + 1}"
    # The parser counts the end of the text as a line of its own, where an editor shows nothing.
    at_end = mark.index >= len(text)
    line, column = position(text, len(text.rstrip())) if at_end else (mark.line + 1, mark.column + 1)
    problems.add(line, column, "", message + _hint(error, text, mark.index))


def _hint(error: yaml.MarkedYAMLError, text: str, offset: int) -> str:
    if text[offset : offset + 1] == "\t":
        return " (indent with spaces, not tabs)"
    if error.problem == "mapping values are not allowed in this context":
        return " (check the indentation, and quote a value that holds ': ')"
    if error.problem == "found character that cannot start any token":
        return " (quote the value)"
    return ""
