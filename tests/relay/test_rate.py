"""What is fast enough to gather, and when it no longer is."""

from __future__ import annotations

import socket

import pytest

from egress_gateway.relay.pipes import Pipes
from egress_gateway.relay.rate import FAST, LEAST, SPAN, Rate
from egress_gateway.relay.way import Way

STEP = 1.01 * SPAN  # the sums are not exact
MUCH = int(STEP * FAST) + 10
LITTLE = int(STEP * FAST) - 10


def test_it_takes_a_span_of_much_to_be_fast() -> None:
    rate = Rate()
    assert not rate.look(100.0, MUCH), "the first is after a pause"
    assert not rate.look(100.0 + STEP / 2, 2 * MUCH), "the span is not over"
    assert rate.look(100.0 + STEP, 2 * MUCH)
    assert rate.look(100.0 + 1.5 * STEP, 2 * MUCH), "nor is the next"


def test_with_less_in_a_span_it_is_not_fast() -> None:
    rate = Rate()
    rate.look(100.0, 0)
    assert not rate.look(100.0 + STEP, LITTLE)
    assert rate.look(100.0 + 2 * STEP, LITTLE + MUCH), "and then it is"
    assert not rate.look(100.0 + 3 * STEP, 2 * LITTLE + MUCH), "and then it is not any more"


def test_after_a_pause_it_is_not_fast_however_much_comes() -> None:
    rate = Rate()
    rate.look(100.0, 0)
    assert rate.look(100.0 + STEP, MUCH)
    assert not rate.look(100.0 + 4 * STEP, 100 * MUCH)


@pytest.mark.parametrize("piece", [1_448, 16_384, 65_536, 1 << 20])
@pytest.mark.parametrize("share", [0.9, 1.6], ids=["slower", "faster"])
def test_a_steady_stream_is_judged_by_its_rate_in_pieces_of_any_size(piece: int, share: float) -> None:
    """1.6, since a piece may end just after the span, and a large one is then missing in it."""
    rate, now, count = Rate(), 100.0, 0
    fast = []
    while now < 100.5:
        now += piece / (share * FAST)
        count += piece
        fast.append(rate.look(now, count))
    if share < 1:
        assert not any(fast)
    else:
        assert sum(fast) > 0.9 * len(fast) or piece / (share * FAST) >= 2 * SPAN


async def test_a_direction_is_looked_at_once_it_has_moved_as_much_as_one_that_is_fast() -> None:
    here, there = socket.socketpair()
    with here, there:
        way = Way(here, there, b"", Pipes())
        way.moved = LEAST - 1
        assert not way.is_fast(100.0)
        assert way.rate is None, "what moves little costs nothing"
        way.moved = LEAST + 1
        assert not way.is_fast(100.0 + STEP)
        way.moved += MUCH
        assert way.is_fast(100.0 + 2 * STEP)
