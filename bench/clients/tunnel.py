"""A tunnel through a proxy, with TLS inside: CONNECT where the proxy has that, else TLS to it at once."""

from __future__ import annotations

import argparse
import socket
import ssl
from dataclasses import dataclass


class Wrong(Exception):
    """An answer that is not the one that was due."""


@dataclass(frozen=True, slots=True)
class Way:
    """Where a tunnel goes, and how."""

    proxy: int
    """Port on loopback; 0: no proxy."""
    host: str
    port: int
    connect: bool = True
    """Whether the proxy is asked with CONNECT; one that goes by the SNI alone is not."""


def argument_parser() -> argparse.ArgumentParser:
    """Takes what `bench.parts.tunnels.through` gives, and what to fetch; see `way_of`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--proxy", type=int, required=True)
    parser.add_argument("--sni-only", action="store_true")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--path", required=True)
    return parser


def way_of(options: argparse.Namespace) -> Way:
    return Way(options.proxy, options.host, options.port, connect=not options.sni_only)


def context(ca: str) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=ca)
    made.set_alpn_protocols(["http/1.1"])
    return made


def open_tunnel(way: Way, tls: ssl.SSLContext, timeout: float = 30) -> ssl.SSLSocket:
    """Verified TLS with the destination."""
    address = ("127.0.0.1", way.proxy) if way.proxy else (way.host, way.port)
    sock = socket.create_connection(address, timeout=timeout)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if way.proxy and way.connect:
            authority = f"{way.host}:{way.port}"
            sock.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode("ascii"))
            head = b""
            while b"\r\n\r\n" not in head:
                piece = sock.recv(4096)
                if not piece:
                    raise Wrong(f"CONNECT {authority}: closed after {head!r}")
                head += piece
            if b" 200" not in head.partition(b"\r\n")[0] or not head.endswith(b"\r\n\r\n"):
                raise Wrong(f"CONNECT {authority}: {head!r}")
        return tls.wrap_socket(sock, server_hostname=way.host)
    except BaseException:
        sock.close()
        raise


def get(tunnel: ssl.SSLSocket, host: str, path: str, expected: bytes, *, close: bool) -> None:
    """One request; Wrong unless the answer is 200 with `expected` as its body."""
    ending = "close" if close else "keep-alive"
    tunnel.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: {ending}\r\n\r\n".encode("ascii"))
    received = b""
    while True:
        head, end, body = received.partition(b"\r\n\r\n")
        if end and len(body) >= len(expected):
            break
        piece = tunnel.recv(65536)
        if not piece:
            break
        received += piece
    if not head.startswith(b"HTTP/1.1 200 ") or body != expected:
        raise Wrong(f"GET https://{host}{path}: {received[:300]!r}")
    # Who closes with something unread resets the connection, which is another end than the usual one.
    if close and (more := tunnel.recv(65536)):
        raise Wrong(f"GET https://{host}{path}: {more[:300]!r} after the answer")
