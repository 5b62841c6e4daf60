"""One try over TCP: connect, say one thing, listen."""

from __future__ import annotations

import errno
import os
import socket
from typing import Callable

from .family import family_of, socket_address
from .heard import Heard, Kind, left

_ENOUGH = 16384
"""Bytes of an answer; nobody we ask has more to say that matters."""


def ask(
    address: str,
    port: int,
    request: bytes,
    deadline: float,
    *,
    hops: int | None = None,
    complete: Callable[[bytes], bool] = bool,
) -> Heard:
    """What came of it until `deadline` (monotonic). `hops` limits how far packets go; `complete` ends the listening."""
    family = family_of(address)
    with socket.socket(family.number, socket.SOCK_STREAM) as sock:
        family.keep_errors(sock)  # else IPv6 keeps "time exceeded" to itself
        if hops is not None:
            family.limit_hops(sock, hops)
        try:
            sock.settimeout(left(deadline))
            sock.connect(socket_address(address, port))
        except socket.timeout:
            return Heard(Kind.SILENT)
        except OSError as error:
            return _not_connected(error)
        return _listen(sock, request, deadline, complete)


def _not_connected(error: OSError) -> Heard:
    if error.errno == errno.ECONNREFUSED:
        return Heard(Kind.RESET)
    if error.errno == errno.ETIMEDOUT:
        return Heard(Kind.SILENT)
    if error.errno == errno.EPERM:
        return Heard(Kind.FILTERED)
    # Linux tells an ICMP error by its errno only, and "time exceeded" has the same as "host unreachable".
    return Heard(Kind.ERROR, words=os.strerror(error.errno or 0).lower())


def _listen(sock: socket.socket, request: bytes, deadline: float, complete: Callable[[bytes], bool]) -> Heard:
    data, nothing = b"", Kind.CLOSED
    try:
        sock.sendall(request)
        while len(data) < _ENOUGH and not complete(data):
            sock.settimeout(left(deadline))
            chunk = sock.recv(4096)
            if not chunk:
                break
            data += chunk
    except socket.timeout:
        nothing = Kind.QUIET
    except OSError:
        pass  # reset by whoever took the connection
    return Heard(Kind.ANSWER, data) if data else Heard(nothing)
