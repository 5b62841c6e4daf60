"""Clients of the gateway: what they send is written out, byte for byte, since some of them lie."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

type Address = tuple[str, int]

_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A response; `reason` is the gateway's, empty where it had none to give."""

    status: int
    phrase: str
    reason: str
    body: str

    @property
    def line(self) -> str:
        return f"{self.status} {self.phrase}" + (f"  (x-egress-reason: {self.reason})" if self.reason else "")

    def json(self) -> dict[str, Any]:
        """The body as an object; empty where it is something else."""
        try:
            content = json.loads(self.body)
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}


class TunnelRefused(Exception):
    """The gateway answered CONNECT with something other than 200."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.line)
        self.reply = reply


def ask(server: Address, method: str, target: str, headers: Mapping[str, str], body: str = "") -> Reply:
    """One request on a connection of its own. `server` is the gateway, where `target` is an absolute URI."""
    fields = {"Connection": "close", **({"Content-Length": str(len(body))} if body else {}), **headers}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    with socket.create_connection(server, timeout=_TIMEOUT) as sock:
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n" + body).encode("ascii"))
        return _read(sock, method)


def tunnel(gateway: Address, target: str) -> socket.socket:
    """A tunnel to `target` (host:port). Raises TunnelRefused."""
    sock = socket.create_connection(gateway, timeout=_TIMEOUT)
    try:
        sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode("ascii"))
        head = _read_head(sock)
        if head.status != 200:
            raise TunnelRefused(head)
    except BaseException:
        sock.close()
        raise
    return sock


def tls_tunnel(gateway: Address, target: str, server_name: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    """TLS with `server_name` inside a tunnel to `target`. Raises TunnelRefused, and ssl.SSLError for an alert."""
    sock = tunnel(gateway, target)
    try:
        return context.wrap_socket(sock, server_hostname=server_name)
    except BaseException:
        sock.close()
        raise


def is_ended(sock: socket.socket, timeout: float) -> bool:
    """Whether the other side ends a connection within `timeout` seconds."""
    sock.settimeout(timeout)
    try:
        return sock.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def _read(sock: socket.socket, method: str) -> Reply:
    response = http.client.HTTPResponse(sock, method=method)
    try:
        response.begin()
        return _reply(response, response.read().decode(errors="replace"))
    except http.client.HTTPException as error:
        raise OSError(f"no proper response: {error!r}") from error
    finally:
        response.close()


def _read_head(sock: socket.socket) -> Reply:
    """The response to CONNECT: nothing after its head is read, since that belongs to the tunnel."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte:
            raise OSError("the gateway closed the connection instead of answering CONNECT")
        head += byte
    status_line, _, rest = head.decode("latin-1").partition("\r\n")
    fields = [line.partition(":") for line in rest.split("\r\n")]
    reason = next((value.strip() for name, _, value in fields if name.lower() == "x-egress-reason"), "")
    _, status, phrase = status_line.split(" ", 2)
    return Reply(int(status), phrase, reason, "")


def _reply(response: http.client.HTTPResponse, body: str) -> Reply:
    return Reply(response.status, response.reason, response.getheader("x-egress-reason", ""), body)
