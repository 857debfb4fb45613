"""Kind `neuron`: hosts that speak the neuron protocol.

Owns which read calls a poll is made of, and what is asked only once. Of a poll only the model list
is essential: a neuron that serves models is up, whatever else it withholds, and each of the other
calls has a share of the time, so that none that hangs takes it from the rest. Refuses to know when
polls are due, what is to be loaded and what follows from either.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

import trio

from cortexd.fleet.addresses import reachable_from_here
from cortexd.fleet.load_calls import (
    LoadFailed,
    LoadSpec,
    UnloadFailed,
    load_body,
    load_failure,
    read_capabilities,
    unload_body,
    unload_failure,
)
from cortexd.fleet.neuron import Calls, NoAnswer, PollFailed, few_enough
from cortexd.fleet.reports import (
    Discovery,
    Garbage,
    Health,
    ModelId,
    ModelReport,
    read_discovery,
    read_endpoint,
    read_health,
    read_models,
)
from cortexd.fleet.view import Answered, status_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cortexd.config.schema import Neuron
    from cortexd.fleet.pool import Pool


_HEALTH = "/health"
_DISCOVERY = "/discovery"


class NeuronControl:
    """Kind `neuron`: /models at every poll, /health too, /discovery and endpoints once."""

    def __init__(self, neuron: Neuron, pool: Pool, timeout_seconds: float) -> None:
        """Nothing is asked yet."""
        self._calls = Calls(neuron.endpoint, neuron.api_key, pool)
        self._timeout_seconds = timeout_seconds
        self._addresses = _Addresses(self._calls, neuron.endpoint, timeout_seconds / 4)
        self._discovery: Discovery | None = None
        self._uptime_seconds = 0.0
        self._start = _Start()

    async def poll(self) -> Answered:
        """See `Control`."""
        models: Sequence[ModelReport] | None = None
        health: Health | None = None
        started_after_ms: int | None = None
        undiscovered = None if self._discovery else f"{_DISCOVERY}: no time was left to ask"
        with trio.move_on_after(self._timeout_seconds):
            models = await self._calls.read("/models", _listed)
            health, asked = await self._health()
            if health is not None:
                started_after_ms = self._start.after_ms(asked, health.uptime_secs)
            self._notice_a_restart(health)
            undiscovered = await self._discover()
            await self._addresses.look_up(models)
        if models is None:
            raise PollFailed(f"/models: no answer within {self._timeout_seconds:g} s")
        withheld = self._calls.take_withheld()
        return Answered(
            tuple(models),
            self._addresses.by_model,
            health,
            self._discovery,
            withheld=withheld,
            memory_withheld=_HEALTH in withheld,
            undiscovered=undiscovered,
            started_after_ms=started_after_ms,
        )

    async def _health(self) -> tuple[Health | None, float]:
        """How busy it is, if it says so in half of the time a poll has, or did a while ago; and
        when it was asked for that.
        """
        now = trio.current_time()
        read = partial(_told_at, now)
        told = await self._calls.maybe(_HEALTH, read, within_seconds=self._timeout_seconds / 2)
        return (None, now) if told is None else told

    def _notice_a_restart(self, health: Health | None) -> None:
        """A neuron that has been up for less time than before may have its models elsewhere now."""
        if health is not None:
            if health.uptime_secs < self._uptime_seconds:
                self._forget_what_is_asked_once()
            self._uptime_seconds = health.uptime_secs

    async def _discover(self) -> str | None:
        """Learn what it is made of; returns why that is not known, None where it is."""
        if self._discovery is not None and self._discovery.max_prompt_tokens > 0:
            return None
        why = "no answer in time"
        with trio.move_on_after(self._timeout_seconds / 4):
            try:
                self._discovery = await self._calls.read(_DISCOVERY, read_discovery)
            except PollFailed as failed:
                why = failed.reason.removeprefix(f"{_DISCOVERY} ")
            except Garbage as garbage:
                why = garbage.reason
        return f"{_DISCOVERY}: {why}" if self._discovery is None else None

    def forget(self) -> None:
        """See `Control`."""
        self._forget_what_is_asked_once()
        self._calls.forget()

    def _forget_what_is_asked_once(self) -> None:
        self._addresses.forget()
        self._discovery = None

    def forget_endpoints(self, models: Iterable[ModelId]) -> None:
        """See `Control`."""
        self._addresses.forget(models)

    async def load(self, spec: LoadSpec) -> None:
        """See `Control`."""
        try:
            status, body = await self._calls.ask("POST", "/models/load", load_body(spec))
        except NoAnswer as none:
            raise LoadFailed(f"/models/load: {none.reason}") from none
        failure = load_failure(status, body)
        if failure is not None:
            raise failure

    async def unload(self, model: ModelId) -> None:
        """See `Control`."""
        try:
            status, body = await self._calls.ask("POST", "/models/unload", unload_body(model))
        except NoAnswer as none:
            raise UnloadFailed(f"/models/unload: {none.reason}") from none
        failure = unload_failure(status, body)
        if failure is not None:
            raise failure

    async def capabilities(self, model: ModelId) -> tuple[str, ...] | None:
        """See `Control`."""
        with trio.move_on_after(self._timeout_seconds):
            try:
                path = f"/models/{quote(model, safe='')}/capabilities"
                return read_capabilities(*await self._calls.ask("GET", path))
            except NoAnswer:
                return None
        return None

    async def aclose(self) -> None:
        """See `Control`."""
        await self._calls.aclose()


def _told_at(asked: float, body: bytes) -> tuple[Health, float]:
    """A health, and when it was asked for."""
    return read_health(body), asked


def _listed(body: bytes) -> Sequence[ModelReport]:
    try:
        return few_enough(read_models(body))
    except Garbage as garbage:
        raise PollFailed(f"the model list is no model list: {garbage.reason}") from None


class _Start:
    """When a neuron began at the earliest, by what it says of how long it has been up.

    Only an uptime that falls shows a restart. By one that is told in minutes, or that stands still,
    the neuron would begin anew with every poll, and no load would outlive the next one.
    """

    def __init__(self) -> None:
        """It has told nothing."""
        self._uptime_seconds = math.inf
        self._after_ms = 0

    def after_ms(self, asked: float, uptime_seconds: float) -> int | None:
        """The same with what it said when it was asked; None: that was no uptime.

        Neurons count in whole seconds: a later word can be up to one closer to the truth.
        """
        if not uptime_seconds:
            return None
        after_ms = int((asked - uptime_seconds - 1) * 1000)
        if uptime_seconds < self._uptime_seconds:
            self._after_ms = after_ms
        self._uptime_seconds = uptime_seconds
        return min(after_ms, self._after_ms + 1000)


class _Addresses:
    """Where the models of a neuron are reached: asked once for each load of one.

    A look-up has `seconds`. One that failed comes after all others the next time, so that a model
    whose address hangs keeps no other one waiting.
    """

    def __init__(self, calls: Calls, configured: str, seconds: float) -> None:
        """None is known. `configured`: where the neuron itself is."""
        self._calls = calls
        self._configured = configured
        self._seconds = seconds
        self._known: dict[ModelId, str] = {}
        self._unnamed: set[ModelId] = set()
        self._failed: dict[ModelId, None] = {}

    @property
    def by_model(self) -> dict[ModelId, str]:
        """Base URLs as far as they are known.

        A model that the neuron lists without knowing its address (404) is tried where the neuron
        itself is, and asked for again at the next poll: either the neuron has no such call, or it
        is not quite ready and will send the request on to another.
        """
        return dict.fromkeys(self._unnamed, self._configured) | self._known

    def forget(self, models: Iterable[ModelId] | None = None) -> None:
        """Look the addresses of these up again; None: of all."""
        for model in tuple(self._known) if models is None else models:
            self._known.pop(model, None)

    async def look_up(self, models: Sequence[ModelReport]) -> None:
        """Learn the addresses of models that have just been loaded; forget those that went."""
        resident = {model.id: None for model in models if status_of(model.status).resident}
        self.forget(self._known.keys() - resident.keys())
        self._unnamed.clear()
        self._failed = {model: None for model in self._failed if model in resident}
        done = self._known.keys() | self._failed.keys()
        first = [model for model in resident if model not in done]
        for model in (*first, *self._failed):
            self._failed.pop(model, None)
            self._failed[model] = None  # until it has answered, whatever cuts this short
            with trio.move_on_after(self._seconds):
                if await self._ask(model):
                    del self._failed[model]

    async def _ask(self, model: ModelId) -> bool:
        """Whether there was an answer that helps."""
        try:
            body = await self._calls.get(f"/models/{quote(model, safe='')}/endpoint")
            self._known[model] = reachable_from_here(
                read_endpoint(body), configured=self._configured
            )
        except PollFailed as failed:
            if failed.status == 404:
                self._unnamed.add(model)
            return failed.status == 404
        except (Garbage, ValueError):
            return False
        return True
