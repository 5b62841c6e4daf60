"""What `explain` finds out, as values: the gateway's verdict, and what would have to be different.

Nothing here prints, and nothing is decided here: `policy.decide` and `policy.destination.judge` are asked, so
that the answer is the gateway's own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count

from egress_gateway.policy.address_check import Agreement, check_address
from egress_gateway.policy.addresses import REACHABLE_WITH_ALLOW_PRIVATE, AddressClass, classify
from egress_gateway.policy.decide import decide
from egress_gateway.policy.destination import Judged, judge
from egress_gateway.policy.explain import Explanation, explain, needs_private, rule_name, smallest_rule
from egress_gateway.policy.hostname import (
    Address,
    Host,
    Hostname,
    MalformedHost,
    format_authority,
    parse_authority,
    parse_host,
)
from egress_gateway.policy.index import matches
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request, Spoken
from egress_gateway.policy.rule import EgressRule, Port, Protocol
from egress_gateway.policy.ruleset import Conflict, RuleSet
from egress_gateway.policy.verdict import Verdict, refuse

FORMS: dict[str, tuple[Spoken, ...]] = {
    "https": (Spoken.HTTP, Spoken.TLS),
    "http": (Spoken.HTTP,),
    "tcp": (Spoken.OTHER,),
    "http2": (Spoken.HTTP2,),
    "grpc": (Spoken.HTTP2,),
    "mongo": (Spoken.OTHER,),
}
"""What an application may speak to a port of each protocol, where it is not said which."""


@dataclass(frozen=True, slots=True)
class Question:
    host: str
    """As the user wrote it."""
    port: int
    protocol: str
    """A key of `FORMS`."""
    forms: tuple[Spoken, ...]
    sni: str | None = None
    """What the ClientHello names; None: the host."""
    addresses: tuple[Address, ...] = ()
    """What the host resolves to; empty where nobody said."""
    dialled: Address | None = None
    """Transparent modes: the address that the client dialled. Needs `addresses` to be compared with."""


_NOT_JUDGED = Judged((), ())


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer for one form, or for several that get the same one."""

    forms: tuple[Spoken, ...]
    verdict: Verdict
    host: Host | None
    """None where the host is malformed."""
    detail: str = ""
    """What is malformed; empty otherwise."""
    judged: Judged = _NOT_JUDGED
    agreement: Agreement | None = None
    """How the dialled address and the host's went together; None where nothing was compared."""
    nearest: EgressRule | None = None
    hint: str = ""
    overruled: tuple[Conflict, ...] = ()
    """Rules for this very host and port that have no effect, because the one in `verdict` comes first."""
    smallest_rule: str = ""
    """YAML that makes the answer `allowed`; empty where no rule can, or where nothing was refused."""


def answer_question(ruleset: RuleSet, question: Question) -> list[Finding]:
    """What the gateway would answer, a finding for each form; forms with the same answer share one."""
    findings: list[Finding] = []
    for form in question.forms:
        found = _find(ruleset, question, form)
        if findings and _same(findings[-1], found):
            forms = (*findings[-1].forms, form)
            found = _find(ruleset, question, *forms)
            findings[-1] = found
        else:
            findings.append(found)
    return findings


def _same(one: Finding, other: Finding) -> bool:
    return not one.verdict.allowed and (one.verdict, one.hint) == (other.verdict, other.hint)


def _find(ruleset: RuleSet, question: Question, *forms: Spoken) -> Finding:
    try:
        host = parse_host(question.host)
    except MalformedHost as error:
        detail, hint = _more_than_a_host(question) or (str(error), "")
        return Finding(forms, refuse(Reason.MALFORMED_HOST), None, detail, hint=hint)
    try:
        request = Request(host, question.port, forms[0], sni=_sni(question, host, forms[0]))
    except MalformedHost as error:
        return Finding(forms, refuse(Reason.SNI_MALFORMED), host, str(error))
    verdict, judged, agreement = _ask(ruleset, request, question)
    if verdict.allowed:
        return Finding(forms, verdict, host, judged=judged, agreement=agreement)
    explanation = explain(ruleset, request, verdict)
    protocol, text = _working_rule(ruleset, question, forms, request, verdict, explanation)
    hints = (explanation.hint or _hint(verdict.reason, host, judged), _caution(ruleset, request, protocol))
    return Finding(
        forms,
        verdict,
        host,
        judged=judged,
        agreement=agreement,
        nearest=explanation.nearest,
        hint="; ".join(filter(None, hints)),
        overruled=_overruled(ruleset, request, verdict),
        smallest_rule=text,
    )


_AFTER_AN_AUTHORITY = re.compile(r"[/?#].*", re.DOTALL)


def _more_than_a_host(question: Question) -> tuple[str, str] | None:
    """What was given as host that has one in it, e.g. a URL, and what to write instead; None where it has none."""
    scheme, separator, rest = question.host.partition("://")
    authority = _AFTER_AN_AUTHORITY.sub("", rest if separator else scheme).rpartition("@")[2]
    try:
        host, port = parse_authority(authority, question.port)
    except MalformedHost:
        return ("a URL was given", "write only its host") if separator else None
    instead = f"write only its host: --host {host}" + (f" --port {port}" if port != question.port else "")
    return ("a URL was given" if separator else "more than a host was given"), instead


def _sni(question: Question, host: Host, form: Spoken) -> Hostname | None:
    """The name in the ClientHello; None without TLS, and where there is no name to send."""
    if form is not Spoken.TLS or question.sni == "":
        return None
    name = host if question.sni is None else parse_host(question.sni)
    if isinstance(name, str):
        return name
    if question.sni is None:
        return None
    raise MalformedHost("a server name cannot be an address (RFC 6066)")


def _ask(ruleset: RuleSet, request: Request, question: Question) -> tuple[Verdict, Judged, Agreement | None]:
    """The questions of the gateway: the request, the address that was dialled, the addresses that it would dial."""
    verdict = decide(ruleset, request)
    addresses = question.addresses if isinstance(request.host, str) else (request.host,)
    judged, agreement = _NOT_JUDGED, None
    if verdict.allowed and verdict.rule and question.dialled is not None:
        checked = check_address(verdict.rule.check, question.dialled, addresses)
        agreement, addresses = checked.agreement, checked.addresses
        if agreement is Agreement.MISMATCH:
            verdict = refuse(Reason.ADDRESS_MISMATCH, verdict.rule)
    if verdict.allowed and verdict.rule:
        judged = judge(verdict.rule, addresses, is_denied=lambda address: ruleset.denies(address, verdict.port))
    if judged.refused and not judged.allowed:
        verdict = refuse(Reason.ADDRESS_NOT_ALLOWED, verdict.rule)
    return verdict, judged, agreement


_HINTS = {
    Reason.DENIED_BY_RULE: "a deny beats every allow that matches as specifically or less",
    Reason.HTTP2_NOT_SUPPORTED: "the application must speak HTTP/1.1, or TLS to a port with protocol https",
    Reason.SNI_MISSING: "only a rule with protocol tcp lets a TLS client through that names no host",
    Reason.SNI_MISMATCH: "the client must name the host that it connects to",
    Reason.ADDRESS_MISMATCH: "a client has to use the gateway as its name server; with destination.check: redial "
    "(egress.mitmproxy/v1) the gateway goes to the host's own address instead",
    Reason.PROTOCOL_UNKNOWN: "only a rule with protocol tcp lets other bytes than TLS and HTTP/1.1 through",
}


def _hint(reason: Reason, host: Host, judged: Judged) -> str:
    if reason is not Reason.ADDRESS_NOT_ALLOWED:
        if not isinstance(host, str) and classify(host) is AddressClass.METADATA:
            return "credentials are handed out at a cloud metadata address; think twice before you allow it"
        return _HINTS.get(reason, "")
    kinds = {kind for _, kind in judged.refused}
    if kinds & REACHABLE_WITH_ALLOW_PRIVATE:
        return "only a rule with destination.allowPrivate: true reaches an address that is not public"
    if AddressClass.METADATA in kinds:
        return "only a rule that names a metadata address itself, with allowPrivate: true, reaches it"
    return "such an address is never reached, whatever the rules say"


def _overruled(ruleset: RuleSet, request: Request, verdict: Verdict) -> tuple[Conflict, ...]:
    return tuple(
        conflict
        for conflict in ruleset.conflicts
        if conflict.winner is verdict.rule
        and conflict.port == request.port
        and any(
            str(destination) == conflict.destination and matches(destination, request.host)
            for destination in conflict.loser.destinations
        )
    )


_A_RULE_HELPS = frozenset(
    {
        Reason.NO_RULE,
        Reason.PORT_NOT_ALLOWED,
        Reason.PROTOCOL_NOT_ALLOWED,
        Reason.PROTOCOL_UNKNOWN,
        Reason.ADDRESS_NOT_ALLOWED,
        Reason.DENIED_BY_RULE,
        Reason.SNI_MISSING,
    }
)


def _working_rule(
    ruleset: RuleSet,
    question: Question,
    forms: Sequence[Spoken],
    request: Request,
    verdict: Verdict,
    explanation: Explanation,
) -> tuple[str, str]:
    """The smallest rule that changes the answer, tried out before it is shown, behind its protocol; empty where none
    does."""
    if verdict.reason not in _A_RULE_HELPS:
        return "", ""
    host = request.host
    dialled = question.addresses if isinstance(host, str) else (host,)
    if dialled:
        private = AddressClass.PUBLIC not in map(classify, dialled)
    else:
        private = needs_private(request, verdict, explanation.nearest)
    name = _free_name(ruleset, host, request.port)
    # Some wishes only a tcp rule grants: bytes of neither kind, or TLS to an address, which has no name.
    for protocol in dict.fromkeys((question.protocol, "tcp")):
        text = smallest_rule(host, request.port, protocol, allow_private=private, name=name)
        if all(_helps(ruleset, text, question, form) for form in forms):
            return protocol, text
    return "", ""


def _caution(ruleset: RuleSet, request: Request, protocol: str) -> str:
    """What a rule with `protocol` for the request would change besides allowing it."""
    slot = ruleset.find(request.host, request.port)
    if not protocol or slot is None or not slot.allows or slot.allowed_by is None or slot.port is None:
        return ""
    if slot.port.treatment_key == Port(request.port, Protocol(protocol)).treatment_key:
        return ""
    place = format_authority(request.host, request.port)
    return f"mind that the rule below comes before {slot.allowed_by.key} at {place}: all is treated as {protocol} then"


def _free_name(ruleset: RuleSet, host: Host, port: int) -> str:
    """A name that no rule in the default namespace has, since `create` would refuse one that is taken."""
    taken = {rule.name for rule in ruleset.rules if rule.namespace == "default"}
    name = rule_name(host)
    names = chain((name,), (f"{name[:50]}-{port}{suffix}" for suffix in chain(("",), map("-{}".format, count(2)))))
    return next(free for free in names if free not in taken)


def _helps(ruleset: RuleSet, text: str, question: Question, form: Spoken) -> bool:
    from egress_gateway.config.load import parse_documents

    parsed = parse_documents(text, "<suggestion>")
    with_it = RuleSet.build((*ruleset.rules, *parsed.rules))
    host = parse_host(question.host)
    request = Request(host, question.port, form, sni=_sni(question, host, form))
    return not parsed.errors and _ask(with_it, request, question)[0].allowed
