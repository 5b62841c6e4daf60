"""Open one TCP connection to the first of several judged addresses that answers: RFC 8305, section 5.

The rules of this file:

- It takes addresses, never names. The address that was judged is the address that is dialled, so nothing
  here may resolve anything. Sockets are connected by hand instead of with `loop.sock_connect`, because
  uvloop passes even a literal address through `getaddrinfo`.
- Attempts start in the order given, `attempt_delay` apart, and at once when an earlier attempt fails. The
  caller (the resolver) has already put the families in turn. The first that connects wins.
- Every connection has one owner at any time. A loser, a late winner, a cancelled or timed-out attempt closes
  its own.
- A connection that met itself (a TCP simultaneous open, possible when a local port in the ephemeral range
  is dialled and nobody listens there) is "connection refused", and not a peer that echoes.
- An address with an IPv6 zone is refused: a zone names an interface of this host, which no rule can have
  judged.
- The last descriptors are not for connections: a client that opens many must not keep rules from being read.
"""

import asyncio
import errno
import os
import resource
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from .connection import Connection

type Address = IPv4Address | IPv6Address
type Failure = BaseException | None  # None: somebody cancelled the attempt

_NAMED_FAILURES = 4
_KEPT = 16
"""Descriptors. Listening keeps more (runner/accepting.py), also for those who are told that there is no room, so that
who was let in can still get on."""


@dataclass(frozen=True, slots=True)
class Dialled:
    """A connection that is open, and owned by whoever holds this."""

    connection: Connection
    address: Address  # the one of the given addresses that answered


class DialError(Exception):
    """No address could be reached; `str` names each address tried and why it failed, in one line."""

    def __init__(self, message: str, *, timed_out: bool) -> None:
        super().__init__(message)
        self.timed_out = timed_out


async def dial(
    addresses: Sequence[Address],
    port: int,
    *,
    connect_timeout: float,
    attempt_delay: float = 0.25,
    local_address: str | None = None,
) -> Dialled:
    """Connect to `port` on the first of `addresses` that answers.

    `connect_timeout` bounds the whole call in seconds, `attempt_delay` is the head start of an address over
    the next. `local_address` is a literal address to connect from; addresses of the other family then fail.
    Raises `DialError` when nothing answered, and nothing else for what the network does.
    """
    race = _Race(port, local_address)
    try:
        if len(addresses) == 1:
            connection = await race.run_alone(addresses[0], connect_timeout)
            return Dialled(connection, addresses[0])
        async with asyncio.timeout(connect_timeout):
            address, connection = await race.run(addresses, attempt_delay)
            return Dialled(connection, address)
    except TimeoutError:
        raise race.error(f"no answer in {connect_timeout:g} s", timed_out=True) from None


class _Race:
    """The attempts of one call, and what became of each."""

    def __init__(self, port: int, local_address: str | None) -> None:
        self._port = port
        self._local_address = local_address
        self._alone: Address | None = None
        self._running: dict[asyncio.Task[Connection], Address] = {}
        self._failed: list[tuple[Address, Failure]] = []  # in the order of failing

    async def run_alone(self, address: Address, seconds: float) -> Connection:
        """The connection to the only address there is: a race that needs no task."""
        self._alone = address
        try:
            return await _connect(address, self._port, self._local_address, seconds)
        except Exception as error:
            if isinstance(error, TimeoutError) and error.errno is None:
                raise  # ours, and not the kernel's
            self._failed, self._alone = [(address, error)], None
            raise self.error("", timed_out=isinstance(error, TimeoutError)) from None

    async def run(self, addresses: Sequence[Address], attempt_delay: float) -> tuple[Address, Connection]:
        """The first address that answered and its connection, which now belongs to the caller."""
        waiting = deque(addresses)
        try:
            while waiting or self._running:
                if waiting:
                    address = waiting.popleft()
                    attempt = _connect(address, self._port, self._local_address)
                    self._running[asyncio.create_task(attempt)] = address
                done, _ = await asyncio.wait(
                    self._running,
                    timeout=attempt_delay if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    if (connection := _result(task)) is not None:
                        return self._running.pop(task), connection
                    failure = None if task.cancelled() else task.exception()
                    self._failed.append((self._running.pop(task), failure))
            silent = [isinstance(error, TimeoutError) for _, error in self._failed]
            raise self.error("", timed_out=any(silent) and all(silent))
        finally:
            for task in self._running:
                task.add_done_callback(_close_result)
                task.cancel()

    def error(self, unfinished: str, *, timed_out: bool) -> DialError:
        """The error that tells all failures so far, and `unfinished` of the attempts that still ran."""
        failures = [(address, _reason(error)) for address, error in self._failed]
        running = [*self._running.values(), *([self._alone] if self._alone else ())]
        failures += [(address, unfinished) for address in running]
        told = [f"{address}: {reason}" for address, reason in failures[:_NAMED_FAILURES]]
        if len(failures) > _NAMED_FAILURES:
            told.append(f"and {len(failures) - _NAMED_FAILURES} more")
        return DialError(f"port {self._port}: {'; '.join(told) or 'no address to dial'}", timed_out=timed_out)


async def _connect(address: Address, port: int, local_address: str | None, seconds: float | None = None) -> Connection:
    """One attempt at one address. Raises OSError; owns its connection until it returns it."""
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise OSError(errno.EADDRNOTAVAIL, "an address with a zone is not dialled")
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = _make_socket(family)
    try:
        connection = Connection(sock)
    except OSError:
        sock.close()
        raise
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if local_address is not None:
            _bind(sock, local_address)
        error = sock.connect_ex(where := (str(address), port))
        if error == errno.EINPROGRESS:
            # Who is near has answered by now, and asking costs less than being told in a later turn of the loop.
            error = sock.connect_ex(where)
        if error == errno.EALREADY:
            async with asyncio.timeout(seconds):
                error = await connection.connected()
        if error == 0 and _met_itself(sock, port):
            error = errno.ECONNREFUSED
        if error:
            raise OSError(error, os.strerror(error))
    except BaseException:
        connection.abort()
        raise
    return connection


def _make_socket(family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    # The kernel gives the lowest number that is free, so a high one says that those below are in use.
    if limit != resource.RLIM_INFINITY and sock.fileno() >= limit - min(_KEPT, limit // 16):
        sock.close()
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return sock


def _bind(sock: socket.socket, local_address: str) -> None:
    try:
        version = ip_address(local_address).version
    except ValueError:  # bind() would look a name up
        raise OSError(errno.EADDRNOTAVAIL, f"{local_address!a} is no local address") from None
    if version != (4 if sock.family == socket.AF_INET else 6):
        raise OSError(errno.EADDRNOTAVAIL, f"not the family of the local address {local_address}")
    if hasattr(socket, "IP_BIND_ADDRESS_NO_PORT"):  # the port is chosen when connecting, and so can be shared
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((local_address, 0))


def _met_itself(sock: socket.socket, port: int) -> bool:
    try:
        own = sock.getsockname()
        return own[1] == port and bool(own[:2] == sock.getpeername()[:2])
    except OSError:  # the peer has already gone; the first read will tell
        return False


def _result(task: asyncio.Task[Connection]) -> Connection | None:
    return None if task.cancelled() or task.exception() is not None else task.result()


def _close_result(task: asyncio.Task[Connection]) -> None:
    if (connection := _result(task)) is not None:
        connection.abort()


def _reason(error: Failure) -> str:
    if error is None:
        return "cancelled"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return type(error).__name__
