"""A lean chain of addons: without those whose options are not set, and cannot be set any more.

On the inspect path each hook of each connection walks the chain, twice where there is a flow. mitmdump's has more than
thirty addons, since a person or a script may set any option at any time. In a worker nobody can: its options are what
they were when the gateway began.
"""

from __future__ import annotations

from mitmproxy.master import Master

IDLE = frozenset(
    {
        "anticache",
        "anticomp",
        "blocklist",
        "browser",
        "clientplayback",
        "commandhistory",
        "comment",
        "cut",
        "export",
        "keepserving",
        "maplocal",
        "mapremote",
        "modifybody",
        "modifyheaders",
        "proxyauth",
        "readfilestdin",
        "save",
        "savehar",
        "scriptloader",
        "serverplayback",
        "stickyauth",
        "stickycookie",
        "upstreamauth",
    }
)
"""Addons of mitmproxy that do nothing where no option that works on flows is set, and no script is loaded."""


def make_lean(master: Master) -> None:
    """For a worker without such options. What was set and checked stays so."""
    idle = [master.addons.get(name) for name in IDLE]
    master.addons.chain = [addon for addon in master.addons.chain if not any(addon is one for one in idle)]
