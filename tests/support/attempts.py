"""Attempts to get out, and those who would answer: what each is told is one word.

    tcp(443)(lab.client, lab.evil.ipv4)         # "open", "refused", "silence", or the name of an error
    with accepting(lab.evil, 443) as accepted:
        udp(443)(lab.client, lab.evil.ipv4, uid=1000)

`uid` is the user that makes the socket; this process must be root's.
"""

import contextlib
import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from support.networks import Host
from support.waiting import PATIENCE
from support.wire import Wire

type Attempt = Callable[..., str]

_IP_PKTINFO = 8  # linux/in.h


def tcp(port: int, patience: float = PATIENCE) -> Attempt:
    def attempt(host: Host, address: str, uid: int = 0) -> str:
        try:
            with a_socket(host, address, socket.SOCK_STREAM, uid=uid) as sock:
                sock.settimeout(patience)
                sock.connect((address, port))
        except ConnectionRefusedError:
            return "refused"
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, "silence")
        return "open"

    return attempt


def udp(port: int) -> Attempt:
    def attempt(host: Host, address: str, uid: int = 0) -> str:
        with a_socket(host, address, socket.SOCK_DGRAM, uid=uid) as sock:
            return answer_to(sock, address, port, b"hello")

    return attempt


def ping(host: Host, address: str, uid: int = 0) -> str:
    six = ":" in address
    number = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
    with a_socket(host, address, socket.SOCK_DGRAM, number, uid) as sock:
        return answer_to(sock, address, 0, bytes([128 if six else 8, 0, 0, 0, 0, 0, 0, 1]))


def protocol(number: int) -> Attempt:
    """A packet of another protocol, by its number."""

    def attempt(host: Host, address: str) -> str:
        with a_socket(host, address, socket.SOCK_RAW, number) as sock:
            return answer_to(sock, address, 0, b"\0" * 16)

    return attempt


@contextlib.contextmanager
def a_socket(host: Host, address: str, kind: int, number: int = 0, uid: int = 0) -> Iterator[socket.socket]:
    """A socket on `host` that user `uid` has made, for connections to `address`."""
    with host.entered(), as_user(uid):
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind, number)
    with sock:
        sock.settimeout(PATIENCE)
        yield sock


@contextlib.contextmanager
def as_user(uid: int) -> Iterator[None]:
    """This thread acts as that user meanwhile; it must be root's."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def answer_to(sock: socket.socket, address: str, port: int, data: bytes) -> str:
    """Errors by ICMP are told to who asks for them, and that is how fast a client knows."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, 25, 1)  # IPV6_RECVERR
    else:
        sock.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
    try:
        sock.connect((address, port))
        sock.send(data)
        sock.recv(2048)
    except TimeoutError:
        return "silence"
    except OSError as error:
        return "refused" if error.errno == errno.ECONNREFUSED else errno.errorcode[error.errno or 0]
    return "answered"


@contextlib.contextmanager
def accepting(host: Host, port: int, uid: int = 0) -> Iterator[list[socket.socket]]:
    """Connections to this port of the host, IPv4 and IPv6, as they come."""
    with a_socket(host, "::", socket.SOCK_STREAM, uid=uid) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.settimeout(None)
        server.bind(("::", port))
        server.listen()
        with _accepting(server) as accepted:
            yield accepted


@contextlib.contextmanager
def _accepting(server: socket.socket) -> Iterator[list[socket.socket]]:
    accepted: list[socket.socket] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted.append(server.accept()[0])

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield accepted
    finally:
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for sock in accepted:
            sock.close()


@contextlib.contextmanager
def answering(host: Host, port: int, uid: int = 0) -> Iterator[None]:
    """Every datagram to this port is sent back, from the address it came to: a redirect knows no other answer."""
    with contextlib.ExitStack() as stack:
        for anywhere in ("0.0.0.0", "::"):
            sock = stack.enter_context(a_socket(host, anywhere, socket.SOCK_DGRAM, uid=uid))
            sock.settimeout(None)
            if anywhere == "::":
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            sock.bind((anywhere, port))
            thread = threading.Thread(target=_echo, args=(sock,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(_wake, sock)
        yield


def _wake(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is not connected, but its reader wakes
        sock.shutdown(socket.SHUT_RD)


def dialled(connection: socket.socket) -> tuple[str, int]:
    """Where the other end of a redirected connection wanted to go."""
    if "." in connection.getsockname()[0]:
        port, packed = struct.unpack_from("!2xH4s", connection.getsockopt(socket.SOL_IP, 80, 16))
        return socket.inet_ntop(socket.AF_INET, packed), port
    port, packed = struct.unpack_from("!2xH4x16s", connection.getsockopt(41, 80, 28))
    return socket.inet_ntop(socket.AF_INET6, packed), port


def exchange(one: socket.socket, other: socket.socket) -> None:
    one.sendall(b"ping")
    assert other.recv(100) == b"ping"
    other.sendall(b"pong")
    assert one.recv(100) == b"pong"


def _echo(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            data, ancillary, _, peer = sock.recvmsg(2048, 64)
            if not data:
                return
            ((level, kind, where),) = ancillary
            from_there = (
                struct.pack("@I4s4s", 0, where[4:8], bytes(4)) if kind == _IP_PKTINFO else where[:16] + bytes(4)
            )
            sock.sendmsg([data], [(level, kind, from_there)], 0, peer)


def arrived(wire: Wire, *sources: str) -> set[str]:
    """What came from these addresses, such as "tcp 443", "ping"."""
    names = {"47": "GRE", "icmp": "ping", "icmp6": "ping"}
    seen = [packet for packet in wire.packets if packet.src in sources]
    return {names.get(packet.proto, f"{packet.proto} {packet.dport}") for packet in seen}
