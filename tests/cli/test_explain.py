"""`explain`: for each reason the verdict, what is done or missing, and a suggestion that works."""

import json
from typing import Any

import pytest

RULES = """\
kind: EgressRule
metadata: {name: apis}
spec:
  destination: {service: "*.apis.example"}
  ports:
  - {port: 443, protocol: https}
  - {port: 80, protocol: http}
---
kind: EgressRule
metadata: {name: database}
spec:
  destination: {service: db.corp.example}
  ports: [{port: 5432, protocol: tcp}]
---
apiVersion: egress.mitmproxy/v1
kind: EgressRule
metadata: {name: no-ads}
spec:
  action: deny
  destination: {services: [ads.apis.example]}
  ports: [{port: 443, protocol: https}]
---
apiVersion: egress.mitmproxy/v1
kind: EgressRule
metadata: {name: upgraded}
spec:
  destination: {services: [old.example]}
  ports:
  - {port: 80, protocol: http, targetPort: 443, tls: {mode: originate}}
"""


@pytest.fixture
def ctl(ctl: Any) -> Any:
    ctl.write("rules/all.yaml", RULES)
    return ctl


def test_https_is_explained_for_both_forms(ctl: Any) -> None:
    done = ctl("explain", "--host", "www.apis.example", "--port", "443", "--protocol", "https")
    assert done.err == ""
    assert done.out == (
        "www.apis.example:443, the application speaks plain HTTP: allowed\n"
        "  reason:    allowed\n"
        "  rule:      default/apis (rules/all.yaml:1)\n"
        "  gateway:   TLS origination: opens verified TLS to www.apis.example:443 "
        "and forwards each request inside it\n"
        "\n"
        "www.apis.example:443, the application speaks TLS: allowed\n"
        "  reason:    allowed\n"
        "  rule:      default/apis (rules/all.yaml:1)\n"
        "  gateway:   passthrough: hands the TLS of the application to www.apis.example:443, undecrypted\n"
    )
    assert done.status == 0


def test_a_denial_tells_the_nearest_rule_the_hint_and_the_smallest_rule(ctl: Any) -> None:
    done = ctl("explain", "--host", "apis.example", "--port", "443", "--protocol", "https")
    assert done.err == ""
    assert done.out == (
        "apis.example:443, the application speaks plain HTTP or TLS: denied\n"
        "  reason:    no_rule: no egress rule allows this host\n"
        "  nearest:   default/apis (rules/all.yaml:1)\n"
        "  hint:      a wildcard *.apis.example does not cover apis.example itself; a rule must name it\n"
        "  the smallest rule that would allow it, for `egressctl create -f -`:\n"
        "    apiVersion: config.istio.io/v1alpha2\n"
        "    kind: EgressRule\n"
        "    metadata: {name: allow-apis-example}\n"
        "    spec:\n"
        '      destination: {service: "apis.example"}\n'
        "      ports:\n"
        "      - {port: 443, protocol: https}\n"
    )
    assert done.status == 1


ALLOWED = {
    "TLS origination": ("www.apis.example 443 https --speaks http", "originate", 443),
    "passthrough": ("www.apis.example 443 https --speaks tls", "passthrough", 443),
    "the SNI in another spelling": (
        "www.apis.example 443 https --speaks tls --sni WWW.apis.example.",
        "passthrough",
        443,
    ),
    "plain HTTP": ("www.apis.example 80 http", "forward", 80),
    "bytes": ("db.corp.example 5432 tcp", "bytes", 5432),
    "bytes of TLS": ("db.corp.example 5432 tcp --speaks tls", "bytes", 5432),
    "http that leaves as https": ("old.example 80 http", "originate", 443),
    "a host in another spelling": ("WWW.Apis.Example. 80 http", "forward", 80),
    "one address that may be reached of two": (
        "www.apis.example 80 http --address 10.0.0.1 --address 93.184.216.34",
        "forward",
        80,
    ),
}


@pytest.mark.parametrize("question", ALLOWED)
def test_allowed(ctl: Any, question: str) -> None:
    command, treatment, port = ALLOWED[question]
    done = ctl(*_explain(command), "-o", "json")
    told = json.loads(done.out)
    assert (done.status, told["allowed"], done.err) == (0, True, "")
    (only,) = told["answers"]
    assert (only["reason"], only["treatment"], only["dialled_port"]) == ("allowed", treatment, port)
    assert only["rule"]["file"] == "rules/all.yaml"
    assert only["smallest_rule"] == ""


DENIED = {
    "no rule": ("github.com 443 https", "no_rule"),
    "the apex of a wildcard": ("apis.example 80 http", "no_rule"),
    "another port": ("www.apis.example 8443 https", "port_not_allowed"),
    "TLS to a port for plain HTTP": ("www.apis.example 80 https --speaks tls", "protocol_not_allowed"),
    "neither TLS nor HTTP": ("www.apis.example 443 tcp", "protocol_unknown"),
    "TLS without a name": ("www.apis.example 443 https --speaks tls --sni=", "sni_missing"),
    "an address that is not public": ("www.apis.example 80 http --address 10.0.0.1", "address_not_allowed"),
    "a public address without a rule": ("93.184.216.34 443 https", "no_rule"),
    "a private address without a rule": ("10.0.0.1 9000 tcp", "no_rule"),
    "an IPv6 address without a rule": ("2606:2800:220:1::1 80 http", "no_rule"),
    "a name of this machine": ("localhost 8080 http", "no_rule"),
    "a name below localhost": ("app.localhost 8080 http", "no_rule"),
    "an international name": ("bücher.example 443 https", "no_rule"),
    "a very long name": (f"{'a' * 63}.{'b' * 63}.example 443 https", "no_rule"),
    "a name whose suggestion is taken": ("allowed-elsewhere.example 443 https", "no_rule"),
}


@pytest.mark.parametrize("question", DENIED)
def test_denied_and_what_is_suggested_makes_it_allowed(ctl: Any, question: str) -> None:
    command, reason = DENIED[question]
    ctl.write(
        "rules/taken.yaml",
        """
        kind: EgressRule
        metadata: {name: allow-allowed-elsewhere-example}
        spec: {destination: {service: other.example}, ports: [{port: 80, protocol: http}]}
        """,
    )
    done = ctl(*_explain(command), "-o", "json")
    told = json.loads(done.out)
    assert (done.status, told["allowed"], done.err) == (1, False, "")
    assert [answer["reason"] for answer in told["answers"]] == [reason]
    suggestion = told["answers"][0]["smallest_rule"]
    ctl.write("rules/suggested.yaml", suggestion)
    again = ctl(*_explain(command))
    assert again.status == 0, again.err


HOPELESS = {
    "a rule denies": ("ads.apis.example 443 https", "denied_by_rule"),
    "another name in the SNI": ("www.apis.example 443 https --speaks tls --sni evil.example", "sni_mismatch"),
    "an SNI that is none": ("www.apis.example 443 https --speaks tls --sni a..b", "sni_malformed"),
    "an address as SNI": ("www.apis.example 443 https --speaks tls --sni 127.1", "sni_malformed"),
    "a host that is none": ("a..apis.example 443 https", "malformed_host"),
    "a pattern as host": ("*.apis.example 443 https", "malformed_host"),
    "HTTP/2 without TLS": ("www.apis.example 80 http2", "http2_not_supported"),
    "gRPC without TLS": ("www.apis.example 80 grpc", "http2_not_supported"),
    "a metadata address behind a name": (
        "www.apis.example 80 http --address 169.254.169.254",
        "address_not_allowed",
    ),
    "a multicast address behind a name": (
        "www.apis.example 80 http --address 224.0.0.1",
        "address_not_allowed",
    ),
}


@pytest.mark.parametrize("question", HOPELESS)
def test_denied_and_no_rule_would_help(ctl: Any, question: str) -> None:
    command, reason = HOPELESS[question]
    done = ctl(*_explain(command), "-o", "json")
    told = json.loads(done.out)
    assert (done.status, done.err) == (1, "")
    assert [(answer["reason"], answer["smallest_rule"]) for answer in told["answers"]] == [(reason, "")]


def test_addresses_are_judged_one_by_one(ctl: Any) -> None:
    addresses = ("--address", "10.0.0.1", "--address", "93.184.216.34", "--address", "::ffff:127.0.0.1")
    done = ctl(*_explain("www.apis.example 80 http"), *addresses)
    assert done.out.splitlines()[-3:] == [
        "  address:   93.184.216.34: may be reached",
        "  address:   10.0.0.1: refused, private",
        "  address:   127.0.0.1: refused, loopback",
    ]


def test_a_host_that_is_an_address_is_judged_unasked(ctl: Any) -> None:
    ctl.write(
        "rules/inside.yaml",
        """
        apiVersion: egress.mitmproxy/v1
        kind: EgressRule
        metadata: {name: inside}
        spec: {destination: {services: [10.0.0.0/8]}, ports: [{port: 22, protocol: tcp}]}
        """,
    )
    done = ctl(*_explain("167772161 22 tcp"))
    assert done.status == 1
    assert done.out.startswith(
        "10.0.0.1:22 (written 167772161), the application speaks neither HTTP nor TLS: denied\n"
        "  reason:    address_not_allowed: the host has no address that may be reached\n"
        "  rule:      default/inside (rules/inside.yaml:1)\n"
        "  address:   10.0.0.1: refused, private\n"
        "  hint:      only a rule with destination.allowPrivate: true reaches an address that is not public\n"
    )


def test_whoever_asks_for_a_metadata_address_is_warned(ctl: Any) -> None:
    done = ctl(*_explain("169.254.169.254 80 http"))
    assert done.status == 1
    assert "  hint:      credentials are handed out at a cloud metadata address; think twice" in done.out


MORE_THAN_A_HOST = {
    "https://github.com/": ("a URL was given", "write only its host: --host github.com"),
    "https://me@GitHub.com:443/a?b#c": ("a URL was given", "write only its host: --host github.com"),
    "https://github.com:8443": ("a URL was given", "write only its host: --host github.com --port 8443"),
    "http://[2001:db8::1]/": ("a URL was given", "write only its host: --host 2001:db8::1"),
    "https://no..host/": ("a URL was given", "write only its host"),
    "github.com:443": ("more than a host was given", "write only its host: --host github.com"),
    "github.com/path": ("more than a host was given", "write only its host: --host github.com"),
    "2001:db8::zz": ("not an IPv6 address", ""),
}


@pytest.mark.parametrize("written", MORE_THAN_A_HOST)
def test_whoever_writes_more_than_a_host_is_told_which_part_is_wanted(ctl: Any, written: str) -> None:
    detail, hint = MORE_THAN_A_HOST[written]
    told = json.loads(ctl(*_explain(f"{written} 443 https"), "-o", "json").out)
    assert [(answer["reason"], answer["detail"], answer["hint"]) for answer in told["answers"]] == [
        ("malformed_host", detail, hint)
    ]


def test_a_name_of_this_machine_needs_a_rule_that_may_reach_it(ctl: Any) -> None:
    assert "    allowPrivate: true\n" in ctl(*_explain("localhost 8080 http")).out
    known = ctl(*_explain("localhost 8080 http"), "--address", "93.184.216.34").out
    assert "allowPrivate" not in known


INSIDE = """\
apiVersion: egress.mitmproxy/v1
kind: EgressRule
metadata: {name: inside}
spec:
  destination: {services: ["*.corp.test"], allowPrivate: true}
  ports: [{port: 443, protocol: https}]
"""


def test_another_port_of_a_host_inside_needs_a_rule_that_may_reach_it_too(ctl: Any) -> None:
    ctl.write("rules/inside.yaml", INSIDE)
    for question in ("git.corp.test 8443 https", "git.corp.test 443 tcp"):
        done = ctl(*_explain(question))
        assert "    allowPrivate: true\n" in done.out
        ctl.write("rules/suggested.yaml", _suggestion(done.out))
        assert ctl(*_explain(question), "--address", "10.0.0.1").status == 0
        (ctl.rules / "suggested.yaml").unlink()


def test_of_another_host_inside_it_is_only_said_what_the_rule_may_need(ctl: Any) -> None:
    ctl.write("rules/inside.yaml", INSIDE)
    done = ctl(*_explain("corp.test 443 https"))
    assert (
        "  hint:      a wildcard *.corp.test does not cover corp.test itself; a rule must name it; "
        "default/inside has allowPrivate: true, which corp.test needs as well unless its addresses are public\n"
    ) in done.out
    assert "    allowPrivate: true\n" not in done.out


@pytest.mark.parametrize(
    ("question", "protocol"),
    [
        ("www.apis.example 443 tcp", "tcp"),
        ("www.apis.example 443 https --speaks tls --sni=", "tcp"),
        ("www.apis.example 80 https --speaks tls", "https"),
    ],
)
def test_a_rule_that_would_come_before_another_one_is_shown_with_that_warning(
    ctl: Any, question: str, protocol: str
) -> None:
    place = ":".join(question.split()[:2])
    done = ctl(*_explain(question))
    assert (
        f"; mind that the rule below comes before default/apis at {place}: all is treated as {protocol} then\n"
    ) in done.out


def test_a_rule_that_comes_before_no_other_is_shown_without_that_warning(ctl: Any) -> None:
    for question in (
        "github.com 443 https",
        "www.apis.example 8443 https",
        "www.apis.example 80 http --address 10.0.0.1",
    ):
        assert "mind that" not in ctl(*_explain(question)).out


def test_forms_with_different_verdicts_are_told_apart_and_one_denial_is_a_no(ctl: Any) -> None:
    done = ctl(*_explain("www.apis.example 80 https"))
    heads = [line for line in done.out.splitlines() if line.startswith("www")]
    assert heads == [
        "www.apis.example:80, the application speaks plain HTTP: allowed",
        "www.apis.example:80, the application speaks TLS: denied",
    ]
    assert done.status == 1


def test_a_rule_that_is_overruled_is_named(ctl: Any) -> None:
    for name, protocol in (("first", "http"), ("second", "https")):
        ctl.write(
            f"rules/{name}.yaml",
            f"""
            kind: EgressRule
            metadata: {{name: {name}}}
            spec: {{destination: {{service: foo.example}}, ports: [{{port: 443, protocol: {protocol}}}]}}
            """,
        )
    done = ctl(*_explain("foo.example 443 https --speaks tls"))
    assert done.status == 1
    assert (
        "  overruled: default/second (rules/second.yaml:1) has no effect here, because default/first comes first\n"
    ) in done.out


def test_text_of_the_user_cannot_reach_the_terminal_raw(ctl: Any) -> None:
    done = ctl("explain", "--host", "a\x07\x1b[2Jb", "--port", "443")
    assert done.status == 1
    assert done.out.startswith("a\\x07\\x1b[2Jb port 443, ")
    assert "character U+0007 cannot be part of a host name" in done.out


def test_what_no_rule_looks_at_yet_is_accepted_and_said(ctl: Any) -> None:
    extra = ("--from", "10.2.3.4", "--method", "GET", "--path", "/x")
    done = ctl(*_explain("www.apis.example 443 https"), *extra)
    assert done.status == 0
    assert done.out == ctl(*_explain("www.apis.example 443 https")).out
    assert done.err == "".join(
        f"egressctl: warning: {option} has no effect yet: no rule looks at it\n"
        for option in ("--from", "--method", "--path")
    )


def test_the_protocol_of_well_known_ports_need_not_be_said(ctl: Any) -> None:
    for port, protocol in (("443", "https"), ("80", "http")):
        short = ctl("explain", "--host", "www.apis.example", "--port", port)
        assert short == ctl(*_explain(f"www.apis.example {port} {protocol}"))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--port", "443"), "Missing option '--host'"),
        (("--host", "a.example", "--port", "0"), "'0': a port is a number in the range 1..65535"),
        (("--host", "a.example", "--port", "8080"), "say which --protocol is wanted on port 8080"),
        (
            ("--host", "a.example", "--port", "80", "--speaks", "tls"),
            "--speaks tls is not a form of --protocol http",
        ),
        (
            ("--host", "a.example", "--port", "80", "--sni", "b"),
            "--sni is for an application that speaks TLS",
        ),
        (("--host", "a.example", "--port", "80", "--address", "b"), "--address 'b' is not an IP address"),
        (("--host", "a.example", "--port", "80", "--protocol", "udp"), "'udp' is not one of 'https', 'http'"),
    ],
)
def test_a_command_line_that_is_not_understood(ctl: Any, arguments: tuple[str, ...], error: str) -> None:
    done = ctl("explain", *arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("egressctl: ")
    assert error in done.err
    assert done.err.endswith("(see `egressctl explain --help`)\n")


def test_rules_that_do_not_load(ctl: Any) -> None:
    ctl.write("rules/wrong.yaml", "kind: EgressRule\nspec: 1\n")
    done = ctl(*_explain("www.apis.example 443 https"))
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("egressctl: rules/wrong.yaml:")


def _suggestion(out: str) -> str:
    """The rule that an answer ends in."""
    return "".join(line[4:] + "\n" for line in out.partition("egressctl create -f -`:\n")[2].splitlines())


def _explain(text: str) -> list[str]:
    """`HOST PORT PROTOCOL [MORE…]` as a command line."""
    host, port, protocol, *more = text.split()
    return ["explain", "--host", host, "--port", port, "--protocol", protocol, *more]


# --- transparent: the address that the client dialled ---

CHECKED = """\
apiVersion: egress.mitmproxy/v1
kind: EgressRule
metadata: {name: CHECK}
spec:
  destination: {services: [CHECK.example], check: CHECK}
  ports: [{port: 443, protocol: https}]
"""
DIALLED = {
    "enforce": (1, "not one of the host's addresses; refused (check: enforce)"),
    "redial": (0, "not one of the host's addresses; the host's own is dialled instead (check: redial)"),
    "audit": (
        0,
        "not one of the host's addresses; the host's own is dialled instead, and it is counted (check: audit)",
    ),
}


@pytest.mark.parametrize("check", DIALLED)
def test_an_address_that_is_not_the_hosts(ctl: Any, check: str) -> None:
    ctl.write("rules/check.yaml", CHECKED.replace("CHECK", check))
    more = ("--speaks", "tls", "--address", "1.1.1.1", "--dialled", "8.8.8.8")
    done = ctl("explain", "--host", f"{check}.example", "--port", "443", *more)
    assert done.status == DIALLED[check][0]
    assert f"  dialled:   8.8.8.8: {DIALLED[check][1]}\n" in done.out
    assert ("address_mismatch" in done.out) is (check == "enforce")
    assert ("  address:   1.1.1.1: may be reached\n" in done.out) is (check != "enforce")
    done = ctl("explain", "--host", f"{check}.example", "--port", "443", "-o", "json", *more)
    assert done.status == DIALLED[check][0]
    (answer,) = json.loads(done.out)["answers"]
    assert answer["address_check"] == {"enforce": "mismatch", "redial": "redialled", "audit": "audited"}[check]


def test_an_address_that_is_the_hosts(ctl: Any) -> None:
    ctl.write("rules/check.yaml", CHECKED.replace("CHECK", "enforce"))
    more = ("--address", "1.1.1.1", "--address", "1.0.0.1", "--dialled", "1.0.0.1")
    done = ctl("explain", "--host", "enforce.example", "--port", "443", "--speaks", "tls", *more)
    assert "  dialled:   1.0.0.1: one of the host's addresses, and the only one that is dialled\n" in done.out
    assert "1.1.1.1" not in done.out


def test_dialled_needs_something_to_be_compared_with(ctl: Any) -> None:
    done = ctl("explain", "--host", "a.example", "--port", "443", "--dialled", "1.1.1.1")
    assert done.status == 2
    assert "--dialled needs the host's own addresses to be compared with (--address)" in done.err
