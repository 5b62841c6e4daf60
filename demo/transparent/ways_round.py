"""Ways round the gateway, as a client tries them: each dials evil.example itself, and says how that ended.

What tells whether a way is open is not what the client learns, but what evil's interface saw.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

import dns.exception
import dns.message
import dns.query
import dns.rcode

from .networks import EVIL, EVIL_V6, IPV6

ALLOWED = "www.googleapis.com"
ANOTHER_DNS_SERVER = "another DNS server"
OTHER_PORT, DNS_OVER_TLS, QUIC = 8443, 853, 443
_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Way:
    name: str
    protocol: str
    port: int
    """0 where the protocol has none."""
    attempt: Callable[[], str]

    def left(self, line: str) -> bool:
        """Whether a line of a capture is about a packet of this way, not about one of another that came late."""
        return line.startswith(f"{self.protocol} ") and (not self.port or line.endswith(f" port {self.port}"))


def dig(server: str, name: str) -> str:
    """The answer of a name server in a line: addresses, or why there are none."""
    try:
        answer = dns.query.udp(dns.message.make_query(name, "A"), server, timeout=_TIMEOUT)
    except (dns.exception.DNSException, OSError) as error:
        return _in_words(error)
    addresses = [item.to_text() for rrset in answer.answer for item in rrset]
    return ", ".join(addresses) or dns.rcode.to_text(answer.rcode())


def tls_handshake(address: str, server_name: str) -> str:
    """How a handshake ends whose client would talk to anybody."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((address, 443), timeout=_TIMEOUT) as sock,
            context.wrap_socket(sock, server_hostname=server_name),
        ):
            return "the handshake succeeded"
    except ssl.SSLError as error:
        return f"TLS alert: {error.reason}"
    except OSError as error:
        return _in_words(error)


def _tcp(port: int) -> str:
    try:
        socket.create_connection((EVIL, port), timeout=_TIMEOUT).close()
    except OSError as error:
        return _in_words(error)
    return "connected"


def _quic() -> str:
    """The first packet of a QUIC connection, as far as a packet filter can tell."""
    initial = b"\xc0\x00\x00\x00\x01\x08" + os.urandom(8)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(_TIMEOUT)
        try:
            sock.connect((EVIL, QUIC))
            sock.send(initial.ljust(1200, b"\0"))
            sock.recv(2048)
        except OSError as error:
            return _in_words(error)
    return "answered"


def _ping() -> str:
    echo, number = 8 << 8, 1
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.sendto(struct.pack("!4H", echo, 0xFFFF - echo - number, 0, number), (EVIL, 0))
        deadline = time.monotonic() + _TIMEOUT
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            try:
                packet = sock.recv(2048)
            except OSError as error:
                return _in_words(error)
            kind = packet[(packet[0] & 15) * 4]
            if kind in (0, 3):
                return "answered" if kind == 0 else "unreachable"
    return "no answer"


def _in_words(error: Exception) -> str:
    if isinstance(error, TimeoutError | dns.exception.Timeout):
        return "no answer"
    if isinstance(error, ConnectionRefusedError):
        return "refused at once"
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else type(error).__name__


WAYS = (
    Way(f"TCP, port {OTHER_PORT}", "TCP", OTHER_PORT, lambda: _tcp(OTHER_PORT)),
    Way(f"DNS over TLS, port {DNS_OVER_TLS}", "TCP", DNS_OVER_TLS, lambda: _tcp(DNS_OVER_TLS)),
    Way(f"QUIC, UDP port {QUIC}", "UDP", QUIC, _quic),
    Way("ping", "ICMP", 0, _ping),
    *([Way("IPv6, TLS to port 443", "TCP", 443, lambda: tls_handshake(EVIL_V6, ALLOWED))] if IPV6 else []),
    Way(ANOTHER_DNS_SERVER, "UDP", 53, lambda: dig(EVIL, ALLOWED)),
)
