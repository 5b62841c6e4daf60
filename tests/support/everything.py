"""A machine that answers to everything: what gets through to it is seen to have got through.

    with Everything(lab.evil) as everything:
        everything.dns.set("denied.example", ["203.0.113.7"])

Every TCP port takes connections, to every address of the machine, and answers TLS with a ServerHello and all else as
HTTP; every UDP port answers, QUIC with Version Negotiation; port 53 is a DNS server; GRE is answered, which a kernel
may keep silent about. Echo requests, and refusals of protocols that it does not speak, come from the kernel.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from typing import Self

from aioquic.quic.packet import encode_quic_version_negotiation

from support.dns_server import DnsServer
from support.networks import Host
from support.sockets import stop_listening
from support.waiting import PATIENCE

_TABLE = "inet test_everything"
_PORT = 9999
_GRE = 47
_QUIC_VERSION_1 = 1
# An empty extension block and no more: enough for a client to know that a server speaks.
_SERVER_HELLO = b"\x16\x03\x03\x00\x2c" + b"\x02\x00\x00\x28\x03\x03" + bytes(32) + b"\x00\x13\x01\x00\x00\x00"
_HTTP = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
_NFT = f"""
    table {_TABLE} {{
        chain prerouting {{
            type nat hook prerouting priority dstnat; policy accept;
            fib daddr type local meta l4proto {{ tcp, udp }} th dport 53 redirect to :53
            fib daddr type local meta l4proto {{ tcp, udp }} redirect to :{_PORT}
        }}
    }}
"""


class Everything:
    """Answers from `__enter__` to `__exit__`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.dns: DnsServer
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack, self._host.entered():
            self.dns = stack.enter_context(DnsServer("::", 53))
            tcp = socket.create_server(("::", _PORT), family=socket.AF_INET6, dualstack_ipv6=True, backlog=256)
            udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            udp.bind(("::", _PORT))
            _serve(stack, tcp, _accept)
            _serve(stack, udp, _answer_udp)
            for family, here in ((socket.AF_INET, self._host.ipv4), (socket.AF_INET6, self._host.ipv6)):
                gre = socket.socket(family, socket.SOCK_RAW, _GRE)
                gre.bind((here, 0))
                _serve(stack, gre, _answer_gre)
            self._host.run("nft", "-f", "-", input=_NFT)
            stack.callback(self._host.run, "nft", "delete", "table", *_TABLE.split())
            self._held = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()


def _serve(stack: contextlib.ExitStack, sock: socket.socket, once: Callable[[socket.socket], None]) -> None:
    """`once` again and again on a thread, until the stack closes."""
    closing = threading.Event()

    def loop() -> None:
        while not closing.is_set():
            try:
                once(sock)
            except OSError:
                continue  # a client that is gone, or the end

    sock.settimeout(0.2)  # raw sockets are not woken by a shutdown
    thread = threading.Thread(target=loop, name="everything", daemon=True)
    thread.start()

    def stop() -> None:
        closing.set()
        thread.join(5)
        stop_listening(sock)

    stack.callback(stop)


def _accept(listener: socket.socket) -> None:
    client, _ = listener.accept()
    threading.Thread(target=_answer_tcp, args=(client,), daemon=True).start()


def _answer_tcp(client: socket.socket) -> None:
    with client, contextlib.suppress(OSError):
        client.settimeout(PATIENCE)
        said = client.recv(65536)
        client.sendall(_SERVER_HELLO if said[:1] == b"\x16" else _HTTP)
        client.shutdown(socket.SHUT_WR)
        while client.recv(65536):
            pass


def _answer_udp(sock: socket.socket) -> None:
    data, client = sock.recvfrom(65535)
    sock.sendto(_version_negotiation(data) if _is_quic(data) else data, client)


def _is_quic(data: bytes) -> bool:
    return len(data) >= 1200 and data[0] & 0xC0 == 0xC0


def _version_negotiation(data: bytes) -> bytes:
    destination = data[6 : 6 + data[5]]
    rest = data[6 + data[5] :]
    source = rest[1 : 1 + rest[0]]
    return encode_quic_version_negotiation(
        source_cid=destination, destination_cid=source, supported_versions=[_QUIC_VERSION_1]
    )


def _answer_gre(sock: socket.socket) -> None:
    data, client = sock.recvfrom(65535)
    payload = data[(data[0] & 0x0F) * 4 :] if sock.family == socket.AF_INET else data
    sock.sendto(payload + os.urandom(4), client)
