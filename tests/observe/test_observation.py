import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from egress_gateway.observe import observation as module
from egress_gateway.observe.arena import Arena
from egress_gateway.observe.fanout import Observers
from egress_gateway.observe.merged import Merged
from egress_gateway.observe.observation import Observation
from egress_gateway.policy.events import Exchange

Make = Callable[..., Exchange]


async def get(observation: Observation, path: str) -> bytes:
    (port,) = observation.ports
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer


async def test_an_event_reaches_the_metrics_and_the_access_log(tmp_path: Path, request_: Make) -> None:
    path = tmp_path / "access.log"
    observation = Observation(metrics_listen="127.0.0.1:0", access_log=str(path), terminal=False, mitmproxy="12.2.3")
    await observation.start(lambda: None)
    observation.observer.finished(request_())
    scrape = await get(observation, "/metrics")
    await observation.stop()
    assert b'istio_requests_total{reporter="source"' in scrape
    assert b"egress_access_log_dropped_total 0\n" in scrape
    assert json.loads(path.read_text())["authority"] == "www.googleapis.com:443"


async def test_lines_that_were_dropped_show_in_the_metrics(request_: Make) -> None:
    observation = Observation(metrics_listen="", access_log="/dev/full", terminal=False, mitmproxy="12.2.3")
    observation.observer.finished(request_())
    await observation.stop()
    assert b"egress_access_log_dropped_total 1\n" in observation.metrics.exposition()


async def test_ready_is_what_the_gateway_says(tmp_path: Path) -> None:
    observation = Observation(metrics_listen="127.0.0.1:0", access_log="", terminal=False, mitmproxy="12.2.3")
    reason: list[str | None] = ["rules were never loaded"]
    await observation.start(lambda: reason[0])
    assert b"not ready: rules were never loaded" in await get(observation, "/readyz")
    reason[0] = None
    assert (await get(observation, "/readyz")).startswith(b"HTTP/1.1 200 ")
    await observation.stop()


async def test_all_of_it_can_be_off(request_: Make) -> None:
    observation = Observation(metrics_listen="", access_log="", terminal=False, mitmproxy="12.2.3")
    await observation.start(lambda: None)
    assert observation.ports == frozenset()
    observation.show(3)
    observation.observer.finished(request_())
    await observation.stop()


def test_what_cannot_be_understood_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"write it as 127\.0\.0\.1:9464"):
        Observation(metrics_listen="9464", access_log="", terminal=False, mitmproxy="")
    with pytest.raises(OSError, match="cannot open access log"):
        Observation(metrics_listen="", access_log=str(tmp_path / "no" / "log"), terminal=False, mitmproxy="")


def test_a_terminal_that_shows_nothing_is_not_even_asked(request_: Make, capfd: pytest.CaptureFixture[str]) -> None:
    observation = Observation(metrics_listen="", access_log="", terminal=True, mitmproxy="12.2.3")
    observers = observation.observer
    assert isinstance(observers, Observers)
    assert len(observers._finished) == 2
    observation.show(0)
    assert len(observers._finished) == 1
    observation.show(1)
    assert len(observers._finished) == 2


async def test_who_is_read_by_another_process_serves_nothing_and_writes_down_what_others_keep(request_: Make) -> None:
    arena = Arena.create()
    observation = Observation(
        metrics_listen="127.0.0.1:0", access_log="/dev/full", terminal=False, mitmproxy="", arena=arena, serve=False
    )
    observation.keep([], lambda: 7)
    await observation.start(lambda: None)
    assert observation.ports == frozenset()
    assert "egress_names 7\n" in Merged([arena]).text()
    observation.observer.finished(request_())
    await observation.stop()
    assert "egress_access_log_dropped_total 1\n" in Merged([arena]).text()


async def test_figures_of_others_are_written_down_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REFRESH_SECONDS", 0.01)
    arena = Arena.create()
    observation = Observation(metrics_listen="", access_log="", terminal=False, mitmproxy="", arena=arena, serve=False)
    names = iter(range(1_000_000))
    observation.keep([], lambda: next(names))
    await observation.start(lambda: None)
    for _ in range(500):
        await asyncio.sleep(0.01)
        if int(re.findall(r"^egress_names (\d+)$", Merged([arena]).text(), re.MULTILINE)[0]) >= 5:
            break
    else:
        pytest.fail("the figure was not written down")
    await observation.stop()
    await asyncio.sleep(0.03)
    stopped = next(names)
    await asyncio.sleep(0.03)
    assert next(names) == stopped + 1
