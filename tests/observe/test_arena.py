"""The memory that is counted in: who dies in the middle of it, and who looks on meanwhile."""

import itertools
import os
import signal
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egress_gateway.observe.arena import NOWHERE, Arena, Row
from support.children import child

TABLE = 7


@pytest.fixture
def arena() -> Arena:
    return adopted()


def adopted() -> Arena:
    arena = Arena.create(rows=256, text=16_384, cells=4096)
    arena.adopt()
    return arena


def add(arena: Arena, text: str, cells: int = 3) -> Row:
    row = arena.add(TABLE, text, cells)
    assert row is not None
    return row


def whole(arena: Arena) -> dict[str, list[float] | None]:
    return {row.text: arena.read(row) for row in arena.rows()}


def test_what_is_added_is_read(arena: Arena) -> None:
    row = add(arena, '["a"]')
    arena.cells[row.cell + 1] += 2.5
    assert whole(arena) == {'["a"]': [0, 2.5, 0]}
    assert [(row.table, row.cells) for row in arena.rows()] == [(TABLE, 3)]


def test_what_is_forgotten_is_gone_and_its_room_is_used_again(arena: Arena) -> None:
    kept = add(arena, "kept")
    for i in range(10_000):
        row = add(arena, f"gone {i}")
        arena.cells[row.cell] = i
        arena.forget(row)
        arena.forget(row)  # twice is once
    assert whole(arena) == {"kept": [0, 0, 0]}
    arena.cells[kept.cell] = 1
    assert whole(arena) == {"kept": [1, 0, 0]}


def test_a_row_that_takes_the_place_of_another_starts_with_zeros(arena: Arena) -> None:
    old = add(arena, "old")
    arena.cells[old.cell] = 5
    arena.forget(old)
    new = add(arena, "new")
    assert (new.number, new.cell) == (old.number, old.cell)
    assert arena.read(new) == [0, 0, 0]
    assert arena.read(old) is None, "whoever still has the old one reads nothing"


def test_who_remembers_rows_sees_what_has_taken_their_place(arena: Arena) -> None:
    known: dict[int, Row] = {}
    old = add(arena, "old")
    assert [row.text for row in arena.rows(known)] == ["old"]
    arena.forget(old)
    assert list(arena.rows(known)) == []
    add(arena, "new")
    assert [row.text for row in arena.rows(known)] == ["new"]


def test_a_large_room_is_split_where_nothing_else_is_left() -> None:
    arena = Arena.create(rows=64, text=4096, cells=64 + 32)
    arena.adopt()
    arena.forget(add(arena, "large", 29))
    assert [add(arena, f"{i}", 9).cells for i in range(3)] == [9, 9, 9]
    assert arena.add(TABLE, "x", 9) is None


def test_who_comes_after_finds_all_the_room_that_is_free() -> None:
    arena = Arena.create(rows=34, text=4096, cells=64 + 340)
    arena.adopt()
    rows = [add(arena, str(i), 10) for i in range(32)]
    assert arena.add(TABLE, "x", 10) is None
    for row in rows[:-1]:
        arena.forget(row)
    arena.adopt()
    assert whole(arena) == {"31": [0] * 10}
    for i in range(31):
        add(arena, str(i), 10)
    assert arena.add(TABLE, "x", 10) is None


def test_the_cells_for_what_found_no_room_are_no_rows(arena: Arena) -> None:
    rows = [add(arena, str(i)) for i in range(50)]
    for offset in range(64):
        arena.cells[NOWHERE + offset] += 1
    assert all(arena.read(row) == [0, 0, 0] for row in rows)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 40), st.integers(0, 90)), max_size=60),
    st.integers(0, 5),
)
def test_rows_never_share_their_room(steps: list[tuple[bool, int, int, int]], takeover_every: int) -> None:
    """Against a dict; now and then another writer takes over."""
    arena = adopted()
    expected: dict[str, tuple[Row, list[float]]] = {}
    for count, (forgets, which, cells, size) in enumerate(steps):
        if takeover_every and count % (takeover_every + 1) == 0:
            arena.adopt()
        if forgets and expected:
            text = list(expected)[which % len(expected)]
            arena.forget(expected.pop(text)[0])
            continue
        text = f"{count} {'x' * size}"
        row = add(arena, text, cells)
        values = [float(count + 1)] * cells
        for index in range(cells):
            arena.cells[row.cell + index] = values[index]
        expected[text] = row, values
    assert whole(arena) == {text: values for text, (_, values) in expected.items()}


def test_another_process_sees_what_is_counted(arena: Arena) -> None:
    ready, done = os.pipe()

    def count() -> None:
        arena.adopt()
        row = arena.add(TABLE, "theirs", 1)
        assert row is not None
        for _ in range(1000):
            arena.cells[row.cell] += 1
        os.write(done, b"!")
        signal.pause()

    with child(count) as pid:
        os.read(ready, 1)
        assert whole(arena) == {"theirs": [1000]}
        assert arena.pid == pid
    arena.release([], cpu_seconds=1.5)
    assert (arena.pid, arena.cpu_before) == (0, 1.5)
    assert whole(arena) == {"theirs": [1000]}


def test_who_was_killed_in_the_middle_of_a_write_leaves_nothing_that_is_not_whole(arena: Arena) -> None:
    """A child adds and forgets rows as fast as it can and is killed; its successor finds each row whole."""
    kept = add(arena, "kept", 2)

    def churn() -> None:
        arena.adopt()
        count = 0
        while True:
            row = arena.add(TABLE, f"text {count} {'y' * (count % 70)}", count % 5 + 1)
            assert row is not None
            arena.cells[row.cell] += 1
            arena.cells[kept.cell] += 1
            if count % 7:
                arena.forget(row)
            elif count % 100 == 0:
                for other in arena.rows():
                    if other.text != "kept":
                        arena.forget(other)
            count += 1

    before = 0.0
    for _ in range(25):
        with child(churn):
            end = before + 200
            while arena.cells[kept.cell] < end:
                for row in list(arena.rows()):
                    assert row.text == "kept" or row.text.startswith("text ")
                    arena.read(row)
        now = arena.cells[kept.cell]
        assert now >= end, "what was counted stays"
        before = now
        arena.adopt()
        for row in list(arena.rows()):
            if row.text != "kept":
                arena.forget(row)
        assert list(whole(arena)) == ["kept"]
        assert arena.add(TABLE, "room", 900) is not None, "nothing of the room is lost"
        arena.forget(next(row for row in arena.rows() if row.text == "room"))


def test_no_reader_ever_sees_a_row_under_the_name_of_another(arena: Arena) -> None:
    """A child makes rows whose cells all hold the number in their text; whoever looks on never sees another number."""
    signal_ready, ready = os.pipe()

    def churn() -> None:
        arena.adopt()
        rows = deque[Row]()
        for count in itertools.count(1):
            rows.append(row := add(arena, str(count), 6))
            for index in range(6):
                arena.cells[row.cell + index] = count
            if len(rows) > 8:
                arena.forget(rows.popleft())
            if count == 100:
                os.write(ready, b"!")

    with child(churn):
        os.read(signal_ready, 1)
        seen = 0
        for _ in range(3000):
            for row in arena.rows():
                values = arena.read(row)
                if values is not None:
                    seen += 1
                    assert set(values) <= {0, float(row.text)}
        assert seen
