"""A daemon in front of real engines of every kind there is here, and what can befall them.

Two servers, one router with two models, and one server for embeddings, each at an address that it
keeps over its lives. A fault strikes while an answer is in mid-stream.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import trio

from tests.engines.mortal import Mortal, Start, free_port
from tests.engines.real_engine import llama_router, llama_server
from tests.engines.storm import VECTORS, has_come
from tests.support.daemon_process import DaemonProcess, chat, serving
from tests.support.raw_client import raw_client

ROUTED = ("routed-endless", "routed-stops")
SPOKEN = ("endless", "stops", *ROUTED)
VICTIM_TOKENS = 600
"""Of an answer that is still in the middle when its engine is killed."""

PATIENCE_SECONDS = 60
CLOCKS = {"first_byte_seconds": 6, "between_bytes_seconds": 2}
"""Short, because engines are stopped on purpose; what is given up is charged all the same."""

POLLING = {"interval_seconds": 0.3, "timeout_seconds": 0.5, "misses_to_unhealthy": 2}


class MortalFleet:
    """The daemon and its engines, all alive; `nursery` is where those live that come back."""

    def __init__(
        self, daemon: DaemonProcess, engines: Mapping[str, Mortal], nursery: trio.Nursery
    ) -> None:
        self.daemon = daemon
        self.engines = engines
        self._nursery = nursery

    async def counted(self) -> int:
        """Tokens that all engines have counted in all their lives, as far as can be read now."""
        return sum([await engine.counted() for engine in self.engines.values()])

    async def counted_when_idle(self) -> int:
        """The same, once none has anything to do."""
        return sum([await engine.counted_when_idle() for engine in self.engines.values()])

    @property
    def unread_max(self) -> int:
        """Tokens that engines may have made after they were read for the last time."""
        return sum(engine.unread_max for engine in self.engines.values())

    async def killed(self, key: str) -> None:
        """SIGKILL, and started again."""
        engine = self.engines["endless"]
        await self._in_mid_stream("endless", key, engine.kill)
        await self._nursery.start(engine.live)

    async def ended(self, key: str) -> None:
        """SIGTERM, and SIGKILL and another start once cortexd has given up what it was at."""
        engine = self.engines["endless"]
        await self._in_mid_stream("endless", key, engine.end)
        await engine.kill()
        await self._nursery.start(engine.live)

    async def stopped(self, key: str) -> None:
        """SIGSTOP until cortexd has given up what it was at, then SIGCONT."""
        engine = self.engines["endless"]
        await self._in_mid_stream("endless", key, engine.stop)
        engine.go_on()

    async def unloaded(self, key: str) -> None:
        """A model of the router is unloaded by somebody else; the next request brings it back."""
        model = ROUTED[0]
        await self._in_mid_stream(model, key, partial(self.engines["router"].unload, model))

    async def router_killed(self, key: str) -> None:
        """SIGKILL of the router and its models, and started again."""
        engine = self.engines["router"]
        await self._in_mid_stream(ROUTED[0], key, engine.kill)
        await self._nursery.start(engine.live)

    async def _in_mid_stream(
        self, model: str, key: str, strike: Callable[[], Awaitable[None]]
    ) -> None:
        """Strike while the model writes an answer, unless the key has nothing left for one."""
        with trio.fail_after(PATIENCE_SECONDS):
            async with raw_client(self.daemon.gateway) as client:
                body = chat(model=model, max_tokens=VICTIM_TOKENS, stream=True)
                await client.post(body, key=key, last=True)
                await has_come(client, b'"content":"', 5)
                await strike()
                while await client.stream.receive_some():
                    pass


@contextlib.asynccontextmanager
async def mortal_fleet(
    program: Path, models: Path, directory: Path, *, keys: Sequence[Mapping[str, object]]
) -> AsyncIterator[MortalFleet]:
    """The daemon and its engines, until left; `models` is where stops and endless are."""
    routed = directory / "routed"
    routed.mkdir()
    for name in ROUTED:
        (routed / f"{name}.gguf").symlink_to(models / f"{name.removeprefix('routed-')}.gguf")
    vectors = directory / f"{VECTORS}.gguf"
    vectors.symlink_to(models / "stops.gguf")
    catalogue = directory / "models.yaml"
    catalogue.write_text("models:\n" + "".join(f"- id: {name}\n" for name in ROUTED))
    ports = {name: free_port() for name in ("endless", "stops", VECTORS, "router")}
    server = partial(llama_server, program)
    starts: dict[str, Start] = {
        "endless": partial(server, models / "endless.gguf", port=ports["endless"]),
        "stops": partial(server, models / "stops.gguf", port=ports["stops"]),
        VECTORS: partial(
            server, vectors, port=ports[VECTORS], flags=("--embeddings", "--pooling", "mean")
        ),
        "router": partial(llama_router, program, routed, port=ports["router"]),
    }
    engines = {
        name: Mortal(start, ROUTED if name == "router" else ()) for name, start in starts.items()
    }
    neurons: dict[str, Mapping[str, object]] = {
        name: {
            "endpoint": f"http://127.0.0.1:{port}",
            "kind": "llama-router" if name == "router" else "llama-server",
        }
        for name, port in ports.items()
    }
    async with trio.open_nursery() as nursery:
        for engine in engines.values():
            await nursery.start(engine.live)
        async with serving(
            directory,
            neurons,
            keys=keys,
            gateway=CLOCKS,
            polling=POLLING,
            models_config=str(catalogue),
        ) as daemon:
            yield MortalFleet(daemon, engines, nursery)
        nursery.cancel_scope.cancel()
