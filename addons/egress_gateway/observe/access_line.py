"""A line of the access log: one JSON object, with Envoy's keys.

The rules of this file:

- A line is ASCII: JSON escapes everything else, so no control or escape code of a client reaches a terminal.
- Every text is cut, at a length counted after escaping, and says how much was cut; so a line has an upper
  bound.
- A key is always there; what is not known is null.
- `record` says what is in a line. `line` writes the same by hand, since a request should cost more than its line; what
  many lines have in common, it writes once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quote
from typing import Any

from egress_gateway.policy.events import Exchange
from egress_gateway.policy.hostname import Address
from egress_gateway.policy.reason import ANSWERS, Reason
from egress_gateway.policy.rule import EgressRule

from .words import action, address

_FIELD = 2048
_ADDRESSES = 16
_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode

_TRANSPORT_FAILURES = frozenset({Reason.CONNECT_FAILED, Reason.CONNECT_TIMEOUT, Reason.UPSTREAM_TLS_FAILED})


def line(exchange: Exchange, max_line: int = 16 * 1024) -> str:
    """The line of `exchange`, at most `max_line` characters long, in ASCII and with its line end."""
    text = _line(exchange)
    if len(text) <= max_line:
        return text
    for field in (_FIELD // 4, _FIELD // 16, 16):
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


def _line(exchange: Exchange) -> str:
    verdict, reason = exchange.verdict, exchange.failure or exchange.verdict.reason
    detail = _text(exchange.detail)
    upstream, original = exchange.upstream, exchange.original_destination
    return (
        f'{{"start_time":"{_timestamp(exchange.start_time)}","method":{_text(exchange.method)},'
        f'"path":{_text(exchange.path)},"protocol":{_text(exchange.protocol)},'
        f'"response_code":{exchange.response_code},{_ANSWERS[reason]},'
        f'"bytes_received":{exchange.bytes_received},"bytes_sent":{exchange.bytes_sent},'
        f'"duration":{round(exchange.duration * 1000)},"authority":{_text(exchange.authority)},'
        f'"upstream_host":{_text(address(_host(upstream[0]), upstream[1])) if upstream else "null"},'
        f'"requested_server_name":{_text(exchange.requested_server_name)},'
        f'"downstream_remote_address":{_text(address(*exchange.client))},'
        f'"upstream_transport_failure_reason":{detail if reason in _TRANSPORT_FAILURES else "null"},'
        f'"request_id":{_text(exchange.request_id)},'
        f'"verdict":"{action(verdict)}","reason":"{reason.value}","detail":{detail},{_rule(verdict.rule)},'
        f'"user":{_text(exchange.user)},"source_workload":null,"source_namespace":null,'
        f'"original_destination":{_text(address(*original)) if original else "null"},'
        f'"resolved_addresses":{_list(exchange.resolved)},"address_check":{_text(exchange.address_check)},'
        f'"tls_mode":{_text(exchange.tls_mode)},"ech":{"true" if exchange.ech else "false"},"trace_id":null}}\n'
    )


def _text(text: str) -> str:
    """A text in JSON, cut; null for none."""
    if not text:
        return "null"
    if len(text) <= _SURELY_SHORT and text.isascii():
        return _quote(text)
    return _encode(cut(text, _FIELD))


_SURELY_SHORT = _FIELD // 6
"""So many characters of ASCII fit, however many of them are escaped."""


def _answer(reason: Reason) -> str:
    details = "via_upstream" if reason is Reason.ALLOWED else reason.value
    return f'"response_flags":{_encode(ANSWERS[reason].flag)},"response_code_details":{_encode(details)}'


_ANSWERS = {reason: _answer(reason) for reason in Reason}


class _Remembered[T]:
    """What was made of the same object before; for objects that come again and again, such as rules and addresses."""

    def __init__(self, make: Callable[[T], str], most: int = 4096) -> None:
        self._make = make
        self._most = most
        self._known: dict[int, tuple[T, str]] = {}
        """By the id of an object, which is kept here so that no other one can have the same."""

    def __call__(self, thing: T) -> str:
        found = self._known.get(id(thing))
        if found is None:
            if len(self._known) >= self._most:
                self._known.clear()
            found = self._known[id(thing)] = (thing, self._make(thing))
        return found[1]


def _write_rule(rule: EgressRule | None) -> str:
    key = rule.key if rule else ""
    source = str(rule.source) if rule and rule.source else ""
    return f'"rule":{_text(key)},"rule_source":{_text(source)}'


_rule = _Remembered[EgressRule | None](_write_rule)
_host = _Remembered[Address](str)
_list = _Remembered[tuple[Address, ...]](lambda addresses: _encode(_addresses(addresses)))


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
