"""Carrying out what the fleet's plans order: loads, unloads and packets that wake a host.

Owns the calls and their bounds. Each runs in a task of the daemon's own, so that a load goes on
whoever hangs up. Refuses to know why something was ordered and what follows from it: it reports.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol, assert_never

import trio

from cortexd.fleet.engines.controls import control_of
from cortexd.fleet.load_calls import LoadFailed, UnloadFailed
from cortexd.fleet.neuron import Control
from cortexd.fleet.orders import Failure, Load, Order, Unload, Wake, Why
from cortexd.fleet.view import NeuronName
from cortexd.fleet.wake import WakeFailed, send_magic_packet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cortexd.config.schema import Neuron, Polling
    from cortexd.fleet.pool import Pool
    from cortexd.fleet.reports import ModelId

LOAD_SECONDS = 1_800
"""How long a neuron may take to load a model, a first download included; more if the operator says
so. Source: the neuron protocol's own client.
"""

UNLOAD_SECONDS = 60

log = logging.getLogger("cortexd.fleet")


class Reports(Protocol):
    """Who hears what came of orders, and knows whether they still count."""

    def is_wanted(self, order: Load) -> bool:
        """Whether the load is under way still; one whose neuron fell silent was given up."""

    def load_ended(self, order: Load, failure: Failure | None, *, took_ms: int) -> None:
        """A load was answered."""

    def unload_ended(
        self, neuron: NeuronName, model: ModelId, why: Why, failure: Failure | None
    ) -> None:
        """An unload was answered."""


class Loader:
    """Carries out orders, each in a task of the nursery that it is given."""

    def __init__(
        self,
        neurons: Sequence[Neuron],
        pool: Pool,
        polling: Polling,
        reports: Reports,
        *,
        load_seconds: float = LOAD_SECONDS,
    ) -> None:
        """Talk to these neurons through the pool. A load may take `load_seconds`."""
        self._load_seconds = load_seconds
        self._neurons: Mapping[NeuronName, Neuron] = {
            NeuronName(each.name): each for each in neurons
        }
        self._controls: dict[NeuronName, Control] = {
            name: control_of(each, pool, timeout_seconds=polling.timeout_seconds)
            for name, each in self._neurons.items()
        }
        self._reports = reports

    def control(self, neuron: NeuronName) -> Control:
        """The control client of a neuron; not for polls."""
        return self._controls[neuron]

    async def aclose(self) -> None:
        """Close the clients; they hold no connection, so this does not wait."""
        with trio.move_on_after(1, shield=True):
            for control in self._controls.values():
                await control.aclose()

    async def carry_out(self, order: Order) -> None:
        """Do it and report. Raises nothing that a neuron or a network can bring about."""
        match order:
            case Load():
                await self._load(order)
            case Unload():
                await self._unload(order.neuron, order.model, order.why)
            case Wake():
                await self._wake(order.neuron)
            case _:
                assert_never(order)

    async def _load(self, order: Load) -> None:
        began = trio.current_time()
        failure = None
        for model in order.evict:
            failure = await self._unload(order.neuron, model, Why.MAKES_ROOM)
            if failure is not None:
                failure = Failure(f"no room was made for it: {failure.reason}")
                break
            if not self._reports.is_wanted(order):
                return  # what is left of its evictions may have come into use again
        if failure is None:
            began = trio.current_time()
            failure = await self._ask_to_load(order)
        took_ms = round((trio.current_time() - began) * 1000)
        self._reports.load_ended(order, failure, took_ms=took_ms)

    async def _ask_to_load(self, order: Load) -> Failure | None:
        try:
            with trio.fail_after(self._load_seconds):
                await self._controls[order.neuron].load(order.spec)
        except LoadFailed as failed:
            return Failure(failed.reason, permanent=failed.permanent)
        except trio.TooSlowError:
            return Failure(f"the neuron did not load it within {self._load_seconds:g} s")
        return None

    async def _unload(self, neuron: NeuronName, model: ModelId, why: Why) -> Failure | None:
        failure = None
        try:
            with trio.fail_after(UNLOAD_SECONDS):
                await self._controls[neuron].unload(model)
        except UnloadFailed as failed:
            failure = Failure(failed.reason)
        except trio.TooSlowError:
            failure = Failure(f"the neuron did not unload it within {UNLOAD_SECONDS} s")
        self._reports.unload_ended(neuron, model, why, failure)
        return failure

    async def _wake(self, name: NeuronName) -> None:
        neuron = self._neurons[name]
        assert neuron.mac is not None, "only what has an address can be woken"
        try:
            await send_magic_packet(neuron.mac, neuron.wake_broadcast)
        except WakeFailed as failed:
            log.error(
                'event=wake_failed neuron=%s reason="%s" '
                'do="see whether this host may send to its wake_broadcast, or set another one"',
                name,
                failed.reason,
            )
        else:
            log.info("event=neuron_woken neuron=%s", name)
