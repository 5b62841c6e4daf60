"""The access log: one JSON object a line for each request, tunnel and refusal, with Envoy's keys.

The rules of this file:

- A line is ASCII: JSON escapes everything else, so no control or escape code of a client reaches a terminal.
- Every text is cut, at a length counted after escaping, and says how much was cut; so a line has an upper
  bound.
- A key is always there; what is not known is null.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from egress_gateway.policy.events import Exchange, Observer
from egress_gateway.policy.reason import ANSWERS, Reason

from .line_writer import LineWriter
from .output import DescriptorOutput, FileOutput
from .words import action, address

_FIELD = 2048
_ADDRESSES = 16
_STDOUT = 1
_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode

_TRANSPORT_FAILURES = frozenset({Reason.CONNECT_FAILED, Reason.CONNECT_TIMEOUT, Reason.UPSTREAM_TLS_FAILED})


class AccessLog(Observer):
    """Writes to the file `target`; `-` is standard output. Raises OSError if the file cannot be opened.

    `queue_size` is in lines and `max_line` in bytes. Lines that cannot be written in time are dropped and
    counted.
    """

    def __init__(self, target: str, *, queue_size: int = 10_000, max_line: int = 16 * 1024) -> None:
        output = DescriptorOutput(_STDOUT, "standard output") if target == "-" else FileOutput(target, "access log")
        self._writer = LineWriter(
            output,
            lambda exchange: line(exchange, max_line).encode("ascii"),
            name="access log",
            queue_size=queue_size,
        )

    @property
    def dropped(self) -> int:
        """How many lines were not written."""
        return self._writer.dropped

    def finished(self, exchange: Exchange) -> None:
        self._writer.put(exchange)

    def reopen(self) -> None:
        """Opens the file anew, before the next line (after a log rotation)."""
        self._writer.reopen()

    def close(self, timeout: float = 2.0) -> None:
        """Writes what is queued, for at most `timeout` seconds."""
        self._writer.close(timeout)


def line(exchange: Exchange, max_line: int = 16 * 1024) -> str:
    """The line of `exchange`, at most `max_line` characters long, in ASCII and with its line end."""
    for field in (_FIELD, _FIELD // 4, _FIELD // 16, 16):
        text = _encode(record(exchange, field)) + "\n"
        if len(text) <= max_line:
            return text
    raise ValueError(f"the access log's longest line is set to {max_line}, which is too short")


def record(exchange: Exchange, field: int = _FIELD) -> dict[str, Any]:
    """What the log says of `exchange`; no text in it is longer than `field` once it is escaped."""
    verdict, reason = exchange.verdict, exchange.reason
    rule = verdict.rule
    failed = reason in _TRANSPORT_FAILURES
    return {
        "start_time": _timestamp(exchange.start_time),
        "method": cut(exchange.method, field),
        "path": cut(exchange.path, field),
        "protocol": cut(exchange.protocol, field),
        "response_code": exchange.response_code,
        "response_flags": ANSWERS[reason].flag,
        "response_code_details": "via_upstream" if reason is Reason.ALLOWED else reason.value,
        "bytes_received": exchange.bytes_received,
        "bytes_sent": exchange.bytes_sent,
        "duration": round(exchange.duration * 1000),
        "authority": cut(exchange.authority, field),
        "upstream_host": address(*exchange.upstream) if exchange.upstream else None,
        "requested_server_name": cut(exchange.requested_server_name, field),
        "downstream_remote_address": cut(address(*exchange.client), field),
        "upstream_transport_failure_reason": cut(exchange.detail, field) if failed else None,
        "request_id": cut(exchange.request_id, field),
        "verdict": action(verdict),
        "reason": reason.value,
        "detail": cut(exchange.detail, field),
        "rule": cut(verdict.rule_key, field),
        "rule_source": cut(str(rule.source), field) if rule and rule.source else None,
        "user": cut(exchange.user, field),
        "source_workload": None,
        "source_namespace": None,
        "original_destination": _pair(exchange.original_destination, field),
        "resolved_addresses": _addresses(exchange.resolved),
        "address_check": exchange.address_check or None,
        "tls_mode": exchange.tls_mode or None,
        "ech": exchange.ech,
        "trace_id": None,
    }


def cut(text: str, limit: int) -> str | None:
    """`text`, or as much of it as takes `limit` characters in JSON and how much is missing; None if empty."""
    if not text:
        return None
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")  # halves of surrogate pairs are not JSON
    if len(text) * 12 <= limit or (len(text) <= limit and _length(text) <= limit):
        return text
    low, high = 0, min(len(text), limit)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _length(text[:middle]) <= limit - 24 else (low, middle - 1)
    return f"{text[:low]}...[{len(text) - low} more]"


def _length(text: str) -> int:
    return len(json.dumps(text)) - 2


def _pair(pair: tuple[str, int] | None, limit: int) -> str | None:
    return cut(address(*pair), limit) if pair else None


def _addresses(addresses: Iterable[object]) -> list[str]:
    return [str(each) for each in addresses][:_ADDRESSES]


def _timestamp(seconds: float) -> str:
    """RFC 3339 in UTC with milliseconds."""
    whole = int(seconds)
    return f"{_second(whole)}.{int((seconds - whole) * 1000):03}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
