"""TCP that must not get through, to a port outside or to one of the gateway's own."""

from __future__ import annotations

from egress_gateway.containment import judge
from egress_gateway.containment.attempt import stream
from egress_gateway.containment.outcome import Status, Told, Verdict
from egress_gateway.containment.spoken import http
from egress_gateway.containment.spoken.reading import Meaning

from .setting import Probe, Setting


def outside(address: str, port: int) -> Probe:
    def probe(setting: Setting) -> Verdict:
        # A rule may lead this port to the gateway too, so say something that it will answer.
        request = http.request(setting.denied_name)
        full = stream.ask(address, port, request, setting.half, complete=http.complete)
        hops = setting.place.hops
        if full.connected:
            near = stream.ask(address, port, request, setting.deadline, hops=hops, complete=http.complete)
            return judge.connected(near, http.read)
        past = stream.ask(address, port, request, setting.deadline, hops=hops + 1, complete=http.complete)
        return judge.not_connected(full, past)

    return probe


def gateway_itself(address: str, port: int) -> Probe:
    """A service on the gateway which is not for clients."""

    def probe(setting: Setting) -> Verdict:
        request = http.request(setting.denied_name)
        heard = stream.ask(address, port, request, setting.deadline, complete=http.complete)
        if not heard.connected:
            return judge.not_connected(heard, heard)
        reading = http.read(heard.data)
        if reading.meaning is Meaning.OTHER:
            return Verdict(Status.OPEN, Told.ANSWERED, "the gateway takes connections from inside here")
        return Verdict(Status.STOPPED, Told.GATEWAY, f"led to the gateway: {reading.words}")

    return probe
