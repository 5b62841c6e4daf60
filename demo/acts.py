"""The seven acts. Each tells what it is about, does it, and checks what came of it."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable

from .clients import Reply, TunnelRefused, ask, is_ended, tls_tunnel
from .scenes import create_the_rule, delete_the_rule, read_the_metrics
from .stage import EVIL, INSIDE, Stage
from .telling import wait_for_log

_BOOK = "/books/v1/volumes?q=isbn:0486424618"
_TITLE = "The Comedy of Errors"


def nothing_is_allowed(stage: Stage) -> None:
    say, check = stage.console.say, stage.check
    say(
        "The rules directory is empty, so nothing gets out. The details service wants to know about a book. It was "
        "written to speak plain HTTP to port 443, and to leave TLS to whoever is on the way."
    )
    stage.console.request(f"details: GET http://www.googleapis.com:{stage.port}{_BOOK}")
    reply = stage.ask_details(stage.details_plain)
    refusal = reply.json()
    stage.console.output(_shown(reply))
    check(
        refusal.get("reason") == "no_rule",
        "refused, with the reason and the smallest rule that would allow it",
        reply.body,
    )
    check(stage.books.connections == 0, "the origin has heard nothing: 0 connections", stage.books.connections)
    check(not stage.names.asked, "not even DNS was asked", stage.names.asked)


def a_rule_opens_the_door(stage: Stage) -> None:
    say, check = stage.console.say, stage.check
    say("The platform team allows the Google APIs, all of them, on HTTPS: one rule, with a wildcard.")
    create_the_rule(stage)

    stage.console.request(f"details: GET http://www.googleapis.com:{stage.port}{_BOOK}")
    reply = stage.ask_details(stage.details_plain)
    stage.console.output(_shown(reply))
    check(
        reply.json().get("title") == _TITLE,
        "plain HTTP from the application, verified TLS to the origin: details has its book",
        _in_short(reply),
    )
    stage.console.request(f"POST http://fcm.googleapis.com:{stage.port}/v1/projects/bookinfo/messages:send")
    host = f"fcm.googleapis.com:{stage.port}"
    reply = stage.ask_gateway("POST", f"http://{host}/v1/projects/bookinfo/messages:send", host, "{}")
    stage.console.output(f"{reply.line}\n{reply.body}")
    check(reply.status == 200, "www. and fcm. both fit the one wildcard *.googleapis.com", reply.line)
    host = f"googleapis.com:{stage.port}"
    reply = stage.ask_gateway("GET", f"http://{host}/", host)
    check(reply.reason == "no_rule", "googleapis.com itself does not: the star never stands for nothing", reply.line)


def the_rules_in_force(stage: Stage) -> None:
    listed = stage.egressctl("get", "egressrules")
    expected = ["googleapis", "EgressRule.v1alpha2.config.istio.io", "default"]
    rows = [line.split() for line in listed.splitlines()]
    stage.check(expected in rows, "the rule is listed as istioctl would list it", listed)


def https_by_the_application(stage: Stage) -> None:
    say, check = stage.console.say, stage.check
    say(
        "The other way: an application that opens TLS itself. The gateway reads the server name in the first message "
        "of the handshake and lets the rest pass as it is; it has no key to it."
    )
    stage.console.request(f"details, without WITH_ISTIO: GET https://www.googleapis.com:{stage.port}{_BOOK}")
    reply = stage.ask_details(stage.details_tls)
    stage.console.output(_shown(reply))
    check(reply.json().get("title") == _TITLE, "details has its book, over TLS of its own", _in_short(reply))

    with tls_tunnel(stage.proxy, f"www.googleapis.com:{stage.port}", "www.googleapis.com", stage.trust) as sock:
        shown = sock.getpeercert(binary_form=True)
    check(shown == stage.certificate, "undecrypted: the certificate that a client sees is the origin's own", shown)

    stage.console.request(f"GET https://www.example.org:{stage.port}/")
    refused = _tunnel_refused(stage, f"www.example.org:{stage.port}", "www.example.org")
    stage.console.output(refused)
    check("no_rule" in refused, "a name that no rule allows does not get as far as a handshake", refused)


def the_malicious_client(stage: Stage) -> None:
    say, check = stage.console.say, stage.check
    evil, port = f"evil.example:{stage.evil_port}", stage.port
    say(
        "A client that has been taken over tries to reach evil.example, and a service inside. Both are up and count "
        "who comes by: a knock on each door, past the gateway, shows that they do."
    )
    counts = _knock(stage)
    check(counts == (1, 1), "evil.example has had 1 connection, the inside service 1: our own", counts)

    stage.console.request(f"GET http://{evil}/loot   Host: www.googleapis.com")
    reply = stage.ask_gateway("GET", f"http://{evil}/loot", "www.googleapis.com")
    stage.console.output(reply.line)
    check(reply.status in (403, 421), "an allowed Host header does not open another destination", reply.line)

    stage.console.request(f"GET http://www.googleapis.com:{port}/   Host: evil.example")
    reply = stage.ask_gateway("GET", f"http://www.googleapis.com:{port}/", "evil.example")
    stage.console.output(reply.line)
    check(reply.reason == "host_mismatch", "nor does an allowed destination carry another Host inside", reply.line)

    stage.console.request(f"CONNECT www.googleapis.com:{port}, then TLS with the server name evil.example")
    before = stage.books.connections
    refused = _tunnel_refused(stage, f"www.googleapis.com:{port}", "evil.example")
    stage.refusals["sni_mismatch"] += 1
    stage.console.output(refused)
    check(
        "UNRECOGNIZED_NAME" in refused and stage.books.connections == before,
        "an allowed CONNECT with another SNI gets a TLS alert, and the origin does not hear of it",
        f"{refused}, and {stage.books.connections - before} connections to the origin",
    )

    host = f"rebind.googleapis.com:{port}"
    stage.console.request(f"GET http://{host}/   (an allowed name; its DNS answer is {INSIDE})")
    reply = stage.ask_gateway("GET", f"http://{host}/", host)
    stage.console.output(reply.line)
    check(reply.reason == "address_not_allowed", "an allowed name does not lead to an inside address", reply.line)

    counts = (stage.evil_connections(), stage.inside.connections)
    gained = tuple(count - 1 for count in counts)
    check(
        gained == (0, 0),
        f"connections since our own knock: evil.example {gained[0]}, inside service {gained[1]}",
        gained,
    )
    check("evil.example" not in stage.names.asked, "nor has anybody asked DNS about evil.example", stage.names.asked)


def the_rule_goes(stage: Stage) -> None:
    say, check = stage.console.say, stage.check
    say("A connection is open and allowed. Then the rule is deleted.")
    with tls_tunnel(stage.proxy, f"www.googleapis.com:{stage.port}", "www.googleapis.com", stage.trust) as still_open:
        delete_the_rule(stage)
        check(is_ended(still_open, 10.0), "the open connection, which no rule allows any more, has ended", "it goes on")
    stage.console.request(f"details: GET http://www.googleapis.com:{stage.port}{_BOOK}")
    reply = stage.ask_details(stage.details_plain)
    stage.console.output(str(reply.json().get("error", reply.body)))
    check(reply.json().get("reason") == "no_rule", "details is refused as in the beginning", _in_short(reply))


def what_the_gateway_tells(stage: Stage) -> None:
    say, check = stage.console.say, stage.check
    say("Whoever is on call sees the same story in Prometheus, which has scraped /metrics during the play:")
    read_the_metrics(stage)
    say("And the line in the access log about the request of details that went out:")
    entry = wait_for_log(stage.access_log, method="GET", verdict="allow", authority=f"www.googleapis.com:{stage.port}")
    stage.console.output(json.dumps(entry, indent=2))
    check(
        entry is not None and entry.get("rule") == "default/googleapis" and entry.get("tls_mode") == "originate",
        "it names the rule, the file and line it stands in, and the address that was dialled",
        entry,
    )


ACTS: tuple[tuple[str, Callable[[Stage], None]], ...] = (
    ("Nothing is allowed", nothing_is_allowed),
    ("A rule opens the door", a_rule_opens_the_door),
    ("The rules in force", the_rules_in_force),
    ("HTTPS by the application itself", https_by_the_application),
    ("The malicious client", the_malicious_client),
    ("The rule goes, and so does the permission", the_rule_goes),
    ("What the gateway tells of it", what_the_gateway_tells),
)


def _shown(reply: Reply) -> str:
    """What the details service answered, for people: a book, or how its question was refused."""
    content = reply.json()
    if "error" in content:
        return str(content.get("body") or content["error"])
    return json.dumps(content, indent=2) if content else reply.body


def _in_short(reply: Reply) -> str:
    """The same in a line, for a check that failed."""
    content = reply.json()
    return f"{reply.line}: {content.get('error') or content.get('title') or reply.body[:200]}"


def _tunnel_refused(stage: Stage, target: str, server_name: str) -> str:
    """How a TLS client inside a tunnel was refused, in a line; what it got instead where it was not."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # this client would talk to anybody
    try:
        with tls_tunnel(stage.proxy, target, server_name, context):
            return "the handshake succeeded"
    except TunnelRefused as refused:
        stage.refusals[refused.reply.reason] += 1
        return refused.reply.line
    except ssl.SSLError as error:
        return f"TLS alert: {error.reason}"


def _knock(stage: Stage) -> tuple[int, int]:
    """Connects to the servers that must not be reached, past the gateway; returns what they have counted."""
    ask((EVIL, stage.evil_port), "GET", "/", {"Host": "evil.example"})
    with (
        socket.create_connection((INSIDE, stage.port), timeout=10) as sock,
        stage.trust.wrap_socket(sock, server_hostname="rebind.googleapis.com"),
    ):
        return stage.evil_connections(), stage.inside.connections
