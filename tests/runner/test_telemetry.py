"""Whether traffic may come, from what the board says."""

from __future__ import annotations

from egress_gateway.runner.board import Board, State
from egress_gateway.runner.telemetry import not_ready


def test_one_ready_worker_is_enough() -> None:
    board = Board(2)
    assert not_ready(board) == "no worker is ready"
    board.set_state(0, State.STARTING)
    assert not_ready(board) == "no worker is ready"
    board.set_state(1, State.READY)
    assert not_ready(board) is None
    board.draining = True
    assert not_ready(board) == "the gateway is shutting down"
