"""The decision, as a table; and what it promises: pure, and no work that grows with the rules."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
import tracemalloc
from ipaddress import ip_address
from pathlib import Path

import pytest

import egress_gateway.policy
from egress_gateway.policy.decide import decide
from egress_gateway.policy.hostname import Hostname, parse_host
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request, Spoken
from egress_gateway.policy.rule import EgressRule, ExactName, Family, Port, Protocol, TlsMode
from egress_gateway.policy.ruleset import RuleSet
from egress_gateway.policy.verdict import Treatment
from support.relay_server import rule

A, B = Hostname("a.example"), Hostname("b.example")
T, R = Treatment, Reason

# What is done, by what the rule says and (in this order) unknown, HTTP, HTTP/2, TLS and other bytes are spoken.
SPOKEN = (Spoken.UNKNOWN, Spoken.HTTP, Spoken.HTTP2, Spoken.TLS, Spoken.OTHER)
TABLE: dict[tuple[str, TlsMode | None], tuple[Treatment | Reason, ...]] = {
    ("http", None): (T.AWAIT, T.FORWARD, R.HTTP2_NOT_SUPPORTED, R.PROTOCOL_NOT_ALLOWED, R.PROTOCOL_UNKNOWN),
    ("http2", None): (T.AWAIT, T.FORWARD, R.HTTP2_NOT_SUPPORTED, R.PROTOCOL_NOT_ALLOWED, R.PROTOCOL_UNKNOWN),
    ("grpc", None): (T.AWAIT, T.FORWARD, R.HTTP2_NOT_SUPPORTED, R.PROTOCOL_NOT_ALLOWED, R.PROTOCOL_UNKNOWN),
    ("https", None): (T.AWAIT, T.ORIGINATE, R.HTTP2_NOT_SUPPORTED, T.PASSTHROUGH, R.PROTOCOL_UNKNOWN),
    ("https", TlsMode.ORIGINATE): (
        T.AWAIT, T.ORIGINATE, R.HTTP2_NOT_SUPPORTED, R.PROTOCOL_NOT_ALLOWED, R.PROTOCOL_UNKNOWN,
    ),
    ("http", TlsMode.ORIGINATE): (
        T.AWAIT, T.ORIGINATE, R.HTTP2_NOT_SUPPORTED, R.PROTOCOL_NOT_ALLOWED, R.PROTOCOL_UNKNOWN,
    ),
    ("https", TlsMode.PASSTHROUGH): (
        T.AWAIT, R.PROTOCOL_NOT_ALLOWED, R.HTTP2_NOT_SUPPORTED, T.PASSTHROUGH, R.PROTOCOL_UNKNOWN,
    ),
    ("tcp", None): (T.BYTES, T.FORWARD, T.BYTES, T.BYTES, T.BYTES),
    ("mongo", None): (T.BYTES, T.FORWARD, T.BYTES, T.BYTES, T.BYTES),
}  # fmt: skip


def one_rule(protocol: str, mode: TlsMode | None = None, target_port: int | None = None) -> EgressRule:
    return EgressRule("default", "one", (ExactName(A),), (Port(443, Protocol(protocol), target_port, mode),))


@pytest.mark.parametrize(
    ("protocol", "mode", "spoken", "expected"),
    [
        pytest.param(protocol, mode, spoken, expected, id=f"{protocol} {mode or 'any'}, {spoken}")
        for (protocol, mode), row in TABLE.items()
        for spoken, expected in zip(SPOKEN, row, strict=True)
    ],
)
def test_what_is_done(protocol: str, mode: TlsMode | None, spoken: Spoken, expected: Treatment | Reason) -> None:
    made = one_rule(protocol, mode)
    verdict = decide(RuleSet.build([made]), Request(A, 443, spoken, sni=A if spoken is Spoken.TLS else None))
    assert verdict.rule is made
    if isinstance(expected, Reason):
        assert (verdict.treatment, verdict.reason, verdict.allowed) == (T.REFUSE, expected, False)
    else:
        assert (verdict.treatment, verdict.reason, verdict.port) == (expected, R.ALLOWED, 443)


def test_the_table_has_every_protocol_and_everything_spoken() -> None:
    assert {protocol for protocol, _ in TABLE} == set(Protocol)
    assert set(SPOKEN) == set(Spoken)


def test_the_target_port_is_the_one_to_dial() -> None:
    ruleset = RuleSet.build([one_rule("https", target_port=8443)])
    assert decide(ruleset, Request(A, 443)).port == 8443
    assert decide(ruleset, Request(A, 8443)).reason is R.PORT_NOT_ALLOWED


def test_no_rule_for_the_host_and_no_rule_for_the_port() -> None:
    ruleset = RuleSet.build([one_rule("https")])
    assert decide(ruleset, Request(B, 443)) == decide(ruleset, Request(B, 80))
    assert decide(ruleset, Request(B, 443)).reason is R.NO_RULE
    assert decide(ruleset, Request(A, 8443)).reason is R.PORT_NOT_ALLOWED


TWO = RuleSet.build(
    [
        rule("a.example", (443, "https"), (25, "tcp")),
        rule("b.example", (443, "https")),
        rule("192.0.2.1", (443, "https")),
    ]
)
CLAIMS: dict[str, tuple[Request, Reason]] = {
    "all claims agree": (Request(A, 443, Spoken.TLS, sni=A, authority=A), R.ALLOWED),
    "the SNI names a host that no rule allows": (
        Request(A, 443, Spoken.TLS, sni=Hostname("evil.example")), R.SNI_MISMATCH,
    ),
    "the SNI names another host that is allowed": (Request(A, 443, Spoken.TLS, sni=B), R.SNI_MISMATCH),
    "the SNI names the parent": (Request(A, 443, Spoken.TLS, sni=Hostname("example")), R.SNI_MISMATCH),
    "TLS without SNI": (Request(A, 443, Spoken.TLS), R.SNI_MISSING),
    "TLS without SNI to an address": (Request(ip_address("192.0.2.1"), 443, Spoken.TLS), R.SNI_MISSING),
    "TLS to an address, with the name of another rule": (
        Request(ip_address("192.0.2.1"), 443, Spoken.TLS, sni=A), R.SNI_MISMATCH,
    ),
    "TLS without SNI under a tcp rule": (Request(A, 25, Spoken.TLS), R.ALLOWED),
    "the Host names another host": (Request(A, 443, Spoken.HTTP, authority=B), R.HOST_MISMATCH),
    "the Host names an address": (
        Request(A, 443, Spoken.HTTP, authority=ip_address("192.0.2.1")), R.HOST_MISMATCH,
    ),
    "the Host contradicts under a tcp rule as well": (
        Request(A, 25, Spoken.HTTP, authority=B), R.HOST_MISMATCH,
    ),
    "no Host at all": (Request(A, 443, Spoken.HTTP), R.ALLOWED),
    "that there is no rule is said before that the claims differ": (
        Request(Hostname("evil.example"), 443, Spoken.TLS, sni=A), R.NO_RULE,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("request_", "reason"), CLAIMS.values(), ids=CLAIMS)
def test_claims_are_compared_and_never_corrected(request_: Request, reason: Reason) -> None:
    verdict = decide(TWO, request_)
    assert verdict.reason is reason
    assert verdict.allowed is (reason is R.ALLOWED)


@pytest.mark.parametrize("spelling", ["A.Example", "a.example.", "a\u3002example", "\uff21.example"])
def test_another_spelling_of_an_allowed_name_is_the_same_name(spelling: str) -> None:
    assert decide(TWO, Request(parse_host(spelling), 443, Spoken.TLS, sni=A)).allowed


def test_the_original_address_is_not_the_decisions_business() -> None:
    assert decide(TWO, Request(A, 443, original=ip_address("203.0.113.66"))) == decide(TWO, Request(A, 443))


# --- promises ---


def test_the_policy_runs_with_nothing_but_the_standard_library_and_idna() -> None:
    """In a fresh interpreter, with a finder in front that knows nobody else, and with the pure room's own bans."""
    program = """
import sys
allowed = {"idna", "egress_gateway"} | sys.stdlib_module_names
banned = {"asyncio", "threading", "socket", "logging", "time", "random", "secrets", "subprocess"}
ours = "egress_gateway.policy"

class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed or (top == "egress_gateway" and name != top and not name.startswith(ours)):
            raise ImportError(f"{name} is not for the policy")

sys.meta_path.insert(0, Blocker())
import builtins, importlib
real_import = builtins.__import__

def guarded(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "")
    if importer.startswith(ours) and level == 0 and name.partition(".")[0] in banned:
        raise ImportError(f"{importer} imports {name}")
    return real_import(name, globals, locals, fromlist, level)

builtins.__import__ = guarded
for module in sys.argv[1:]:
    importlib.import_module(module)
from egress_gateway.policy.decide import decide
from egress_gateway.policy.request import Request
from egress_gateway.policy.ruleset import RuleSet
print(decide(RuleSet.empty(), Request("a.example", 443)).reason)
"""
    folder = Path(egress_gateway.policy.__file__).parent
    modules = [f"egress_gateway.policy.{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__"]
    assert len(modules) > 8
    done = subprocess.run(
        [sys.executable, "-c", program, *modules],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(folder.parents[1])},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "no_rule"


def many_rules(count: int) -> RuleSet:
    made = [rule(f"h{number}.example{number % 97}.com", (443, "https")) for number in range(count)]
    made += [rule(f"*.w{number}.example{number % 97}.com", (443, "https")) for number in range(count)]
    made += [rule(f"10.{number // 256}.{number % 256}.0/24", (5432, "tcp")) for number in range(count)]
    return RuleSet.build(made)


QUESTIONS = [
    Request(Hostname("h7.example7.com"), 443, Spoken.TLS, sni=Hostname("h7.example7.com")),
    Request(Hostname("a.b.c.w7.example7.com"), 443, Spoken.HTTP),
    Request(ip_address("10.0.7.9"), 5432),
    Request(Hostname("nobody.knows.me"), 443),
    Request(Hostname("h7.example7.com"), 80),
]


def allocated_while_deciding(ruleset: RuleSet) -> int:
    for question in QUESTIONS:
        decide(ruleset, question)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            for question in QUESTIONS:
                decide(ruleset, question)
        tracemalloc.reset_peak()
        for question in QUESTIONS:
            decide(ruleset, question)
        return max(tracemalloc.get_traced_memory()) - before
    finally:
        tracemalloc.stop()


def test_deciding_allocates_nothing_that_grows_with_the_number_of_rules() -> None:
    few, many = allocated_while_deciding(many_rules(10)), allocated_while_deciding(many_rules(2000))
    assert many <= few + 1024, (few, many)
    assert many < 8192


def test_deciding_takes_no_time_that_grows_with_the_number_of_rules() -> None:
    def best(ruleset: RuleSet) -> float:
        times = []
        for _ in range(5):
            started = time.thread_time()
            for _ in range(100):
                for question in QUESTIONS:
                    decide(ruleset, question)
            times.append(time.thread_time() - started)
        return min(times)

    assert best(many_rules(2000)) < 10 * best(many_rules(10)), "2000 rules cost far less than 200 times as much"


def test_an_allowed_answer_is_the_same_object_each_time() -> None:
    request = Request(A, 443, Spoken.TLS, sni=A)
    assert decide(TWO, request) is decide(TWO, request)


def test_every_family_is_in_the_table() -> None:
    assert {Port(1, Protocol(protocol), None, mode).family for protocol, mode in TABLE} == set(Family)
