"""Packets that a real server answers."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import dns.message
import pytest
from aioquic.asyncio import serve
from aioquic.buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicPacketType, pull_quic_header

from egress_gateway.containment.spoken import udp
from support.ca import SessionCa


async def test_a_quic_server_answers_with_version_negotiation(ca: SessionCa, tmp_path: Path) -> None:
    configuration = QuicConfiguration(is_client=False)
    configuration.load_cert_chain(*ca.issue("quic.example").write(tmp_path))
    server = await serve("127.0.0.1", 0, configuration=configuration)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        assert server._transport is not None
        sock.connect(server._transport.get_extra_info("sockname"))
        packet = udp.quic()
        await loop.sock_sendall(sock, packet)
        answer = await asyncio.wait_for(loop.sock_recv(sock, 2048), 5)
    server.close()
    header = pull_quic_header(Buffer(data=answer))
    assert header.packet_type is QuicPacketType.VERSION_NEGOTIATION
    # Ours are swapped in the answer (RFC 9000, 17.2.1).
    assert header.destination_cid == packet[15:23]
    assert header.source_cid == packet[6:14]


def test_a_quic_packet_fills_a_datagram_as_a_first_one_must() -> None:
    assert len(udp.quic()) == 1200


def test_ntp_is_a_clients_request_of_version_4() -> None:
    packet = udp.ntp()
    assert len(packet) == 48
    assert (packet[0] >> 3 & 7, packet[0] & 7) == (4, 3)


def test_stun_is_a_binding_request() -> None:
    packet = udp.stun()
    assert packet[:8] == bytes.fromhex("000100002112a442")
    assert len(packet) == 20


KINDS = {443: b"\xc0", 853: b"\xc0", 123: b"\x23", 3478: b"\x00\x01\x00\x00"}


@pytest.mark.parametrize("port", KINDS)
def test_a_port_is_spoken_to_in_its_own_protocol(port: int) -> None:
    assert udp.packet(port, "denied.example").startswith(KINDS[port])


def test_a_dns_port_is_asked_for_the_name() -> None:
    query = dns.message.from_wire(udp.packet(5353, "denied.example"))
    assert query.question[0].name.to_text() == "denied.example."


def test_other_ports_get_something() -> None:
    assert len(udp.packet(51820, "denied.example")) == 32
