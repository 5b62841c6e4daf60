"""Threat 27: spellings of an allowed name that are the same name. They pass, and are told in one form."""

import pytest

from support.http import request_over, request_via_proxy, socks5_connect, tls_client
from support.lab import ALLOWED, Lab, Way, answered, rule

EXTRA_RULES = (
    rule("idn", "b\u00fccher.example", "80 http", "443 https")
    + rule("idn-wild", "*.m\u00fcnchen.example", "80 http")
    + rule("idn-2008", "stra\u00dfe.example", "80 http")
    + rule("dotted", "Dotted.Example.", "80 http")
)
BOOKS = "xn--bcher-kva.example"
TOWN = "www.xn--mnchen-3ya.example"
STREET = "xn--strae-oqa.example"

SAME = {
    "as it stands in the rule": ("allowed.example", ALLOWED),
    "in capitals": ("ALLOWED.EXAMPLE", ALLOWED),
    "in capitals and small letters": ("aLLowed.Example", ALLOWED),
    "with a dot at the end": ("allowed.example.", ALLOWED),
    "with a port": ("allowed.example:80", ALLOWED),
    "with an empty port": ("allowed.example:", ALLOWED),
    "with zeros before the port": ("allowed.example:0080", ALLOWED),
    "an A-label": (BOOKS, BOOKS),
    "an A-label in capitals": (BOOKS.upper(), BOOKS),
    "an A-label below a wildcard": (TOWN, TOWN),
    "a name that has its dot in the rule": ("dotted.example", "dotted.example"),
}


@pytest.fixture(autouse=True)
def names(lab: Lab) -> None:
    for name in (BOOKS, TOWN, STREET, "dotted.example"):
        lab.dns.set(name, ["203.0.113.10"])


@pytest.mark.parametrize(("spelling", "canonical"), SAME.values(), ids=SAME.keys())
def test_threat_27_in_a_request(lab: Lab, spelling: str, canonical: str) -> None:
    before = len(lab.places.allowed.requests)
    assert request_via_proxy(lab.gateway, "GET", f"http://{spelling}/").status == 200
    # One form goes on, to the name server, to the origin and into the log.
    assert lab.places.allowed.requests[before].all("host") == [canonical]
    assert {query.name for query in lab.dns.queries} <= {canonical}
    lab.gateway.wait_for_log(authority=f"{canonical}:80", verdict="allow")


def test_threat_27_claims_in_different_spellings_agree(lab: Lab) -> None:
    for uri, host in (("allowed.example", "ALLOWED.example."), ("ALLOWED.EXAMPLE.", "allowed.example:80")):
        assert request_via_proxy(lab.gateway, "GET", f"http://{uri}/", {"Host": host}).status == 200
    head = f"GET http://{BOOKS}/ HTTP/1.1\r\nHost: B\u00dcCHER.example\r\nConnection: close\r\n\r\n"
    assert lab.gateway.raw(head.encode()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("way", ["connect", "socks5"])
@pytest.mark.parametrize(
    ("target", "sni"), [("ALLOWED.example", "allowed.example"), ("allowed.example.", "Allowed.EXAMPLE")]
)
def test_threat_27_in_tunnels(lab: Lab, ca, way: Way, target: str, sni: str) -> None:
    with lab.tunnel(way, target) as sock, tls_client(sock, sni, ca.pem_path) as tls:
        assert request_over(tls, "GET", "/", {"Host": ALLOWED}).status == 200


@pytest.mark.parametrize(
    "host", ["b\u00fccher.example", "B\u00dcCHER.example", "bu\u0308cher.example", "\uff42\u00fccher.example"]
)
def test_threat_27_u_labels_through_socks5(lab: Lab, host: str) -> None:
    code, sock = socks5_connect(lab.socks, host.encode(), 80)
    with sock:
        assert code == 0
        assert request_over(sock, "GET", "/", {"Host": BOOKS}).status == 200


def test_threat_27_a_name_of_idna_2008(lab: Lab) -> None:
    """IDNA 2003, which mitmproxy's own parser knows, has no such name."""
    assert request_via_proxy(lab.gateway, "GET", f"http://{STREET}/").status == 200


DIFFERENT = {
    "two dots at the end": ("allowed.example..", 400, "malformed_host"),
    "a dot at the beginning": (".allowed.example", 400, "malformed_host"),
    "an encoded dot": ("allowed%2eexample", 400, "malformed_host"),
    "a space": ("allowed.example%20", 400, "malformed_host"),
    "a letter that looks alike": ("xn--llowed-3fg.example", 403, "no_rule"),
    "an underscore": ("allowed_.example", 403, "no_rule"),
    "another ending": ("allowed.example.com", 403, "no_rule"),
    "no ending": ("allowed", 403, "no_rule"),
}


@pytest.mark.parametrize(("spelling", "status", "reason"), DIFFERENT.values(), ids=DIFFERENT.keys())
def test_threat_27_what_is_another_name(lab: Lab, spelling: str, status: int, reason: str) -> None:
    with lab.refused(reason):
        reply = lab.gateway.raw(
            f"GET http://{spelling}/ HTTP/1.1\r\nHost: {spelling}\r\nConnection: close\r\n\r\n".encode()
        )
    answered(reply, status, reason)


def test_threat_27_a_letter_that_looks_alike_through_socks5(lab: Lab) -> None:
    with lab.refused("no_rule"):
        code, sock = socks5_connect(lab.socks, "\u0430llowed.example".encode(), 80)
        sock.close()
        assert code == 2
