"""The six transparent acts. Each tells what it is about, does it, and checks what came of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from demo.bookinfo import reviews
from demo.bookinfo.page import DETAILS_ERROR
from demo.origins import BOOKS as KNOWN_BOOKS
from demo.scenes import create_the_rule, delete_the_rule, read_the_metrics, refusals_counted
from demo.telling import wait_for_log

from .networks import BOOKS, CLIENT, EVIL, EVIL_V6, IPV6, NAMES, UNTRUSTED
from .page_text import as_text
from .shop import URL
from .stage import UNTRUSTED_NAME, WITH_RULE, WITHOUT_RULE, Stage
from .ways_round import ALLOWED, ANOTHER_DNS_SERVER, WAYS, Way, dig, tls_handshake

_BOOK = "/books/v1/volumes?q=isbn:0486424618"
_PUBLISHER = KNOWN_BOOKS["0486424618"]["publisher"]
_AT_ONCE = 8.0
"""Seconds in which a client is to learn that a way is closed, on however busy a machine; else it would wait for ten."""


def two_networks(stage: Stage) -> None:
    say, check = stage.console.say, stage.check
    say(
        "A book shop, and a router between it and the internet that forwards whatever comes. Version 1 of the details "
        "service knows its books by heart, so the page of one is complete."
    )
    html = _show_page(stage)
    check(DETAILS_ERROR not in html and "the card index" in html, "the page has details, by version 1", as_text(html))
    say("Whoever takes over one of these services may talk to anybody. A knock on each door of evil.example:")
    tried = _try_all(stage)
    silent = [one.way.name for one in tried if not any(map(one.way.left, one.seen))]
    check(not silent, f"{len(tried)} doors, and all of them are open", f"nothing arrived by {', '.join(silent)}")

    say("Now the router becomes a gateway. Nothing is changed in the network of the shop.")
    with stage.networks.gateway.entered():
        done = stage.run(stage.packet_filter.up(stage.rules))
    check(done.returncode == 0, "the packet filter stands", f"exit status {done.returncode}")


def nothing_is_allowed(stage: Stage) -> None:
    say, check = stage.console.say, stage.check
    language = stage.shop.deploy_details("v2")
    say(
        f"Version 2 of details, in {language}, takes the place of version 1. It asks the Books API, in plain HTTP to "
        "port 443, and leaves TLS to whoever is on the way; it has no proxy settings. No rule allows anything yet."
    )
    html = _show_page(stage)
    check(DETAILS_ERROR in html, f"the page says: {DETAILS_ERROR}", as_text(html))
    check(all(reviewer in html for reviewer in reviews.TEXTS), "and has the rest: reviews, ratings", as_text(html))
    stage.take_picture(WITHOUT_RULE)

    stage.console.request(f"details: GET http://{ALLOWED}:443{_BOOK}")
    reply = stage.shop.details()
    error = str(reply.json().get("error", reply.body))
    stage.console.output(error)
    unknown = "name resolution" in error or "not known" in error
    check(unknown, "details does not even get an address", error)
    stage.console.request(f"dig @{NAMES} {ALLOWED}")
    with stage.networks.client.entered():
        answer = dig(NAMES, ALLOWED)
    stage.console.output(answer)
    check(answer == "REFUSED", "the gateway answers in place of every name server, and refuses", answer)
    check(not stage.names.asked, "upstream, nobody was asked", stage.names.asked)

    say("Somebody may know the address all the same:")
    stage.console.request(f"GET {_BOOK}   to {BOOKS}:443   Host: {ALLOWED}")
    reply = stage.ask_as_client(BOOKS, 443, _BOOK, ALLOWED)
    stage.console.output(f"{reply.line}\n{reply.body}")
    check(reply.reason == "no_rule", "refused, with the reason and the smallest rule that would allow it", reply.line)
    check(stage.books.connections == 0, "the origin has heard nothing: 0 connections", stage.books.connections)


def a_rule_opens_the_door(stage: Stage) -> None:
    say, check = stage.console.say, stage.check
    say("The platform team allows the Google APIs, on HTTPS, for everybody in this network.")
    create_the_rule(stage)

    stage.console.request(f"dig @{NAMES} {ALLOWED}")
    with stage.networks.client.entered():
        answer = dig(NAMES, ALLOWED)
    stage.console.output(answer)
    check(answer == BOOKS, "the name has an address now", answer)
    html = _show_page(stage, whole=False)
    check(_PUBLISHER in html and DETAILS_ERROR not in html, "the page has its details, by the Books API", as_text(html))
    stage.take_picture(WITH_RULE)

    spoken = set(stage.books.server_names)
    check(spoken == {ALLOWED}, f"plain HTTP from details came to the origin in TLS, for {ALLOWED}", spoken)
    stage.console.request(f"GET /   to {UNTRUSTED}:443   Host: {UNTRUSTED_NAME}   (a certificate by nobody we know)")
    reply = stage.ask_as_client(UNTRUSTED, 443, "/", UNTRUSTED_NAME)
    stage.console.output(reply.line)
    check(reply.reason == "upstream_tls_failed", "TLS that cannot be verified carries nothing", reply.line)


def the_malicious_client(stage: Stage) -> None:
    say, check = stage.console.say, stage.check
    say(
        "One of the services has been taken over. It knows which name is allowed, says so, and dials evil.example: "
        "what a gateway that believes Host or SNI would let through."
    )
    stage.evil_saw.seen()
    stage.console.request(f"GET /loot   to {EVIL}:443   Host: {ALLOWED}")
    reply = stage.ask_as_client(EVIL, 443, "/loot", ALLOWED)
    stage.console.output(reply.line)
    check(reply.reason == "address_mismatch", "an allowed Host does not open an address of another", reply.line)

    stage.console.request(f"TLS to {EVIL}:443 with the server name {ALLOWED}")
    with stage.networks.client.entered():
        ended = tls_handshake(EVIL, ALLOWED)
    stage.refusals["address_mismatch"] += 1
    stage.console.output(ended)
    check("ACCESS_DENIED" in ended, "nor does an allowed server name", ended)

    stage.console.request(f"GET /loot   to {EVIL}:80   Host: {ALLOWED}")
    reply = stage.ask_as_client(EVIL, 80, "/loot", ALLOWED)
    stage.console.output(reply.line)
    check(reply.reason == "port_not_allowed", "on port 80 the name is not allowed at all", reply.line)

    stage.console.request(f"GET /loot   to {BOOKS}:443   Host: evil.example")
    reply = stage.ask_as_client(BOOKS, 443, "/loot", "evil.example")
    stage.console.output(reply.line)
    check(reply.reason == "no_rule", "and an allowed address does not carry another Host", reply.line)
    check(not (seen := stage.evil_saw.seen()), "evil.example's interface saw nothing", seen)

    say("Then round the gateway, by every door that was open before:")
    tried = _try_all(stage)
    stage.refusals["address_mismatch"] += sum("ACCESS_DENIED" in one.ended for one in tried)
    leaked = [one.way.name for one in tried if one.seen]
    check(not leaked, f"{len(tried)} doors, and all of them are closed", f"something arrived by {', '.join(leaked)}")
    slow = [one.way.name for one in tried if one.seconds > _AT_ONCE]
    check(not slow, "none of them keeps the client waiting", f"too slow: {', '.join(slow)}")
    answer = next(one.ended for one in tried if one.way.name == ANOTHER_DNS_SERVER)
    check(answer == BOOKS, "whoever asks evil's name server gets the gateway's answer, which is true", answer)
    _check_from_inside(stage)


def _check_from_inside(stage: Stage) -> None:
    stage.console.say("More doors, tried by the gateway's own check, which runs wherever a client runs:")
    stage.metrics.scrape()
    before = refusals_counted(stage)
    targets = [word for address in (EVIL, EVIL_V6) if IPV6 or ":" not in address for word in ("--target", address)]
    with stage.networks.client.entered():
        done = stage.run(
            ["scripts/gateway-check", *targets, "--allowed-name", ALLOWED, "--timeout", "3"], _without_ipv6
        )
    stage.check(done.returncode == 0, "nothing goes round the gateway", f"exit status {done.returncode}")
    stage.metrics.scrape()
    stage.refusals += refusals_counted(stage) - before
    stage.check(not (seen := stage.evil_saw.seen()), "evil.example's interface saw nothing of all that", seen)


def the_rule_goes(stage: Stage) -> None:
    delete_the_rule(stage)
    html = _show_page(stage, whole=False)
    stage.check(DETAILS_ERROR in html, f"the page says again: {DETAILS_ERROR}", as_text(html))
    before = stage.books.connections
    stage.console.request(f"GET {_BOOK}   to {BOOKS}:443   Host: {ALLOWED}")
    reply = stage.ask_as_client(BOOKS, 443, _BOOK, ALLOWED)
    stage.console.output(reply.line)
    held = reply.reason == "no_rule" and stage.books.connections == before
    stage.check(held, "who remembers the address is refused as in the beginning", reply.line)


def what_the_gateway_tells(stage: Stage) -> None:
    say, check = stage.console.say, stage.check
    say("Prometheus, which has scraped /metrics during the play, has the same story:")
    read_the_metrics(stage)
    say("And the access log has both addresses: the one that was dialled, and those that the name has.")
    entry = wait_for_log(stage.access_log, method="GET", reason="address_mismatch")
    stage.console.output(json.dumps(entry, indent=2))
    both = entry is not None and entry.get("original_destination") == f"{EVIL}:443"
    both = both and entry is not None and BOOKS in entry.get("resolved_addresses", [])
    check(both, f"{CLIENT} said {ALLOWED} and dialled {EVIL}", entry)

    say("At the end the network side is taken back.")
    with stage.networks.gateway.entered():
        done = stage.run(stage.packet_filter.down())
    left = stage.packet_filter.table()
    check(done.returncode == 0 and not left, "the machine's packet filter is as it was before: empty", left)


ACTS: tuple[tuple[str, Callable[[Stage], None]], ...] = (
    ("Two networks, and a router between them", two_networks),
    ("Nothing is allowed", nothing_is_allowed),
    ("A rule opens the door", a_rule_opens_the_door),
    ("The malicious client", the_malicious_client),
    ("The rule goes, and so does the permission", the_rule_goes),
    ("What the gateway tells of it", what_the_gateway_tells),
)


def _show_page(stage: Stage, *, whole: bool = True) -> str:
    """Fetches the page as a browser would; shows its text, or only the part with the details."""
    stage.console.request(f"GET {URL}")
    html = stage.shop.page()
    text = as_text(html)
    stage.console.output(text if whole else "…\n" + text.partition(" …\n")[2].partition("What readers")[0] + "…")
    return html


def _without_ipv6(table: str) -> str:
    """The rows about IPv6 are the same as those about IPv4, so a line stands for those that are not of interest."""
    lines = table.splitlines()
    kept = [line for line in lines if " IPv6 " not in line or " stopped " not in line]
    left_out = len(lines) - len(kept)
    return "\n".join(kept) + (f"\n(and {left_out} rows about IPv6, all of them stopped)" if left_out else "")


@dataclass(frozen=True, slots=True)
class _Tried:
    way: Way
    ended: str
    """For the client."""
    seen: list[str]
    """What evil's interface saw of it."""
    seconds: float


def _try_all(stage: Stage) -> list[_Tried]:
    tried = []
    for way in WAYS:
        stage.evil_saw.seen()
        started = time.monotonic()
        with stage.networks.client.entered():
            ended = way.attempt()
        tried.append(_Tried(way, ended, stage.evil_saw.seen(), time.monotonic() - started))
    rows = []
    for one in tried:
        of_this_way = [*filter(one.way.left, one.seen), *one.seen]
        rows.append((one.way.name, one.ended, f"evil saw {of_this_way[0] if of_this_way else 'nothing'}"))
    stage.console.rows(rows)
    return tried
