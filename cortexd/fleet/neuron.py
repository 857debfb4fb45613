"""What the rest of the fleet asks of a neuron of any kind, and the calls that carry it.

Owns the shape of a control client (`Control`), what a failed poll is, and the limits on replies.
Refuses to know any kind of engine (engines/), when polls are due, and what is to be loaded.
httpx comes in here and nowhere else but in the pool's transport.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar, cast

import httpx
import trio

from cortexd.fleet.pool import Pool, PoolTransport
from cortexd.fleet.reports import Garbage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cortexd.config.schema import Secret
    from cortexd.fleet.load_calls import LoadSpec
    from cortexd.fleet.reports import ModelId, ModelReport
    from cortexd.fleet.view import Answered

REPLY_BYTES_MAX = 4 * 1024 * 1024
"""The largest reply to a control call that is read; a larger one is a failed call."""

MODELS_MAX = 1_000
"""The longest model list that is read: what a neuron says must not cost unbounded time."""

KEPT_SECONDS = 300
"""For so long counts what a call told that the rest can do without, while it does not answer."""

_NO_SUCH_CALL = (404, 405, 501)


class PollFailed(Exception):
    """The neuron did not say what it has; `reason` in a few words, none of them the neuron's.

    `status`: of its answer, where it gave one that is not 200.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


ReadT = TypeVar("ReadT")


def few_enough(models: tuple[ModelReport, ...]) -> tuple[ModelReport, ...]:
    """A model list that is not too long to be worked with; raises PollFailed."""
    if len(models) > MODELS_MAX:
        raise PollFailed(f"it lists {len(models)} models; more than {MODELS_MAX} are not read")
    return models


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
    """Requests to one server, with a limit on what is read and none on how long it takes.

    What calls told that the rest can do without is kept for a while: one that is slow for once must
    not read as if there were no limits, no other users and no memory in use.
    """

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
        self._kept: dict[str, tuple[float, object]] = {}
        self._withheld: dict[str, None] = {}

    def take_withheld(self) -> tuple[str, ...]:
        """The calls, since the last time, whose last answer stands for one that did not come."""
        withheld = tuple(dict.fromkeys(path.partition("?")[0] for path in self._withheld))
        self._withheld.clear()
        return withheld

    def forget(self) -> None:
        """What was told counts no more."""
        self._kept.clear()
        self._withheld.clear()

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
        """The same of a call that the rest can do without.

        Without an answer in time, its last one of the last `KEPT_SECONDS`, unless the server has
        no such call any more; None: there is none.
        """
        with trio.move_on_after(within_seconds):
            try:
                told = read(await self.get(path))
            except PollFailed as failed:
                if failed.status in _NO_SUCH_CALL:
                    self._kept.pop(path, None)
            except Garbage:
                pass
            else:
                self._keep(path, told)
                return told
        return cast("ReadT | None", self._last_told(path))

    def _keep(self, path: str, told: object) -> None:
        now = trio.current_time()
        self._kept[path] = now, told
        self._withheld.pop(path, None)
        for old in [each for each, (at, _) in self._kept.items() if at + KEPT_SECONDS < now]:
            del self._kept[old]

    def _last_told(self, path: str) -> object:
        if path not in self._kept:
            return None
        at, told = self._kept[path]
        if at + KEPT_SECONDS < trio.current_time():
            del self._kept[path]
            return None
        self._withheld[path] = None
        return told

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
