"""Talk to a proxy by hand: forwarded requests, CONNECT, SOCKS5, TLS in a tunnel, and the alerts that refuse.

Nothing here follows redirects, retries, reads proxy variables or resolves the names it sends.
"""

import http.client
import io
import ipaddress
import socket
import ssl
from collections.abc import Buffer, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from support.client_hello import SSLV2_HELLO, client_hello
from support.sockets import read_exactly
from support.waiting import PATIENCE

__all__ = [
    "SSLV2_HELLO",
    "Alert",
    "Response",
    "client_hello",
    "connect_refusal",
    "connect_tunnel",
    "read_alert",
    "read_response",
    "request_over",
    "request_via_proxy",
    "socks5_connect",
    "tls_client",
]

type Headers = Mapping[str, str] | Iterable[tuple[str, str]]

_HEAD_LIMIT = 64 * 1024


class HasProxyPort(Protocol):
    """A gateway, or whatever else listens."""

    def connect(self, timeout: float = ...) -> socket.socket: ...


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first value of this header."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def text(self) -> str:
        return self.body.decode()


class Alert(NamedTuple):
    """`level` 2 is fatal; `description` 49 is access_denied, 112 unrecognized_name (RFC 8446 6)."""

    level: int
    description: int


def request_via_proxy(
    gateway: HasProxyPort,
    method: str,
    url: str,
    headers: Headers = (),
    body: bytes = b"",
    timeout: float = PATIENCE,
) -> Response:
    """One request in absolute form over its own connection. Host is from the URL unless `headers` has it."""
    with gateway.connect(timeout) as sock:
        return request_over(sock, method, url, headers, body)


def request_over(sock: socket.socket, method: str, target: str, headers: Headers = (), body: bytes = b"") -> Response:
    """One request over an open connection, which stays open: call again for the next on keep-alive.

    A body is sent as long as it is taken. A proxy that has refused one reads on for a while and closes then (RFC 9112,
    9.6), and the end of the sending is the news that there is an answer to be read.
    """
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    given = {name.lower() for name, _ in pairs}
    if "host" not in given and "://" in target:
        pairs.insert(0, ("Host", target.partition("://")[2].partition("/")[0]))
    if body and not given & {"content-length", "transfer-encoding"}:
        pairs.append(("Content-Length", str(len(body))))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in pairs)]
    try:
        sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
    except ConnectionError as not_taken:
        try:
            return read_response(sock, method)
        except (OSError, http.client.HTTPException):
            raise not_taken from None  # there was none
    return read_response(sock, method)


def read_response(sock: socket.socket, method: str = "GET") -> Response:
    """The next response on the connection, interim ones skipped; bytes after it stay in the socket."""
    response = http.client.HTTPResponse(sock, method=method)
    response.fp.close()
    response.fp = io.BufferedReader(_Unbuffered(sock), buffer_size=1)
    try:
        response.begin()
        return Response(response.status, response.reason, response.getheaders(), response.read())
    finally:
        response.close()


def connect_tunnel(
    gateway: HasProxyPort, target: str, headers: Headers = (), timeout: float = PATIENCE
) -> tuple[int, socket.socket]:
    """CONNECT to `target` ("host:443"); the status, and the connection right after the head of the answer."""
    sock = gateway.connect(timeout)
    try:
        sock.sendall(_connect_head(target, headers))
        head = _read_head(sock)
        return int(head.split(b" ", 2)[1]), sock
    except BaseException:
        sock.close()
        raise


def connect_refusal(gateway: HasProxyPort, target: str, headers: Headers = (), timeout: float = PATIENCE) -> Response:
    """CONNECT to `target` where a refusal is expected: the whole response, body included."""
    with gateway.connect(timeout) as sock:
        sock.sendall(_connect_head(target, headers))
        return read_response(sock, "CONNECT")


def socks5_connect(
    gateway: HasProxyPort, host: str | bytes, port: int, timeout: float = PATIENCE
) -> tuple[int, socket.socket]:
    """SOCKS5 CONNECT without authentication (RFC 1928). The reply code (0 is success), and the connection.

    An address goes as an address, anything else as a domain name; bytes always as a domain name.
    """
    sock = gateway.connect(timeout)
    try:
        sock.sendall(b"\x05\x01\x00")
        method = read_exactly(sock, 2)
        if method != b"\x05\x00":
            return method[1], sock
        sock.sendall(b"\x05\x01\x00" + _socks_address(host) + port.to_bytes(2))
        _version, code, _reserved, kind = read_exactly(sock, 4)
        size = {1: 4, 4: 16}.get(kind) or read_exactly(sock, 1)[0]
        read_exactly(sock, size + 2)
        return code, sock
    except BaseException:
        sock.close()
        raise


def tls_client(
    sock: socket.socket,
    sni: str | None,
    ca: Path | None,
    *,
    alpn: Sequence[str] = (),
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    maximum: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
) -> ssl.SSLSocket:
    """TLS over `sock`, verified by the PEM file `ca`; `ca=None`: not verified; `sni=None` sends no name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version, context.maximum_version = minimum, maximum
    context.check_hostname = ca is not None and sni is not None
    if ca is None:
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(ca)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context.wrap_socket(sock, server_hostname=sni)


def read_alert(sock: socket.socket, timeout: float = PATIENCE) -> Alert | None:
    """The TLS alert that comes next; None for an end without one; AssertionError for any other record."""
    sock.settimeout(timeout)
    try:
        kind, _major, _minor, high, low = read_exactly(sock, 5)
        body = read_exactly(sock, high << 8 | low)
    except (EOFError, ConnectionResetError):
        return None
    assert kind == 0x15, f"not an alert but a record of type {kind}: {body[:64]!r}"
    return Alert(body[0], body[1])


class _Unbuffered(io.RawIOBase):
    """The socket as a file that never takes more than it was asked for, and that never closes the socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        return self._sock.recv_into(buffer)


def _connect_head(target: str, headers: Headers) -> bytes:
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    if "host" not in {name.lower() for name, _ in pairs}:
        pairs.insert(0, ("Host", target))
    lines = [f"CONNECT {target} HTTP/1.1", *(f"{name}: {value}" for name, value in pairs)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _read_head(sock: socket.socket) -> bytes:
    """Exactly up to the blank line: what follows belongs to the tunnel."""
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte or len(head) > _HEAD_LIMIT:
            raise EOFError(f"no complete head, only {bytes(head[:200])!r}")
        head += byte
    return bytes(head)


def _socks_address(host: str | bytes) -> bytes:
    if isinstance(host, str):
        try:
            address = ipaddress.ip_address(host)
            return (b"\x01" if address.version == 4 else b"\x04") + address.packed
        except ValueError:
            host = host.encode()
    return b"\x03" + len(host).to_bytes(1) + host
