"""What the rest of the fleet asks of a neuron of any kind, and the calls that carry it.

Owns the shape of a control client (`Control`), what a failed poll is, and the limits on replies.
Refuses to know any kind of engine (engines/), when polls are due, and what is to be loaded.
httpx comes in here and nowhere else but in the pool's transport.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

import httpx
import trio

from cortexd.fleet.pool import Pool, PoolTransport
from cortexd.fleet.reports import Garbage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cortexd.config.schema import Secret
    from cortexd.fleet.load_calls import LoadSpec
    from cortexd.fleet.reports import ModelId
    from cortexd.fleet.view import Answered

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


ReadT = TypeVar("ReadT")


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


class NoAnswer(Exception):
    """A call got no whole answer; `reason` in a few words, none of them the neuron's."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Calls:
    """Requests to one server, with a limit on what is read and none on how long it takes."""

    def __init__(self, endpoint: str, api_key: Secret | None, pool: Pool) -> None:
        """Send the key, if there is one, with every call to `endpoint`."""
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
        except NoAnswer as none:
            raise PollFailed(f"{_shown(path)}: {none.reason}") from none
        if status != 200:
            raise PollFailed(f"{_shown(path)} answered with status {status}", status)
        return body

    async def read(self, path: str, read: Callable[[bytes], ReadT]) -> ReadT:
        """What `read` makes of a 200; anything else raises PollFailed, nonsense raises Garbage."""
        return read(await self.get(path))

    async def maybe(
        self, path: str, read: Callable[[bytes], ReadT], *, within_seconds: float
    ) -> ReadT | None:
        """The same of a call that the rest can do without; None: no answer, or not in time."""
        with trio.move_on_after(within_seconds):
            try:
                return read(await self.get(path))
            except (PollFailed, Garbage):
                return None
        return None

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and whole body of the answer; raises NoAnswer."""
        headers = {"content-type": "application/json"} if body else None
        try:
            async with self._client.stream(
                method, self._base_url + path, content=body, headers=headers
            ) as reply:
                if reply.headers.get("content-encoding", "identity") != "identity":
                    raise NoAnswer("it answered compressed")
                pieces = [piece async for piece in reply.aiter_raw()]
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NoAnswer(str(error)) from error
        return reply.status_code, b"".join(pieces)

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.aclose()


def _shown(path: str) -> str:
    """A path for a log line: without the id of a model, which is the neuron's own text."""
    return "/models/.../endpoint" if path.endswith("/endpoint") else path
