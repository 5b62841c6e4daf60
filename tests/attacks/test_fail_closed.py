"""When something inside fails, the answer is no: it is counted, and it is said.

The gateways here can be broken by a test: mitmdump runs from a copy of `addons/`, and the runner, which loads no
script of ours, finds the same words in a `sitecustomize`.
"""

import contextlib
import http.client
import os
import shutil
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.gateway import REPOSITORY, Gateway, Program, read_reply
from support.http import (
    client_hello,
    connect_refusal,
    request_over,
    request_via_proxy,
    socks5_connect,
    tls_client,
)
from support.lab import ALLOWED, BYTES, DENIED, RULES, Lab, Places, Port, answered, say
from support.sockets import free_port
from support.waiting import PATIENCE, eventually
from support.wire import Wire

INTERPRETED = {"EGRESS_INTERPRETED": "1"}
"""What is broken here from outside cannot be reached in compiled code."""
# Before ours is loaded each time: lets a test break a part of the gateway while it runs, and mend it.
SWITCH = """
import pathlib as _pathlib
import egress_gateway.gate.gatekeeper as _gatekeeper
import egress_gateway.observe.metrics as _metrics
from egress_gateway.policy import decide as _policy

_WORD = _pathlib.Path({word!r})


def _breakable(name, works):
    def either(*arguments, **more):
        word = _WORD.read_text()
        if not word.startswith(name):
            return works(*arguments, **more)
        return eval(word.partition(": ")[2], {{"fail": _fail}})

    return either


def _fail(kind=RuntimeError):
    raise kind("made to fail")


if not hasattr(_policy, "is_breakable"):
    _policy.is_breakable = True
    _policy.decide = _breakable("decide", _policy.decide)
    _gatekeeper.judge = _breakable("judge", _gatekeeper.judge)
    _metrics.Metrics.decided = _breakable("observer", _metrics.Metrics.decided)
"""


@dataclass
class Copy:
    """A copy of `addons/`."""

    directory: Path

    @property
    def script(self) -> Path:
        return self.directory / "egress.py"

    @property
    def word(self) -> Path:
        return self.directory.parent / "word"

    def breakable(self, program: Program) -> dict[str, Any]:
        """What a gateway is started with that can be broken."""
        if program == "gateway":
            return {"env": {"PYTHONPATH": str(self.directory.parent / "customized"), **INTERPRETED}}
        return {"script": self.script}

    @contextlib.contextmanager
    def broken(self, word: str) -> Iterator[None]:
        self.word.write_text(word)
        try:
            yield
        finally:
            self.word.write_text("")

    def change(self, text: str | None) -> None:
        """Put the script there anew; None deletes it."""
        if text is None:
            self.script.unlink()
            return
        new = self.directory / "egress.new"
        new.write_text(text, encoding="utf-8")
        later = self.script.stat().st_mtime + 5  # the time is all that mitmproxy looks at
        os.utime(new, (later, later))
        new.replace(self.script)


@pytest.fixture(scope="module")
def addons(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    copy = Copy(tmp_path_factory.mktemp("copy") / "addons")
    shutil.copytree(REPOSITORY / "addons", copy.directory, ignore=shutil.ignore_patterns("__pycache__"))
    copy.word.write_text("")
    customized = copy.directory.parent / "customized"
    customized.mkdir()
    (customized / "sitecustomize.py").write_text(SWITCH.format(word=str(copy.word)))
    copy.script.write_text(copy.script.read_text() + SWITCH.format(word=str(copy.word)))
    return copy


@pytest.fixture
def lab(
    shared_gateway,
    addons: Copy,
    program: Program,
    data_path: str,
    socks_port: int,
    dns,
    wire: Wire,
    places: Places,
    ca,
) -> Lab:
    """A gateway for the whole module, in order, with its first rules."""
    modes = ["regular", f"socks5@{socks_port}"]
    running = shared_gateway(RULES, data_path=data_path, mode=modes, **addons.breakable(program))
    lab = Lab(running, dns, wire, places, Port(socks_port))
    with_its_first_rules(running)
    all_is_served(lab, ca)
    return lab


def with_its_first_rules(gateway: Gateway) -> None:
    directory = gateway.rules_dir
    is_itself = directory.is_dir() and not directory.is_symlink()
    if is_itself and [path.name for path in directory.iterdir()] == ["rules.yaml"]:
        return
    # Whole when it comes: were it seen empty, nothing would tell where the same rules are in force already.
    whole = directory.with_name("whole")
    whole.mkdir()
    (whole / "rules.yaml").write_text(RULES, encoding="utf-8")
    if directory.is_symlink() or directory.is_file():
        directory.unlink()
    elif directory.exists():
        removed_at_once(directory)
    whole.rename(directory)
    eventually(
        lambda: gateway.metric("egress_rules") == 4 and gateway.metric("egress_rules_last_reload_successful") == 1,
        "the first rules to be in force",
    )
    # Each worker reads them for itself; which one answers is the kernel's choice.
    url = f"http://{ALLOWED}:443/"
    times = 1 if gateway.workers == 1 else 12
    eventually(
        lambda: all(request_via_proxy(gateway, "GET", url).status == 200 for _ in range(times)),
        "the first rules to be in force in each worker",
    )


def removed_at_once(directory: Path) -> None:
    """It is never seen empty on the way, which would be a wish to deny everything."""
    directory.rename(old := directory.with_name("old"))
    shutil.rmtree(old)


@pytest.fixture
def beside(gateway, dns, wire: Wire, places: Places) -> Callable[..., Lab]:
    """Starts a gateway with other scripts, which work on flows, so that its data path is inspect."""

    def run(**more: Any) -> Lab:
        port = free_port()
        started = gateway(RULES, mode=["regular", f"socks5@{port}"], **more)
        assert "data path inspect" in started.output
        return Lab(started, dns, wire, places, Port(port))

    return run


def script(directory: Path, text: str, name: str = "other.py") -> Path:
    path = directory / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def all_is_served(lab: Lab, ca) -> None:
    """The control: every way in that `nothing_is_served` tries."""
    assert request_via_proxy(lab.gateway, "GET", f"http://{ALLOWED}/").status == 200
    assert request_via_proxy(lab.gateway, "GET", f"http://{ALLOWED}:443/").status == 200
    for way in ("connect", "socks5"):
        with lab.tunnel(way, ALLOWED) as sock, tls_client(sock, ALLOWED, ca.pem_path) as tls:
            assert request_over(tls, "GET", "/", {"Host": ALLOWED}).status == 200
        with lab.tunnel(way, BYTES, 5432) as sock:
            assert sock.recv(100) == b"hello from the database\n"


def nothing_is_served(lab: Lab) -> None:
    """Allowed or not, by whatever way: every answer is a refusal or the end, and nothing leaves."""
    lab.wire.clear()
    gateway = lab.gateway
    for host in (ALLOWED, DENIED):
        for url in (f"http://{host}/", f"http://{host}:443/"):
            head = f"GET {url} HTTP/1.1\r\nHost: {url.split('/')[2]}\r\nConnection: close\r\n\r\n"
            refused_or_silent(gateway.raw(head.encode()))
        for port in (443, 80):
            head = f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"
            reply = gateway.raw([head.encode(), client_hello(host)], pause=0.02)
            refused_or_silent(reply.removeprefix(b"HTTP/1.1 200 Connection established\r\n\r\n"))
    head = f"CONNECT {BYTES}:5432 HTTP/1.1\r\nHost: {BYTES}:5432\r\nConnection: close\r\n\r\n"
    refused_or_silent(gateway.raw(head.encode()))
    for host, port in ((ALLOWED, 443), (BYTES, 5432), (DENIED, 443)):
        handshake = b"\x05\x01\x00", b"\x05\x01\x00\x03" + bytes([len(host)]) + host.encode() + port.to_bytes(2)
        with lab.socks.connect() as sock:
            say(sock, [*handshake, client_hello(host)], pause=0.02)
            reply = read_reply(sock)
        assert b"hello" not in reply
        assert b"\x16\x03" not in reply
    lab.assert_nothing_left()


def refused_or_silent(reply: bytes) -> None:
    assert not reply or reply[:1] == b"\x15" or reply[9:12] in (b"400", b"403", b"502", b"503"), reply[:300]


# --- deciding fails ---

FAILURES = {
    "decide raises": "decide: fail()",
    "decide recurses without end": "decide: fail(RecursionError)",
    "decide returns nothing": "decide: None",
    "decide returns True": "decide: True",
    "decide returns the word allow": "decide: 'allow'",
}


@pytest.mark.parametrize("word", FAILURES.values(), ids=FAILURES.keys())
def test_deciding_fails(lab: Lab, addons: Copy, data_path: str, word: str) -> None:
    gateway = lab.gateway
    assert f"data path {data_path}" in gateway.output
    failed = gateway.metric("egress_internal_errors_total", where="decide")
    allowed = gateway.metric("egress_decisions_total", action="allow")
    with addons.broken(word):
        nothing_is_served(lab)
        with lab.refused("internal_error", times=2):
            refusal = request_via_proxy(gateway, "GET", f"http://{ALLOWED}/")
            assert (refusal.status, refusal.header("x-egress-reason")) == (503, "internal_error")
            assert connect_refusal(gateway, f"{ALLOWED}:443").status == 503
        assert "made to fail" not in refusal.text
        assert gateway.metric("egress_internal_errors_total", where="decide") >= failed + 2
        assert gateway.metric("egress_decisions_total", action="allow") == allowed
    eventually(lambda: "decide failed; refused" in gateway.output, "the word of it")


def test_judging_addresses_fails(lab: Lab, addons: Copy) -> None:
    with addons.broken("judge: fail()"):
        with lab.refused("internal_error", times=2, asks=[ALLOWED]):
            refusal = request_via_proxy(lab.gateway, "GET", f"http://{ALLOWED}/")
            assert (refusal.status, refusal.header("x-egress-reason")) == (503, "internal_error")
            with lab.tunnel("connect", ALLOWED) as sock:
                say(sock, client_hello(ALLOWED))
                assert read_reply(sock)[:1] in (b"\x15", b"")
        assert lab.gateway.metric("egress_internal_errors_total", where="find_addresses") >= 2


def test_observing_fails(lab: Lab, addons: Copy) -> None:
    """What is denied is denied, even where nobody can count it."""
    with addons.broken("observer: fail()"):
        lab.wire.clear()
        for head in (f"GET http://{DENIED}/", f"CONNECT {DENIED}:443"):
            text = f"{head} HTTP/1.1\r\nHost: {DENIED}\r\nConnection: close\r\n\r\n"
            refused_or_silent(lab.gateway.raw(text.encode()))
        with lab.tunnel("connect", ALLOWED) as sock:
            say(sock, client_hello(DENIED))
            refused_or_silent(read_reply(sock))
        lab.assert_nothing_left()


BROKEN_DECIDE = """
    import sys
    sys.path.insert(0, {addons!r})
    from egress_gateway.policy import decide as module

    def decide(*_):
        raise RuntimeError("made to fail")

    module.decide = decide
"""


@pytest.mark.parametrize("where", ["scripts_before", "scripts_after"])
def test_another_script_breaks_decide(beside, tmp_path: Path, where: str) -> None:
    other = script(tmp_path, BROKEN_DECIDE.format(addons=str(REPOSITORY / "addons")))
    lab = beside(**{where: [other]}, env=INTERPRETED)
    nothing_is_served(lab)
    refusal = request_via_proxy(lab.gateway, "GET", f"http://{ALLOWED}/")
    assert (refusal.status, refusal.header("x-egress-reason")) == (503, "internal_error")
    assert lab.gateway.metric("egress_internal_errors_total", where="decide") >= 1


# --- our script goes away, where there is one ---

with_our_script = pytest.mark.parametrize("program", ["mitmdump"], indirect=True, scope="module")

GONE = {
    "a syntax error": "def broken(:\n",
    "an exception while it loads": "raise RuntimeError('made to fail')\n",
    "an empty file": "",
}


@with_our_script
def test_the_script_is_touched(lab: Lab, addons: Copy, ca) -> None:
    """It is loaded again, and nobody notices."""

    def has_loaded(times: int) -> bool:
        return lab.gateway.output.count("Loading script") >= times

    with lab.tunnel("connect", BYTES, 5432) as tunnel:
        assert tunnel.recv(100) == b"hello from the database\n"
        for _ in range(2):
            loads = lab.gateway.output.count("Loading script")
            addons.change(addons.script.read_text())
            eventually(partial(has_loaded, loads + 1), "the reload")
            all_is_served(lab, ca)
            with lab.refused("no_rule"):
                assert request_via_proxy(lab.gateway, "GET", f"http://{DENIED}/").status == 403
        say(tunnel, b"still there")
        assert tunnel.recv(100) == b"still there"


@with_our_script
@pytest.mark.parametrize("text", GONE.values(), ids=GONE.keys())
def test_the_script_breaks_while_it_runs(lab: Lab, addons: Copy, ca, text: str) -> None:
    good = addons.script.read_text()
    try:
        closes(lab, addons, text)
    finally:
        addons.change(good)
    eventually(lambda: _get(lab, ALLOWED) == (200, None), "the gateway to open again")
    all_is_served(lab, ca)
    assert _get(lab, DENIED) == (403, "no_rule")
    assert lab.gateway.metrics_get("/readyz")[0] == 200


def closes(lab: Lab, addons: Copy, text: str | None) -> None:
    """From the moment that the script is gone everything is refused, and what is open ends."""
    with lab.tunnel("connect", BYTES, 5432) as tunnel:
        assert tunnel.recv(100) == b"hello from the database\n"
        addons.change(text)
        eventually(lambda: _get(lab, ALLOWED) == (503, "not_ready"), "the gateway to close")
        assert read_reply(tunnel, PATIENCE).ending != "quiet"
    with lab.refused("not_ready"):
        _get(lab, ALLOWED)
    nothing_is_served(lab)
    assert lab.gateway.metrics_get("/readyz")[0] == 503
    said = "addons/egress.py was deleted or no longer loads; everything is refused."
    eventually(lambda: said in lab.gateway.output, "the word of it")


def _get(lab: Lab, host: str) -> tuple[int, str | None]:
    """Status and reason; status 0 where the connection was cut, as those open at a change of mind are."""
    try:
        response = request_via_proxy(lab.gateway, "GET", f"http://{host}/")
    except (OSError, http.client.HTTPException):
        return 0, None
    return response.status, response.header("x-egress-reason")


# --- other scripts ---

RAISES_EVERYWHERE = """
    from mitmproxy import hooks

    def fail(*_):
        raise RuntimeError("made to fail")

    class Raises:
        pass

    for name in hooks.all_hooks:
        if name not in ("load", "configure", "running", "done", "add_log", "update"):
            setattr(Raises, name, fail)

    addons = [Raises()]
"""
HALTS = """
    import pathlib
    from mitmproxy.exceptions import AddonHalt

    def halting(name):
        def hook(*_):
            if name in pathlib.Path({word!r}).read_text().split():
                raise AddonHalt
        return hook

    class Halts:
        pass

    for name in {hooks!r}:
        setattr(Halts, name, halting(name))

    addons = [Halts()]
"""
HALTED = (
    "client_connected",
    "next_layer",
    "requestheaders",
    "request",
    "http_connect",
    "tls_clienthello",
    "tls_start_client",
    "tls_start_server",
    "tcp_start",
    "server_connect",
)


HALTED_TOGETHER = (
    " ".join(HALTED),
    " ".join(hook for hook in HALTED if hook != "next_layer"),
    " ".join(hook for hook in HALTED if hook not in ("next_layer", "client_connected")),
    "requestheaders request http_connect server_connect",
    "tls_clienthello tls_start_client tls_start_server tcp_start server_connect",
)


@pytest.mark.parametrize("where", ["scripts_before", "scripts_after"])
def test_another_script_raises_in_every_hook(beside, tmp_path: Path, where: str) -> None:
    lab = beside(**{where: [script(tmp_path, RAISES_EVERYWHERE)]})
    denied_is_refused(lab)
    # Ours has its own place in mitmproxy's chain: what the rules allow is judged, and passes as ever.
    assert _get(lab, ALLOWED) == (200, None)
    assert lab.gateway.wait_for_log(authority=f"{ALLOWED}:80")["rule"] == "default/allowed"


@pytest.mark.parametrize("where", ["scripts_before", "scripts_after"])
def test_another_script_ends_the_chain(beside, tmp_path: Path, where: str) -> None:
    """AddonHalt keeps every later addon from being asked, the guard included: then nothing may pass at all."""
    word = tmp_path / "word"
    word.write_text("")
    lab = beside(**{where: [script(tmp_path, HALTS.format(word=str(word), hooks=HALTED))]})
    assert _get(lab, ALLOWED) == (200, None)
    for hooks in (*HALTED, *HALTED_TOGETHER):
        word.write_text(hooks)
        denied_is_refused(lab, hooks)


def denied_is_refused(lab: Lab, when: str = "") -> None:
    lab.wire.clear()
    refused_or_silent(
        lab.gateway.raw(f"GET http://{DENIED}/ HTTP/1.1\r\nHost: {DENIED}\r\nConnection: close\r\n\r\n".encode(), 0.5)
    )
    for target in (f"{DENIED}:443", f"{ALLOWED}:443"):
        head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()
        reply = lab.gateway.raw([head, client_hello(DENIED)], timeout=0.5, pause=0.02)
        _, _, rest = bytes(reply).partition(b"\r\n\r\n")
        assert reply[9:12] in (b"", b"200", b"403", b"503")
        assert b"\x16\x03" not in rest
    _code, sock = 2, None
    try:
        _code, sock = socks5_connect(lab.socks, DENIED, 443, timeout=0.5)
        say(sock, client_hello(DENIED))
        assert b"\x16\x03" not in read_reply(sock, 0.5)
    except (OSError, EOFError):
        pass
    finally:
        if sock is not None:
            sock.close()
    try:
        lab.wire.assert_nothing_left("203.0.113.66", name=DENIED)
    except AssertionError as error:
        raise AssertionError(f"with {when or 'this'}: {error}") from None


# --- the rules ---


def test_a_rules_directory_that_is_removed(lab: Lab, ca) -> None:
    gateway = lab.gateway
    with gateway.reload_expected():
        removed_at_once(gateway.rules_dir)
    last_good_in_force(lab, ca, "rules")
    with gateway.reload_expected():
        gateway.rules_dir.mkdir()
    denies_everything(lab)


def test_a_rules_directory_that_is_swapped_for_something_else(lab: Lab, ca) -> None:
    gateway = lab.gateway
    away = gateway.rules_dir.with_name("away")
    with gateway.reload_expected():
        gateway.rules_dir.rename(away)
        gateway.rules_dir.write_text("no directory\n")
    last_good_in_force(lab, ca, "rules")
    with gateway.reload_expected():
        gateway.rules_dir.unlink()
        gateway.rules_dir.symlink_to(away)
    eventually(lambda: gateway.metric("egress_rules_last_reload_successful") == 1, "a good load")
    all_is_served(lab, ca)


BROKEN_FILES = {
    "no YAML": "a: b: c:\n",
    "a rule with a mistake": RULES + "---\nkind: EgressRule\nmetadata: {name: bad}\nspec: {ports: [{port: 70000}]}\n",
    "another kind": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n",
    "bytes": "\x00\x01\x02",
    "a bomb of aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{n}: &{n} [{','.join(['*' + p] * 9)}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)),
}


def test_rules_that_no_longer_load(lab: Lab, ca) -> None:
    """A broken file beside a file that would allow everything: none of the new ones counts."""
    gateway = lab.gateway
    for text in BROKEN_FILES.values():
        # Each step is told by each worker, or one of them could have told two of them and another one none.
        gateway.write_rule("broken.yaml", text)
        gateway.write_rule("all.yaml", RULES.replace(DENIED, "x").replace("other.example", DENIED))
        last_good_in_force(lab, ca, "broken.yaml")
        gateway.delete_rule("all.yaml")
        gateway.delete_rule("broken.yaml")
        eventually(lambda: gateway.metric("egress_rules_last_reload_successful") == 1, "a good load")


@pytest.mark.parametrize("what", ["a link to nowhere", "a pipe"])
def test_a_rule_file_that_cannot_be_read(lab: Lab, ca, what: str) -> None:
    """(These tests run as root, who may read any file that is one.)"""
    gateway = lab.gateway
    path = gateway.rules_dir / "unreadable.yaml"
    with gateway.reload_expected():
        if what == "a link to nowhere":
            path.symlink_to("/nowhere/at/all.yaml")
        else:
            os.mkfifo(path)
    last_good_in_force(lab, ca, "unreadable.yaml")


def test_a_rules_directory_that_is_empty(lab: Lab, ca) -> None:
    """That is a wish, not a failure: everything is denied, and what is open ends."""
    gateway = lab.gateway
    with lab.tunnel("connect", BYTES, 5432) as tunnel:
        assert tunnel.recv(100) == b"hello from the database\n"
        gateway.delete_rule("rules.yaml")
        assert read_reply(tunnel, PATIENCE).ending != "quiet"
    denies_everything(lab)
    gateway.write_rule("rules.yaml", RULES)
    all_is_served(lab, ca)


def last_good_in_force(lab: Lab, ca, said: str) -> None:
    """What was allowed is, what was denied is; log and metric say that the rules are old."""
    gateway = lab.gateway
    eventually(lambda: gateway.metric("egress_rules_last_reload_successful") == 0, "a bad load")
    assert gateway.metric("egress_rules") == 4
    kept = "the rules do not load; the last good ones stay in force."
    eventually(lambda: kept in gateway.output and said in gateway.output, "the word of it")
    all_is_served(lab, ca)
    with lab.refused("no_rule", times=2):
        assert request_via_proxy(gateway, "GET", f"http://{DENIED}/").status == 403
        answered(gateway.raw(f"CONNECT {DENIED}:443 HTTP/1.1\r\nHost: {DENIED}\r\n\r\n".encode()), 403, "no_rule")


def denies_everything(lab: Lab) -> None:
    gateway = lab.gateway
    eventually(lambda: gateway.metric("egress_rules") == 0, "no rules to be in force")
    eventually(lambda: gateway.metric("egress_rules_last_reload_successful") == 1, "a good load")
    with lab.refused("no_rule", times=4):
        for host in (ALLOWED, DENIED):
            assert request_via_proxy(gateway, "GET", f"http://{host}/").status == 403
            answered(gateway.raw(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()), 403, "no_rule")
    nothing_is_served(lab)


# --- the resolver ---


def test_a_resolver_that_is_down(lab: Lab) -> None:
    name = "down.wild.example"
    lab.wire.clear()
    lab.dns.fail(name, "SERVFAIL")
    refusal = request_via_proxy(lab.gateway, "GET", f"http://{name}/")
    assert (refusal.status, refusal.header("x-egress-reason")) == (502, "name_not_resolved")
    with lab.tunnel("connect", name) as sock:
        say(sock, client_hello(name))
        assert read_reply(sock)[:1] == b"\x15"
    lab.assert_nothing_left(asks=[name])
    entry = lab.gateway.wait_for_log(reason="name_not_resolved")
    assert entry["response_flags"] == "DF"


def test_a_resolver_that_answers_another_question(shared_gateway, lab: Lab, data_path: str) -> None:
    name = "lied.wild.example"
    lab.gateway = shared_gateway(RULES, {"egress_dns_timeout": 1}, data_path=data_path)
    lab.wire.clear()
    lab.dns.set(name, ["203.0.113.10"])
    lab.dns.tamper = lambda response: response.to_wire().replace(b"\x04lied", b"\x04lier")
    refusal = request_via_proxy(lab.gateway, "GET", f"http://{name}/")
    assert refusal.header("x-egress-reason") == "name_not_resolved"
    # It does not hear an answer, so it asks for the root too, to see whether the server is there at all.
    lab.assert_nothing_left(asks=[name, "lier.wild.example", "."])


# --- the end of this module's gateway ---


@with_our_script
def test_the_script_is_deleted_while_it_runs(lab: Lab, addons: Copy) -> None:
    good = addons.script.read_text()
    try:
        closes(lab, addons, None)
    finally:
        lab.gateway.stop()
        addons.script.write_text(good)


@with_our_script
def test_a_gateway_that_fails_to_start_does_not_listen(gateway, tmp_path: Path) -> None:
    failed: Gateway = gateway(RULES, script=script(tmp_path, GONE["a syntax error"]), wait_ready=False)
    assert failed.wait_for_exit() == 1
    with pytest.raises(OSError, match="refused"):
        failed.connect()
