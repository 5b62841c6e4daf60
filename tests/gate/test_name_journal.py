"""Several processes, one knowledge: what one has learned, the others know before its client can act on it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from egress_gateway.gate.name_journal import Learned, NameJournal
from egress_gateway.gate.names import Names
from egress_gateway.policy.hostname import Hostname

ADDONS = Path(__file__).resolve().parents[2] / "addons"
A = Hostname("a.example")
ONE, SIX = ip_address("203.0.113.1"), ip_address("2001:db8::1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "names"


def lesson(number: int = 1, addresses: int = 1) -> Learned:
    found = tuple(ip_address(0xCB007100 + each) for each in range(addresses))
    return Learned(Hostname(f"{number}.example"), found, 100.0 + number, "10.0.0.2")


def test_what_one_writes_the_other_reads_once(path: Path) -> None:
    one, other = NameJournal(path), NameJournal(path)
    learned = Learned(A, (ONE, SIX), 12.5, "fd66::2")
    assert not other.has_news
    assert one.write(learned)
    assert other.has_news
    assert list(other.read()) == [learned]
    assert not other.has_news
    assert list(other.read()) == []


def test_nobody_is_told_what_it_said_itself(path: Path) -> None:
    one, other = NameJournal(path), NameJournal(path)
    one.write(lesson(1))
    assert not one.has_news
    other.write(lesson(2))
    one.write(lesson(3))
    assert lesson(2) in list(one.read()), "what came in between is not passed over"


def test_more_addresses_than_fit_one_record(path: Path) -> None:
    one, other = NameJournal(path), NameJournal(path)
    one.write(lesson(addresses=128))
    found = [address for learned in other.read() for address in learned.addresses]
    assert tuple(found) == lesson(addresses=128).addresses


def test_the_longest_name_and_client_fit(path: Path) -> None:
    one, other = NameJournal(path), NameJournal(path)
    name = Hostname(".".join(["x" * 63] * 3 + ["y" * 61]))
    assert len(name) == 253
    learned = Learned(name, (SIX,) * 11, 1.0, "ffff:" * 7 + "255.255.255.255"[:10])
    one.write(learned)
    assert list(other.read()) == [learned]


def test_who_falls_behind_loses_the_oldest_and_nothing_else(path: Path) -> None:
    one, late = NameJournal(path, records=8), NameJournal(path, records=8)
    for number in range(20):
        one.write(lesson(number))
    assert [learned.name for learned in late.read()] == [f"{number}.example" for number in range(13, 20)]


def test_a_record_that_is_written_over_while_it_is_read_is_lost_and_not_mixed_with_the_other(path: Path) -> None:
    one = NameJournal(path, records=8)

    class Slow(NameJournal):
        """Is held up in the middle of its first record."""

        held_up = False

        def _record(self, number: int) -> bytes:
            begin = super()._record(number)[:100]
            if not self.held_up:
                self.held_up = True
                for each in range(100, 110):
                    one.write(Learned(Hostname(f"{each}.example"), (SIX,) * 11, 1.0, "10.0.0.2"))
            return begin + super()._record(number)[100:]

    late = Slow(path, records=8)
    one.write(Learned(A, (ONE,) * 11, 1.0, "10.0.0.2"))
    found = list(late.read())
    assert len(found) == 7
    assert all(learned.addresses == (SIX,) * 11 for learned in found)


def test_who_comes_later_is_told_what_the_ring_still_holds(path: Path) -> None:
    one = NameJournal(path, records=8)
    for number in range(3):
        one.write(lesson(number))
    one.close()
    assert [learned.name for learned in NameJournal(path, records=8).read()] == ["0.example", "1.example", "2.example"]


def test_the_file_is_the_users_own(path: Path) -> None:
    NameJournal(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o666)
    with pytest.raises(PermissionError, match="mode 0600"):
        NameJournal(path)


@pytest.mark.parametrize("content", [b"x" * 100, b"some other file" + bytes(64 + 16_384 * 512 - 15)])
def test_another_file_is_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ValueError, match="is not a table of names"):
        NameJournal(path)
    assert path.read_bytes() == content


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        NameJournal(path)


def test_a_record_that_makes_no_sense_is_as_if_it_were_not_there(path: Path) -> None:
    one, other = NameJournal(path), NameJournal(path)
    one.write(lesson(1))
    one.write(lesson(2))
    one._map[64 + 19 : 64 + 22] = b"\xff\x00/"
    assert list(other.read()) == [lesson(2)]


def test_a_record_that_is_not_there_yet_is_left_for_the_next_time(path: Path) -> None:
    one, other = NameJournal(path), NameJournal(path)
    one.write(lesson(1))
    one.write(lesson(2))
    at = 64 + 512
    second, one._map[at : at + 512] = one._map[at : at + 512], bytes(512)
    assert list(other.read()) == [lesson(1)]
    assert other.has_news
    one._map[at : at + 512] = second
    assert list(other.read()) == [lesson(2)]


def test_a_writer_that_cannot_have_its_turn_gives_up(path: Path) -> None:
    one, other = NameJournal(path), NameJournal(path)
    assert one._lock()
    assert not other.write(lesson())
    assert not other.has_news


WRITER = """
import sys
from pathlib import Path
from ipaddress import ip_address
from egress_gateway.gate.name_journal import Learned, NameJournal
journal = NameJournal(Path(sys.argv[1]))
for number in range(500):
    while not journal.write(Learned(f"{number}.{sys.argv[2]}.example", (ip_address("203.0.113.1"),), 1.0, "x")):
        pass
"""


def test_several_processes_write_at_once_and_nothing_is_torn(path: Path) -> None:
    reader = NameJournal(path)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), word], env=os.environ | {"PYTHONPATH": str(ADDONS)})
        for word in ("one", "two", "three")
    ]
    found: list[str] = []
    while any(writer.poll() is None for writer in writers):
        found += [learned.name for learned in reader.read()]
    found += [learned.name for learned in reader.read()]
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert len(found) == 1500
    for word in ("one", "two", "three"):
        own = [name for name in found if f".{word}." in name]
        assert own == [f"{number}.{word}.example" for number in range(500)], "each in its own order"


def test_after_the_end_what_was_known_is_known_and_nothing_raises(path: Path) -> None:
    names = Names(journal=NameJournal(path))
    names.learn(A, [ONE], ttl=60, client="10.0.0.2")
    names.close()
    names.learn(A, [SIX], ttl=60, client="10.0.0.2")
    assert names.has(A, ONE)
    assert names.has(A, SIX)
    names.close()


def test_the_tables_of_two_processes_know_the_same(path: Path) -> None:
    now = [10.0]
    one, other = (Names(journal=NameJournal(path), clock=lambda: now[0]) for _ in range(2))
    one.learn(A, [ONE, ip_address("::ffff:203.0.113.9")], ttl=5, client="10.0.0.2")
    for names in (one, other):
        assert names.has(A, ONE)
        assert names.has(A, ip_address("203.0.113.9"))
        assert names.names_of(ONE) == (A,)
        assert set(names.addresses_of(A)) == {ONE, ip_address("203.0.113.9")}
    now[0] = 10.0 + 5 + 300
    assert not one.has(A, ONE)
    assert not other.has(A, ONE)


def test_what_is_there_is_read_before_anybody_waits_for_it(path: Path) -> None:
    """A full ring takes a second, for which a gateway that serves already would stand still."""
    one = Names(journal=NameJournal(path))
    one.learn(A, [ONE], ttl=60, client="10.0.0.2")
    journal = NameJournal(path)
    other = Names(journal=journal)
    assert not journal.has_news
    one.learn(A, [ip_address("203.0.113.2")], ttl=60, client="10.0.0.2")
    assert journal.has_news
    other.learn(A, [ip_address("203.0.113.3")], ttl=60, client="10.0.0.2")
    assert not journal.has_news, "one that answers questions alone does not fall behind"
    assert other.has(A, ip_address("203.0.113.2"))
