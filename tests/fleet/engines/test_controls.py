"""What all kinds have in common: nothing that an engine says or does ends a poll badly, and a load
is waited for until it shows.
"""

from __future__ import annotations

import contextlib
from typing import get_args

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cortexd.config.schema import NeuronKind
from cortexd.fleet.engines.abilities import ABILITIES
from cortexd.fleet.engines.controls import ENGINES
from cortexd.fleet.engines.llama_router import read_router_models
from cortexd.fleet.engines.llama_server import read_busy_slots, read_props
from cortexd.fleet.engines.llama_swap import read_running
from cortexd.fleet.engines.lmstudio import read_listed
from cortexd.fleet.engines.mistralrs import read_mistralrs_models
from cortexd.fleet.engines.ollama import read_capabilities, read_processes, read_tags
from cortexd.fleet.engines.sglang import read_loads
from cortexd.fleet.engines.tabby import read_cards, read_current
from cortexd.fleet.load_calls import LoadFailed, UnloadFailed
from cortexd.fleet.neuron import PollFailed
from cortexd.fleet.pool import Pool
from cortexd.fleet.reports import Garbage, ModelId
from cortexd.fleet.view import Answered
from tests.fleet.engines.recorded import BREAKS_OFF, SILENT, Recorded, Reply, engine, spec
from tests.fleet.engines.test_llama_router import DONE, models
from tests.fleet.engines.test_llama_server import PROPS, SLOTS

KINDS = get_args(NeuronKind)
OF_A = "?model=a&autoload=false"
READERS = [
    read_router_models,
    read_props,
    read_busy_slots,
    read_running,
    read_loads,
    read_tags,
    read_processes,
    read_capabilities,
    read_listed,
    read_mistralrs_models,
    read_cards,
    read_current,
]
FIRST_CALLS = {"vllm": "/health", "sglang": "/ready", "ollama": "/api/tags"}
FIRST_CALLS |= {"lmstudio": "/api/v1/models"}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
FIELDS = ["data", "models", "running", "loads", "id", "key", "name", "status", "value", "meta"]
FIELDS += ["loaded_instances", "config", "parameters", "total_slots", "capabilities", "model"]
SHAPED = st.recursive(
    JSON,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4)
    ),
    max_leaves=12,
)


def test_every_kind_is_known_everywhere() -> None:
    assert set(ABILITIES) == set(KINDS)
    assert set(ENGINES) == set(KINDS) - {"neuron"}


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"neuron"}))
async def test_an_engine_of_any_kind_that_is_silent_misses_in_time(
    kind: NeuronKind, pool: Pool
) -> None:
    silent = f"GET {FIRST_CALLS.get(kind, '/v1/models')}"
    recorded = Recorded({silent: SILENT})
    async with engine(kind, recorded, pool, timeout_seconds=0.03) as (control, _):
        with pytest.raises(PollFailed, match=r"no answer within 0.03 s"):
            await control.poll()
    assert recorded.asked == [silent]


@pytest.mark.parametrize("read", READERS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(body=SHAPED)
def test_any_json_is_read_or_garbage(read: object, body: object) -> None:
    assert callable(read)
    with contextlib.suppress(Garbage):
        read(msgspec.json.encode(body))


async def test_an_engine_that_does_not_answer_while_it_loads_is_waited_for(pool: Pool) -> None:
    recorded = Recorded(
        {"POST /models/load": DONE, "GET /v1/models": (503, "")},
        {"GET /v1/models": {"GET /v1/models": models(a="loaded")}},
    )
    async with engine("llama-router", recorded, pool) as (control, _):
        await control.load(spec("a"))
    assert recorded.asked.count("GET /v1/models") == 2


async def test_an_engine_that_said_yes_and_shows_nothing_has_not_begun(pool: Pool) -> None:
    recorded = Recorded({"POST /models/load": DONE, "GET /v1/models": models(a="unloaded")})
    async with engine("llama-router", recorded, pool) as (control, _):
        with pytest.raises(LoadFailed, match="does not have it"):
            await control.load(spec("a"))


WILD_REPLIES = [(200, "{"), (200, "[]"), (200, '{"models":7,"data":7}'), (500, "x"), BREAKS_OFF]


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"neuron"}))
@pytest.mark.parametrize("reply", WILD_REPLIES)
async def test_whatever_an_engine_answers_a_load_and_an_unload_end_in_a_failure_or_a_wait(
    kind: NeuronKind, reply: Reply, pool: Pool
) -> None:
    """Anything else that was raised would end the daemon."""
    async with engine(kind, Recorded({}, otherwise=reply), pool) as (control, _):
        with contextlib.suppress(LoadFailed), trio.move_on_after(0.05):
            await control.load(spec("a"))
        with contextlib.suppress(UnloadFailed), trio.move_on_after(0.05):
            await control.unload(ModelId("a"))
        with contextlib.suppress(PollFailed):
            await control.poll()
        assert await control.capabilities(ModelId("a")) is None


class Overlap(Recorded):
    """A router whose second look, of a load, waits for a poll that has got as far as its slots; and
    that poll for `load_ended`. Neither is told the properties of what is loaded.
    """

    def __init__(self) -> None:
        loaded = {"GET /v1/models": models(a="loaded", b="loading"), "POST /models/load": DONE}
        super().__init__({**loaded, f"GET /props{OF_A}": PROPS, f"GET /slots{OF_A}": SLOTS})
        self.load_looks, self.poll_waits, self.load_ended = (trio.Event() for _ in range(3))

    async def reply(self, call: str) -> Reply:
        times = self.asked.count(call)
        if (call, times) == ("GET /v1/models", 2):
            self.replies[f"GET /props{OF_A}"] = (503, "")
            self.replies[call] = models(a="loaded", b="loaded")
            self.load_looks.set()
            await self.poll_waits.wait()
        elif (call, times) == (f"GET /slots{OF_A}", 2):
            self.poll_waits.set()
            await self.load_ended.wait()
        return await super().reply(call)


async def test_a_load_takes_no_word_of_what_was_withheld_from_a_poll(pool: Pool) -> None:
    """Else the poller misses it, or finds it new at the next poll and logs it again."""
    overlap = Overlap()
    polled: list[Answered] = []
    async with engine("llama-router", overlap, pool, timeout_seconds=20) as (control, _):

        async def poll() -> None:
            polled.append(await control.poll())

        async def load() -> None:
            await control.load(spec("b"))
            overlap.load_ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(load, name="load")
            await overlap.load_looks.wait()
            nursery.start_soon(poll, name="poll")
        assert polled[0].withheld == ("/props",)
        assert (await control.poll()).withheld == ("/props",)


async def test_the_caller_bounds_a_load(pool: Pool) -> None:
    recorded = Recorded({"POST /models/load": DONE, "GET /v1/models": models(a="loading")})
    async with engine("llama-router", recorded, pool) as (control, _):
        with trio.move_on_after(0.3) as bound:
            await control.load(spec("a"))
    assert bound.cancelled_caught


async def test_capabilities_are_not_waited_for(pool: Pool) -> None:
    recorded = Recorded({"POST /api/show": SILENT})
    async with engine("ollama", recorded, pool, timeout_seconds=0.03) as (control, _):
        control.forget()
        control.forget_endpoints([ModelId("a")])
        assert await control.capabilities(ModelId("a")) is None
