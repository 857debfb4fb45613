"""The control client for a neuron of any kind: an adapter, under a clock.

Owns how long a poll may take, and the waiting for a load or an unload that an engine has begun:
what counts is what the engine lists, not what it promised. Refuses to know any engine's API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import trio

from cortexd.fleet.addresses import without_version_path
from cortexd.fleet.engines.engine import LOAD_FAILED, Engine, NotNow
from cortexd.fleet.engines.llama_router import LlamaRouter
from cortexd.fleet.engines.llama_server import LlamaServer
from cortexd.fleet.engines.llama_swap import LlamaSwap
from cortexd.fleet.engines.lmstudio import LmStudio
from cortexd.fleet.engines.mistralrs import MistralRs
from cortexd.fleet.engines.neuron import NeuronControl
from cortexd.fleet.engines.ollama import Ollama
from cortexd.fleet.engines.openai import OpenAi
from cortexd.fleet.engines.sglang import SgLang
from cortexd.fleet.engines.tabby import Tabby
from cortexd.fleet.engines.vllm import Vllm
from cortexd.fleet.load_calls import LoadFailed, LoadSpec
from cortexd.fleet.neuron import Calls, Control, PollFailed
from cortexd.fleet.reports import Garbage, ModelReport
from cortexd.fleet.view import Answered, Status, status_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cortexd.config.schema import Neuron, NeuronKind
    from cortexd.fleet.pool import Pool
    from cortexd.fleet.reports import ModelId

FIRST_LOOK_SECONDS = 0.1
LOOK_SECONDS_MAX = 2.0
"""From one look at a load under way to the next: the pause doubles from the first to the last."""

LOOKS_WITHOUT_A_SIGN_MAX = 4
"""An engine that said yes to a load and shows nothing of it by then has not begun."""

ENGINES: Mapping[NeuronKind, type[Engine]] = {
    each.kind: each
    for each in (
        LlamaServer,
        LlamaRouter,
        LlamaSwap,
        Vllm,
        SgLang,
        Ollama,
        LmStudio,
        MistralRs,
        Tabby,
        OpenAi,
    )
}
"""The adapter of each kind but `neuron`, which has a control client of its own."""


def control_of(neuron: Neuron, pool: Pool, *, timeout_seconds: float) -> Control:
    """The client for a configured neuron. `timeout_seconds` bounds a whole poll."""
    if neuron.kind == "neuron":
        return NeuronControl(neuron, pool, timeout_seconds)
    base_url = without_version_path(neuron.endpoint)
    calls = Calls(base_url, neuron.api_key, pool)
    engine = ENGINES[neuron.kind](calls, base_url, optional_seconds=timeout_seconds / 4)
    return EngineControl(engine, calls, timeout_seconds)


class EngineControl:
    """The control client over an adapter."""

    def __init__(self, engine: Engine, calls: Calls, timeout_seconds: float) -> None:
        """Nothing is asked yet. `calls` are the engine's, and closed in the end."""
        self._engine = engine
        self._calls = calls
        self._timeout_seconds = timeout_seconds

    async def poll(self) -> Answered:
        """See `Control`. What was withheld is told here alone: loads and unloads look too."""
        answered = await self._look()
        return msgspec.structs.replace(answered, withheld=self._calls.take_withheld())

    async def _look(self) -> Answered:
        with trio.move_on_after(self._timeout_seconds):
            try:
                return await self._engine.look()
            except Garbage as garbage:
                reason = f"it answered what cannot be understood: {garbage.reason}"
                raise PollFailed(reason) from None
        raise PollFailed(f"no answer within {self._timeout_seconds:g} s")

    def forget(self) -> None:
        """See `Control`. Nothing is asked once, but what was told before is out of date."""
        self._calls.forget()

    def forget_endpoints(self, models: Iterable[ModelId]) -> None:
        """See `Control`. The address is the configured one."""

    async def load(self, spec: LoadSpec) -> None:
        """See `Control`. Done when the engine lists the model as loaded."""
        await trio.lowlevel.checkpoint()
        await self._begin_load(spec)
        self._calls.forget()
        began, looks, pause = False, 0, FIRST_LOOK_SECONDS
        while True:
            report = await self._report(spec.model)
            if report is not None:
                looks += 1
                status = status_of(report.status)
                if status.resident:
                    return
                if report.servable == LOAD_FAILED:
                    raise LoadFailed("the engine says that the load failed")
                if status is Status.UNLOADED and began and self._engine.tells_failures:
                    return  # it was loaded, and has made room for another one since
                if status is Status.UNLOADED and (began or looks > LOOKS_WITHOUT_A_SIGN_MAX):
                    raise LoadFailed("the engine began to load it, and does not have it")
                began = began or status is not Status.UNLOADED
            await trio.sleep(pause)
            pause = min(2 * pause, LOOK_SECONDS_MAX)

    async def _begin_load(self, spec: LoadSpec) -> None:
        """Ask until there is room; the caller bounds how long that may take."""
        pause = FIRST_LOOK_SECONDS
        while True:
            try:
                await self._engine.begin_load(spec)
            except NotNow:
                await trio.sleep(pause)
                pause = min(2 * pause, LOOK_SECONDS_MAX)
            else:
                return

    async def unload(self, model: ModelId) -> None:
        """See `Control`. Done when the engine lists the model as anything but loaded."""
        await trio.lowlevel.checkpoint()
        await self._engine.begin_unload(model)
        self._calls.forget()
        pause = FIRST_LOOK_SECONDS
        while True:
            report = await self._report(model)
            if report is not None and status_of(report.status) is Status.UNLOADED:
                return
            await trio.sleep(pause)
            pause = min(2 * pause, LOOK_SECONDS_MAX)

    async def _report(self, model: ModelId) -> ModelReport | None:
        """What the engine lists of a model now; None: it does not answer, which may be the load."""
        try:
            answered = await self._look()
        except PollFailed:
            return None
        found = [report for report in answered.models if report.id == model]
        return found[0] if found else ModelReport(model, Status.UNLOADED.value)

    async def capabilities(self, model: ModelId) -> tuple[str, ...] | None:
        """See `Control`."""
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(self._timeout_seconds):
            return await self._engine.capabilities(model)
        return None

    async def aclose(self) -> None:
        """See `Control`."""
        await self._calls.aclose()
