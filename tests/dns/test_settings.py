"""What an operator may write, and what is said when it cannot work."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egress_gateway.dns.settings import ResolverSettings, parse_servers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", (), id="nothing means no servers"),
        pytest.param("  ", (), id="blanks mean no servers"),
        pytest.param("9.9.9.9", (("9.9.9.9", 53),), id="the port may be left out"),
        pytest.param("127.0.0.1:5353,[::1]:53, 9.9.9.9",
                     (("127.0.0.1", 5353), ("::1", 53), ("9.9.9.9", 53)), id="several, with blanks"),
        pytest.param("2001:db8::1", (("2001:db8::1", 53),), id="IPv6 without brackets has no port"),
        pytest.param("[2001:DB8::1]", (("2001:db8::1", 53),), id="IPv6 in brackets without a port"),
        pytest.param("[fe80::1%eth0]:53", (("fe80::1%eth0", 53),), id="IPv6 with a zone"),
    ],
)  # fmt: skip
def test_servers_that_can_be_read(text: str, expected: tuple[tuple[str, int], ...]) -> None:
    assert parse_servers(text) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("dns.google", "'dns.google' is not a name server", id="a name cannot be asked"),
        pytest.param("9.9.9.9,,1.1.1.1", "an empty name server", id="nothing between commas"),
        pytest.param("9.9.9.9,", "an empty name server", id="nothing after the last comma"),
        pytest.param("9.9.9.9:0", "'0' is not a port (use 1-65535)", id="port 0"),
        pytest.param("9.9.9.9:65536", "'65536' is not a port", id="a port too large"),
        pytest.param("9.9.9.9:", "'' is not a port", id="a colon and no port"),
        pytest.param("9.9.9.9:+53", "'+53' is not a port", id="a signed port"),
        pytest.param("9.9.9.9:٥٣", "is not a port", id="digits of another script"),
        pytest.param("[::1", "'[::1' is not a name server", id="an open bracket"),
        pytest.param("[::1]53", "'[::1]53' is not a name server", id="no colon after the bracket"),
        pytest.param("[9.9.9.9]:53", "write 9.9.9.9:53", id="IPv4 in brackets"),
        pytest.param("0x7f.1", "is not a name server", id="an address in a strange spelling"),
        pytest.param("127.1:53", "is not a name server", id="an address that lacks parts"),
    ],
)
def test_servers_that_cannot_be_read(text: str, complaint: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below
        parse_servers(text)
    assert complaint in str(caught.value)


@given(st.ip_addresses(), st.integers(1, 65535))
def test_a_server_written_down_is_read_back(address: object, port: int) -> None:
    host = str(address)
    text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    assert parse_servers(text) == ((host, port),)


@given(st.text(alphabet="0123456789abf.:[]%,x ", max_size=40))
def test_any_text_is_read_or_refused_with_a_valueerror(text: str) -> None:
    try:
        servers = parse_servers(text)
    except ValueError:
        servers = ()
    assert all(1 <= port <= 65535 for _, port in servers)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        pytest.param({"timeout": 0.0}, "timeout: 0.0", id="no time for a try"),
        pytest.param({"total_timeout": -1.0}, "total_timeout: -1.0", id="negative time in all"),
        pytest.param({"timeout": float("nan")}, "timeout: nan", id="not a number"),
        pytest.param({"attempts": 0}, "attempts: 0", id="no attempt"),
        pytest.param({"cache_size": 0}, "cache_size: 0", id="no room"),
        pytest.param({"max_inflight": 0}, "max_inflight: 0", id="no lookup"),
        pytest.param({"min_ttl": 10.0, "max_ttl": 5.0}, "min_ttl: 10.0", id="least above most"),
        pytest.param({"negative_ttl_max": -1.0}, "negative_ttl_max: -1.0", id="negative time for failures"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ResolverSettings(**wrong)
