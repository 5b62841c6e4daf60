"""A line for people about each request, tunnel and refusal, in the manner of mitmdump's own output.

The rules of this file:

- Every text of a client passes through `printable`: what reaches the terminal is ASCII, and ours.
- A line is cut to the terminal's width where the address can give way; who wants all of it asks for level 2.
- Writing is left to a thread: a terminal that was stopped (Ctrl-S), or a full pipe, holds up no traffic.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from typing import TextIO

from egress_gateway.policy.address_check import Agreement
from egress_gateway.policy.events import Exchange, Observer, printable
from egress_gateway.policy.reason import ANSWERS, Reason

from .line_writer import LineWriter
from .output import DescriptorOutput, Output, StreamOutput
from .words import address, duration, size

_RED, _GREEN, _MAGENTA, _BOLD, _DIM = 31, 32, 35, 1, 2
_TO_ASCII = str.maketrans({"→": "->", "✗": "x", "↑": "up ", "↓": "down "})
_ELSEWHERE = frozenset({Agreement.REDIALLED, Agreement.AUDITED})
_WIDTH_OF_THE_REST = 60
_LOG_WIDTH = 200


class Terminal(Observer):
    """Writes to `stream`. `level` may change at any time: 0 nothing, 1 a line each, 2 and 3 more."""

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        level: int = 1,
        environment: Mapping[str, str] = os.environ,
        queue_size: int = 10_000,
    ) -> None:
        stream = sys.stdout if stream is None else stream
        self.level = level
        self._is_terminal = stream.isatty()
        self._colours = (
            self._is_terminal and not environment.get("NO_COLOR") and environment.get("TERM") not in ("", "dumb")
        )
        self._encoding = _encoding(stream)
        self._writer = LineWriter(_output(stream), self._lines, name="terminal output", queue_size=queue_size)

    @property
    def dropped(self) -> int:
        """How many lines were not written."""
        return self._writer.dropped

    def finished(self, exchange: Exchange) -> None:
        if self.level > 0:
            self._writer.put(exchange)

    def close(self, timeout: float = 2.0) -> None:
        """Writes what is queued, for at most `timeout` seconds."""
        self._writer.close(timeout)

    def _lines(self, exchange: Exchange) -> bytes:
        columns = shutil.get_terminal_size().columns if self._is_terminal else _LOG_WIDTH
        width = max(40, columns - _WIDTH_OF_THE_REST) if self.level == 1 else 2048
        text = Painter(self._colours).lines(exchange, self.level, width)
        if self._encoding == "ascii":
            text = text.translate(_TO_ASCII)
        return text.encode(self._encoding)


class Painter:
    """Turns an exchange into text."""

    def __init__(self, colours: bool) -> None:
        self._colours = colours

    def lines(self, exchange: Exchange, level: int, width: int) -> str:
        """All lines about `exchange`, with line ends; `width` is what the address may take."""
        client = address(printable(exchange.client[0], 64), exchange.client[1])
        lines = [f"{client}: {self._summary(exchange, width)}"]
        if level >= 2:
            lines += self._facts(_facts(exchange))
        if level >= 3:
            lines += self._facts(_more_facts(exchange))
        return "".join(line + "\n" for line in lines)

    def _summary(self, exchange: Exchange, width: int) -> str:
        target = self._paint(_target(exchange, width), _BOLD)
        if not exchange.verdict.allowed:
            status = f"{exchange.response_code} " if exchange.response_code else ""
            return f"{self._paint('✗', _RED)} {target} {self._paint(f'{status}{_why(exchange)}', _RED)}"
        rule = printable(exchange.verdict.rule_key, 256) + _elsewhere(exchange)
        took = duration(exchange.duration)
        failure = f" {self._paint(_why(exchange), _RED)}" if exchange.failure else ""
        if exchange.is_tunnel:
            traffic = f"↑{size(exchange.bytes_received)} ↓{size(exchange.bytes_sent)}"
            mode = f" {exchange.tls_mode}" if exchange.tls_mode else ""
            return f"{target}{mode} {traffic} {took} ({rule}){failure}"
        how = ", ".join(text for text in (exchange.tls_mode, rule) if text)
        code = self._paint(str(exchange.response_code or "-"), _colour_of(exchange.response_code))
        return f"{target} → {code} {size(exchange.bytes_sent)} {took} ({how}){failure}"

    def _facts(self, facts: list[tuple[str, str]]) -> list[str]:
        text = ", ".join(f"{name} {printable(value, 1024)}" for name, value in facts if value)
        return [self._paint(f"    {text}", _DIM)] if text else []

    def _paint(self, text: str, code: int) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colours else text


def _target(exchange: Exchange, width: int) -> str:
    """`GET http://host:80/path`, `CONNECT host:443`, `TLS host:443`, `DNS AAAA host:53`."""
    where = exchange.authority or exchange.requested_server_name
    if not where and exchange.original_destination:
        where = address(*exchange.original_destination)
    if exchange.is_tunnel or not exchange.method:
        return f"{printable(exchange.protocol or 'unknown', 32)} {printable(where, width)}".rstrip()
    if exchange.is_question:
        return f"DNS {printable(exchange.method, 32)} {printable(where, width)}"
    url = where if exchange.method == "CONNECT" else f"http://{where}{exchange.path}"
    return f"{printable(exchange.method, 32)} {printable(url, width)}"


def _why(exchange: Exchange) -> str:
    """`no_rule: no egress rule allows this host (detail)`."""
    reason = exchange.reason
    detail = f" ({printable(exchange.detail, 256)})" if exchange.detail else ""
    return f"{reason.value}: {ANSWERS[reason].sentence}{detail}"


def _elsewhere(exchange: Exchange) -> str:
    """That the gateway went to another address than the client, since that is what an operator looks for."""
    if exchange.address_check not in _ELSEWHERE or not exchange.original_destination:
        return ""
    return f", {exchange.address_check}: the client dialled {address(*exchange.original_destination)}"


def _facts(exchange: Exchange) -> list[tuple[str, str]]:
    rule = exchange.verdict.rule
    return [
        ("upstream", address(*exchange.upstream) if exchange.upstream else ""),
        ("of", " ".join(str(each) for each in exchange.resolved[:8])),
        ("rule", f"{rule.key} at {rule.source}" if rule and rule.source else exchange.verdict.rule_key),
        ("hint:", exchange.hint),
    ]


def _more_facts(exchange: Exchange) -> list[tuple[str, str]]:
    original = exchange.original_destination
    return [
        ("flags", exchange.response_flags if exchange.reason is not Reason.ALLOWED else ""),
        ("server name", exchange.requested_server_name),
        ("encrypted hello", "yes" if exchange.ech else ""),
        ("dialled", address(*original) if original else ""),
        ("user", exchange.user),
        ("request id", exchange.request_id),
    ]


def _colour_of(code: int) -> int:
    return {2: _GREEN, 3: _MAGENTA}.get(code // 100, _RED)


def _encoding(stream: TextIO) -> str:
    known: str | None = stream.encoding  # a stream in memory has none, whatever its type says
    try:
        "→✗↑↓".encode(known or "utf-8")
    except (LookupError, UnicodeEncodeError):
        return "ascii"
    return "utf-8"


def _output(stream: TextIO) -> Output:
    try:
        return DescriptorOutput(stream.fileno(), "the terminal")
    except (OSError, ValueError):
        return StreamOutput(stream)
