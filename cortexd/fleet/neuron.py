"""The control client of one neuron: `poll` asks all that has to be asked now, `load` and `unload`
have it do something.

Owns which read calls a poll is made of, what is asked only once, and the limits on replies. Of a
poll only the model list is essential: a neuron that serves models is up, whatever else it
withholds. Refuses to know when polls are due, what is to be loaded and what follows from either.
httpx comes in here and nowhere else but in the pool's transport.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

import httpx
import trio

from cortexd.fleet.addresses import reachable_from_here, without_version_path
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
from cortexd.fleet.pool import Pool, PoolTransport
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
    read_openai_models,
)
from cortexd.fleet.view import Answered, status_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cortexd.config.schema import Neuron, Secret

REPLY_BYTES_MAX = 4 * 1024 * 1024
"""The largest reply to a control call that is read; a larger one is a failed call."""


class PollFailed(Exception):
    """The neuron did not say what it has; `reason` in a few words, none of them the neuron's.

    `status`: of its answer, where it gave one that is not 200.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class Control(Protocol):
    """The control client of a neuron of any kind.

    `poll`, and what it remembers from one time to the next, is its poller's alone. `load`, `unload`
    and `capabilities` remember nothing: anybody may call them, also at the same time. Each has a
    connection of its own, so that none waits behind another.
    """

    async def poll(self) -> Answered:
        """Ask now; raises PollFailed. Takes no longer than its timeout. Checkpoints."""

    def forget(self) -> None:
        """The neuron has been down: ask anew for all that is asked once."""

    def forget_endpoints(self, models: Iterable[ModelId]) -> None:
        """Look the addresses of these models up again at the next poll."""

    async def load(self, spec: LoadSpec) -> None:
        """Have a model loaded; returns once it is resident, also if it was before.

        Raises LoadFailed. Waits for as long as the neuron takes, and may hear nothing meanwhile: to
        bound that is up to the caller. Checkpoints. A cancel closes the connection and no more: the
        neuron goes on with its load, and asking again joins the load that is under way.
        """

    async def unload(self, model: ModelId) -> None:
        """Have a model unloaded; returns once it is gone, also if it was before.

        Raises UnloadFailed. The caller bounds the time. Checkpoints; after a cancel the model may
        be gone or not.
        """

    async def capabilities(self, model: ModelId) -> tuple[str, ...] | None:
        """What a model can do (text, vision, image ...), also one that is not loaded.

        None: this neuron cannot tell now. Takes no longer than a poll. Checkpoints.
        """

    async def aclose(self) -> None:
        """Done; the pool stays open."""


def control_of(neuron: Neuron, pool: Pool, *, timeout_seconds: float) -> Control:
    """The client for a configured neuron. `timeout_seconds` bounds a whole poll."""
    if neuron.kind == "openai":
        return OpenAiControl(neuron, pool, timeout_seconds)
    return NeuronControl(neuron, pool, timeout_seconds)


class _NoAnswer(Exception):
    """A call got no whole answer; `reason` in a few words, none of them the neuron's."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Calls:
    """Requests to one server, with a limit on what is read and none on how long it takes."""

    def __init__(self, endpoint: str, api_key: Secret | None, pool: Pool) -> None:
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        if api_key is not None:
            headers["authorization"] = f"Bearer {api_key.reveal()}"
        self._base_url = endpoint.rstrip("/")
        self._client = httpx.AsyncClient(
            transport=PoolTransport(pool, reply_bytes_max=REPLY_BYTES_MAX),
            headers=headers,
            trust_env=False,
            timeout=None,
        )

    async def get(self, path: str) -> bytes:
        """The body of a 200; anything else raises PollFailed."""
        try:
            status, body = await self.ask("GET", path)
        except _NoAnswer as none:
            raise PollFailed(f"{_shown(path)}: {none.reason}") from none
        if status != 200:
            raise PollFailed(f"{_shown(path)} answered with status {status}", status)
        return body

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and whole body of the answer; raises _NoAnswer."""
        headers = {"content-type": "application/json"} if body else None
        try:
            async with self._client.stream(
                method, self._base_url + path, content=body, headers=headers
            ) as reply:
                if reply.headers.get("content-encoding", "identity") != "identity":
                    raise _NoAnswer("it answered compressed")
                pieces = [piece async for piece in reply.aiter_raw()]
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _NoAnswer(str(error)) from error
        return reply.status_code, b"".join(pieces)

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.aclose()


def _shown(path: str) -> str:
    """A path for a log line: without the id of a model, which is the neuron's own text."""
    return "/models/.../endpoint" if path.endswith("/endpoint") else path


class NeuronControl:
    """Kind `neuron`: /models at every poll, /health too, /discovery and endpoints once."""

    def __init__(self, neuron: Neuron, pool: Pool, timeout_seconds: float) -> None:
        """Nothing is asked yet."""
        self._configured = neuron.endpoint
        self._calls = _Calls(neuron.endpoint, neuron.api_key, pool)
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
            models = _understood(read_models, await self._calls.get("/models"))
            health = await self._health()
            self._notice_a_restart(health)
            unnamed = await self._look_up(models)
            await self._discover()
        if models is None:
            raise PollFailed(f"/models: no answer within {self._timeout_seconds:g} s")
        endpoints = dict.fromkeys(unnamed, self._configured) | self._endpoints
        return Answered(tuple(models), endpoints, health, self._discovery)

    async def _health(self) -> Health | None:
        """How busy it is, if it says so in half of the time a poll has."""
        with trio.move_on_after(self._timeout_seconds / 2):
            try:
                return read_health(await self._calls.get("/health"))
            except (PollFailed, Garbage):
                return None
        return None

    def _notice_a_restart(self, health: Health | None) -> None:
        """A neuron that has been up for less time than before may have its models elsewhere now."""
        if health is not None:
            if health.uptime_secs < self._uptime_seconds:
                self.forget()
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
        except _NoAnswer as none:
            raise LoadFailed(f"/models/load: {none.reason}") from none
        failure = load_failure(status, body)
        if failure is not None:
            raise failure

    async def unload(self, model: ModelId) -> None:
        """See `Control`."""
        try:
            status, body = await self._calls.ask("POST", "/models/unload", unload_body(model))
        except _NoAnswer as none:
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
            except _NoAnswer:
                return None
        return None

    async def aclose(self) -> None:
        """See `Control`."""
        await self._calls.aclose()


class OpenAiControl:
    """Kind `openai`: `GET /v1/models` tells all; requests go straight to the endpoint."""

    def __init__(self, neuron: Neuron, pool: Pool, timeout_seconds: float) -> None:
        """Nothing is asked yet."""
        self._base_url = without_version_path(neuron.endpoint)
        self._calls = _Calls(self._base_url, neuron.api_key, pool)
        self._timeout_seconds = timeout_seconds

    async def poll(self) -> Answered:
        """See `Control`."""
        models: Sequence[ModelReport] | None = None
        with trio.move_on_after(self._timeout_seconds):
            models = _understood(read_openai_models, await self._calls.get("/v1/models"))
        if models is None:
            raise PollFailed(f"/v1/models: no answer within {self._timeout_seconds:g} s")
        return Answered(tuple(models), {model.id: self._base_url for model in models})

    def forget(self) -> None:
        """See `Control`. Nothing is asked once."""

    def forget_endpoints(self, models: Iterable[ModelId]) -> None:
        """See `Control`. The address is the configured one."""

    async def load(self, spec: LoadSpec) -> None:
        """See `Control`. The API of this kind knows no loading: always fails."""
        await trio.lowlevel.checkpoint()
        reason = "a server of kind openai has the models that it was started with: start it with"
        raise LoadFailed(f"{reason} {spec.model}", permanent=True)

    async def unload(self, model: ModelId) -> None:
        """See `Control`. The API of this kind knows no unloading: always fails."""
        await trio.lowlevel.checkpoint()
        raise UnloadFailed("a server of kind openai keeps the models that it was started with")

    async def capabilities(self, model: ModelId) -> tuple[str, ...] | None:
        """See `Control`. The API of this kind says nothing about them."""
        await trio.lowlevel.checkpoint()
        return None

    async def aclose(self) -> None:
        """See `Control`."""
        await self._calls.aclose()


def _understood(
    read: Callable[[bytes], Sequence[ModelReport]], body: bytes
) -> Sequence[ModelReport]:
    try:
        return read(body)
    except Garbage as garbage:
        raise PollFailed(f"the model list is no model list: {garbage.reason}") from None
