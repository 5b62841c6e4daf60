"""First packets of protocols on IP itself."""

from __future__ import annotations

import pytest

from egress_gateway.containment.spoken import ip
from egress_gateway.containment.spoken.icmp import checksum


def test_crc32c_is_that_of_the_standard() -> None:
    assert ip.crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C
    assert ip.crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4


def test_an_sctp_init_carries_its_own_checksum() -> None:
    packet = ip.sctp_init()
    assert int.from_bytes(packet[8:12], "little") == ip.crc32c(packet[:8] + bytes(4) + packet[12:])
    assert packet[4:8] == bytes(4)  # an INIT has no verification tag
    assert int.from_bytes(packet[14:16], "big") == len(packet) - 12


@pytest.mark.parametrize("protocol", [ip.IPV6_IN_IP, ip.GRE])
def test_a_router_that_checks_sums_where_there_are_none_is_content(protocol: int) -> None:
    assert checksum(ip.packet(protocol)) == 0


def test_each_protocol_has_a_packet_and_no_other() -> None:
    for protocol in (ip.IPV6_IN_IP, ip.GRE, ip.ESP, ip.SCTP):
        assert ip.packet(protocol)
    with pytest.raises(ValueError, match="protocol 99"):
        ip.packet(99)


def test_the_headers_that_are_cut_short_promise_another_one() -> None:
    header = ip.cut_short()
    assert header[0] == ip.DESTINATION_OPTIONS
    assert len(header) == (header[1] + 1) * 8
