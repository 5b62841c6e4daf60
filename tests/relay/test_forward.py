"""Which header fields go on to the next hop."""

from __future__ import annotations

from typing import Any

import pytest

from egress_gateway.relay import forward
from egress_gateway.relay.http1 import Framing, Headers, RequestHead, ResponseHead

Fields = dict[str, str] | list[tuple[str, str]]


def headers(fields: Fields) -> Headers:
    pairs = fields.items() if isinstance(fields, dict) else fields
    return [(name.encode(), value.encode()) for name, value in pairs]


def sent(fields: Fields, *, minor: int = 1, method: str = "GET", framing: Framing | None = None, **more: Any) -> str:
    head = RequestHead(minor, headers(fields), method, "http://a.example/x")
    made = forward.request_bytes(
        head,
        method=method,
        path="/x",
        host="a.example",
        framing=framing or Framing(),
        websocket=bool(more.get("websocket")),
    )
    return made.decode()


def returned(fields: Fields, *, status: int = 200, framing: Framing | None = None, **more: Any) -> str:
    head = ResponseHead(int(more.pop("minor", 1)), headers(fields), status, b"OK")
    more.setdefault("keep_alive", True)
    return forward.response_bytes(head, framing=framing or Framing(), **more).decode()


def test_a_request_goes_on_in_origin_form_with_the_canonical_host_first() -> None:
    made = sent({"User-Agent": "x", "Host": "A.EXAMPLE.", "X-Y": "1"})
    assert made == ("GET /x HTTP/1.1\r\nHost: a.example\r\nUser-Agent: x\r\nX-Y: 1\r\nVia: 1.1 egress-gateway\r\n\r\n")


def test_the_version_of_the_last_hop_is_told_in_via_and_earlier_hops_stay() -> None:
    assert "Via: 1.0 fred\r\nVia: 1.0 egress-gateway\r\n" in sent({"Via": "1.0 fred"}, minor=0)
    assert "Via: 1.1 fred\r\nVia: 1.0 egress-gateway\r\n" in returned({"Via": "1.1 fred"}, minor=0)


HOP_BY_HOP = {
    "Connection": "close",
    "Proxy-Connection": "keep-alive",
    "Keep-Alive": "timeout=5",
    "TE": "gzip",
    "Trailer": "X",
    "Transfer-Encoding": "chunked",
    "Upgrade": "h2c",
    "Proxy-Authorization": "Basic eDp5",
    "Proxy-Authenticate": "Basic",
    "Proxy-Authentication-Info": "x",
    "Content-Length": "7",
}


@pytest.mark.parametrize("name", [*HOP_BY_HOP, *map(str.upper, HOP_BY_HOP), *map(str.lower, HOP_BY_HOP)])
def test_what_concerns_one_hop_stays_on_it(name: str) -> None:
    value = next(value for known, value in HOP_BY_HOP.items() if known.lower() == name.lower())
    assert f"{value}\r\n" not in sent({name: value, "X": "y"})
    if name.lower() != "content-length":
        assert f"{name}: {value}" not in returned({name: value})


@pytest.mark.parametrize(
    "fields",
    [
        [("Connection", "X-Secret"), ("X-Secret", "1"), ("X-Other", "2")],
        [("Connection", "close, x-secret"), ("X-Secret", "1"), ("X-Other", "2")],
        [("X-Secret", "1"), ("X-Other", "2"), ("Connection", "keep-alive"), ("Connection", "\tX-SECRET ,,")],
    ],
    ids=["alone", "among others", "in a second field"],
)
def test_what_connection_nominates_stays_on_this_hop(fields: Fields) -> None:
    for made in (sent(fields), returned(fields)):
        assert "ecret" not in made
        assert "X-Other: 2\r\n" in made


@pytest.mark.parametrize("name", ["x-forwarded-client-cert", "X-Istio-Attributes", "X-Envoy-Decorator-Operation"])
def test_what_a_mesh_tells_itself_stays_inside(name: str) -> None:
    assert name not in sent({name: "inside"})


@pytest.mark.parametrize("name", ["proxy-status", "X-Egress-Reason"])
def test_what_only_the_gateway_may_say_is_not_taken_from_an_origin(name: str) -> None:
    assert name not in returned({name: "forged"})
    assert f"{name}: x" in sent({name: "x"}), "an origin may be told anything"


def test_the_framing_that_was_judged_is_the_one_that_is_sent() -> None:
    assert sent({"Content-Length": "5"}, framing=Framing(5)).endswith("Content-Length: 5\r\n\r\n")
    assert sent({"Transfer-Encoding": "CHUNKED"}, framing=Framing(None, chunked=True)).endswith(
        "Transfer-Encoding: chunked\r\n\r\n"
    )
    assert "Content-Length: 0\r\n" in sent({"Content-Length": "0"}, method="POST")
    assert "ontent-" not in sent({}, method="POST")
    assert sent({"Content-Length": "007"}, framing=Framing(7)).count("Content-Length: 7\r\n") == 1


def test_a_nominated_length_is_still_the_one_that_was_judged() -> None:
    made = sent([("Connection", "content-length, host"), ("Content-Length", "5")], framing=Framing(5))
    assert "Content-Length: 5\r\n" in made
    assert "Host: a.example\r\n" in made


def test_trailers_may_be_asked_for_and_nothing_else_by_te() -> None:
    made = sent({"TE": "gzip, trailers", "Connection": "TE"})
    assert "TE: trailers\r\n" in made
    assert "Connection: TE\r\n" in made
    assert "gzip" not in made


def test_a_websocket_handshake_is_made_anew() -> None:
    made = sent(
        {"Upgrade": "websocket", "Connection": "Upgrade, X", "X": "1", "Sec-WebSocket-Key": "k"}, websocket=True
    )
    assert made.endswith("Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert "X: 1" not in made
    assert "Sec-WebSocket-Key: k\r\n" in made
    assert "Upgrade: websocket\r\n" in returned({"Upgrade": "websocket"}, status=101, websocket=True)


RESPONSES: dict[str, tuple[dict[str, object], list[str], list[str]]] = {
    "a length": (
        {"fields": {"Content-Length": "5"}, "framing": Framing(5)}, ["Content-Length: 5"], ["Connection", "chunked"],
    ),
    "chunked": (
        {"fields": {"Transfer-Encoding": "chunked"}, "framing": Framing(None, chunked=True)},
        ["Transfer-Encoding: chunked"], ["Content-Length"],
    ),
    "the end of the connection": ({"fields": {}, "keep_alive": False}, ["Connection: close"], ["Content", "chunked"]),
    "an empty body": ({"fields": {"Content-Length": "0"}}, ["Content-Length: 0"], ["Connection"]),
    "to HEAD, whose length says something": ({"fields": {"Content-Length": "5"}}, ["Content-Length: 5"], []),
    "304, whose length says something": (
        {"fields": {"Content-Length": "5"}, "status": 304}, ["Content-Length: 5"], [],
    ),
    "204, which has no length": ({"fields": {"Content-Length": "5"}, "status": 204}, [], ["Content-Length"]),
    "103": ({"fields": {"Link": "</a>"}, "status": 103}, ["Link: </a>"], ["Content-Length", "Connection", "chunked"]),
    "100": ({"fields": {"Content-Length": "5"}, "status": 100, "keep_alive": False}, [], ["Content-Length", "close"]),
}  # fmt: skip


@pytest.mark.parametrize(("made", "there", "missing"), RESPONSES.values(), ids=RESPONSES)
def test_how_a_response_is_framed_for_the_client(made: dict[str, Any], there: list[str], missing: list[str]) -> None:
    text = returned(**made)
    assert all(f"{line}\r\n" in text for line in there), text
    assert not any(word in text for word in missing), text


def test_only_trailers_that_cannot_change_the_message_go_on() -> None:
    barred = ["Host", "Content-Length", "Transfer-Encoding", "Authorization", "Set-Cookie", "Content-Type", "Trailer"]
    barred += ["Connection", "X-Egress-Reason", "Proxy-Status", "X-Forwarded-Client-Cert", "Content-Encoding"]
    trailers = headers([(name, "x") for name in barred] + [("Grpc-Status", "0"), ("X-Sum", "1")])
    assert forward.trailer_fields(trailers) == [(b"Grpc-Status", b"0"), (b"X-Sum", b"1")]


HOPS = {
    "not said": ({}, "GET", None),
    "to GET it means nothing": ({"Max-Forwards": "0"}, "GET", None),
    "OPTIONS, used up": ({"Max-Forwards": "0"}, "OPTIONS", 0),
    "TRACE, used up": ({"Max-Forwards": "0"}, "TRACE", 0),
    "OPTIONS, some left": ({"Max-Forwards": "5"}, "OPTIONS", 5),
    "not a number": ({"Max-Forwards": "x"}, "OPTIONS", None),
}


@pytest.mark.parametrize(("fields", "method", "expected"), HOPS.values(), ids=HOPS)
def test_how_many_hops_are_left(fields: Fields, method: str, expected: int | None) -> None:
    assert forward.hops_left(RequestHead(1, headers(fields), method, "*")) == expected


def test_one_hop_less_is_told_to_the_next() -> None:
    assert "Max-Forwards: 4\r\n" in sent({"Max-Forwards": "5"}, method="OPTIONS")
    assert "Max-Forwards: 5\r\n" in sent({"Max-Forwards": "5"}, method="GET")
