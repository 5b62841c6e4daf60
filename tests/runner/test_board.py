"""What a process writes on the board the others read, also when it was forked afterwards."""

from __future__ import annotations

import multiprocessing

from egress_gateway.runner.board import Board, State


def test_what_one_process_writes_the_others_read() -> None:
    board = Board(3)

    def work() -> None:
        board.set_state(1, State.READY)
        board.set_open_connections(1, 2**40)
        board.telemetry_port = 9464

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(10)
    assert [board.state(slot) for slot in range(3)] == [State.ABSENT, State.READY, State.ABSENT]
    assert board.ready == 1
    assert board.open_elsewhere(0) == board.open_connections(1) == 2**40
    assert board.open_elsewhere(1) == 0
    assert board.telemetry_port == 9464


def test_a_worker_that_is_gone_leaves_only_what_it_had_to_end() -> None:
    board = Board(2)
    board.set_state(0, State.ENDING)
    board.set_open_connections(0, 7)
    board.set_left(0, 3)
    board.clear(0)
    assert (board.state(0), board.open_connections(0), board.left(0)) == (State.ABSENT, 0, 3)
    assert not board.draining
    board.draining = True
    assert board.draining
