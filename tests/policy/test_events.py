"""What can be observed: safe to write down, and refused until decided."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egress_gateway.policy.events import Exchange, Observer, printable
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.verdict import Treatment, Verdict

PRINTABLE = {
    "plain text stays": ("GET /a?b=c", "GET /a?b=c"),
    "a line feed": ("a\nb", "a\\x0ab"),
    "carriage return, tab, escape, delete": ("\r\t\x1b\x7f", "\\x0d\\x09\\x1b\\x7f"),
    "a backslash, so that nothing can be forged": ("\\x0a", "\\\\x0a"),
    "letters beyond ASCII": ("é", "\\xe9"),
    "a character of two bytes": ("\u202e", "\\u202e"),
    "a lone surrogate": ("\udcff", "\\udcff"),
    "nothing": ("", ""),
}


@pytest.mark.parametrize(("text", "expected"), PRINTABLE.values(), ids=PRINTABLE)
def test_text_from_outside_is_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected


@given(st.text(st.characters(exclude_categories=())), st.integers(3, 50))
def test_any_text_becomes_printable_and_short(text: str, limit: int) -> None:
    safe = printable(text, limit)
    assert safe.isascii()
    assert safe.isprintable()
    assert len(safe) <= limit
    assert len(safe) == limit or not safe.endswith("...") or text.endswith("...")


def test_an_exchange_that_ends_before_its_decision_was_refused() -> None:
    exchange = Exchange(0.0)
    assert not exchange.verdict.allowed
    assert exchange.reason is Reason.INTERNAL_ERROR


def test_the_reason_shown_is_the_failure_where_there_is_one() -> None:
    exchange = Exchange(0.0)
    exchange.verdict = Verdict(Treatment.FORWARD, Reason.ALLOWED)
    assert (exchange.reason, exchange.response_flags) == (Reason.ALLOWED, "-")
    exchange.failure = Reason.UPSTREAM_TIMEOUT
    assert (exchange.reason, exchange.response_flags) == (Reason.UPSTREAM_TIMEOUT, "UT")


@pytest.mark.parametrize(("protocol", "expected"), [("TLS", True), ("TCP", True), ("HTTP/1.1", False), ("", False)])
def test_what_is_a_tunnel(protocol: str, expected: bool) -> None:
    exchange = Exchange(0.0)
    exchange.protocol = protocol
    assert exchange.is_tunnel is expected


def test_an_observer_that_ignores_everything_takes_every_event() -> None:
    observer, exchange = Observer(), Exchange(0.0)
    observer.decided(exchange.verdict, "http", 0.0)
    observer.mismatch("sni")
    observer.finished(exchange)
    observer.connection_opened("regular")
    observer.connection_closed("regular")
    observer.turned_away("descriptors")
    observer.tunnel_opened(exchange)
    observer.looked_up("success", 0.0)
    observer.connected(0.0)
    observer.secured(0.0)
    observer.upstream_failed(Reason.CONNECT_FAILED)
    observer.internal_error("relay")
    observer.reloaded(1, successful=True)
