"""A fleet that does what it is told, at once or when it is let; its admin socket in a thread."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import trio

from cortexd.daemon.admin_listener import serve_admin
from cortexd.deadlines import Deadlines
from cortexd.fleet.operations import ModelLine, NeuronLine, NotDone

UNKNOWN = NotDone("No neuron is called ghost.", "Name one of: beast, scout.", 404)


class FakeOperations:
    """One model on `beast`, one that is nowhere; remembers what was asked, in order.

    A load or unload waits for `gate` where there is one; `begun` is set before.
    """

    def __init__(self, gate: trio.Event | None = None) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.refusal: NotDone | None = None
        self.gate = gate
        self.begun, self.ended = trio.Event(), trio.Event()
        self.lines = [
            ModelLine(
                *("org/oak", "beast", "loaded", (0, 1), 36_000),
                in_flight=2,
                pinned=True,
                aliases=("tree",),
            ),
            ModelLine("org/fern", "", "cold", eta_seconds=40, note="can run on beast, scout"),
        ]
        self.fleet = {
            "beast": NeuronLine("beast", healthy=True, vram_total_mb=49_152, vram_free_mb=13_152),
            "scout": NeuronLine("scout", healthy=False, breaker="open", restart_advised=True),
        }
        self.in_flight_to_come: list[int] = []

    def models(self) -> list[ModelLine]:
        """The two lines."""
        return self.lines

    def neurons(self) -> list[NeuronLine]:
        """The two neurons; each look at a draining one takes the next of `in_flight_to_come`."""
        for name, line in self.fleet.items():
            if line.draining and self.in_flight_to_come:
                in_flight = self.in_flight_to_come.pop(0)
                self.fleet[name] = msgspec.structs.replace(line, in_flight=in_flight)
        return list(self.fleet.values())

    async def load(self, model: str, neuron: str | None) -> list[ModelLine] | NotDone:
        """The model is loaded on the neuron, or on scout."""
        return await self._moved(
            "load", model, neuron, ModelLine(model, neuron or "scout", "loaded")
        )

    async def unload(self, model: str, neuron: str | None) -> list[ModelLine] | NotDone:
        """The model is cold."""
        return await self._moved("unload", model, neuron, ModelLine(model, "", "cold"))

    async def _moved(
        self, action: str, model: str, neuron: str | None, line: ModelLine
    ) -> list[ModelLine] | NotDone:
        self.asked.append((action, model, neuron))
        self.begun.set()
        if self.gate is not None:
            await self.gate.wait()
        self.ended.set()
        return self.refusal or [line]

    def pin(self, model: str, neurons: tuple[str, ...] | None) -> list[ModelLine] | NotDone:
        """Remember it."""
        self.asked.append(("pin", model, neurons))
        return self.refusal or [line for line in self.lines if line.is_called(model)]

    def drain(self, neuron: str) -> NotDone | None:
        """Drain a neuron that there is."""
        return self._draining("drain", neuron, draining=True)

    def undrain(self, neuron: str) -> NotDone | None:
        """Undrain a neuron that there is."""
        return self._draining("undrain", neuron, draining=False)

    def _draining(self, action: str, neuron: str, *, draining: bool) -> NotDone | None:
        self.asked.append((action, neuron))
        if neuron not in self.fleet:
            return UNKNOWN
        self.fleet[neuron] = msgspec.structs.replace(self.fleet[neuron], draining=draining)
        return None


@contextlib.contextmanager
def admin_socket(operations: FakeOperations, path: Path) -> Iterator[None]:
    """The admin socket at `path`, served by a thread of its own until left."""
    ready = threading.Event()
    stopping: list[tuple[trio.lowlevel.TrioToken, trio.CancelScope]] = []
    faults: list[str] = []

    async def serving() -> None:
        with trio.CancelScope() as scope:
            stopping.append((trio.lowlevel.current_trio_token(), scope))
            async with trio.open_nursery() as nursery:
                deadlines = Deadlines()
                await nursery.start(deadlines.run, name="deadlines")

                async def start(*, task_status: trio.TaskStatus[None]) -> None:
                    await serve_admin(
                        operations,
                        str(path),
                        deadlines,
                        contained=lambda: faults.append("contained"),
                        task_status=task_status,
                    )

                await nursery.start(start, name="admin socket")
                ready.set()

    thread = threading.Thread(target=trio.run, args=(serving,))
    thread.start()
    try:
        assert ready.wait(10), "the admin socket did not come up"
        yield
    finally:
        token, scope = stopping[0]
        token.run_sync_soon(scope.cancel)
        thread.join(10)
    assert faults == []
