"""What a destination would open that its author may not have meant: private addresses, broad wildcards."""

from __future__ import annotations

from collections.abc import Sequence

from egress_gateway.policy.addresses import (
    REACHABLE_WITH_ALLOW_PRIVATE,
    AddressClass,
    classify,
    network_class,
)
from egress_gateway.policy.rule import FAMILY, AddressRange, Destination, Family, Port, Wildcard

from .breadth import covers_public_suffix
from .destination import Service
from .problem import shown
from .shape import Shaper, Value


def special_class(destination: Destination) -> AddressClass | None:
    """The class other than public that all of `destination` lies in; None for names and for what spans classes."""
    if not isinstance(destination, AddressRange):
        return None
    network = destination.network
    if network.prefixlen == network.max_prefixlen:
        kind = classify(network.network_address)
        return None if kind is AddressClass.PUBLIC else kind
    return network_class(network)


def istio_allows_private(shaper: Shaper, service: Value, destination: Destination) -> bool:
    """Whether a v1alpha2 rule for `destination`, which cannot say `allowPrivate`, is a knowing choice of it."""
    kind = special_class(destination)
    if kind is None:
        return False
    if kind in REACHABLE_WITH_ALLOW_PRIVATE:
        shaper.warn(service.node, service.path, f"reaches private addresses ({kind}); is that meant?")
        return True
    shaper.warn(service.node, service.path, _no_effect(kind))
    return False


def warn_without_effect(shaper: Shaper, service: Value, destination: Destination, *, allow_private: bool) -> None:
    """Our own version says `allowPrivate` itself; without it an address of a denied class is never dialled."""
    kind = special_class(destination)
    opened = kind in REACHABLE_WITH_ALLOW_PRIVATE or kind is AddressClass.METADATA
    if kind is None or (allow_private and opened):
        return
    if kind in REACHABLE_WITH_ALLOW_PRIVATE:
        message = f"is a private address ({kind}) and has no effect until spec.destination.allowPrivate: true"
        shaper.warn(service.node, service.path, message)
    else:
        shaper.warn(service.node, service.path, _no_effect(kind))


def is_plain(service: Service, ports: Sequence[Port]) -> bool:
    """Whether no check has anything to say of `service` with `ports`, in any rule that does not name it twice.

    May be False where nothing would be said, never True where something would be.
    """
    destination = service.destination
    if service.advice:
        return False
    if isinstance(destination, Wildcard):
        return destination.suffix[:1] in (".", "-") and covers_public_suffix(destination.suffix) is None
    if isinstance(destination, AddressRange):
        return special_class(destination) is None and not (
            service.is_cidr and any(FAMILY[port.protocol] is not Family.TCP for port in ports)
        )
    return True


def _no_effect(kind: AddressClass) -> str:
    if kind is AddressClass.METADATA:
        return (
            "is a cloud metadata address and has no effect "
            "(it takes apiVersion: egress.mitmproxy/v1, this very address, and spec.destination.allowPrivate: true)"
        )
    return f"lies in a range that is never dialled ({kind}); the rule has no effect there"


def check_wildcard(shaper: Shaper, service: Value, destination: Destination, *, istio: bool, broad: bool) -> None:
    """Warns about wildcards that match more than they seem to; our own version wants the broad ones confirmed."""
    if not isinstance(destination, Wildcard):
        return
    suffix = destination.suffix
    covered = covers_public_suffix(suffix)
    if covered is None and suffix[:1] in ("", ".", "-"):
        return
    text = shown(service.text)
    if covered is not None and not broad:
        what = "every name" if covered == "everything" else f"the public suffix {covered}, below which anyone may be"
        message = f"{text} covers {what}"
        if istio:
            shaper.warn(service.node, service.path, f"{message} (name the domains that are needed)")
        else:
            shaper.error(
                service.node,
                service.path,
                f"{message} (name the domains that are needed, or write spec.allowBroadWildcard: true)",
            )
    elif covered is None:
        message = f"{text} covers not{suffix} as well (write *.{suffix} for names below {suffix})"
        shaper.warn(service.node, service.path, message)
