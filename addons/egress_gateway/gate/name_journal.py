"""What the processes of one gateway tell each other about names: a ring of records in a file that all of them map.

- One record is one DNS answer: the name, its addresses, until when the client may use them, and who was told. Each
  process keeps a `NameTable` of its own and takes the others' records into it, so all bounds hold in each of them.
- A record is in the ring before its answer leaves. A client that acts on the answer may be served by another process;
  that one sees the counter in the file's head move, and reads what is new before it judges. (A broadcast over sockets
  could come later than the client.)
- The counter is written after the record, and each record begins with its number, so a reader never takes half of one:
  what does not bear the number it expects is left for the next time, or was overwritten and is lost.
- Writers take turns by a lock on the file, which the kernel releases when a process dies. A writer that cannot have it
  within a few milliseconds gives up: its own table has the answer already, and the other processes ask the resolver.
- A process that falls behind by more than the ring holds loses the oldest records, as a process that starts late does.
  What is lost costs a look-up, never a wrong permission.
- The file is the gateway user's own, mode 0600: whoever can write it can make addresses pass for a name's. Times are
  CLOCK_MONOTONIC, which starts over with the machine: put the file where a reboot removes it (/run, /dev/shm).
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from egress_gateway.policy.hostname import Address, Hostname, MalformedHost, parse_host

RECORDS = 16_384
_MAGIC = b"egnames1"
_HEAD = 64
_COUNTER = 1  # the head's second 64-bit word; the first is the magic
_RECORD = 512
_FIXED = struct.Struct("=QdBBB")  # number, until, then the sizes of name and client and the count of addresses
_PER_RECORD = (_RECORD - _FIXED.size - 253 - 45) // 17
_TRIES = 5
_PAUSE = 0.001


@dataclass(frozen=True, slots=True)
class Learned:
    name: Hostname
    addresses: tuple[Address, ...]
    until: float
    """Monotonic seconds: the end of the time to live."""
    client: str


class NameJournal:
    """Opens or makes the file at `path`. Raises OSError, or ValueError where the file is something else."""

    def __init__(self, path: Path, records: int = RECORDS, *, flags: int = os.O_CREAT | os.O_NOFOLLOW) -> None:
        self._size = _HEAD + records * _RECORD
        self._records = records
        self._file = _open(path, flags)
        try:
            self._map = self._prepare(path)
        except BaseException:
            os.close(self._file)
            raise
        self._words = memoryview(self._map)[:_HEAD].cast("Q")
        # What the ring still holds was learned by others, or by those who were here before: it counts.
        self._read = max(0, self._written - records + 1)

    @classmethod
    def in_memory(cls, descriptor: int) -> NameJournal:
        """In the memory that `make_memory` gave, for a process that has it from its parent. Raises OSError."""
        # Opened anew: processes that share one opening share its lock as well.
        return cls(Path(f"/proc/self/fd/{descriptor}"), flags=0)

    @property
    def has_news(self) -> bool:
        """Whether there are records that this process has not read."""
        return self._written != self._read

    def write(self, learned: Learned) -> bool:
        """Tells the others; False where the turn did not come in time."""
        if not self._lock():
            return False
        try:
            up_to_date = not self.has_news
            for start in range(0, len(learned.addresses), _PER_RECORD):
                self._append(learned, learned.addresses[start : start + _PER_RECORD])
            if up_to_date:
                self._read = self._written  # nobody needs to be told what it said itself
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        return True

    def read(self) -> Iterator[Learned]:
        """The records that are new to this process, oldest first."""
        while (written := self._written) != self._read:
            oldest = max(0, written - self._records + 1)
            self._read = max(self._read, oldest)
            record = self._record(self._read)
            if _FIXED.unpack_from(record)[0] != self._read:
                if self._written - self._read < self._records:
                    return  # not there yet
                continue  # overwritten meanwhile
            if self._written - self._read >= self._records:
                continue  # whoever writes has come round, so that half of it may be of another record
            self._read += 1
            learned = _decode(record)
            if learned is not None:
                yield learned

    def close(self) -> None:
        self._words.release()
        self._map.close()
        os.close(self._file)

    @property
    def _written(self) -> int:
        """How many records have ever been written."""
        return self._words[_COUNTER]

    def _append(self, learned: Learned, addresses: tuple[Address, ...]) -> None:
        number = self._written
        at = _HEAD + number % self._records * _RECORD
        record = _encode(number, learned, addresses)
        self._map[at : at + len(record)] = record
        self._words[_COUNTER] = number + 1

    def _record(self, number: int) -> bytes:
        at = _HEAD + number % self._records * _RECORD
        return self._map[at : at + _RECORD]

    def _lock(self) -> bool:
        for attempt in range(_TRIES):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if attempt + 1 < _TRIES:
                    time.sleep(_PAUSE)
            else:
                return True
        return False

    def _prepare(self, path: Path) -> mmap.mmap:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            size = os.fstat(self._file).st_size
            if size == 0:
                os.ftruncate(self._file, self._size)
            elif size != self._size:
                raise ValueError(f"{path} is not a table of names of this version (delete it while no gateway runs)")
            mapped = mmap.mmap(self._file, self._size)
            if mapped[:8] == bytes(8):
                mapped[:8] = _MAGIC
            elif mapped[:8] != _MAGIC:
                mapped.close()
                raise ValueError(f"{path} is not a table of names (give another path)")
            return mapped
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)


def make_memory() -> int:
    """The descriptor of memory for a journal, which goes with the processes that hold it."""
    descriptor = os.memfd_create("egress-names", os.MFD_CLOEXEC)
    os.fchmod(descriptor, 0o600)
    return descriptor


def _open(path: Path, flags: int) -> int:
    """The descriptor of the file, which nobody else can have put there for us."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    state = os.fstat(descriptor)
    if state.st_uid != os.geteuid() or state.st_mode & 0o077:
        os.close(descriptor)
        raise PermissionError(errno.EPERM, "the table of names must be the gateway user's own, mode 0600", str(path))
    return descriptor


def _encode(number: int, learned: Learned, addresses: tuple[Address, ...]) -> bytes:
    name, client = learned.name.encode("ascii"), learned.client.encode("ascii", "replace")[:45]
    packed = b"".join(bytes([address.version]) + address.packed.ljust(16, b"\0") for address in addresses)
    return _FIXED.pack(number, learned.until, len(name), len(client), len(addresses)) + name + client + packed


def _decode(record: bytes) -> Learned | None:
    """What a record says; None for one that makes no sense, which is as if it were not there."""
    _, until, name_size, client_size, count = _FIXED.unpack_from(record)
    at = _FIXED.size
    try:
        name = parse_host(record[at : at + name_size].decode("ascii"))
        client = record[at + name_size : at + name_size + client_size].decode("ascii")
    except (UnicodeDecodeError, MalformedHost):
        return None
    at += name_size + client_size
    if not isinstance(name, str) or at + 17 * count > len(record):
        return None
    addresses = tuple(_address(record[start : start + 17]) for start in range(at, at + 17 * count, 17))
    return Learned(name, addresses, until, client)


def _address(packed: bytes) -> Address:
    if packed[0] == 4:
        return IPv4Address(packed[1:5])
    return IPv6Address(packed[1:17])
