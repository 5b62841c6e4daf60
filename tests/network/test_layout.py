"""What was asked, as a value: how it is written, and that it comes back from a file as it went in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from egress_gateway.network.layout import Kept, Layout, parse_kept, parse_port


def test_a_layout_comes_back_as_it_was_written() -> None:
    layout = Layout(("eth1", "eth2"), 8080, 5353, "eth0", (Kept("tcp", 22), Kept("icmp")), 1000)
    layout = replace(layout, served=(22, 8000))
    assert Layout.from_json(layout.to_json()) == layout
    plain = Layout(("eth1",), 1, 2)
    assert Layout.from_json(plain.to_json()) == plain
    assert layout.sidecar
    assert not plain.sidecar


@pytest.mark.parametrize("text", ["1", "65535", "00080"])
def test_a_port_is_a_number_from_1_to_65535(text: str) -> None:
    assert parse_port(text) == int(text)


@pytest.mark.parametrize("text", ["", "0", "65536", "-1", "+80", "8_0", "http", "٨٠", " 80", "123456"])
def test_anything_else_is_no_port(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a port \(use 1-65535\)"):
        parse_port(text)


@pytest.mark.parametrize(
    ("text", "kept"), [("tcp/22", Kept("tcp", 22)), ("UDP/123", Kept("udp", 123)), ("icmp", Kept("icmp"))]
)
def test_what_stays_reachable_is_a_port_or_ping(text: str, kept: Kept) -> None:
    assert parse_kept(text) == kept
    assert parse_kept(str(kept)) == kept


@pytest.mark.parametrize("text", ["", "22", "tcp", "tcp/", "tcp/0", "icmp/8", "sctp/22", "tcp/22/23", "tcp/22;"])
def test_nothing_else_can_be_kept(text: str) -> None:
    with pytest.raises(ValueError, match=r"tcp/22|1-65535"):
        parse_kept(text)
