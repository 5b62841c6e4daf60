"""One try with UDP, in the private network where every address is this machine."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import threading
import time
from collections.abc import Buffer, Callable, Iterator

import pytest

from egress_gateway.containment.attempt import datagram
from egress_gateway.containment.attempt.family import family_of
from egress_gateway.containment.attempt.heard import Heard, Kind
from support.netns import BLACKHOLE_V4, OWN_V6
from support.sockets import bound

pytestmark = pytest.mark.private_network

ADDRESSES = ("203.0.113.10", "2001:db8::10")


@contextlib.contextmanager
def server(address: str, *answers: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """Answers its first packet with these; gives its port, and what it received, complete at the end."""
    received: list[bytes] = []
    ended = threading.Event()
    with bound(address, 0, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.02)

        def serve() -> None:
            last = False
            while not last:
                last = ended.is_set()  # what was sent by then has come
                with contextlib.suppress(TimeoutError):
                    while True:
                        data, client = sock.recvfrom(100)
                        for answer in answers if not received else ():
                            sock.sendto(answer, client)
                        received.append(data)

        thread = threading.Thread(target=serve)
        thread.start()
        yield sock.getsockname()[1], received
        ended.set()
        thread.join()


def ask(address: str, port: int, seconds: float = 30, is_answer: Callable[[bytes], bool] = lambda data: True) -> Heard:
    family = family_of(address)
    sock = socket.socket(family.number, socket.SOCK_DGRAM)
    heard = datagram.ask(sock, family, address, port, b"hello?", time.monotonic() + seconds, is_answer=is_answer)
    assert sock.fileno() == -1
    return heard


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_answer(address: str) -> None:
    with server(address, b"hello!") as (port, received):
        assert ask(address, port) == Heard(Kind.ANSWER, b"hello!")
    assert received == [b"hello?"]


@pytest.mark.parametrize(("address", "by"), [(ADDRESSES[0], ADDRESSES[0]), (OWN_V6, OWN_V6), (ADDRESSES[1], OWN_V6)])
def test_nobody_listens_and_the_error_tells_who_says_so(address: str, by: str) -> None:
    """IPv6 speaks by an address that a machine has; the third is only routed to it."""
    assert ask(address, 9) == Heard(Kind.ERROR, words="port unreachable", by=by)


def test_what_is_no_answer_is_waited_over() -> None:
    with server(ADDRESSES[0], b"noise", b"hello!") as (port, _):
        assert ask(ADDRESSES[0], port, is_answer=lambda data: data == b"hello!") == Heard(Kind.ANSWER, b"hello!")
    with server(ADDRESSES[0], b"noise") as (port, _):
        assert ask(ADDRESSES[0], port, 0.1, is_answer=lambda data: False) == Heard(Kind.SILENT)


def test_a_packet_that_may_be_lost_is_sent_twice() -> None:
    started = time.monotonic()
    with server(ADDRESSES[0]) as (port, received):
        assert ask(ADDRESSES[0], port, 0.2) == Heard(Kind.SILENT)
    assert 0.2 <= time.monotonic() - started < 10
    assert received == [b"hello?", b"hello?"]


class Late(socket.socket):
    """A socket of a machine that stands still once it has sent something, until it is late and answers are there."""

    def send(self, data: Buffer, *_: int) -> int:
        sent = super().send(data)
        assert select.select([self], [], [], 30)[0]
        time.sleep(0.1)
        return sent


@pytest.mark.parametrize(
    "answers",
    [(b"hello!",), (b"nonsense", b"more of it", b"hello!"), ()],
    ids=["an answer", "an answer behind others", "an error"],
)
def test_what_came_in_time_counts_however_late_it_is_looked_at(answers: tuple[bytes, ...]) -> None:
    """Or a busy machine would be told that a way out is closed."""
    address = ADDRESSES[0]
    with server(address, *answers) as (port, _), Late(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        heard = datagram.ask(
            sock,
            family_of(address),
            address,
            port if answers else 9,
            b"hello?",
            time.monotonic() + 0.05,
            is_answer=lambda data: data == b"hello!",
        )
    assert heard.kind is (Kind.ANSWER if answers else Kind.ERROR)


def test_nobody_is_there() -> None:
    assert ask(BLACKHOLE_V4, 9, 0.1) == Heard(Kind.SILENT)


class Stuck(socket.socket):
    """A socket on a machine that does not send; `number` is why."""

    number = 0

    def send(self, *_: object) -> int:
        raise OSError(self.number, "no")


LOCAL = {
    errno.EPERM: Heard(Kind.FILTERED),
    errno.ENETUNREACH: Heard(Kind.UNSENT, words="network is unreachable"),
    errno.ENOBUFS: Heard(Kind.UNSENT, words="no buffer space available"),
}


@pytest.mark.parametrize("number", LOCAL, ids=errno.errorcode.get)
def test_this_machine_does_not_send_it(number: int) -> None:
    sock = Stuck(socket.AF_INET, socket.SOCK_DGRAM)
    sock.number = number
    family = family_of(ADDRESSES[0])
    assert datagram.ask(sock, family, ADDRESSES[0], 9, b"hello?", time.monotonic() + 1) == LOCAL[number]
