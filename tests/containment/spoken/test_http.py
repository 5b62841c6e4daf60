"""The gateway's refusals are known for what they are, and nothing else is."""

from __future__ import annotations

import pytest

from egress_gateway.containment.spoken import http
from egress_gateway.containment.spoken.reading import Meaning
from egress_gateway.policy.reason import Reason
from support.gateway_stand_in import http_refusal

FAILURES = {Reason.INTERNAL_ERROR, Reason.NOT_READY}
SIGNED = b"proxy-status: egress; error=http_request_denied\r\nx-egress-reason: no_rule\r\n"


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.ALLOWED])
def test_every_refusal_of_the_gateway_is_signed(reason: Reason) -> None:
    refusal = http_refusal(reason)
    assert http.is_signed(refusal)
    reading = http.read(refusal)
    assert reading.meaning is (Meaning.FAILURE if reason in FAILURES else Meaning.SIGNED)
    assert reading.words.endswith(f" {reason.value}")


NOT_SIGNED = {
    "another server's answer": b"HTTP/1.1 200 OK\r\n\r\n",
    "a reason without the proxy's name": b"HTTP/1.1 403 No\r\nx-egress-reason: no_rule\r\n\r\n",
    "another proxy's status": b"HTTP/1.1 403 No\r\nproxy-status: other\r\nx-egress-reason: no_rule\r\n\r\n",
    "a reason that is none": b"HTTP/1.1 403 No\r\nproxy-status: egress\r\nx-egress-reason: <b>\r\n\r\n",
    "a signature in the body": b"HTTP/1.1 200 OK\r\n\r\n" + SIGNED + b"\r\n",
    "a signature in no HTTP": SIGNED + b"\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("case", NOT_SIGNED)
def test_what_others_say_is_not_a_refusal_of_the_gateway(case: str) -> None:
    assert http.read(NOT_SIGNED[case]).meaning is Meaning.OTHER


def test_a_request_names_the_host_and_is_complete_with_its_head() -> None:
    head = http.request("denied.example").decode()
    assert head.startswith("GET / HTTP/1.1\r\nHost: denied.example\r\n")
    assert head.endswith("\r\n\r\n")
    assert http.complete(b"HTTP/1.1 200 OK\r\n\r\nhe")
    assert not http.complete(b"HTTP/1.1 200 OK\r\n")
