"""The facts of one decision travel as one frozen value."""

from dataclasses import FrozenInstanceError

import pytest

from egress_gateway.policy.hostname import Hostname
from egress_gateway.policy.request import Request, Spoken


def test_what_is_not_said_is_not_claimed() -> None:
    request = Request(Hostname("a.example"), 443)
    assert (request.spoken, request.sni, request.authority, request.original) == (Spoken.UNKNOWN, None, None, None)


def test_equal_facts_are_equal_and_cannot_be_changed() -> None:
    request = Request(Hostname("a.example"), 443, Spoken.TLS)
    assert request == Request(Hostname("a.example"), 443, Spoken.TLS)
    assert hash(request) == hash(Request(Hostname("a.example"), 443, Spoken.TLS))
    with pytest.raises(FrozenInstanceError):
        request.port = 80  # type: ignore[misc]  # that is what is tested
