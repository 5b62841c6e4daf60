import inspect
from collections.abc import Callable
from typing import Any

import pytest

from egress_gateway.observe.fanout import Observers
from egress_gateway.policy.events import Exchange, Observer
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.verdict import refuse

EVENTS: dict[str, tuple[Any, ...]] = {
    "decided": (refuse(Reason.NO_RULE), "http", 0.1),
    "mismatch": ("sni",),
    "finished": (Exchange(start_time=0.0),),
    "connection_opened": ("regular",),
    "connection_closed": ("regular",),
    "hello_seen": (True,),
    "tunnel_opened": (Exchange(start_time=0.0),),
    "looked_up": ("success", 0.1),
    "connected": (0.1,),
    "secured": (0.1,),
    "upstream_failed": (Reason.CONNECT_FAILED,),
    "turned_away": ("descriptors",),
    "internal_error": ("decide",),
    "reloaded": (3,),
}


def recorder(calls: list[tuple[Any, ...]], error: Exception | None = None) -> Observer:
    """An observer whose every method notes its call, and then fails if there is an `error`."""

    def method(name: str) -> Callable[..., None]:
        def note(_self: Observer, *arguments: Any, **named: Any) -> None:
            calls.append((name, *arguments, *named.items()))
            if error is not None:
                raise error

        note.__name__ = name
        return note

    made: Observer = type("Recorder", (Observer,), {name: method(name) for name in EVENTS})()
    return made


def send(observer: Observer, event: str) -> None:
    named = {"successful": True} if event == "reloaded" else {}
    getattr(observer, event)(*EVENTS[event], **named)


def test_the_table_above_holds_every_event() -> None:
    methods = {name for name, _ in inspect.getmembers(Observer, inspect.isfunction) if not name.startswith("_")}
    assert methods == set(EVENTS)
    assert methods == {name for name in vars(Observers) if not name.startswith("_")} - {"use"}


@pytest.mark.parametrize("event", EVENTS)
def test_every_observer_gets_every_event_in_order(event: str) -> None:
    calls: list[tuple[Any, ...]] = []
    send(Observers(recorder(calls), Observer(), recorder(calls)), event)
    extra = (("successful", True),) if event == "reloaded" else ()
    assert calls == [(event, *EVENTS[event], *extra)] * 2


@pytest.mark.parametrize("event", EVENTS)
def test_what_fails_is_kept_from_the_caller_and_counted_by_the_others(
    event: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken: list[tuple[Any, ...]] = []
    sound: list[tuple[Any, ...]] = []
    observers = Observers(recorder(broken, ValueError("no")), recorder(sound))
    send(observers, event)
    assert [name for name, *_ in broken] == [event]
    assert ("internal_error", "observe") in sound
    assert sound[-1][0] == event
    assert len(caplog.records) == 1
    assert f"Recorder failed in {event}" in caplog.text


def test_a_failure_is_said_once_and_counted_every_time(caplog: pytest.LogCaptureFixture) -> None:
    sound: list[tuple[Any, ...]] = []
    observers = Observers(recorder([], ValueError("no")), recorder(sound))
    for _ in range(10):
        observers.mismatch("sni")
    assert sound.count(("internal_error", "observe")) == 10
    assert len(caplog.records) == 1


def test_if_all_of_them_fail_the_caller_does_not_notice() -> None:
    observers = Observers(recorder([], ValueError("no")), recorder([], OSError("no")))
    for event in EVENTS:
        send(observers, event)


def test_what_ends_the_process_is_not_held_up() -> None:
    class Interrupted(Observer):
        def mismatch(self, claim: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Observers(Interrupted()).mismatch("sni")


def test_an_observer_that_ignores_an_event_is_not_called() -> None:
    assert Observers(Observer(), Observer())._finished == ()


def test_other_observers_can_take_their_place() -> None:
    first: list[tuple[Any, ...]] = []
    second: list[tuple[Any, ...]] = []
    observers = Observers(recorder(first))
    observers.mismatch("sni")
    observers.use(recorder(second))
    observers.mismatch("host")
    assert (first, second) == ([("mismatch", "sni")], [("mismatch", "host")])
