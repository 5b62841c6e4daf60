"""Puts the runner together: what was asked for is read and checked once, then others do the work."""

from __future__ import annotations

import gc
import logging
import signal
import sys
from collections.abc import Sequence
from functools import partial

from mitmproxy.proxy.mode_specs import ProxyMode

from egress_gateway import compiled
from egress_gateway.gate.name_journal import make_memory
from egress_gateway.gate.quotas import Quotas, SharedQuotas
from egress_gateway.hooks.data_path import flow_options_in_use, works_on_flows
from egress_gateway.hooks.gateway import EgressGateway
from egress_gateway.hooks.options import other_scripts
from egress_gateway.observe.arena import Arena
from egress_gateway.observe.merged import Merged
from egress_gateway.observe.observation import Observation

from . import loops, named, places, plan, telemetry, worker
from .board import Board
from .checked import Checked
from .command_line import CannotStart, Setup, prepare
from .plan import Listener, Plan
from .supervisor import Supervisor

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Runs the gateway until it is told to end; returns an exit status."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # several processes write to it
    named.be_called(named.SUPERVISOR)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the rules are about to be read anyway
    try:
        setup = prepare(arguments, lambda: EgressGateway(Checked))
        return _supervise(setup)
    except (CannotStart, places.Taken) as error:
        for line in error.args:
            print(f"gateway: {line}", file=sys.stderr)
        if not error.args:
            print("Errors logged during startup, exiting...", file=sys.stderr)
        return 1


def _supervise(setup: Setup) -> int:
    options, gateway = setup.options, setup.gateway
    modes = [ProxyMode.parse(text) for text in options.mode] if options.server else []
    path = gateway.path
    if path is None:
        raise RuntimeError("the gateway has not begun")
    intended = plan.make(
        setup.workers,
        plan.cores(),
        [mode.type_name for mode in modes],
        relay=path.relay,
        needs_flows=works_on_flows(flow_options_in_use(options), other_scripts(options)),
    )
    loop = loops.choose(intended.listener is Listener.RELAY)
    for remark in (*intended.remarks, *([loop.because] if loop.because else [])):
        logger.info("egress gateway: %s.", remark)
    held = _hold(modes, setup, intended)
    board = Board(intended.workers)
    arenas = [Arena.create() for _ in range(intended.workers)]
    own_arena = Arena.create()
    quotas = SharedQuotas(intended.workers) if intended.workers > 1 else None
    names = make_memory() if intended.workers > 1 and not options.egress_names_file else None

    def work(number: int, restarted: bool) -> int:
        named.be_called(named.WORKER)
        ports = {place.address[1] for place in held} | {board.telemetry_port}
        return worker.work(
            worker.Post(
                number=number,
                restarted=restarted,
                master=setup.master,
                gateway=gateway,
                listener=intended.listener,
                loop=loop,
                places=held,
                ports=frozenset(ports - {0}),
                names=names,
                quotas=quotas.join(number) if quotas is not None else Quotas.own(),
                make_observation=partial(Observation, arena=arenas[number], serve=False),
                board=board,
                drain_timeout=setup.drain_timeout,
                backlog=options.egress_listen_backlog,
                most_connections=options.egress_max_connections,
                tell=supervisor.tell,
            )
        )

    def serve_telemetry() -> int:
        named.be_called(named.TELEMETRY)
        for place in held:
            place.held.close()
        exposition = Merged([*arenas, own_arena]).exposition
        return telemetry.serve(options.egress_metrics_listen, exposition, board, supervisor.tell)

    def on_ready() -> None:
        logger.info(
            "egress gateway: %d worker%s on %s, %s.",
            intended.workers,
            "" if intended.workers == 1 else "s",
            loop.name,
            compiled.said(),
        )
        # Not before: who reads this may connect at once.
        for mode in modes if held else ():
            logger.info("%s", places.describe(held, mode))
        logger.info("egress gateway: ready.")

    supervisor = Supervisor(
        board=board,
        arenas=arenas,
        own_arena=own_arena,
        forget=quotas.clear if quotas is not None else lambda _: None,
        work=work,
        serve_telemetry=serve_telemetry if options.egress_metrics_listen else None,
        drain_timeout=setup.drain_timeout,
        on_ready=on_ready,
    )
    # Nothing of what is there by now will ever be garbage; looking at it would copy its pages in every worker.
    gc.collect()
    gc.freeze()
    return supervisor.run()


def _hold(modes: Sequence[ProxyMode], setup: Setup, intended: Plan) -> list[places.Place]:
    """Raises Taken, with all ports that cannot be had."""
    options = setup.options
    try:
        held = places.hold_all(
            [mode for mode in modes if mode.type_name in plan.OURS], options.listen_host, options.listen_port
        )
    except places.Taken as taken:
        # The metrics have a port as well, which would otherwise be the next thing that is wrong.
        metrics = telemetry.told_if_it_cannot_listen(options.egress_metrics_listen)
        raise places.Taken(*taken.args, *metrics) from None
    if intended.listener is Listener.MITMPROXY:
        places.release(held)  # it takes them itself
        return []
    return held
