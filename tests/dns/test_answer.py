"""What comes out of a lookup: the order of the addresses, and errors that fit on one line."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egress_gateway.dns.answer import MAX_ADDRESSES, ResolveError, ResolveFailure, interleave


@pytest.mark.parametrize(
    ("given_addresses", "expected"),
    [
        pytest.param(["192.0.2.1", "192.0.2.2", "2001:db8::1"], ["2001:db8::1", "192.0.2.1", "192.0.2.2"],
                     id="IPv6 goes first, what is left over goes last"),
        pytest.param(["192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2"],
                     ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"], id="the families take turns"),
        pytest.param(["192.0.2.2", "192.0.2.1"], ["192.0.2.2", "192.0.2.1"],
                     id="one family keeps the server's order"),
        pytest.param(["192.0.2.1", "192.0.2.1"], ["192.0.2.1"], id="an address stands there once"),
        pytest.param([], [], id="nothing stays nothing"),
    ],
)  # fmt: skip
def test_order_of_addresses(given_addresses: list[str], expected: list[str]) -> None:
    ordered = interleave(ip_address(text) for text in given_addresses)
    assert [str(address) for address in ordered] == expected


@given(st.lists(st.ip_addresses(), max_size=400))
def test_interleaving_loses_and_invents_nothing_below_the_limit(addresses: list) -> None:
    ordered = interleave(addresses)
    assert len(set(ordered)) == len(ordered)
    for version in (4, 6):
        mine = [address for address in dict.fromkeys(addresses) if address.version == version]
        assert [address for address in ordered if address.version == version] == mine[:MAX_ADDRESSES]


@given(st.text(max_size=600), st.sampled_from(ResolveFailure))
def test_an_error_is_one_printable_line_whatever_the_name(name: str, kind: ResolveFailure) -> None:
    text = str(ResolveError(kind, name, "127.0.0.1 port 53: no answer in 2 s"))
    assert text.isascii()
    assert text.isprintable()


def test_an_error_raised_again_is_equal_and_has_no_past() -> None:
    with pytest.raises(ResolveError) as first:
        raise ResolveError(ResolveFailure.NXDOMAIN, "a.example", "why")
    again = first.value.again()
    assert (again.kind, again.name, str(again)) == (ResolveFailure.NXDOMAIN, "a.example", str(first.value))
    assert again.__traceback__ is None
