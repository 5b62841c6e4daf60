"""What a request asks for, but for its path: read once for all requests of a connection that differ in nothing else.

Whoever keeps a connection open mostly asks the same host in the same words for one path after another. What was found
out about the words holds for the next request as well; that they are the same words is looked at each time, byte by
byte. What the rules say of it is remembered with the rules that said it, and asked again when others are in force.
"""

from __future__ import annotations

from egress_gateway.policy.hostname import format_authority
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request
from egress_gateway.policy.verdict import Treatment, Verdict

from .http1 import Framing, Malformed, RequestHead, request_framing
from .target import NotUnderstood, Target, read_target
from .upstream import PoolKey
from .websocket import asks_for_websocket


class Question:
    """Made by `read_question`. Nothing in it changes but what the rules say, see `answered`."""

    __slots__ = (
        "_method", "_minor", "_prefix", "_section", "authority", "framing", "keep_alive", "key", "path", "protocol",
        "request", "rules", "upgrades", "upstream_host", "verdict", "wants_tls", "websocket",
    )  # fmt: skip

    def __init__(self, head: RequestHead, request: Request, path: str, wants_tls: bool, framing: Framing) -> None:
        self._method, self._minor, self._section = head.method, head.minor, head.section
        # What stands before a path that is taken as it came; None where it was made.
        self._prefix = head.target[: -len(path)] if path[0] == "/" and head.target.endswith(path) else None
        self.request = request
        self.path = path
        """Of the request that was read, in origin-form."""
        self.wants_tls = wants_tls
        self.framing = framing
        self.websocket = not framing.has_body and asks_for_websocket(head)
        self.upgrades = bool(head.values(b"upgrade"))
        """Whether it asks for another protocol, whichever."""
        self.keep_alive = _wants_keep_alive(head)
        self.protocol = f"HTTP/1.{head.minor}"
        self.authority = format_authority(request.host, request.port)
        self.verdict: Verdict | None = None
        self.rules: object = None
        """The token of the rule set by which the verdict was given."""
        self.key: PoolKey = (request.host, 0, Treatment.REFUSE)
        self.upstream_host = ""
        """The Host header for the destination."""

    def path_in(self, head: RequestHead) -> str | None:
        """The path of `head`, if that asks the same but for it."""
        prefix, target = self._prefix, head.target
        if (
            prefix is None
            or head.section is not self._section
            or head.method != self._method
            or head.minor != self._minor
            or not target.startswith(prefix)
        ):
            return None
        path = target[len(prefix) :]
        # Anything but a slash would still be part of the authority, or have to be changed; a fragment is refused.
        return path if path[:1] == "/" and "#" not in path else None

    def answered(self, verdict: Verdict, rules: object) -> None:
        """The rule set with the token `rules` gave `verdict`, which allows it."""
        self.verdict, self.rules = verdict, rules
        self.key = (self.request.host, verdict.port, verdict.treatment)
        default_port = 443 if verdict.treatment is Treatment.ORIGINATE else 80
        self.upstream_host = format_authority(self.request.host, verdict.port, default_port)


def read_question(head: RequestHead, target: Target) -> Question | NotUnderstood:
    asked = read_target(head, target)
    try:
        framing = request_framing(head)
    except Malformed as error:
        return NotUnderstood(Reason.MALFORMED_REQUEST, str(error))
    if isinstance(asked, NotUnderstood):
        return asked
    return Question(head, asked.request, asked.path, asked.wants_tls, framing)


def _wants_keep_alive(head: RequestHead) -> bool:
    if head.minor == 0:
        # RFC 9112, 9.3: an HTTP/1.0 client behind a proxy cannot be trusted to mean keep-alive.
        return False
    return not head.section.closes and b"close" not in head.tokens(b"proxy-connection")
