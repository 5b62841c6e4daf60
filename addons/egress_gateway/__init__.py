"""An egress gateway for mitmproxy: it lets out only what egress rules allow.

The rooms, and who may import whom (each arrow points at what is imported):

    policy           ◀── all but containment
    dns              ◀── gate, nameserver, hooks
    gate             ◀── relay, nameserver, hooks, runner
    answer           ◀── relay, hooks
    config           ◀── cli, hooks, network
    relay            ◀── nameserver (its streams), hooks
    nameserver       ◀── hooks, runner (its sockets)
    hooks, observe   ◀── runner, compose.py

`policy` decides and imports nobody; mitmproxy is known to `hooks`, `runner` and `relay/layer.py`. `network`, the packet
filter around the gateway, is a program of its own. `containment`, the check that runs on a client's machine, stands
alone. `compiled.py` knows which modules are machine code, and no room.
"""

__version__ = "0.1.0"
