"""The proxy modes of mitmproxy that the gateway serves."""

from __future__ import annotations

from egress_gateway.relay.serve import MODES as RELAYED

DNS = "dns"
"""The gateway as its clients' name server."""

MODES = RELAYED | {DNS}
