"""Pipes are few, reused, empty when they change hands, and not there at all where they would be no use."""

from __future__ import annotations

import fcntl
import os
import resource

import pytest

from egress_gateway.relay import pipes as module
from egress_gateway.relay.pipes import LEAST_BYTES, Pipe, Pipes


def is_open(pipe: Pipe) -> bool:
    for end in (pipe.read_end, pipe.write_end):
        try:
            os.fstat(end)
        except OSError:
            continue
        return True
    return False


def taken(pipes: Pipes) -> Pipe:
    pipe = pipes.take()
    assert pipe is not None
    return pipe


def test_a_pipe_that_was_given_back_is_used_again() -> None:
    pipes = Pipes()
    first = taken(pipes)
    pipes.give(first)
    assert taken(pipes) == first
    assert pipes.in_use == 1


def test_a_pipe_that_has_bytes_in_it_is_used_by_nobody_again() -> None:
    pipes = Pipes()
    first = taken(pipes)
    os.write(first.write_end, b"secret")
    pipes.drop(first)
    assert not is_open(first)
    with pytest.raises(BlockingIOError):
        os.read(taken(pipes).read_end, 1)


def test_no_more_are_in_use_than_are_allowed() -> None:
    pipes = Pipes(most_in_use=2)
    first, _ = taken(pipes), taken(pipes)
    assert pipes.take() is None
    pipes.give(first)
    assert pipes.take() == first


def test_no_more_are_kept_than_are_allowed() -> None:
    pipes = Pipes(most_idle=1)
    both = [taken(pipes), taken(pipes)]
    for pipe in both:
        pipes.give(pipe)
    assert [is_open(pipe) for pipe in both] == [True, False]
    pipes.close()
    assert not is_open(both[0])


def test_both_ends_belong_to_this_process_alone_and_do_not_block() -> None:
    pipe = taken(Pipes())
    for end in (pipe.read_end, pipe.write_end):
        assert not os.get_inheritable(end)
        assert not os.get_blocking(end)
        os.close(end)


def test_a_pipe_that_is_too_small_to_be_of_use_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Pipe] = []
    pipe2 = os.pipe2

    def noting(flags: int) -> tuple[int, int]:
        made.append(Pipe(*pipe2(flags)))
        return made[-1].read_end, made[-1].write_end

    monkeypatch.setattr(os, "pipe2", noting)
    monkeypatch.setattr(module, "WANTED_BYTES", LEAST_BYTES // 2)
    assert Pipes().take() is None
    assert [is_open(pipe) for pipe in made] == [False]


def test_a_user_who_may_not_have_a_larger_pipe_has_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    control = fcntl.fcntl

    def refusing(descriptor: int, command: int, *arguments: int) -> object:
        if command == fcntl.F_SETPIPE_SZ:
            raise PermissionError
        return control(descriptor, command, *arguments)

    monkeypatch.setattr(fcntl, "fcntl", refusing)
    pipe = taken(Pipes())
    assert control(pipe.read_end, fcntl.F_GETPIPE_SZ) == 65_536


def test_without_descriptors_there_is_no_pipe_and_later_there_is(caplog: pytest.LogCaptureFixture) -> None:
    pipes = Pipes()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        assert pipes.take() is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert pipes.take() is not None
    assert caplog.records == []


def test_pipes_leave_most_descriptors_to_the_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        pipes = Pipes()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len([pipe for pipe in (pipes.take() for _ in range(10)) if pipe]) == 4


def test_without_splice_there_are_none_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(os, "splice")
    pipes = Pipes()
    assert pipes.take() is None
    pipes.unusable(OSError(22, "Invalid argument"))
    assert [record.message for record in caplog.records] == [
        "egress gateway: this system has no splice(); bytes of tunnels are copied, which costs more."
    ]
