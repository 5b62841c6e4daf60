"""Open one TCP connection to the first of several judged addresses that answers: RFC 8305, section 5.

The rules of this file:

- It takes addresses, never names. The address that was judged is the address that is dialled, so nothing
  here may resolve anything. Sockets are connected by hand instead of with `loop.sock_connect`, because
  uvloop passes even a literal address through `getaddrinfo`.
- Attempts start in the order given, `attempt_delay` apart, and at once when an earlier attempt fails. The
  caller (the resolver) has already put the families in turn. The first that connects wins.
- Every socket has one owner at any time. A loser, a late winner, a cancelled or timed-out attempt closes
  its own.
- A connection that met itself (a TCP simultaneous open, possible when a local port in the ephemeral range
  is dialled and nobody listens there) is "connection refused", and not a peer that echoes.
- An address with an IPv6 zone is refused: a zone names an interface of this host, which no rule can have
  judged.
"""

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

type Address = IPv4Address | IPv6Address
type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
type Failure = BaseException | None  # None: somebody cancelled the attempt

_NAMED_FAILURES = 4


@dataclass(frozen=True, slots=True)
class Dialled:
    """A connection that is open, and owned by whoever holds this."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
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
    limit: int = 65536,
) -> Dialled:
    """Connect to `port` on the first of `addresses` that answers.

    `connect_timeout` bounds the whole call in seconds, `attempt_delay` is the head start of an address over
    the next. `local_address` is a literal address to connect from; addresses of the other family then fail.
    `limit` is the reader's buffer in bytes. Raises `DialError` when nothing answered, and nothing else for
    what the network does.
    """
    race = _Race(port, local_address)
    try:
        async with asyncio.timeout(connect_timeout):
            address, sock = await race.run(addresses, attempt_delay)
            reader, writer = await _streams(sock, address, port, limit)
    except TimeoutError:
        raise race.error(f"no answer in {connect_timeout:g} s", timed_out=True) from None
    return Dialled(reader, writer, address)


async def _streams(sock: socket.socket, address: Address, port: int, limit: int) -> Streams:
    """Give `sock` to the loop. Never cancelled half-way: uvloop would close the descriptor and leave `sock` open,
    whose own end would later close a descriptor that by then is somebody else's."""
    opening = asyncio.ensure_future(asyncio.open_connection(sock=sock, limit=limit))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_abort_streams)
        raise
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):  # the peer was there, and left at once
            raise DialError(f"port {port}: {address}: {_reason(error)}", timed_out=False) from None
        raise


def _abort_streams(opening: "asyncio.Future[Streams]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[1].transport.abort()


class _Race:
    """The attempts of one call, and what became of each."""

    def __init__(self, port: int, local_address: str | None) -> None:
        self._port = port
        self._local_address = local_address
        self._running: dict[asyncio.Task[socket.socket], Address] = {}
        self._failed: list[tuple[Address, Failure]] = []  # in the order of failing

    async def run(self, addresses: Sequence[Address], attempt_delay: float) -> tuple[Address, socket.socket]:
        """The first address that answered and its socket, which now belongs to the caller."""
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
                    if (sock := _result(task)) is not None:
                        return self._running.pop(task), sock
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
        failures += [(address, unfinished) for address in self._running.values()]
        told = [f"{address}: {reason}" for address, reason in failures[:_NAMED_FAILURES]]
        if len(failures) > _NAMED_FAILURES:
            told.append(f"and {len(failures) - _NAMED_FAILURES} more")
        return DialError(f"port {self._port}: {'; '.join(told) or 'no address to dial'}", timed_out=timed_out)


async def _connect(address: Address, port: int, local_address: str | None) -> socket.socket:
    """One attempt at one address. Raises OSError; owns its socket until it returns it."""
    if getattr(address, "scope_id", None) is not None:
        raise OSError(errno.EADDRNOTAVAIL, "an address with a zone is not dialled")
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if local_address is not None:
            _bind(sock, local_address)
        error = sock.connect_ex((str(address), port))
        if error == errno.EINPROGRESS:
            await _until_writable(sock)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error == 0 and _met_itself(sock):
            error = errno.ECONNREFUSED
        if error:
            raise OSError(error, os.strerror(error))
    except BaseException:
        sock.close()
        raise
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


async def _until_writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    writable: asyncio.Future[None] = loop.create_future()
    descriptor = sock.fileno()
    loop.add_writer(descriptor, _wake, writable)
    try:
        await writable
    finally:
        loop.remove_writer(descriptor)


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


def _met_itself(sock: socket.socket) -> bool:
    try:
        return bool(sock.getsockname()[:2] == sock.getpeername()[:2])
    except OSError:  # the peer has already gone; the first read will tell
        return False


def _result(task: asyncio.Task[socket.socket]) -> socket.socket | None:
    return None if task.cancelled() or task.exception() is not None else task.result()


def _close_result(task: asyncio.Task[socket.socket]) -> None:
    if (sock := _result(task)) is not None:
        sock.close()


def _reason(error: Failure) -> str:
    if error is None:
        return "cancelled"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return type(error).__name__
