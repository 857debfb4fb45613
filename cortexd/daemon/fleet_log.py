"""What the fleet does, in the log and in the metrics: one observer for both.

Owns the words, and how often a request that cannot be served is worth a line of its own. An ERROR
says what to do. Names of models are the operator's, the neurons' or a client's: all are quoted.
"""

import logging
import time
from collections.abc import Callable
from typing import Final

from cortexd.daemon.logs import quoted
from cortexd.fleet.breaker import State
from cortexd.fleet.lines import Clock
from cortexd.fleet.orders import Failure, Why
from cortexd.fleet.reports import ModelId
from cortexd.fleet.serving import Cause
from cortexd.fleet.view import NeuronName
from cortexd.metrics.fleet import FleetInstruments

TOLD_AGAIN_SECONDS: Final = 60
"""The same trouble with the same model is one line in so many seconds, however many requests."""

_TOLD_MAX = 1_000

_ADVICE: Final[dict[Cause, str]] = {
    Cause.NOWHERE: "compare the model's min_devices, min_device_vram_mb, vram_mb, harness and "
    "pinned_on in the catalogue with the neurons, as `cortexd models` shows them",
    Cause.NO_ROOM: "raise its residency_priority, lower that of others, or see who else uses the "
    "memory; `cortexd models` shows what is where",
    Cause.UNSERVABLE: "look at the neuron's own log: it has loaded the model and cannot serve it",
    Cause.QUEUE_FULL: "add neurons, or raise waiting.requests_max",
}
"""What an operator can do; the other causes pass by themselves or are told elsewhere."""

log = logging.getLogger("cortexd.fleet")


class FleetLog:
    """An observer that logs and counts."""

    def __init__(
        self, instruments: FleetInstruments, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Count with these instruments; `clock` gives seconds."""
        self._instruments = instruments
        self._clock = clock
        self._told: dict[tuple[ModelId, Cause], float] = {}

    def load_began(
        self, model: ModelId, neuron: NeuronName, evict: tuple[ModelId, ...], expected_ms: int
    ) -> None:
        """See `FleetObserver`."""
        self._instruments.load_began(model, neuron, evict, expected_ms)
        log.info(
            "event=load_began model=%s neuron=%s evicts=%s expected_seconds=%d",
            quoted(model),
            neuron,
            quoted(", ".join(evict) or "none"),
            round(expected_ms / 1000),
        )

    def load_ended(self, model: ModelId, neuron: NeuronName, took_ms: int) -> None:
        """See `FleetObserver`."""
        self._instruments.load_ended(model, neuron, took_ms)
        log.info(
            "event=load_ended model=%s neuron=%s took_seconds=%.1f",
            quoted(model),
            neuron,
            took_ms / 1000,
        )

    def load_failed(
        self, model: ModelId, neuron: NeuronName, failure: Failure, retry_in_ms: int
    ) -> None:
        """See `FleetObserver`."""
        self._instruments.load_failed(model, neuron, failure, retry_in_ms)
        log.error(
            "event=load_failed model=%s neuron=%s retry_in_seconds=%d permanent=%s reason=%s "
            'do="mend what the reason says, on the neuron or in the catalogue; then '
            '`cortexd load` tries again when the pause is over"',
            quoted(model),
            neuron,
            round(retry_in_ms / 1000),
            str(failure.permanent).lower(),
            quoted(failure.reason, characters_max=400),
        )

    def unloaded(self, model: ModelId, neuron: NeuronName, why: Why, cycles: int) -> None:
        """See `FleetObserver`."""
        self._instruments.unloaded(model, neuron, why, cycles)
        log.info(
            "event=unloaded model=%s neuron=%s why=%s cycles=%d",
            quoted(model),
            neuron,
            why.value,
            cycles,
        )

    def unload_failed(self, model: ModelId, neuron: NeuronName, why: Why, failure: Failure) -> None:
        """See `FleetObserver`."""
        self._instruments.unload_failed(model, neuron, why, failure)
        log.error(
            "event=unload_failed model=%s neuron=%s why=%s reason=%s "
            'do="look at the neuron\'s own log; it may need a restart"',
            quoted(model),
            neuron,
            why.value,
            quoted(failure.reason, characters_max=400),
        )

    def restarted(self, neuron: NeuronName) -> None:
        """See `FleetObserver`."""
        self._instruments.restarted(neuron)
        log.info("event=neuron_restarted neuron=%s", neuron)

    def restart_advised(self, neuron: NeuronName, cycles: int) -> None:
        """See `FleetObserver`."""
        self._instruments.restart_advised(neuron, cycles)
        log.warning(
            "event=restart_advised neuron=%s cycles=%d "
            'do="restart the neuron when it suits: its memory may be in pieces by now"',
            neuron,
            cycles,
        )

    def breaker_changed(self, neuron: NeuronName, state: State) -> None:
        """See `FleetObserver`."""
        self._instruments.breaker_changed(neuron, state)
        if state is State.CLOSED:
            log.info("event=breaker_closed neuron=%s", neuron)
        else:
            log.error(
                "event=breaker_opened neuron=%s "
                'do="the neuron answers polls and breaks requests: look at its own log"',
                neuron,
            )

    def waited(self, model: ModelId, clock: Clock, waited_ms: int) -> None:
        """See `FleetObserver`."""
        self._instruments.waited(model, clock, waited_ms)

    def unserved(self, model: ModelId, cause: Cause, why: str) -> None:
        """See `FleetObserver`."""
        self._instruments.unserved(model, cause, why)
        advice = _ADVICE.get(cause)
        if advice is None or not self._is_worth_a_line(model, cause):
            return
        log.error(
            'event=model_unserved model=%s cause=%s reason=%s do="%s"',
            quoted(model),
            cause.value,
            quoted(why),
            advice,
        )

    def _is_worth_a_line(self, model: ModelId, cause: Cause) -> bool:
        now = self._clock()
        told = self._told.get((model, cause))
        if told is not None and now < told + TOLD_AGAIN_SECONDS:
            return False
        if len(self._told) >= _TOLD_MAX:
            self._told.clear()
        self._told[(model, cause)] = now
        return True
