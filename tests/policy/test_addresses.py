"""What kind of place an address is, in every wrapping."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egress_gateway.policy.addresses import (
    _SPECIAL,
    AddressClass,
    classify,
    embedded_ipv4,
    is_in,
    network_class,
)

BY_CLASS: dict[AddressClass, tuple[str, ...]] = {
    AddressClass.PUBLIC: (
        "1.1.1.1", "9.255.255.255", "11.0.0.0", "93.184.216.34", "100.63.255.254", "100.128.0.1", "126.255.255.255",
        "128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.88.98.255",
        "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "203.0.112.255", "203.0.114.0",
        "223.255.255.255", "168.63.129.15", "168.63.129.17", "2606:4700:4700::1111", "2001:4860:4860::8888",
        "64:ff9c::1", "2000::1", "2001:200::1", "2001:db9::1", "2003::1", "3ffe:ffff::1", "4000::1",
    ),
    AddressClass.PRIVATE: (
        "10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0", "192.168.255.255", "fc00::1",
        "fd00::1", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fec0::1", "feff::1",
    ),
    AddressClass.LOOPBACK: ("127.0.0.0", "127.0.0.1", "127.255.255.255", "0.0.0.0", "0.1.2.3", "::1", "::"),
    AddressClass.LINK_LOCAL: ("169.254.0.0", "169.254.255.255", "169.254.169.253", "fe80::1", "febf::1"),
    AddressClass.METADATA: (
        "169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "fd00:ec2::254", "192.0.0.192",
    ),
    AddressClass.SHARED: ("100.64.0.0", "100.127.255.255"),
    AddressClass.BENCHMARKING: ("198.18.0.0", "198.19.255.255", "2001:2::1"),
    AddressClass.DOCUMENTATION: (
        "192.0.2.1", "198.51.100.1", "203.0.113.255", "2001:db8::1", "3fff::1", "3fff:fff:ffff::1",
    ),
    AddressClass.RESERVED: (
        "192.0.0.1", "192.0.0.9", "192.88.99.1", "240.0.0.1", "255.255.255.254", "255.255.255.255", "100::1",
        "5f00::1", "2001:1::1", "2001:3::1", "2001:4:112::1", "2001:10::1", "2001:20::1", "2001:30::1",
        "2001:1ff:ffff::1", "2620:4f:8000::1",
    ),
    AddressClass.MULTICAST: ("224.0.0.0", "224.0.0.1", "239.255.255.255", "ff00::1", "ff02::1", "ffff::1"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("address", "kind"), [(address, kind) for kind, addresses in BY_CLASS.items() for address in addresses]
)
def test_every_class_up_to_its_edges(address: str, kind: AddressClass) -> None:
    assert classify(ip_address(address)) is kind


def test_no_class_is_forgotten() -> None:
    assert set(BY_CLASS) == set(AddressClass) - {AddressClass.OWN, AddressClass.DENIED}


PYTHON_CALLS_GLOBAL = (
    "168.63.129.16", "192.88.99.1", "224.0.0.1", "239.255.255.255", "::127.0.0.1", "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "fec0::1", "ff02::1", "3fff::1", "5f00::1", "2002:7f00:1::",
)  # fmt: skip


@pytest.mark.parametrize("address", PYTHON_CALLS_GLOBAL)
def test_what_ipaddress_has_called_global_is_not_public(address: str) -> None:
    """Python 3.13.0 says `is_global` of these, later versions of some."""
    assert classify(ip_address(address)) is not AddressClass.PUBLIC


def wrappings(four: IPv4Address) -> dict[str, IPv6Address]:
    number = int(four)
    high, low = number >> 16, number & 0xFFFF
    spread = (number >> 24 & 0xFF, number >> 16 & 0xFF, number >> 8 & 0xFF, number & 0xFF)
    a, b, c, d = spread
    made = {
        "mapped": f"::ffff:{four}",
        "compatible": f"::{high:x}:{low:x}",
        "SIIT": f"::ffff:0:{high:x}:{low:x}",
        "NAT64, well known": f"64:ff9b::{four}",
        "6to4": f"2002:{high:x}:{low:x}::1",
        "6to4, with a subnet and an interface": f"2002:{high:x}:{low:x}:ffff:1234:5678:9abc:def0",
        "Teredo, as the server": f"2001:0:{high:x}:{low:x}:8000:63bf:f7f7:f7f7",  # the client is 8.8.8.8
        "Teredo, as the client": f"2001:0:808:808:8000:63bf:{high ^ 0xFFFF:x}:{low ^ 0xFFFF:x}",
        "ISATAP": f"2606:4700::5efe:{high:x}:{low:x}",
        "ISATAP of a global address": f"2606:4700::200:5efe:{high:x}:{low:x}",
    }
    return {name: IPv6Address(text) for name, text in made.items()} | {
        # RFC 6052, 2.2; the other places are filled with 8.8.8.8 as far as the layouts allow.
        "NAT64, local, /96": IPv6Address(f"64:ff9b:1:808:808:808:{high:x}:{low:x}"),
        "NAT64, local, /48": IPv6Address(f"64:ff9b:1:{a:02x}{b:02x}:00{c:02x}:{d:02x}08:808:808"),
        "NAT64, local, /56": IPv6Address(f"64:ff9b:1:08{a:02x}:00{b:02x}:{c:02x}{d:02x}:808:808"),
        "NAT64, local, /64": IPv6Address(f"64:ff9b:1:808:00{a:02x}:{b:02x}{c:02x}:{d:02x}08:808"),
    }


WRAPPINGS = list(wrappings(IPv4Address("127.0.0.1")))


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize(
    "inner", ["127.0.0.1", "10.1.2.3", "192.168.1.1", "169.254.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1"]
)
def test_an_ipv6_address_is_judged_by_the_ipv4_address_it_carries(wrapping: str, inner: str) -> None:
    outer = wrappings(IPv4Address(inner))[wrapping]
    assert IPv4Address(inner) in embedded_ipv4(outer), outer
    kind = classify(IPv4Address(inner))
    if wrapping.startswith("NAT64, local"):
        # Which of four layouts the operator uses is not known, so the strictest reading counts.
        assert classify(outer) is not AddressClass.PUBLIC
        if kind in (AddressClass.METADATA, AddressClass.MULTICAST):
            assert classify(outer) in (AddressClass.METADATA, AddressClass.MULTICAST, AddressClass.RESERVED)
    else:
        assert classify(outer) is kind, outer


@pytest.mark.parametrize("wrapping", [name for name in WRAPPINGS if not name.startswith("NAT64, local")])
def test_a_wrapped_public_address_is_public(wrapping: str) -> None:
    assert classify(wrappings(IPv4Address("93.184.216.34"))[wrapping]) is AddressClass.PUBLIC


@pytest.mark.parametrize(
    ("outer", "kind"),
    [
        pytest.param("fe80::5efe:a9fe:a9fe", AddressClass.METADATA, id="metadata inside link-local"),
        pytest.param("fd00::200:5efe:a9fe:a9fe", AddressClass.METADATA, id="metadata inside a private network"),
        pytest.param("fe80::5efe:e000:1", AddressClass.MULTICAST, id="multicast inside link-local"),
        pytest.param("ff02::5efe:a00:1", AddressClass.MULTICAST, id="private inside multicast"),
        pytest.param("fe80::5efe:a00:1", AddressClass.LINK_LOCAL, id="private inside link-local"),
    ],
)
def test_of_a_special_address_in_a_special_address_the_stricter_class_counts(outer: str, kind: AddressClass) -> None:
    assert classify(ip_address(outer)) is kind


@pytest.mark.parametrize("plain", ["::", "::1", "2606:4700::1", "fe80::1", "2001:db8::1"])
def test_a_plain_ipv6_address_carries_nothing(plain: str) -> None:
    assert embedded_ipv4(IPv6Address(plain)) == ()


near_an_edge = st.one_of(
    st.integers(0, 2**32 - 1).map(IPv4Address),
    st.integers(0, 2**128 - 1).map(IPv6Address),
    st.sampled_from(_SPECIAL).flatmap(
        lambda entry: st.sampled_from(
            [
                entry[0].network_address,
                entry[0].broadcast_address,
                ip_address(max(0, int(entry[0].network_address) - 1)) if entry[0].version == 4 else entry[0][0],
            ]
        )
    ),
    st.builds(
        lambda prefix, rest: IPv6Address(prefix << 96 | rest),
        st.sampled_from([0x20010000, 0x20010001, 0x200101FF, 0x20010200, 0x20020A00, 0x0064FF9B, 0x3FFF0000, 0]),
        st.integers(0, 2**96 - 1),
    ),
)


@given(near_an_edge)
def test_nothing_is_public_that_python_does_not_call_global(address: IPv4Address | IPv6Address) -> None:
    if classify(address) is AddressClass.PUBLIC and not embedded_ipv4_of(address):
        assert address.is_global, address


def embedded_ipv4_of(address: IPv4Address | IPv6Address) -> tuple[IPv4Address, ...]:
    return embedded_ipv4(address) if isinstance(address, IPv6Address) else ()


@given(near_an_edge)
def test_an_address_that_carries_one_that_is_not_public_is_not_public(address: IPv4Address | IPv6Address) -> None:
    if any(classify(inner) is not AddressClass.PUBLIC for inner in embedded_ipv4_of(address)):
        assert classify(address) is not AddressClass.PUBLIC


def test_networks_hold_addresses_of_their_own_version_only() -> None:
    networks = [ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")]
    assert is_in(ip_address("10.1.1.1"), networks)
    assert is_in(ip_address("2001:db8::1"), networks)
    assert not is_in(ip_address("11.1.1.1"), networks)
    assert not is_in(ip_address("::a01:101"), networks)
    assert not is_in(ip_address("10.1.1.1"), [])


@pytest.mark.parametrize(
    ("network", "kind"),
    [
        ("10.0.0.0/8", AddressClass.PRIVATE),
        ("10.2.0.0/16", AddressClass.PRIVATE),
        ("169.254.169.254/32", AddressClass.METADATA),
        ("169.254.0.0/16", AddressClass.LINK_LOCAL),
        ("203.0.113.0/24", AddressClass.DOCUMENTATION),
        ("0.0.0.0/0", None),
        ("10.0.0.0/7", None),
        ("2001:db8::/48", AddressClass.DOCUMENTATION),
        ("::/0", None),
    ],
)
def test_the_class_of_a_network(network: str, kind: AddressClass | None) -> None:
    assert network_class(ip_network(network)) is kind
