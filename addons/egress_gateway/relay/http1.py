"""HTTP/1.1 messages as RFC 9112 has them, and nothing else.

Whatever two parsers could read differently is refused, since a request that the next hop frames differently is a
request that was never judged: bare CR or LF, obs-fold, white space before a colon, control characters, more than one
Content-Length, Content-Length together with Transfer-Encoding, any transfer coding but `chunked`.

Pure: bytes in, values out. `heads` are complete, up to and with their empty line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

Headers = list[tuple[bytes, bytes]]
"""Names as they came and values without surrounding white space, in order."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VALUE = rb"(?:[^\x00-\x20\x7f](?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)?"
# Possessive, because white space that could belong to either side of an empty value would be tried in every split.
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*+(" + _VALUE + rb")[ \t]*+\r\n")
_SECTION = re.compile(rb"(?:" + _TOKEN + rb":[ \t]*+" + _VALUE + rb"[ \t]*+\r\n)*+\r\n")
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([!-~]+) HTTP/1\.([01])\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([^\x00-\x08\x0a-\x1f\x7f]*))?\r\n")
_LONGEST_LENGTH = 18
"""Digits."""
# A line feed without its carriage return, or a carriage return without its line feed.
BARE_LINE_END = re.compile(rb"(?<!\r)\n|\r(?!\n)(?=[\s\S])")


class Malformed(ValueError):
    """The message is not well-formed; the text says what is wrong and quotes nothing of it."""


class TooManyFields(Malformed):
    """The section is well-formed so far, and larger than anybody needs."""


MOST_FIELDS = 256
"""Fields in one header or trailer section, where nobody says otherwise."""


class Section:
    """The fields of one header section, and what was found out about them: read once, asked often.

    Nothing in it changes once it has been asked, so that messages with the same section can share it.
    """

    __slots__ = ("_by_name", "_closes", "forwarded", "framings", "headers")

    def __init__(self, headers: Headers) -> None:
        self.headers = headers
        self._by_name: dict[bytes, list[bytes]] | None = None
        self._closes: bool | None = None
        self.framings: dict[int, Framing | None] = {}
        """How it frames a body, by the minor version."""
        self.forwarded: dict[object, bytes] = {}
        """What `forward` makes of it, by what that hangs on: a cache of a pure function."""

    @property
    def by_name(self) -> dict[bytes, list[bytes]]:
        """The values of each name, which is in lower case."""
        found = self._by_name
        if found is None:
            found = self._by_name = {}
            for name, value in self.headers:
                lower = name.lower()
                if lower in found:
                    found[lower].append(value)
                else:
                    found[lower] = [value]
        return found

    @property
    def closes(self) -> bool:
        """Whether it says that the connection ends after this message."""
        if self._closes is None:
            said = b",".join(self.by_name.get(b"connection", ())).lower().split(b",")
            self._closes = b"close" in [token.strip(b" \t") for token in said]
        return self._closes


_MOST_REMEMBERED = 2048
"""Bytes. A connection that is idle keeps no more than that and what was read of it."""


class LastHead[M: Message]:
    """The head that came last in one direction of a connection: whoever keeps a connection open mostly says the same
    again, or the same of something else. Each connection has its own, so that none can tell by the time taken what
    another one has sent."""

    __slots__ = ("_most_fields", "_section", "message", "raw")

    def __init__(self) -> None:
        self.raw = self._section = b""
        self.message: M | None = None
        self._most_fields = 0

    def forget(self) -> None:
        self.raw = self._section = b""
        self.message = None

    def remember(self, message: M, raw: bytes, begins: int, most_fields: int) -> M:
        """`raw` was read as `message`; its section begins at `begins` and may have so many fields."""
        if len(raw) <= _MOST_REMEMBERED:
            self.raw, self._section = raw, raw[begins:]
            self.message, self._most_fields = message, most_fields
        return message

    def again(self, raw: bytes, most_fields: int) -> M | None:
        """The message, if all of it is the same as last time."""
        return self.message if raw == self.raw and most_fields == self._most_fields else None

    def section_of(self, raw: bytes, begins: int, most_fields: int) -> Section | None:
        """The section that begins at `begins` in `raw`, if that is the same as last time."""
        message, section = self.message, self._section
        if message is None or most_fields != self._most_fields:
            return None
        return message.section if len(raw) - begins == len(section) and raw.endswith(section) else None


class Message:
    """What requests and responses share."""

    __slots__ = ("minor", "section")

    minor: int
    """The minor version: 0 or 1."""
    section: Section

    @property
    def headers(self) -> Headers:
        return self.section.headers

    def values(self, name: bytes) -> list[bytes]:
        """The values of every field called `name` (given in lower case); not to be changed."""
        return self.section.by_name.get(name) or []

    def tokens(self, name: bytes) -> list[bytes]:
        """The comma-separated members of all fields called `name`, in lower case."""
        values = self.section.by_name.get(name)
        if values is None:
            return []
        members = b",".join(values).lower().split(b",")
        return [stripped for member in members if (stripped := member.strip(b" \t"))]


class RequestHead(Message):
    __slots__ = ("method", "target")

    def __init__(self, minor: int, headers: Headers | Section, method: str, target: str) -> None:
        self.minor = minor
        self.section = headers if isinstance(headers, Section) else Section(headers)
        self.method = method
        self.target = target


class ResponseHead(Message):
    __slots__ = ("phrase", "status")

    def __init__(self, minor: int, headers: Headers | Section, status: int, phrase: bytes) -> None:
        self.minor = minor
        self.section = headers if isinstance(headers, Section) else Section(headers)
        self.status = status
        self.phrase = phrase


def parse_request(
    head: bytes, most_fields: int = MOST_FIELDS, last: LastHead[RequestHead] | None = None
) -> RequestHead:
    """Parses a request line and header section. Raises `Malformed`."""
    again = last.again(head, most_fields) if last is not None else None
    if again is not None:
        return again
    line = _REQUEST_LINE.match(head)
    if line is None:
        raise Malformed(_bare_line_end(head) or "the request line is not METHOD SP target SP HTTP/1.0 or HTTP/1.1")
    method, target, minor = line.groups()
    begins = line.end()
    section = last.section_of(head, begins, most_fields) if last is not None else None
    if section is None:
        section = Section(parse_fields(head, begins, most_fields))
    made = RequestHead(1 if minor == b"1" else 0, section, method.decode("ascii"), target.decode("ascii"))
    return made if last is None else last.remember(made, head, begins, most_fields)


def parse_response(
    head: bytes, most_fields: int = MOST_FIELDS, last: LastHead[ResponseHead] | None = None
) -> ResponseHead:
    """Parses a status line and header section. Raises `Malformed`."""
    again = last.again(head, most_fields) if last is not None else None
    if again is not None:
        return again
    line = _STATUS_LINE.match(head)
    if line is None:
        raise Malformed(_bare_line_end(head) or "the status line is not HTTP/1.x SP code SP phrase")
    minor, status, phrase = line.groups(b"")
    begins = line.end()
    section = last.section_of(head, begins, most_fields) if last is not None else None
    if section is None:
        section = Section(parse_fields(head, begins, most_fields))
    made = ResponseHead(1 if minor == b"1" else 0, section, int(status), phrase)
    return made if last is None else last.remember(made, head, begins, most_fields)


def parse_fields(head: bytes, position: int, most_fields: int = MOST_FIELDS) -> Headers:
    """The header or trailer fields from `position` to the empty line that ends `head`. Raises `Malformed`."""
    if _SECTION.fullmatch(head, position) is None:
        raise _first_problem(head, position, most_fields)
    # Each line is a field, as was just seen; so the search finds them one after another and skips nothing.
    headers: Headers = _FIELD.findall(head, position)
    if len(headers) > most_fields:
        raise TooManyFields(f"more than {most_fields} fields")
    return headers


def _first_problem(head: bytes, position: int, most_fields: int) -> Malformed:
    """What is wrong with a section, field by field."""
    bare = _bare_line_end(head)
    if bare:
        return Malformed(bare)
    end = len(head) - 2
    fields = 0
    while position < end:
        if fields == most_fields:
            return TooManyFields(f"more than {most_fields} fields")
        field = _FIELD.match(head, position)
        if field is None:
            return Malformed(_what_is_wrong(head[position : head.find(b"\n", position) + 1]))
        fields += 1
        position = field.end()
    return Malformed("the header section does not end with an empty line")


def _bare_line_end(head: bytes) -> str:
    return "a line does not end with CR LF (bare CR or LF)" if BARE_LINE_END.search(head) else ""


def _what_is_wrong(line: bytes) -> str:
    if line[:1] in (b" ", b"\t"):
        return "a header line begins with white space (obs-fold)"
    if not line.endswith(b"\r\n"):
        return "a header line does not end with CR LF"
    if b":" not in line:
        return "a header line has no colon"
    if re.match(_TOKEN + rb"[ \t]+:", line):
        return "white space stands before the colon of a header line"
    if re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", line[:-2]):
        return "a header line holds a control character"
    return "a header name is not a token"


# --- framing: RFC 9112, section 6 ---


@dataclass(frozen=True, slots=True)
class Framing:
    """How the end of a message body is known."""

    length: int | None = 0
    """Bytes; None: not by length."""
    chunked: bool = False
    until_close: bool = False

    @property
    def has_body(self) -> bool:
        return self.chunked or self.until_close or bool(self.length)


NO_BODY = Framing()
_CHUNKED = Framing(length=None, chunked=True)
_UNTIL_CLOSE = Framing(length=None, until_close=True)


def request_framing(head: RequestHead) -> Framing:
    """Raises `Malformed`."""
    return _declared_framing(head) or NO_BODY


def response_framing(head: ResponseHead, method: str) -> Framing:
    """The framing of the response to a `method` request. Raises `Malformed`."""
    declared = _declared_framing(head)
    if method == "HEAD" or head.status in (204, 304) or head.status < 200:
        return NO_BODY
    return declared or _UNTIL_CLOSE


def _declared_framing(message: Message) -> Framing | None:
    framings, minor = message.section.framings, message.minor
    if minor not in framings:
        framings[minor] = _read_framing(message)
    return framings[minor]


def _read_framing(message: Message) -> Framing | None:
    lengths = message.values(b"content-length")
    codings = message.values(b"transfer-encoding")
    if codings:
        if lengths:
            raise Malformed("Content-Length and Transfer-Encoding together")
        if message.minor == 0:
            raise Malformed("Transfer-Encoding in an HTTP/1.0 message")
        if len(codings) != 1 or codings[0].lower() != b"chunked":
            raise Malformed("a Transfer-Encoding other than a single chunked")
        return _CHUNKED
    if not lengths:
        return None
    if len(lengths) != 1:
        raise Malformed("more than one Content-Length")
    length = lengths[0]
    if not length.isdigit() or len(length) > _LONGEST_LENGTH:
        raise Malformed("a Content-Length that is not a number")
    return Framing(int(length))


# --- bodies ---


class Body:
    """Takes the bytes of one message body out of a buffer, and no byte more."""

    done = False
    trailers: Headers

    def __init__(self) -> None:
        self.trailers = []

    def take(self, buffer: bytearray) -> bytes:
        """Consumes what belongs to the body, returns its content; sets `done` at its end. Raises `Malformed`."""
        raise NotImplementedError


class LengthBody(Body):
    def __init__(self, length: int) -> None:
        super().__init__()
        self.left = length
        self.done = length == 0

    def take(self, buffer: bytearray) -> bytes:
        data = bytes(buffer[: self.left])
        del buffer[: self.left]
        self.left -= len(data)
        self.done = self.left == 0
        return data


class UntilCloseBody(Body):
    def take(self, buffer: bytearray) -> bytes:
        data = bytes(buffer)
        buffer.clear()
        return data


_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e]*)?\r\n")
_LONGEST_CHUNK_LINE = 1024
STEPS_A_TURN = 384
"""A chunk takes three. Tiny chunks cost far more than their bytes, and others want their turn."""


class ChunkedBody(Body):
    """RFC 9112, section 7.1. Chunk extensions are dropped, as that section lets a recipient do."""

    def __init__(self, trailer_bytes: int = 65_536, steps_a_turn: int = -1) -> None:
        """`steps_a_turn` bounds the work of one `take`, which may then leave bytes behind; -1: no bound."""
        super().__init__()
        self._steps_a_turn = steps_a_turn
        self._left_in_chunk = 0
        self._state: Callable[[bytearray, list[bytes]], bool] = self._size_line
        self._trailer_bytes = trailer_bytes
        self._searched = 0

    def take(self, buffer: bytearray) -> bytes:
        content: list[bytes] = []
        steps = 0
        while not self.done and steps != self._steps_a_turn and self._state(buffer, content):
            steps += 1
        return b"".join(content)

    def _size_line(self, buffer: bytearray, _: list[bytes]) -> bool:
        end = buffer.find(b"\n", 0, _LONGEST_CHUNK_LINE)
        if end < 0:
            if len(buffer) >= _LONGEST_CHUNK_LINE:
                raise Malformed("a chunk size line is too long")
            return False
        line = _CHUNK_LINE.fullmatch(bytes(buffer[: end + 1]))
        if line is None:
            raise Malformed("a chunk does not begin with its size")
        del buffer[: end + 1]
        self._left_in_chunk = int(line[1], 16)
        self._state = self._data if self._left_in_chunk else self._trailer
        return True

    def _data(self, buffer: bytearray, content: list[bytes]) -> bool:
        if not buffer:
            return False
        piece = bytes(buffer[: self._left_in_chunk])
        del buffer[: self._left_in_chunk]
        self._left_in_chunk -= len(piece)
        content.append(piece)
        if self._left_in_chunk == 0:
            self._state = self._data_end
        return True

    def _data_end(self, buffer: bytearray, _: list[bytes]) -> bool:
        if len(buffer) < 2:
            return False
        if buffer[:2] != b"\r\n":
            raise Malformed("a chunk does not end with CR LF")
        del buffer[:2]
        self._state = self._size_line
        return True

    def _trailer(self, buffer: bytearray, _: list[bytes]) -> bool:
        end = head_end(buffer, self._searched, empty_allowed=True)
        if end is None:
            self._searched = len(buffer)
            if self._searched > self._trailer_bytes:
                raise Malformed("the trailer section is too large")
            return False
        self.trailers = parse_fields(bytes(buffer[:end]), 0)
        del buffer[:end]
        self.done = True
        return False


def body_for(framing: Framing, trailer_bytes: int = 65_536, steps_a_turn: int = -1) -> Body:
    """A fresh body with `framing`."""
    if framing.chunked:
        return ChunkedBody(trailer_bytes, steps_a_turn)
    if framing.until_close:
        return UntilCloseBody()
    return LengthBody(framing.length or 0)


def head_end(buffer: bytearray, searched: int, *, empty_allowed: bool = False) -> int | None:
    """Where the header section in `buffer` ends (past its empty line), or None where it is not complete yet.

    `searched` bytes were looked at before. Raises `Malformed` on a bare CR or LF, which would otherwise only look like
    a section that never ends.
    """
    if empty_allowed and buffer[:2] == b"\r\n":
        return 2
    end = buffer.find(b"\r\n\r\n", max(0, searched - 3))
    limit = len(buffer) if end < 0 else end + 4
    bare = BARE_LINE_END.search(buffer, max(0, searched - 1), limit)
    if bare:
        raise Malformed("a line does not end with CR LF (bare CR or LF)")
    return None if end < 0 else end + 4
