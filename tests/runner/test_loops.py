"""Which event loop is used, and that uvloop gets on with what mitmproxy and the relay ask of a loop."""

from __future__ import annotations

import asyncio
import sys

import pytest

from egress_gateway.runner.loops import choose


def test_the_relay_has_uvloop_and_layers_have_asyncios_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EGRESS_NO_UVLOOP", raising=False)
    assert (choose(relays=True).name, choose(relays=True).because) == ("uvloop", "")
    assert (choose(relays=False).name, choose(relays=False).because) == ("asyncio", "")


def test_without_it_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGRESS_NO_UVLOOP", "1")
    assert (choose(relays=True).name, choose(relays=True).because) == (
        "asyncio",
        "without uvloop, as EGRESS_NO_UVLOOP says",
    )
    monkeypatch.delenv("EGRESS_NO_UVLOOP")
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert choose(relays=True).name == "asyncio"
    assert choose(relays=True).because.startswith("without uvloop (")


def test_uvloop_starts_tasks_at_once_where_it_is_asked_to() -> None:
    seen: list[str] = []

    async def note() -> None:
        seen.append("noted")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        task = asyncio.create_task(note(), name="a task with a name")
        assert seen == ["noted"]
        assert task.done()
        async with asyncio.timeout(1), asyncio.TaskGroup() as group:
            group.create_task(note())

    with asyncio.Runner(loop_factory=choose(relays=True).make) as runner:
        runner.run(main())
    assert len(seen) == 2
