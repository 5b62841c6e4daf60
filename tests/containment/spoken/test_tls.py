"""A ClientHello that real servers answer, and what their first record means."""

from __future__ import annotations

import ssl

import pytest

from egress_gateway.containment.spoken import tls
from egress_gateway.containment.spoken.reading import Meaning
from egress_gateway.policy.reason import Reason
from egress_gateway.relay.client_hello import HelloReader
from egress_gateway.relay.refuse import alert_for
from support.ca import SessionCa


def test_the_hello_names_the_host() -> None:
    hello = HelloReader().read(tls.client_hello("denied.example"))
    assert hello is not None
    assert str(hello.sni) == "denied.example"
    assert not hello.ech


def test_a_server_answers_it_with_a_server_hello(ca: SessionCa) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = ca.issue("denied.example").server_context().wrap_bio(incoming, outgoing, server_side=True)
    incoming.write(tls.client_hello("denied.example"))
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    reading = tls.read(outgoing.read())
    assert (reading.meaning, reading.words) == (Meaning.OTHER, "TLS ServerHello")


@pytest.mark.parametrize("reason", Reason)
def test_the_gateways_alerts_are_refusals_or_tell_that_it_is_not_in_order(reason: Reason) -> None:
    reading = tls.read(alert_for(reason))
    assert reading.meaning is (Meaning.FAILURE if "internal_error" in reading.words else Meaning.REFUSAL)


OTHERS = {
    "an alert that the gateway does not send": (b"\x15\x03\x03\x00\x02\x02\x28", "TLS alert handshake_failure"),
    "an alert nobody knows": (b"\x15\x03\x03\x00\x02\x02\xff", "TLS alert 255"),
    "another handshake message": (b"\x16\x03\x03\x00\x10\x0b\x00", "a TLS handshake"),
    "HTTP": (b"HTTP/1.1 400 Bad Request", "not TLS"),
    "a record cut short": (b"\x15\x03\x03", "not TLS"),
    "nothing": (b"", "not TLS"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_others_say(case: str) -> None:
    data, words = OTHERS[case]
    assert tls.read(data) == tls.Reading(Meaning.OTHER, words)
