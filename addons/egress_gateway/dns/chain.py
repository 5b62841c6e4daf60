"""Read one DNS message: what does it say about the addresses of the name that was asked? Pure.

- Only records that the question leads to count: those of the name itself, and those of the names its
  aliases (CNAME) lead to inside the message. Any other record, wherever it stands, is as if it were not
  there.
- Aliases are followed up to `MAX_ALIASES` times and never twice through the same name.
- A time to live is the least on the way (RFC 1034 section 3.6.2 and RFC 2181 section 5.2 make it so). One
  with the high bit set is 0 (RFC 2181 section 8), and comes as that from dnspython.
- Nothing found is "no such name" or "no data" (RFC 2308 section 2), to be remembered for the lesser of
  the SOA record's own time to live and its minimum (section 5). Without an SOA record of a zone that
  holds the name, it is not to be remembered at all. NXDOMAIN after aliases is about the last name (RFC
  6604).
- Aliases that end at a name about which the message says nothing are `Elsewhere`: ask for that name.
- Service bindings (HTTPS and SVCB, RFC 9460) are cut to `MAX_BINDINGS`, and those larger than `MAX_BINDING`
  bytes are left out: whoever owns a zone must not decide what remembering its answer costs.
"""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.SOA import SOA
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA
from dns.rdtypes.svcbbase import SVCBBase

from egress_gateway.dns.answer import Address, ResolveError, ResolveFailure

MAX_ALIASES = 16
MAX_BINDINGS = 16
MAX_BINDING = 1024  # bytes on the wire
NO_LIMIT = 2**31 - 1  # seconds: the largest time to live there is

type NoneSuch = Literal[ResolveFailure.NXDOMAIN, ResolveFailure.NO_DATA]


@dataclass(frozen=True, slots=True)
class Found:
    addresses: tuple[Address, ...]  # at least one, of one family, in the order of the message; none with bindings
    ttl: int
    aliases: tuple[dns.name.Name, ...] = ()  # that led to them, in that order; the last is whose records they are
    bindings: tuple[SVCBBase, ...] = ()  # where HTTPS or SVCB was asked for


@dataclass(frozen=True, slots=True)
class Nothing:
    kind: NoneSuch
    ttl: int  # 0: nothing said how long that stays true


@dataclass(frozen=True, slots=True)
class Elsewhere:
    target: dns.name.Name
    aliases: tuple[dns.name.Name, ...]  # that led there, the target included
    ttl: int


def read(
    message: dns.message.Message, name: dns.name.Name, rdtype: dns.rdatatype.RdataType
) -> Found | Nothing | Elsewhere:
    """What `message`, with rcode NOERROR or NXDOMAIN, says of `name`.

    Raises ResolveError for a chain without an end, and for a referral: the server does not look names up.
    """
    records = {(rrset.name, rrset.rdtype): rrset for rrset in message.answer if rrset.rdclass == dns.rdataclass.IN}
    owner, ttl, passed = name, NO_LIMIT, [name]
    while (found := records.get((owner, rdtype))) is None:
        alias = records.get((owner, dns.rdatatype.CNAME))
        if alias is None:
            break
        owner = _target(alias)
        ttl = min(ttl, alias.ttl)
        if owner in passed or len(passed) > MAX_ALIASES:
            raise ResolveError(ResolveFailure.MALFORMED, str(name), "its aliases lead nowhere")
        passed.append(owner)
    aliases = tuple(passed[1:])
    if found is not None and message.rcode() == dns.rcode.NOERROR:
        addresses, bindings = _addresses(found), _bindings(found)
        if addresses or bindings:
            return Found(addresses, min(ttl, found.ttl), aliases, bindings)
    return _nothing(message, owner, aliases, ttl)


def _nothing(
    message: dns.message.Message, owner: dns.name.Name, aliases: tuple[dns.name.Name, ...], ttl: int
) -> Nothing | Elsewhere:
    remembered = _negative_ttl(message, owner)
    kept = 0 if remembered is None else min(ttl, remembered)
    if message.rcode() == dns.rcode.NXDOMAIN:
        return Nothing(ResolveFailure.NXDOMAIN, kept)
    if remembered is not None:
        return Nothing(ResolveFailure.NO_DATA, kept)
    if aliases:
        return Elsewhere(owner, aliases, ttl)
    if _is_referral(message):
        raise ResolveError(ResolveFailure.SERVFAIL, str(owner), "the server does not look names up")
    return Nothing(ResolveFailure.NO_DATA, 0)


def _negative_ttl(message: dns.message.Message, owner: dns.name.Name) -> int | None:
    for rrset in message.authority:
        if rrset.rdtype == dns.rdatatype.SOA and owner.is_subdomain(rrset.name):
            for record in rrset:
                if isinstance(record, SOA):
                    return min(rrset.ttl, record.minimum)
    return None


def _is_referral(message: dns.message.Message) -> bool:
    known_here = message.flags & (dns.flags.RA | dns.flags.AA)
    return not known_here and any(rrset.rdtype == dns.rdatatype.NS for rrset in message.authority)


def _target(alias: dns.rrset.RRset) -> dns.name.Name:
    target: dns.name.Name | None = next((record.target for record in alias if isinstance(record, CNAME)), None)
    if target is None:
        raise ResolveError(ResolveFailure.MALFORMED, str(alias.name), "an alias without a target")
    return target


def _addresses(rrset: dns.rrset.RRset) -> tuple[Address, ...]:
    return tuple(ip_address(record.address) for record in rrset if isinstance(record, A | AAAA))


def _bindings(rrset: dns.rrset.RRset) -> tuple[SVCBBase, ...]:
    found = [record for record in rrset if isinstance(record, SVCBBase)]
    return tuple(record for record in found if len(record.to_wire() or b"") <= MAX_BINDING)[:MAX_BINDINGS]
