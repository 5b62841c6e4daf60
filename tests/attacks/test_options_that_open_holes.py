"""Options of mitmproxy that would open a hole: they keep the gateway from starting, and cannot be set later."""

import contextlib
import http.client
import json
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.gateway import Gateway, Program
from support.http import request_via_proxy
from support.lab import ALLOWED, DENIED, RULES, Places
from support.waiting import PATIENCE, eventually

type Options = dict[str, Any]


class Refused(NamedTuple):
    """Options and arguments that keep the gateway from starting, and a piece of the line that each of them gets."""

    options: Options
    arguments: Sequence[str]
    said: Sequence[str]


# All problems are told at once, so those that can stand side by side are tried in one start.
HOLES = {
    "an option that would be a hole": Refused({"ignore_hosts": ".*"}, [], ["refuses option ignore_hosts"]),
    "many of them": Refused(
        {
            "tcp_hosts": ".*",
            "udp_hosts": ".*",
            "connection_strategy": "eager",
            "rawtcp": True,
            "validate_inbound_headers": False,
            "egress_ruls": "x",
        },
        ["--allow-hosts", "allowed", "-k", "--mode", "regular", "--mode", "reverse:http://203.0.113.66:80@9"],
        [
            "refuses option tcp_hosts",
            "refuses option udp_hosts",
            "refuses option connection_strategy",
            "refuses option rawtcp",
            "refuses option validate_inbound_headers",
            "refuses option allow_hosts",
            "refuses option ssl_insecure",
            "does not support mode reverse",
            "unknown option egress_ruls (did you mean egress_rules?)",
        ],
    ),
    "connection_strategy=eager": Refused({"connection_strategy": "eager"}, [], ["refuses option connection_strategy"]),
    "rawtcp": Refused({"rawtcp": True}, [], ["refuses option rawtcp"]),
    "mode upstream": Refused({}, ["--mode", "upstream:http://203.0.113.66:3128"], ["does not support mode upstream"]),
    "mode reverse": Refused({}, ["--mode", "reverse:http://203.0.113.66:80"], ["does not support mode reverse"]),
    "an unknown option": Refused(
        {"egress_tsl": "inspect"}, [], ["unknown option egress_tsl (did you mean egress_tls?)"]
    ),
    "a size of nothing": Refused({"egress_max_header_bytes": 0}, [], ["egress_max_header_bytes: 0 is too small"]),
    "a public range that is none": Refused({"egress_public_ranges": "all"}, [], ["egress_public_ranges: 'all'"]),
    "a name server that is none": Refused({"egress_dns_servers": "ns.example"}, [], ["egress_dns_servers: "]),
    "rules that are not there": Refused({"egress_rules": "/nowhere/at/all"}, [], ["/nowhere/at/all"]),
}


@pytest.fixture(scope="module")
def ended(ca, program: Program) -> Iterator[dict[str, Gateway]]:
    """All of them, four at a time."""
    started: dict[str, Gateway] = {}
    with contextlib.ExitStack() as stack:
        for what, refused in HOLES.items():
            options = {"egress_data_path": "relay", **refused.options}
            new = Gateway(
                RULES,
                options,
                program=program,
                extra_args=refused.arguments,
                trusted_ca=ca.pem_path,
                wait_ready=False,
            )
            started[what] = stack.enter_context(new)
            if len(started) % 4 == 0:
                new.wait_for_exit()
        for gateway in started.values():
            gateway.wait_for_exit()
        yield started


@pytest.mark.parametrize("what", HOLES)
def test_the_start_is_refused(ended: dict[str, Gateway], what: str) -> None:
    gateway = ended[what]
    assert gateway.exit_code == 1
    for said in HOLES[what].said:
        lines = [line for line in gateway.output.splitlines() if said in line]
        assert len(lines) == 1, gateway.output
        assert "egress gateway: " in lines[0]
    assert "Traceback" not in gateway.output


def test_all_problems_are_told_at_once(gateway) -> None:
    started = gateway({"bad.yaml": "kind: EgressRule\n"}, {"ssl_insecure": True, "egress_ruls": "x"}, wait_ready=False)
    assert started.wait_for_exit() == 1
    for said in ("ssl_insecure", "egress_ruls (did you mean egress_rules?)", "bad.yaml:1"):
        assert said in started.output


def test_a_hole_in_the_configuration_file(program: Program) -> None:
    other = Gateway(RULES, program=program, wait_ready=False)
    (other.confdir / "config.yaml").write_text("ignore_hosts: ['.*']\nconnection_strategy: eager\n")
    with other:
        assert other.wait_for_exit() == 1
        assert "refuses option ignore_hosts" in other.output
        assert "refuses option connection_strategy" in other.output


# --- later ---

LATER: dict[str, Any] = {
    "ignore_hosts": [".*"],
    "allow_hosts": ["allowed"],
    "tcp_hosts": [".*"],
    "udp_hosts": [".*"],
    "connection_strategy": "eager",
    "rawtcp": True,
    "ssl_insecure": True,
    "validate_inbound_headers": False,
    "tls_version_server_min": "UNBOUNDED",
    "mode": ["reverse:http://203.0.113.66:80"],
    "egress_public_ranges": "everything",
    "egress_max_header_bytes": 0,
    "egress_rules": "/tmp",
}

SETS_THEM = """
    import asyncio, json, pathlib
    from mitmproxy import ctx

    LATER = json.loads({later!r})
    INTO = pathlib.Path({into!r})


    def value(text):
        return ",".join(text) if isinstance(text, list) else str(text).lower() if isinstance(text, bool) else text


    async def try_them():
        told = {{}}
        for name, wanted in LATER.items():
            for how in ("update", "set"):
                before = getattr(ctx.options, name)
                try:
                    if how == "update":
                        ctx.options.update(**{{name: wanted}})
                    else:
                        ctx.master.commands.call_strings("set", [name, value(wanted)])
                    error = ""
                except Exception as raised:
                    error = f"{{type(raised).__name__}}: {{raised}}"
                told[f"{{name}} by {{how}}"] = [error, getattr(ctx.options, name) == before]
        INTO.with_suffix(".new").write_text(json.dumps(told))
        INTO.with_suffix(".new").rename(INTO)


    def running():
        global task
        task = asyncio.get_running_loop().call_later(0.5, lambda: asyncio.ensure_future(try_them()))
"""


def test_a_script_cannot_set_them_later(gateway, dns, places: Places, wire, tmp_path: Path) -> None:
    into = tmp_path / "told.json"
    script = tmp_path / "sets.py"
    script.write_text(textwrap.dedent(SETS_THEM).format(later=json.dumps(LATER), into=str(into)))
    running = gateway(RULES, scripts_after=[script])
    eventually(into.exists, "the script to have tried them all")
    told = json.loads(into.read_text())
    open_ones = {what: error for what, (error, unchanged) in told.items() if not unchanged}
    assert not open_ones, f"these were set: {open_ones}"
    assert all(error for error, _ in told.values()), told
    eventually(lambda: _status(running, ALLOWED) == 200, "the proxy to listen again")
    assert eventually(lambda: _status(running, DENIED), "an answer") == 403
    wire.assert_nothing_left("203.0.113.66")


in_mitmweb = pytest.mark.parametrize("program", ["mitmweb"], indirect=True, scope="module")


class Console:
    """mitmweb's API, as its page uses it."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._gateway.web_port, timeout=PATIENCE)
        headers = {"Authorization": "Bearer x", "Content-Type": "application/json"}
        headers |= {"Cookie": "_mitmproxy_xsrf=abc", "X-XSRFToken": "abc"}
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def options(self) -> dict[str, Any]:
        status, text = self.call("GET", "/options")
        assert status == 200, text
        return {name: option["value"] for name, option in json.loads(text).items()}


@pytest.fixture(scope="module")
def web(shared_gateway, places: Places) -> Gateway:
    return shared_gateway(RULES)


@in_mitmweb
def test_the_console_can_set_what_opens_nothing(web: Gateway) -> None:
    """The control: the API is spoken as it should be."""
    console = Console(web)
    status, text = console.call("PUT", "/options", {"anticache": True})
    assert (status, console.options()["anticache"]) == (200, True), text
    console.call("PUT", "/options", {"anticache": False})


@in_mitmweb
@pytest.mark.parametrize("name", LATER)
def test_the_console_cannot_set_them(web: Gateway, name: str) -> None:
    console = Console(web)
    before = console.options()[name]
    status, text = console.call("PUT", "/options", {name: LATER[name]})
    assert status == 400, text
    # A mode that is taken back makes mitmproxy open its ports anew.
    eventually(lambda: _status(web, ALLOWED) == 200, "the proxy to listen again")
    assert eventually(lambda: _status(web, DENIED), "an answer") == 403
    assert console.options()[name] == before


def _status(gateway: Gateway, host: str) -> int:
    """0 where the connection was refused or cut, as it may be while the ports are opened anew."""
    try:
        return request_via_proxy(gateway, "GET", f"http://{host}/").status
    except (OSError, http.client.HTTPException):
        return 0
