"""An egress gateway for mitmproxy: it lets out only what egress rules allow.

The rooms, and who may import whom (each arrow points at what is imported):

    policy  ◀── config, dns, relay, observe, cli, hooks
    config  ◀── cli, hooks
    relay   ◀── hooks

`policy` decides and imports nobody; `hooks` is where mitmproxy meets everything else.
"""

__version__ = "0.1.0"
