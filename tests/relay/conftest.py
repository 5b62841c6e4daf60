"""What all tests of the relay share."""

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from egress_gateway.relay import client, deadline, poller
from support.steady_time import steady_time

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
if importlib.util.find_spec("uvloop") is not None:
    import uvloop

    LOOPS["uvloop"] = uvloop.new_event_loop


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused client is waited for so long; the tests' clients often wait for the relay."""
    monkeypatch.setattr(client, "LINGER_SECONDS", 0.02)


@pytest.fixture
def long_linger(short_linger: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused client is waited for as long as it likes: for one that goes on sending, and then ends its side."""
    monkeypatch.setattr(client, "LINGER_SECONDS", 60.0)


@pytest.fixture
async def steady(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Limits of the relay count the time that the loop has waited (`support.steady_time`), which must be asyncio's."""
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(deadline, "monotonic", lambda: loop.time())
    with steady_time(loop):
        yield


@pytest.fixture(params=["at once", "soon"])
def sent(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written soon is sent at once, as where a connection is alone; or after the turn, as where it never is."""
    if request.param == "soon":
        monkeypatch.setattr(poller, "HELD_FROM", 1)


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """A module that says `ON_EVERY_LOOP = True` runs on all event loops that are installed."""
    module = getattr(item, "module", None)
    return LOOPS if getattr(module, "ON_EVERY_LOOP", False) else {"asyncio": LOOPS["asyncio"]}
