"""Echo requests and their replies."""

from __future__ import annotations

from egress_gateway.containment.spoken import icmp


def test_the_checksum_is_that_of_rfc_1071() -> None:
    assert icmp.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D  # its example, complemented


def test_the_checksum_of_a_whole_message_is_zero() -> None:
    assert icmp.checksum(icmp.request(4, 0x1234)) == 0


def test_a_reply_is_the_payload_under_the_type_of_a_reply() -> None:
    for version, reply in ((4, 0), (6, 129)):
        request = icmp.request(version, 7)
        answer = bytes([reply]) + request[1:]
        assert icmp.is_reply(version, answer)
        assert not icmp.is_reply(version, request)
        assert not icmp.is_reply(version, answer[:-1])
        assert not icmp.is_reply(version, b"")


def test_an_ip_header_is_taken_off_whatever_its_length() -> None:
    assert icmp.without_ip_header(b"\x45" + bytes(19) + b"message") == b"message"
    assert icmp.without_ip_header(b"\x46" + bytes(23) + b"message") == b"message"
    assert icmp.without_ip_header(b"") == b""
