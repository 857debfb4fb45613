"""Loading and unloading over real sockets, against the simulated neuron and worse ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from cortexd.config.schema import Neuron, Secret
from cortexd.demo.hardware import Device, SimulatedModel
from cortexd.demo.neuron import SimulatedNeuron
from cortexd.demo.switches import BreakKind, Broken, Canned
from cortexd.fleet.engines.controls import control_of
from cortexd.fleet.load_calls import LoadFailed, LoadSpec, UnloadFailed
from cortexd.fleet.neuron import Control
from cortexd.fleet.pool import Pool
from cortexd.fleet.reports import ModelId
from cortexd.fleet.view import Status, status_of
from tests.fleet.scripted import answering, ok, scripted
from tests.fleet.talking import Talk, beast
from tests.support.fake_neuron import running, turned

SMALL = ModelId("sim/small")
BIG = ModelId("org/big")
LOAD = "/models/load"


def two_cards(**switches: object) -> SimulatedNeuron:
    """`sim/small` resident; `org/big` can be loaded, over both cards if asked."""
    cards = [Device(0, "Simulated RTX 3090", 24576), Device(1, "Simulated RTX 3090", 24576)]
    big = SimulatedModel(
        BIG, 30000, resident=False, quants=("q6k",), capabilities=("text", "vision")
    )
    return SimulatedNeuron(
        models=[SimulatedModel(SMALL), big], devices=cards, switches=turned(**switches)
    )


@asynccontextmanager
async def controlled(
    neuron: Neuron, pool: Pool, *, timeout_seconds: float = 5
) -> AsyncIterator[Control]:
    control = control_of(neuron, pool, timeout_seconds=timeout_seconds)
    try:
        yield control
    finally:
        await control.aclose()


@asynccontextmanager
async def simulated(
    neuron: SimulatedNeuron, pool: Pool, *, within_seconds: float = 5
) -> AsyncIterator[Control]:
    """The control client of a simulated neuron that runs meanwhile."""
    with trio.fail_after(within_seconds):
        async with running(neuron), controlled(beast(neuron.url), pool) as control:
            yield control


async def failed(control: Control, spec: LoadSpec) -> LoadFailed:
    with pytest.raises(LoadFailed) as caught:
        await control.load(spec)
    return caught.value


async def test_a_model_is_loaded_with_what_was_asked_for_and_unloaded_again(pool: Pool) -> None:
    neuron = two_cards()
    async with simulated(neuron, pool) as control:
        await control.load(
            LoadSpec(BIG, "huggingface", quant="q6k", tensor_parallel=2, devices=(0, 1))
        )
        found = (await control.poll()).models
        assert {model.id: model.devices for model in found} == {SMALL: (0,), BIG: (0, 1)}
        await control.unload(BIG)
        assert [model.id for model in (await control.poll()).models] == [SMALL]


async def test_what_is_so_already_is_a_success(pool: Pool) -> None:
    async with simulated(two_cards(), pool) as control:
        await control.load(LoadSpec(SMALL))
        await control.unload(SMALL)
        await control.unload(SMALL)


async def test_polls_go_on_beside_a_load_that_takes_its_time(pool: Pool) -> None:
    """A load that held up the polls would make its neuron look dead."""
    neuron = two_cards(gated_loads=True)
    async with simulated(neuron, pool) as control, trio.open_nursery() as nursery:
        loaded = trio.Event()

        async def load() -> None:
            await control.load(LoadSpec(BIG, tensor_parallel=2))
            loaded.set()

        nursery.start_soon(load, name="load")
        await neuron.wait_for_path(LOAD)
        for _ in range(3):
            assert [model.id for model in (await control.poll()).models] == [SMALL]
        assert not loaded.is_set()
        await neuron.allow_load()
        await loaded.wait()


async def test_half_an_hour_of_silence_is_no_fault_of_a_load(
    pool: Pool, mock_clock: trio.testing.MockClock
) -> None:
    slow = SimulatedModel(BIG, resident=False, load_seconds=1799)
    neuron = SimulatedNeuron(models=[slow])
    async with (
        simulated(neuron, pool, within_seconds=3600) as control,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(control.load, LoadSpec(BIG), name="load")
        await neuron.wait_for_path(LOAD)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(1799)
    assert BIG in neuron.machine.lines


async def test_a_load_that_nobody_waits_for_goes_on_and_can_be_joined(pool: Pool) -> None:
    neuron = two_cards(gated_loads=True)
    async with simulated(neuron, pool) as control, trio.open_nursery() as nursery:
        first = trio.CancelScope()

        async def give_up() -> None:
            with first:
                await control.load(LoadSpec(BIG, tensor_parallel=2))

        nursery.start_soon(give_up, name="first load")
        await neuron.wait_for_path(LOAD)
        first.cancel()
        await neuron.counters.polls_hung_up.wait_for(1)
        assert pool.idle_links == 0
        nursery.start_soon(control.load, LoadSpec(BIG, tensor_parallel=2), name="second load")
        await neuron.wait_for_path(LOAD, 2)
        await neuron.allow_load()
    assert BIG in neuron.machine.lines
    assert neuron.machine.completed_loads.count(BIG) == 1


@pytest.mark.parametrize(
    "kind", ["repo_fetch_failed", "empty_repo", "tp_requires_safetensors", "quant_not_found"]
)
async def test_what_can_never_be_loaded_is_permanent(pool: Pool, kind: str) -> None:
    async with simulated(two_cards(load_failures={BIG: kind}), pool) as control:
        failure = await failed(control, LoadSpec(BIG))
    assert failure.permanent
    assert kind in failure.reason


async def test_a_neuron_without_cuda_says_so(pool: Pool) -> None:
    async with simulated(two_cards(cuda_unavailable="no driver"), pool) as control:
        failure = await failed(control, LoadSpec(BIG))
    assert (failure.cuda_unavailable, failure.permanent) == (True, False)
    assert "no driver" in failure.reason


async def test_a_model_that_does_not_fit_may_fit_later(pool: Pool) -> None:
    async with simulated(two_cards(), pool) as control:
        failure = await failed(control, LoadSpec(BIG, devices=(0,)))
        assert not failure.permanent
        assert "insufficient VRAM" in failure.reason
        await control.load(LoadSpec(BIG, tensor_parallel=2))


@pytest.mark.parametrize(
    "fault",
    [
        Canned(500, b'{"error":"boom"}'),
        Canned(400, b'{"error":"no"}'),
        Canned(200, b"<html>"),
        Canned(200, b'{"status":"loaded","x":"' + 5 * 1024 * 1024 * b"x" + b'"}'),
        Broken(BreakKind.RESET),
        Broken(BreakKind.EOF),
        Broken(BreakKind.GARBAGE),
    ],
    ids=lambda fault: fault.kind.value if isinstance(fault, Broken) else str(fault.status),
)
async def test_a_call_that_breaks_is_a_failure_that_may_pass(
    pool: Pool, fault: Canned | Broken
) -> None:
    neuron = two_cards()
    neuron.switches.faults = {LOAD: fault, "/models/unload": fault}
    async with simulated(neuron, pool) as control:
        failure = await failed(control, LoadSpec(BIG))
        assert not failure.permanent
        assert failure.reason.startswith("/models/load")
        assert len(failure.reason) < 400
        with pytest.raises(UnloadFailed, match="/models/unload"):
            await control.unload(SMALL)
    assert SMALL in neuron.machine.lines


@pytest.mark.parametrize("kind", [BreakKind.RESET, BreakKind.EOF, BreakKind.GARBAGE])
async def test_a_load_whose_connection_breaks_may_have_worked_all_the_same(
    pool: Pool, kind: BreakKind
) -> None:
    neuron = two_cards()
    neuron.switches.load_breaks[BIG] = kind
    async with simulated(neuron, pool) as control:
        failure = await failed(control, LoadSpec(BIG, tensor_parallel=2))
        assert not failure.permanent
        assert failure.reason.startswith("/models/load: ")
        neuron.switches.load_breaks.clear()
        await control.load(LoadSpec(BIG, tensor_parallel=2))
        assert {model.id for model in (await control.poll()).models} == {SMALL, BIG}


async def test_a_neuron_that_restarts_in_the_middle_of_a_load_fails_it(pool: Pool) -> None:
    neuron = two_cards(gated_loads=True)
    async with simulated(neuron, pool) as control, trio.open_nursery() as nursery:
        failures: list[LoadFailed] = []

        async def load() -> None:
            failures.append(await failed(control, LoadSpec(BIG, tensor_parallel=2)))

        nursery.start_soon(load, name="load")
        await neuron.wait_for_path(LOAD)
        await trio.testing.wait_all_tasks_blocked()
        neuron.restart(empty=True)
    assert not failures[0].permanent
    assert not neuron.machine.lines


async def test_a_model_that_is_being_loaded_is_seen_as_such(pool: Pool) -> None:
    neuron = two_cards(gated_loads=True, show_loading=True)
    async with simulated(neuron, pool) as control, trio.open_nursery() as nursery:
        nursery.start_soon(control.load, LoadSpec(BIG, tensor_parallel=2), name="load")
        await neuron.wait_for_path(LOAD)
        await trio.testing.wait_all_tasks_blocked()
        answered = await control.poll()
        found = {model.id: status_of(model.status) for model in answered.models}
        assert found == {SMALL: Status.LOADED, BIG: Status.LOADING}
        await neuron.allow_load()


async def test_a_load_onto_cards_that_are_not_there_says_which(pool: Pool) -> None:
    async with simulated(two_cards(), pool) as control:
        failure = await failed(control, LoadSpec(BIG, devices=(0, 7)))
    assert "device 7 does not exist" in failure.reason


async def test_a_load_of_a_neuron_that_is_gone_fails_at_once(pool: Pool) -> None:
    async with running(two_cards()) as neuron:
        url = neuron.url
    async with controlled(beast(url), pool) as control:
        failure = await failed(control, LoadSpec(BIG))
        assert (failure.reason, failure.permanent) == ("/models/load: connection refused", False)
        with pytest.raises(UnloadFailed, match="connection refused"):
            await control.unload(BIG)
        assert await control.capabilities(BIG) is None


async def test_a_neuron_is_asked_with_its_key_and_as_json(pool: Pool) -> None:
    talk = Talk()
    talk.replies |= {
        LOAD: ok(b'{"status":"loaded"}'),
        "/models/unload": ok(b'{"status":"unloaded"}'),
    }
    async with scripted(talk.script) as neuron:
        keyed = beast(neuron.url, api_key=Secret("sk-beast"))
        async with controlled(keyed, pool) as control:
            await control.load(LoadSpec(BIG, "huggingface"))
            await control.unload(BIG)
    load, unload = talk.asked
    assert b"\r\nauthorization: Bearer sk-beast\r\n" in load
    assert load.startswith(b"POST /models/load HTTP/1.1\r\n")
    assert load.lower().count(b"content-type: application/json\r\n") == 1
    assert load.endswith(b'{"model_id":"huggingface:org/big","harness":"candle"}')
    assert unload.endswith(b'{"model_id":"org/big"}')


async def test_capabilities_are_told_also_of_what_is_not_loaded(pool: Pool) -> None:
    async with simulated(two_cards(), pool) as control:
        assert await control.capabilities(BIG) == ("text", "vision")
        assert await control.capabilities(ModelId("org/unknown")) is None


async def test_capabilities_of_a_silent_neuron_are_not_waited_for(pool: Pool) -> None:
    async with (
        scripted(answering()) as neuron,
        controlled(beast(neuron.url), pool, timeout_seconds=0.03) as control,
    ):
        assert await control.capabilities(BIG) is None


async def test_an_openai_server_is_not_even_asked_to_load(pool: Pool) -> None:
    async with scripted(answering()) as server:
        async with controlled(beast(server.url, kind="openai"), pool) as control:
            failure = await failed(control, LoadSpec(BIG))
            assert failure.permanent
            assert "kind openai" in failure.reason
            with pytest.raises(UnloadFailed, match="kind openai"):
                await control.unload(BIG)
            assert await control.capabilities(BIG) is None
        assert server.connections == 0
