"""What is to run, from what was asked for; and what is other than asked for is said."""

from __future__ import annotations

import pytest

from egress_gateway.runner.plan import Listener, Plan, make

RELAY, LAYERS, MITMPROXY = Listener.RELAY, Listener.LAYERS, Listener.MITMPROXY
ALONE = "one worker, because "

CASES: dict[str, tuple[Plan, Plan]] = {
    "one worker a core": (make(None, 2, ["regular"], relay=True, needs_flows=[]), Plan(RELAY, 2, ())),
    "as many as asked for": (make(3, 2, ["socks5", "dns"], relay=True, needs_flows=[]), Plan(RELAY, 3, ())),
    "inspect": (make(2, 2, ["transparent"], relay=False, needs_flows=[]), Plan(LAYERS, 2, ())),
    "no ports at all": (make(2, 2, [], relay=True, needs_flows=[]), Plan(RELAY, 2, ())),
    "more than make sense on these cores": (
        make(9, 2, ["regular"], relay=True, needs_flows=[]),
        Plan(RELAY, 8, ("9 workers are more than make sense on 2 cores; there are 8",)),
    ),
    "more than make sense on one core": (
        make(5, 1, ["regular"], relay=True, needs_flows=[]),
        Plan(RELAY, 4, ("5 workers are more than make sense on 1 core; there are 4",)),
    ),
    "more than make sense anywhere": (
        make(1000, 128, ["regular"], relay=True, needs_flows=[]),
        Plan(RELAY, 256, ("1000 workers are more than make sense on 128 cores; there are 256",)),
    ),
    "an option that works on flows": (
        make(2, 2, ["regular"], relay=False, needs_flows=["option hardump"]),
        Plan(MITMPROXY, 1, (f"{ALONE}option hardump works on flows",)),
    ),
    "the same, with one worker anyway": (
        make(1, 2, ["regular"], relay=False, needs_flows=["option hardump"]),
        Plan(MITMPROXY, 1, ()),
    ),
    "modes that are mitmproxy's": (
        make(None, 4, ["wireguard", "regular", "wireguard", "tun"], relay=True, needs_flows=["script x.py"]),
        Plan(
            MITMPROXY,
            1,
            (f"{ALONE}mode wireguard cannot be shared and mode tun cannot be shared and script x.py works on flows",),
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_to_run(case: str) -> None:
    made, expected = CASES[case]
    assert made == expected
