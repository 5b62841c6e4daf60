"""What is fast enough to gather, and when it no longer is."""

from __future__ import annotations

from egress_gateway.relay.rate import FAST_BYTES, SPAN, Rate

STEP = 1.01 * SPAN  # the sums are not exact


def test_it_takes_a_span_of_much_to_be_fast() -> None:
    rate = Rate()
    assert not rate.look(100.0, FAST_BYTES), "the first is after a pause"
    assert not rate.look(100.0 + STEP / 2, 2 * FAST_BYTES), "the span is not over"
    assert rate.look(100.0 + STEP, 2 * FAST_BYTES)
    assert rate.look(100.0 + 1.5 * STEP, 2 * FAST_BYTES), "nor is the next"


def test_with_less_in_a_span_it_is_not_fast() -> None:
    rate = Rate()
    rate.look(100.0, 0)
    assert not rate.look(100.0 + STEP, FAST_BYTES - 1)
    assert rate.look(100.0 + 2 * STEP, 2 * FAST_BYTES), "and then it is"
    assert not rate.look(100.0 + 3 * STEP, 3 * FAST_BYTES - 1), "and then it is not any more"


def test_after_a_pause_it_is_not_fast_however_much_comes() -> None:
    rate = Rate()
    rate.look(100.0, 0)
    assert rate.look(100.0 + STEP, FAST_BYTES)
    assert not rate.look(100.0 + 4 * STEP, 100 * FAST_BYTES)
