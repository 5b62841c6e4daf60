"""Changes objects inside the text of a file and leaves every other byte of it alone.

An object that is a document of its own is cut out or written over at its offsets. An item of a `kind: List` cannot be
cut out of its indentation, so the List is written anew from its data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from .document import Document, dump_yaml, plain
from .read import Piece, Reading

Key = tuple[str, str, str]
Edits = Mapping[Key, Document | None]
"""What becomes of each object: another one in its place, or nothing."""

_NEXT_MARKER = re.compile(r"((?:[ \t]*(?:#[^\n]*)?\r?\n)*)---[ \t]*\r?\n")


def edited(reading: Reading, edits: Edits, *, as_json: bool) -> str | None:
    """The text with `edits` made, or None where no object is left in it."""
    if all(document.key in edits and edits[document.key] is None for document in reading.documents):
        return None
    text = reading.text
    alone = len(reading.pieces) == 1
    # From the end, so that the offsets of what is in front stay true.
    for piece in reversed(reading.pieces):
        touched = [document for document in piece.documents if document.key in edits]
        if not touched:
            continue
        if all(edits.get(document.key, document) is None for document in piece.documents):
            text = _without(text, piece)
        elif any(document.generated for document in piece.documents):
            text = _with(text, piece, _rewritten_list(piece, edits, as_json=as_json))
        else:
            new = edits[touched[0].key]
            if new is not None:
                text = _with(text, piece, body_of(new, as_json=as_json))
                if alone and new.lead:
                    # The file is this object, so new comments above it take the place of the old ones.
                    text = new.written[: new.lead] + text[piece.raw.content :]
    return text


def body_of(document: Document, *, as_json: bool) -> str:
    """The object without the comments in front of it, ending in a newline."""
    if as_json:
        return json.dumps(document.data(), indent=2, ensure_ascii=False) + "\n"
    if document.generated:
        return document.text
    return document.text[document.lead :]


def _with(text: str, piece: Piece, body: str) -> str:
    start = piece.raw.content
    # After `--- ` on the same line only flow style may stand.
    gap = "" if start == 0 or text[start - 1] == "\n" else "\n"
    return text[:start] + gap + body + text[piece.raw.end :]


def _without(text: str, piece: Piece) -> str:
    raw = piece.raw
    before, after = text[: raw.content], text[raw.end :]
    if raw.marker is not None:
        before = text[: raw.marker]
    else:
        # It had no marker of its own, so the next document does not need one any more.
        following = _NEXT_MARKER.match(after)
        if following:
            after = following.group(1) + after[following.end() :]
    return before + after


def _rewritten_list(piece: Piece, edits: Edits, *, as_json: bool) -> str:
    data = plain(piece.raw.root)
    items = []
    for document, item in zip(piece.documents, data["items"], strict=True):
        new = edits.get(document.key, document)
        if new is not None:
            items.append(item if new is document else new.data())
    data["items"] = items
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n" if as_json else dump_yaml(data)
