"""Kind `neuron`: hosts that speak the neuron protocol.

Owns which read calls a poll is made of, and what is asked only once. Of a poll only the model list
is essential: a neuron that serves models is up, whatever else it withholds. Refuses to know when
polls are due, what is to be loaded and what follows from either.
"""

from __future__ import annotations

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
from cortexd.fleet.neuron import Calls, NoAnswer, PollFailed
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
from cortexd.fleet.view import HEALTH, Answered, status_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cortexd.config.schema import Neuron
    from cortexd.fleet.pool import Pool


class NeuronControl:
    """Kind `neuron`: /models at every poll, /health too, /discovery and endpoints once."""

    def __init__(self, neuron: Neuron, pool: Pool, timeout_seconds: float) -> None:
        """Nothing is asked yet."""
        self._configured = neuron.endpoint
        self._calls = Calls(neuron.endpoint, neuron.api_key, pool)
        self._timeout_seconds = timeout_seconds
        self._endpoints: dict[ModelId, str] = {}
        self._discovery: Discovery | None = None
        self._uptime_seconds = 0.0

    async def poll(self) -> Answered:
        """See `Control`."""
        models: Sequence[ModelReport] | None = None
        health: Health | None = None
        unnamed: Sequence[ModelId] = ()
        with trio.move_on_after(self._timeout_seconds):
            models = await self._calls.read("/models", _listed)
            health = await self._health()
            self._notice_a_restart(health)
            unnamed = await self._look_up(models)
            await self._discover()
        if models is None:
            raise PollFailed(f"/models: no answer within {self._timeout_seconds:g} s")
        endpoints = dict.fromkeys(unnamed, self._configured) | self._endpoints
        withheld = self._calls.take_withheld()
        return Answered(tuple(models), endpoints, health, self._discovery, withheld=withheld)

    async def _health(self) -> Health | None:
        """How busy it is, if it says so in half of the time a poll has, or did a while ago."""
        seconds = self._timeout_seconds / 2
        return await self._calls.maybe(HEALTH, read_health, within_seconds=seconds)

    def _notice_a_restart(self, health: Health | None) -> None:
        """A neuron that has been up for less time than before may have its models elsewhere now."""
        if health is not None:
            if health.uptime_secs < self._uptime_seconds:
                self._forget_what_is_asked_once()
            self._uptime_seconds = health.uptime_secs

    async def _look_up(self, models: Sequence[ModelReport]) -> Sequence[ModelId]:
        """Learn the addresses of models that have just been loaded; forget those that went.

        Returns the models that it lists without knowing an address for them (404). They are tried
        where the neuron itself is, and asked for again at the next poll: either the neuron has no
        such call, or it is not quite ready and will send the request on to another.
        """
        unnamed: list[ModelId] = []
        resident = [model.id for model in models if status_of(model.status).resident]
        for gone in self._endpoints.keys() - set(resident):
            del self._endpoints[gone]
        for model in resident:
            if model in self._endpoints:
                continue
            try:
                body = await self._calls.get(f"/models/{quote(model, safe='')}/endpoint")
                url = reachable_from_here(read_endpoint(body), configured=self._configured)
            except PollFailed as failed:
                if failed.status == 404:
                    unnamed.append(model)
            except (Garbage, ValueError):
                continue
            else:
                self._endpoints[model] = url
        return unnamed

    async def _discover(self) -> None:
        if self._discovery is None or self._discovery.max_prompt_tokens == 0:
            try:
                self._discovery = read_discovery(await self._calls.get("/discovery"))
            except (PollFailed, Garbage):
                return

    def forget(self) -> None:
        """See `Control`."""
        self._forget_what_is_asked_once()
        self._calls.forget()

    def _forget_what_is_asked_once(self) -> None:
        self._endpoints.clear()
        self._discovery = None

    def forget_endpoints(self, models: Iterable[ModelId]) -> None:
        """See `Control`."""
        for model in models:
            self._endpoints.pop(model, None)

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


def _listed(body: bytes) -> Sequence[ModelReport]:
    try:
        return read_models(body)
    except Garbage as garbage:
        raise PollFailed(f"the model list is no model list: {garbage.reason}") from None
