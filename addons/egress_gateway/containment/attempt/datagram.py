"""One try with datagrams, of UDP, ICMP or any IP protocol: send one, listen for an answer or an error."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from typing import Callable

from .family import Family, socket_address
from .heard import MOST_LATE, Heard, Kind, left
from .icmp_error import read_error

# Anybody's UDP packet may be lost, so there is a second one.
_SENDS = 2


def ask(
    sock: socket.socket,
    family: Family,
    address: str,
    port: int,
    packet: bytes,
    deadline: float,
    *,
    hops: int | None = None,
    is_answer: Callable[[bytes], bool] = lambda data: True,
) -> Heard:
    """What came back until `deadline` (monotonic). Closes `sock`; `hops` limits how far the packets go."""
    with sock:
        family.keep_errors(sock)
        if hops is not None:
            family.limit_hops(sock, hops)
        sock.setblocking(False)
        try:
            # Connected: only packets from there, and errors about packets to there, are ours.
            sock.connect(socket_address(address, port))
        except OSError as error:
            return _by_this_machine(error)
        between = left(deadline) / _SENDS
        for number in range(_SENDS, 0, -1):
            heard = _send(sock, family, packet) or _listen(sock, family, deadline - between * (number - 1), is_answer)
            if heard is not None:
                return heard
    return Heard(Kind.SILENT)


def _send(sock: socket.socket, family: Family, packet: bytes) -> Heard | None:
    try:
        sock.send(packet)
    except OSError as error:
        # `send` also reports the error that an earlier packet met.
        return read_error(sock, family) or _by_this_machine(error)
    return None


def _listen(sock: socket.socket, family: Family, until: float, is_answer: Callable[[bytes], bool]) -> Heard | None:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    late = 0
    while late < MOST_LATE:
        over = time.monotonic() >= until
        late += over
        if not poll.poll(0 if over else left(until) * 1000):
            break
        error = read_error(sock, family)
        if error is not None:
            return error
        with contextlib.suppress(OSError):  # an error that is none of ours, now taken note of
            data = sock.recv(65535)
            if is_answer(data):
                return Heard(Kind.ANSWER, data)
    return None


def _by_this_machine(error: OSError) -> Heard:
    if error.errno == errno.EPERM:
        return Heard(Kind.FILTERED)
    return Heard(Kind.UNSENT, words=os.strerror(error.errno or 0).lower())
