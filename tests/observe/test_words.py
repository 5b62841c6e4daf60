from ipaddress import ip_address

import pytest

from egress_gateway.observe.words import action, address, duration, size
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.verdict import Treatment, Verdict, refuse


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0b"),
        (1023, "1023b"),
        (1024, "1.0k"),
        (1229, "1.2k"),
        (1010 * 1024, "1010k"),
        (37 * 2**20, "37m"),
        (2**60, "1048576t"),
    ],
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0354, "35ms"), (2.1, "2.1s"), (200, "3m20s"), (3600 + 300, "1h05m"), (100_000, "27h46m")],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_addresses_as_they_stand_in_an_authority() -> None:
    assert address("192.0.2.1", 443) == "192.0.2.1:443"
    assert address(ip_address("2001:db8::1"), 80) == "[2001:db8::1]:80"
    assert address("", 0) == ""


def test_a_verdict_is_called_allow_or_deny() -> None:
    assert action(Verdict(Treatment.AWAIT, Reason.ALLOWED)) == "allow"
    assert action(refuse(Reason.NO_RULE)) == "deny"
