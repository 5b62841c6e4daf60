"""Sockets on any address of the private network, and ports nobody else takes."""

import contextlib
import ipaddress
import itertools
import os
import socket

# Linux numbers that the socket module has no names for.
_IP_FREEBIND = 15
_IPV6_FREEBIND = 78

# Below the ephemeral range (32768-60999), so that no outgoing connection takes a port between choice and use.
_PORTS = itertools.cycle(range(20000, 32000))


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET


def bound(address: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """A socket bound to `address`, which may be any address that the private network routes to `lo`."""
    sock = socket.socket(family(address), kind)
    try:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"{os.strerror(error.errno or 0)}: {address} port {port}") from error
    return sock


def listening(address: str, port: int = 0, backlog: int = 1024) -> socket.socket:
    sock = bound(address, port)
    sock.listen(backlog)
    return sock


def stop_listening(sock: socket.socket) -> None:
    """Wake a thread that blocks on `sock` (close alone does not), then close it."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port of `address` that nothing listens on, and that this run has not given away recently."""
    for port in itertools.islice(_PORTS, 12000):
        with contextlib.suppress(OSError), bound(address, port):
            return port
    raise OSError(f"no free port on {address}")


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """`size` bytes, or EOFError when the other side closes before."""
    data = bytearray()
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise EOFError(f"closed after {len(data)} of {size} bytes")
        data += chunk
    return bytes(data)
