"""The one nursery: who lives how long. Read `run_daemon` from top to bottom: that is the start
order.

Shutdown is the same road backwards: the gateway drains, its desk closes the ledger's inbox, pollers
and companions are cancelled, and the ledger, which ends only when nobody can call it any more,
syncs last. A crash walks the same road, because the order comes from who holds what.
"""

import contextlib
import logging
import os
import signal
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import msgspec
import trio

from cortexd import __version__
from cortexd.config.schema import Catalogue, Config
from cortexd.daemon import logs
from cortexd.daemon.admin_listener import serve_admin
from cortexd.daemon.catalogue_watch import CatalogueWatch
from cortexd.daemon.descriptors import raise_descriptor_limit
from cortexd.daemon.faces import serve_core
from cortexd.daemon.fleet_log import FleetLog
from cortexd.daemon.garbage import collect_seldom
from cortexd.daemon.http_server import Closing, Listener, ServerLimits, leaves
from cortexd.daemon.metrics_listener import MetricsCore
from cortexd.daemon.request_log import request_line
from cortexd.daemon.sockets import (
    ListenProblem,
    describe,
    open_listener,
    removed_at_end,
    taken_from_systemd,
    watch_peers,
)
from cortexd.daemon.systemd import Notifier
from cortexd.daemon.tls import TlsProblem, neuron_pool, server_tls
from cortexd.deadlines import Deadlines
from cortexd.finished import Finished
from cortexd.fleet.board import Board
from cortexd.fleet.operator import FleetOperations
from cortexd.fleet.poller import run_poller
from cortexd.fleet.pool import Pool
from cortexd.fleet.traffic import Traffic
from cortexd.gateway.auth import Keyring, caps_of
from cortexd.gateway.bodies import BodyLimits
from cortexd.gateway.pipeline import Gateway
from cortexd.gateway.relay import Clocks
from cortexd.gateway.settings import Settings
from cortexd.ledger.desk import Desk
from cortexd.ledger.inbox import Inbox
from cortexd.ledger.journal import Journal, JournalFailed, LedgerProblem
from cortexd.ledger.task import run_ledger
from cortexd.metrics.instruments import Metrics

log = logging.getLogger("cortexd.daemon")

Companion = Callable[..., Awaitable[None]]
"""`async def companion(*, task_status)`: runs beside the daemon and is cancelled with its
pollers.
"""


class DaemonSettings(msgspec.Struct, frozen=True):
    """Everything a daemon is started with. `announce` is given the `listening ...` lines."""

    config: Config
    catalogue: Catalogue
    announce: Callable[[Sequence[str]], None]
    companions: Sequence[Companion] = ()


def serve_forever(settings: DaemonSettings) -> int:
    """Run the daemon until it is told to stop; the exit code.

    0: fine; 1: failed, and may work the next time; 2: would fail again until somebody mends it.
    """
    output = logs.set_up(os.environ)
    raise_descriptor_limit(settings.config.gateway.connections_max)
    exit_code = 0
    try:
        trio.run(run_daemon, settings, output)
    except* (LedgerProblem, ListenProblem, TlsProblem, JournalFailed) as faults:
        exit_code = 1
        for fault in leaves(faults):
            log.error("event=cannot_run %s", fault)
            if isinstance(fault, LedgerProblem) and fault.is_lasting:
                exit_code = 2
    except* Exception:
        exit_code = 1
        log.exception("event=bug")
    return exit_code


async def run_daemon(settings: DaemonSettings, output: logs.Output) -> None:
    """Start everything in order, announce it, and run until SIGTERM or SIGINT has drained it.

    Raises LedgerProblem, ListenProblem or TlsProblem (in a group) when it cannot start, and
    JournalFailed when the disk failed under it.
    """
    config, metrics, notifier = settings.config, Metrics(time.time), Notifier(os.environ)
    closing = Closing(config.gateway.grace_seconds)
    failures: list[JournalFailed] = []
    tls = server_tls(config)
    async with contextlib.AsyncExitStack() as ends, trio.open_nursery() as nursery:
        sockets = _listening_sockets(config, ends)
        nursery.start_soon(output.run, name="log")
        nursery.start_soon(_obey_signals, closing, notifier, name="signals")
        deadlines = Deadlines()
        await nursery.start(deadlines.run, name="deadlines")
        desk = await _start_ledger(nursery, config, metrics, closing, failures)
        # The ledger ends once nobody can call it any more, so the desk is what keeps it alive.
        async with (
            contextlib.aclosing(desk),
            contextlib.aclosing(neuron_pool(config, deadlines)) as pool,
        ):
            for companion in settings.companions:
                await nursery.start(companion, name="companion")
            traffic = await _start_fleet(nursery, settings, pool, metrics)
            watch = CatalogueWatch(config, settings.catalogue, traffic.adopt)
            await nursery.start(watch.run, name="catalogue watch")
            nursery.start_soon(_reload_on_signal, watch, name="reload signal")
            await _start_metrics(
                nursery, config, sockets["metrics"], metrics, traffic, desk, deadlines
            )
            await _start_admin(nursery, config, traffic, metrics, deadlines)
            gateway = Gateway(
                Keyring(config.entitlements),
                traffic,
                desk,
                _request_settings(config),
                pool=pool,
                tell=partial(_tell, metrics, output),
            )
            await _start_streams(nursery, config, pool, gateway)
            ended = trio.Event()
            await nursery.start(
                partial(
                    _serve_gateway,
                    gateway,
                    config,
                    _listener(sockets["gateway"], tls),
                    closing,
                    metrics.connection_contained,
                    deadlines,
                    ended,
                ),
                name="gateway",
            )
            settings.announce(_lines(sockets, config))
            notifier.tell("READY=1", f"STATUS=serving {len(config.neurons)} neurons")
            nursery.start_soon(notifier.keep_alive, name="watchdog")
            collect_seldom()
            log.info("event=ready version=%s neurons=%d", __version__, len(config.neurons))
            await ended.wait()
        nursery.cancel_scope.cancel(reason="drained")
    if failures:
        raise failures[0]
    log.info("event=stopped")


async def _start_ledger(
    nursery: trio.Nursery,
    config: Config,
    metrics: Metrics,
    closing: Closing,
    failures: list[JournalFailed],
) -> Desk:
    """Replay the journal, then take calls. A failed disk drains the gateway instead of cutting
    it.
    """
    ledger = config.ledger
    journal = Journal.open(
        ledger.directory or "cortexd-ledger",
        caps_of(config.entitlements),
        grace_seconds=ledger.grace_seconds,
        on_reboot=ledger.on_reboot,
        retention_days=ledger.retention_days,
        retention_bytes=ledger.retention_bytes,
    )
    inbox = Inbox()

    async def keep(*, task_status: trio.TaskStatus[None]) -> None:
        with contextlib.closing(journal):
            try:
                await run_ledger(journal, inbox, metrics.ledger, task_status=task_status)
            except JournalFailed as failure:
                failures.append(failure)
                closing.drain.set()

    await nursery.start(keep, name="ledger")
    return Desk(
        inbox,
        journal.accounts.template_tokens,
        lambda: journal.condition,
        journal.clock.skew_ms,
    )


async def _start_fleet(
    nursery: trio.Nursery, settings: DaemonSettings, pool: Pool, metrics: Metrics
) -> Traffic:
    """Poll every neuron once before anything is served, so that the first request finds a fleet."""
    config = settings.config
    board = Board(config.neurons)
    traffic = Traffic(
        config,
        settings.catalogue,
        board,
        FleetLog(metrics.fleet),
        started_unix_seconds=int(time.time()),
    )
    await nursery.start(traffic.run, pool, name="loads")
    async with trio.open_nursery() as first_polls:
        for neuron in config.neurons:
            first_polls.start_soon(
                partial(
                    nursery.start,
                    partial(run_poller, neuron, board, pool, config.polling),
                    name=f"poll {neuron.name}",
                ),
                name=f"first poll of {neuron.name}",
            )
    return traffic


async def _start_streams(
    nursery: trio.Nursery, config: Config, pool: Pool, gateway: Gateway
) -> None:
    """What all streams have one of: who passes them on, and who keeps them alive."""
    if config.gateway.stream_pump:
        await nursery.start(pool.pump.run, name="pump")
    await nursery.start(gateway.heartbeats.run, name="heartbeats")


async def _start_admin(
    nursery: trio.Nursery,
    config: Config,
    traffic: Traffic,
    metrics: Metrics,
    deadlines: Deadlines,
) -> None:
    path = config.gateway.admin_socket
    if path is not None:
        await nursery.start(
            partial(
                serve_admin,
                FleetOperations(traffic),
                path,
                deadlines,
                contained=metrics.connection_contained,
            ),
            name="admin socket",
        )


async def _start_metrics(
    nursery: trio.Nursery,
    config: Config,
    listener: socket.socket,
    metrics: Metrics,
    traffic: Traffic,
    desk: Desk,
    deadlines: Deadlines,
) -> None:
    capped = tuple(cap.scope for cap in caps_of(config.entitlements))
    core = MetricsCore(metrics, traffic, desk, capped=capped)
    await nursery.start(
        partial(
            serve_core,
            core,
            _listener(listener, None),
            _server_limits(config),
            _body_limits(config),
            closing=Closing(0),
            deadlines=deadlines,
            contained=metrics.connection_contained,
            hears_hang_ups=False,
        ),
        name="metrics listener",
    )


async def _serve_gateway(
    gateway: Gateway,
    config: Config,
    listener: Listener,
    closing: Closing,
    contained: Callable[[], None],
    deadlines: Deadlines,
    ended: trio.Event,
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    """Serve until drained, then say so."""
    await serve_core(
        gateway,
        listener,
        _server_limits(config),
        _body_limits(config),
        closing=closing,
        deadlines=deadlines,
        contained=contained,
        task_status=task_status,
    )
    ended.set()


async def _obey_signals(closing: Closing, notifier: Notifier) -> None:
    """The first SIGTERM or SIGINT drains; a second one skips the grace, never the ledger."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            name = signal.Signals(number).name
            if not closing.drain.is_set():
                log.info("event=stopping signal=%s grace_seconds=%s", name, closing.grace_seconds)
                notifier.tell("STOPPING=1", "STATUS=draining")
                closing.drain.set()
            else:
                log.warning("event=hurrying signal=%s", name)
                closing.hurry.set()


async def _reload_on_signal(watch: CatalogueWatch) -> None:
    """SIGHUP has the catalogue read again."""
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        async for _ in signals:
            watch.reload()


def _tell(metrics: Metrics, output: logs.Output, finished: Finished) -> None:
    metrics.request(finished)
    request_line(finished, output)


def _listening_sockets(
    config: Config, ends: contextlib.AsyncExitStack
) -> Mapping[str, socket.socket]:
    """The sockets of both listeners: systemd's, else our own, whose files go with `ends`."""
    taken = taken_from_systemd(os.environ)
    addresses = {"gateway": config.gateway.listen, "metrics": config.gateway.metrics_listen}
    opened = dict(taken)
    for role, address in addresses.items():
        stall = config.gateway.send_stall_seconds
        if role in taken:
            watch_peers(taken[role], unacknowledged_seconds=stall)
        else:
            opened[role] = open_listener(address, unacknowledged_seconds=stall)
            ends.enter_context(removed_at_end(opened[role]))
    return opened


def _listener(opened: socket.socket, tls: ssl.SSLContext | None) -> Listener:
    opened.setblocking(False)
    plain = trio.SocketListener(trio.socket.from_stdlib_socket(opened))
    return plain if tls is None else trio.SSLListener(plain, tls, https_compatible=True)


def _server_limits(config: Config) -> ServerLimits:
    gateway = config.gateway
    return ServerLimits(
        connections_max=gateway.connections_max,
        head_bytes_max=gateway.head_bytes_max,
        head_seconds=gateway.head_seconds,
        idle_seconds=gateway.idle_seconds,
        send_stall_seconds=gateway.send_stall_seconds,
    )


def _body_limits(config: Config) -> BodyLimits:
    gateway = config.gateway
    return BodyLimits(gateway.body_bytes_max, gateway.bodies_bytes_max, gateway.body_seconds)


def _request_settings(config: Config) -> Settings:
    gateway = config.gateway
    return Settings(
        Clocks(
            gateway.first_byte_seconds,
            gateway.between_bytes_seconds,
            config.waiting.heartbeat_seconds,
        ),
        frozenset(gateway.forward_fields),
        exact_counts=gateway.exact_counts,
        serve_uncapped=config.ledger.when_unavailable == "serve_uncapped",
        cors_origins=frozenset(origin.lower() for origin in gateway.cors_origins),
    )


def _lines(sockets: Mapping[str, socket.socket], config: Config) -> Sequence[str]:
    """One line per listener, as the product contract has them."""
    gateway = describe(sockets["gateway"], tls=config.gateway.tls is not None)
    metrics = describe(sockets["metrics"], tls=False)
    return (f"listening gateway {gateway}", f"listening metrics {metrics}")
