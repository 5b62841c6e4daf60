"""The decision: `decide(ruleset, request) -> Verdict`. No clock, no log, no connection; equal facts, equal answers.

In this order:

1. Is there a rule for the host and port that the client asked for?
2. Do all the names the client claims agree? They are compared, never corrected into one another.
3. Does the rule admit what the client speaks, and what is to be done with it?

Which *addresses* of the host may be dialled is the second question, asked of `destination.judge` once the name has
been resolved.
"""

from __future__ import annotations

from .reason import Reason
from .request import Request, Spoken
from .rule import Family, TlsMode
from .ruleset import RuleSet, Slot, allows_any, first
from .verdict import Treatment, Verdict, refuse

_NO_RULE = refuse(Reason.NO_RULE)
_PORT_NOT_ALLOWED = refuse(Reason.PORT_NOT_ALLOWED)

_Answer = Treatment | Reason

_WHAT_TO_DO: dict[Family, dict[Spoken, _Answer]] = {
    Family.HTTP: {
        Spoken.UNKNOWN: Treatment.AWAIT,
        Spoken.HTTP: Treatment.FORWARD,
        Spoken.HTTP2: Reason.HTTP2_NOT_SUPPORTED,
        Spoken.TLS: Reason.PROTOCOL_NOT_ALLOWED,
        Spoken.OTHER: Reason.PROTOCOL_UNKNOWN,
    },
    Family.HTTPS: {
        Spoken.UNKNOWN: Treatment.AWAIT,
        Spoken.HTTP: Treatment.ORIGINATE,
        Spoken.HTTP2: Reason.HTTP2_NOT_SUPPORTED,
        Spoken.TLS: Treatment.PASSTHROUGH,
        Spoken.OTHER: Reason.PROTOCOL_UNKNOWN,
    },
    Family.TCP: {
        Spoken.UNKNOWN: Treatment.BYTES,
        # A proxied request (`GET http://host:port/`) is not a byte stream of its own; it goes as plain HTTP.
        Spoken.HTTP: Treatment.FORWARD,
        Spoken.HTTP2: Treatment.BYTES,
        Spoken.TLS: Treatment.BYTES,
        Spoken.OTHER: Treatment.BYTES,
    },
}


def decide(ruleset: RuleSet, request: Request) -> Verdict:
    """Whether `ruleset` lets out what `request` asks for, why, and what is to be done with it."""
    host, port = request.host, request.port
    slot = ruleset.find_exact(host, port)
    if slot is None:
        matching = ruleset.matching(host)
        slot = first(matching, port)
        if slot is None:
            return _PORT_NOT_ALLOWED if allows_any(matching) else _NO_RULE
    if slot.denied_by is not None:
        return refuse(Reason.DENIED_BY_RULE, slot.denied_by)
    mismatch = _contradiction(slot, request)
    if mismatch is not None:
        return refuse(mismatch, slot.allowed_by)
    return slot.verdicts.get(request.spoken) or _answer(slot, request.spoken)


def _contradiction(slot: Slot, request: Request) -> Reason | None:
    host, authority, sni = request.host, request.authority, request.sni
    if authority is not None and authority != host:
        return Reason.HOST_MISMATCH
    if sni is not None:
        return None if sni == host else Reason.SNI_MISMATCH
    if request.spoken is Spoken.TLS and slot.port is not None and slot.port.family is not Family.TCP:
        return Reason.SNI_MISSING
    return None


def _answer(slot: Slot, spoken: Spoken) -> Verdict:
    """The verdict of a slot, remembered in it."""
    port = slot.port
    if port is None:
        return _NO_RULE
    family, dialled, mode = port.treatment_key
    what: _Answer = _WHAT_TO_DO[family][spoken]
    if (mode is TlsMode.ORIGINATE and what is Treatment.PASSTHROUGH) or (
        mode is TlsMode.PASSTHROUGH and what is Treatment.ORIGINATE
    ):
        what = Reason.PROTOCOL_NOT_ALLOWED
    if isinstance(what, Reason):
        verdict = refuse(what, slot.allowed_by)
    else:
        verdict = Verdict(what, Reason.ALLOWED, slot.allowed_by, dialled)
    slot.verdicts[spoken] = verdict
    return verdict
