import io
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import TextIO

import pytest

from egress_gateway.observe.terminal import Painter, Terminal
from egress_gateway.policy.events import Exchange
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.verdict import refuse

Make = Callable[..., Exchange]
ESCAPE = "\x1b"


def shown(exchange: Exchange, level: int = 1, width: int = 100) -> str:
    return Painter(colours=False).lines(exchange, level, width)


def test_a_request(request_: Make) -> None:
    assert shown(request_()) == (
        "203.0.113.7:51234: GET http://www.googleapis.com:443/books/v1/volumes?q=isbn"
        " → 200 1.2k 35ms (originate, default/googleapis)\n"
    )


def test_a_tunnel(tunnel: Make) -> None:
    assert shown(tunnel()) == (
        "203.0.113.7:51234: TLS www.googleapis.com:443 passthrough ↑1.2k ↓5.3k 2.1s (default/googleapis)\n"
    )


@pytest.mark.parametrize("agreement", ["redialled", "audited"])
def test_who_was_led_to_another_address_than_he_dialled(agreement: str, request_: Make, tunnel: Make) -> None:
    dialled = {"original_destination": ("192.0.2.66", 443), "address_check": agreement}
    said = f"default/googleapis, {agreement}: the client dialled 192.0.2.66:443)"
    assert said in shown(request_(**dialled))
    assert said in shown(tunnel(**dialled))


def test_who_came_where_he_dialled(request_: Make) -> None:
    assert "dialled" not in shown(request_(original_destination=("142.250.1.1", 443), address_check="match"))


def test_a_refused_request(refused: Make) -> None:
    assert shown(refused(path="/")) == (
        "203.0.113.7:51234: ✗ GET http://denied.example:443/ 403 no_rule: no egress rule allows this host\n"
    )


def test_a_refused_connect_and_a_refused_tunnel(refused: Make) -> None:
    assert "✗ CONNECT denied.example:443 403 no_rule:" in shown(refused(method="CONNECT", path=""))
    tunnel = refused(protocol="TLS", method="", path="", response_code=0)
    assert "✗ TLS denied.example:443 no_rule:" in shown(tunnel)


def test_a_refused_question_to_the_name_server(refused: Make) -> None:
    question = refused(protocol="DNS", method="AAAA", path="", authority="denied.example:53", response_code=0)
    assert "✗ DNS AAAA denied.example:53 no_rule:" in shown(question)
    assert "✗ DNS denied.example:53 no_rule:" in shown(
        refused(protocol="DNS", method="", path="", authority="denied.example:53", response_code=0)
    ), "a type that nobody names here"


def test_what_was_not_understood(refused: Make) -> None:
    exchange = refused(
        protocol="", method="", path="", authority="", response_code=0, original_destination=("192.0.2.1", 22)
    )
    assert "✗ unknown 192.0.2.1:22 no_rule:" in shown(exchange)


def test_what_was_allowed_and_failed(request_: Make, tunnel: Make) -> None:
    failed = request_(failure=Reason.UPSTREAM_TLS_FAILED, response_code=502, detail="certificate has expired")
    assert shown(failed).endswith(
        " → 502 1.2k 35ms (originate, default/googleapis) upstream_tls_failed: "
        "TLS to the host could not be established or verified (certificate has expired)\n"
    )
    closed = tunnel(failure=Reason.UPSTREAM_CLOSED)
    assert "2.1s (default/googleapis) upstream_closed: " in shown(closed)


def test_a_long_address_is_cut_at_level_1_only(request_: Make) -> None:
    exchange = request_(path="/" + "x" * 500)
    assert "x... → 200" in shown(exchange, width=60)
    assert "x" * 500 in shown(exchange, level=2, width=2048)


def test_level_2_adds_addresses_the_rules_place_and_the_hint(request_: Make, refused: Make) -> None:
    assert shown(request_(), level=2).splitlines()[1:] == [
        "    upstream 142.250.1.1:443, of 142.250.1.1 2a00:1450::1, rule default/googleapis at rules/google.yaml:3"
    ]
    assert shown(refused(hint="the port is missing"), level=2).splitlines()[1:] == ["    hint: the port is missing"]


def test_level_3_adds_the_rest(refused: Make) -> None:
    exchange = refused(requested_server_name="denied.example", original_destination=("192.0.2.1", 443), user="ann")
    assert shown(exchange, level=3).splitlines()[-1] == (
        "    flags NR, server name denied.example, dialled 192.0.2.1:443, user ann, request id 7b1c"
    )


CLIENT_FIELDS = (
    *("protocol", "method", "path", "authority", "requested_server_name", "user", "detail", "request_id", "hint"),
)


def test_client_text_reaches_the_terminal_escaped_and_shortened(refused: Make, hostile: str) -> None:
    for facts in ({}, {"method": "", "protocol": hostile}):
        exchange = refused(**(dict.fromkeys(CLIENT_FIELDS, hostile) | facts))
        for level in (1, 2, 3):
            text = Painter(colours=True).lines(exchange, level, 100)
            ours = re.sub(ESCAPE + r"\[\d+m", "", text)
            assert ours.count("\n") == level
            assert all(" " <= character <= "~" or character in "✗→↑↓\n" for character in ours)
            assert len(ours) < 6000
        assert len(shown(exchange)) < 600


def test_a_request_in_colours(request_: Make, refused: Make) -> None:
    painter = Painter(colours=True)
    assert f" → {ESCAPE}[32m200{ESCAPE}[0m " in painter.lines(request_(), 1, 100)
    assert f" → {ESCAPE}[35m302{ESCAPE}[0m " in painter.lines(request_(response_code=302), 1, 100)
    assert f" → {ESCAPE}[31m502{ESCAPE}[0m " in painter.lines(request_(response_code=502), 1, 100)
    assert f": {ESCAPE}[31m✗{ESCAPE}[0m " in painter.lines(refused(), 1, 100)
    assert f"{ESCAPE}[31m403 no_rule: " in painter.lines(refused(), 1, 100)


def test_level_0_is_silent_and_the_level_can_change(request_: Make) -> None:
    stream = io.StringIO()
    terminal = Terminal(stream, level=0)
    terminal.finished(request_())
    terminal.level = 1
    terminal.finished(request_(path="/seen"))
    terminal.close()
    assert stream.getvalue().count("\n") == 1
    assert "/seen" in stream.getvalue()


def test_at_level_2_addresses_are_not_cut(request_: Make) -> None:
    for level, expected in ((1, False), (2, True)):
        stream = io.StringIO()
        terminal = Terminal(stream, level=level)
        terminal.finished(request_(path="/" + "x" * 500))
        terminal.close()
        assert ("x" * 500 in stream.getvalue()) is expected


@pytest.fixture
def screen() -> Iterator[tuple[int, TextIO]]:
    """A pseudo-terminal: the end that sees what is shown, and the stream to write to."""
    near, far = os.openpty()
    with os.fdopen(far, "w", encoding="utf-8") as stream:
        yield near, stream
        os.close(near)


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    screen: tuple[int, TextIO], refused: Make, environment: dict[str, str], coloured: bool
) -> None:
    near, stream = screen
    terminal = Terminal(stream, environment=environment)
    terminal.finished(refused())
    terminal.close()
    read = b""
    while not read.endswith(b"\n"):
        read += os.read(near, 65536)
    text = read.decode()
    assert "no_rule" in text
    assert (ESCAPE in text) == coloured


def test_a_pipe_gets_no_colours_and_long_lines(refused: Make) -> None:
    near, far = os.pipe()
    with os.fdopen(far, "w", encoding="utf-8") as stream:
        terminal = Terminal(stream, environment={"TERM": "xterm"})
        terminal.finished(refused(path="/" + "x" * 100))
        terminal.close()
    text = os.read(near, 65536).decode()
    os.close(near)
    assert ESCAPE not in text
    assert "x" * 100 in text


def test_a_stream_that_knows_only_ascii_gets_ascii(tunnel: Make, refused: Make) -> None:
    near, far = os.pipe()
    with os.fdopen(far, "w", encoding="ascii") as stream:
        terminal = Terminal(stream)
        terminal.finished(tunnel())
        terminal.finished(refused())
        terminal.close()
    text = os.read(near, 65536).decode("ascii")
    os.close(near)
    assert "passthrough up 1.2k down 5.3k" in text
    assert ": x GET http://denied.example" in text


def test_a_terminal_that_was_stopped_holds_up_nothing(refused: Make) -> None:
    near, far = os.pipe()
    with os.fdopen(far, "w", encoding="utf-8") as stream:
        terminal = Terminal(stream, queue_size=100)
        exchange = refused(verdict=refuse(Reason.NO_RULE))
        started = time.monotonic()
        for _ in range(20_000):
            terminal.finished(exchange)
        terminal.close(0.2)
        assert time.monotonic() - started < 8
        assert terminal.dropped > 10_000
    os.close(near)
