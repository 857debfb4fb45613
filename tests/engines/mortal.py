"""A real engine that dies and comes back at the same address, and what all its lives have counted.

The counters of an engine end with it, so that they are added up over its lives. What a life counted
is read as late as can be: in the moment before it is killed. Whatever it made after that reading no
meter shows; `unread_max` says how much that can have been. Where a sum is wrong, it is too low.
"""

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Mapping

import httpx
import msgspec
import trio

from tests.engines.real_engine import PATIENCE_SECONDS, Engine, Meter, read_meter

LOOK_AGAIN_SECONDS = 1.5
"""An engine that is asked more often than once a second may not notice that clients have left."""

Start = Callable[[], contextlib.AbstractAsyncContextManager[Engine]]


class _Token(msgspec.Struct, frozen=True):
    n_decoded: int = 0
    n_remain: int = 0


class _Slot(msgspec.Struct, frozen=True):
    is_processing: bool
    next_token: tuple[_Token, ...] = ()


class Reading(msgspec.Struct, frozen=True):
    """`meter`, what has ended; `running`, tokens of answers that have not; `ahead`, how many they
    may still become.
    """

    meter: Meter = Meter()
    running: int = 0
    ahead: int = 0

    @property
    def tokens(self) -> int:
        """All that it did so far."""
        return self.meter.tokens + self.running


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


class Mortal:
    """One engine, or one router with its models, through all its lives.

    `models`: of a router; of a plain server none, since it needs no name for what it has.
    """

    def __init__(self, start: Start, models: tuple[str, ...] = ()) -> None:
        """Not alive yet: `live` is to be run."""
        self._start = start
        self._queries = {model: f"?model={model}&autoload=false" for model in models} or {"": ""}
        self._past = 0
        self._now: Mapping[str, Reading] = {}
        self._unreadable: set[str] = set()
        self._missed: set[str] = set()
        self._lives = dict.fromkeys(self._queries, 0)
        self.unread_max = 0
        self.engine: Engine

    async def live(self, task_status: trio.TaskStatus[None]) -> None:
        """One life, from when it listens until it has died; to be run in a nursery."""
        async with self._start() as self.engine:
            self._unreadable.clear()
            task_status.started()
            await self.engine.process.wait()

    async def counted(self) -> int:
        """Tokens of all its lives, as far as they can be read now: never too many."""
        await self._read()
        return self._past + sum(reading.tokens for reading in self._now.values())

    async def counted_when_idle(self) -> int:
        """The same, once it has nothing to do."""
        with trio.fail_after(PATIENCE_SECONDS):
            while True:
                counted = await self.counted()
                assert not self._unreadable, "it is not alive"
                meters = [reading.meter for reading in self._now.values()]
                at_rest = not any(meter.busy or meter.waiting for meter in meters)
                if at_rest and not self._missed:
                    return counted
                await self.engine.says_more(within_seconds=LOOK_AGAIN_SECONDS)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        await self._read()
        self._unreadable = set(self._queries)
        os.killpg(self.engine.process.pid, signal.SIGKILL)
        with trio.fail_after(PATIENCE_SECONDS):
            await self.engine.process.wait()
        for model in self._queries:
            self._bury(model)

    async def end(self) -> None:
        """SIGTERM: it stops generating, and leaves its clients without a word. It may not go away
        by itself, so that `kill` has to follow.
        """
        await self._read()
        self._unreadable = set(self._queries)
        os.killpg(self.engine.process.pid, signal.SIGTERM)

    async def stop(self) -> None:
        """SIGSTOP: it listens, and does nothing."""
        await self._read()
        self._unreadable = set(self._queries)
        os.killpg(self.engine.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        os.killpg(self.engine.process.pid, signal.SIGCONT)
        self._unreadable.clear()

    async def unload(self, model: str) -> None:
        """Have the router end the server of a model, if it has one, and wait until it is gone."""
        await self._read()
        self._unreadable.add(model)
        told = await self.engine.client.post(
            f"{self.engine.url}/models/unload", json={"model": model}
        )
        assert told.status_code == 200 or "not running" in told.text, told.text
        with trio.fail_after(PATIENCE_SECONDS):
            while await self._status(model) != "unloaded":
                await self.engine.says_more(within_seconds=LOOK_AGAIN_SECONDS)
        self._bury(model)
        self._unreadable.discard(model)

    def _bury(self, model: str) -> None:
        """Its counters begin again at nothing."""
        last = self._now.get(model, Reading())
        self._past += last.tokens
        self.unread_max += last.ahead
        self._now = {**self._now, model: Reading()}
        self._lives[model] += 1

    async def _read(self) -> None:
        """What can be read; of what is just being killed, the last reading stays."""
        for model, query in self._queries.items():
            if model in self._unreadable:
                continue
            life = self._lives[model]
            try:
                reading = await self._reading(query)
            except httpx.HTTPError:
                self._missed.add(model)
                continue
            if model not in self._unreadable and life == self._lives[model]:
                self._now = {**self._now, model: reading}
                self._missed.discard(model)

    async def _reading(self, query: str) -> Reading:
        """What has ended first: an answer that ends in between is missed, and not counted twice."""
        client, url = self.engine.client, self.engine.url
        metrics = await client.get(f"{url}/metrics{query}")
        if query and metrics.status_code == 400:
            assert "not loaded" in metrics.text, metrics.text
            return Reading()
        said = await client.get(f"{url}/slots{query}")
        slots = msgspec.json.decode(said.raise_for_status().content, type=tuple[_Slot, ...])
        tokens = [token for slot in slots if slot.is_processing for token in slot.next_token]
        return Reading(
            read_meter(metrics.raise_for_status().text),
            running=sum(token.n_decoded for token in tokens),
            ahead=sum(max(0, token.n_remain) for token in tokens),
        )

    async def _status(self, model: str) -> str:
        listed = await self.engine.client.get(f"{self.engine.url}/v1/models")
        (status,) = (
            each["status"]["value"] for each in listed.json()["data"] if each["id"] == model
        )
        return str(status)
