"""Requests for models that are not there yet, or that others use: they wait, and are told so."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio
import trio.testing

from cortexd.config.schema import Catalogue, CatalogueModel, Eviction, Key, Limit, Waiting
from cortexd.demo.admission import AdmissionLimits
from cortexd.demo.hardware import Device, SimulatedModel
from cortexd.demo.neuron import SimulatedNeuron
from cortexd.fleet.reports import ModelId
from cortexd.gateway.relay import Clocks
from tests.support.core import Core, RecordingClient, core, key
from tests.support.fake_neuron import running

OAK = ModelId("org/oak")
LOADS = "/models/load"
UNLOADS = "/models/unload"
CARD = (Device(0, "a card", 24_000),)
CATALOGUE = Catalogue(
    models=(
        CatalogueModel("org/oak", vram_mb=16_000),
        CatalogueModel("org/fern", vram_mb=16_000),
        CatalogueModel("org/moss", vram_mb=2_000),
    ),
    aliases={"oak": "org/oak"},
)
BUSY = Clocks(first_byte_seconds=20, between_bytes_seconds=20, heartbeat_seconds=0.05)
RICH = key(hard_cap=10_000_000)


def a_neuron(
    *resident: str, name: str = "beast", in_flight: int = 64, devices: tuple[Device, ...] = CARD
) -> SimulatedNeuron:
    """A neuron that knows all three models and has these loaded."""
    models = [
        SimulatedModel(each.id, each.vram_mb or 0, load_seconds=0, resident=each.id in resident)
        for each in CATALOGUE.models
    ]
    limits = AdmissionLimits(max_in_flight=in_flight, max_queue_depth=0)
    return SimulatedNeuron(name, models, devices, admission=limits)


def chat(model: str = "org/oak", *, stream: bool = False, **fields: object) -> dict[str, object]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 5,
        "stream": stream,
        **fields,
    }


def retry_after(client: RecordingClient) -> int:
    return int(client.headers["retry-after"])


async def spent(it: Core) -> tuple[int, int]:
    standing = await it.standing()
    return standing.spent, standing.reserved


async def test_five_hundred_first_requests_are_one_load_and_all_are_answered(
    tmp_path: Path,
) -> None:
    neuron = a_neuron(in_flight=500)
    neuron.switches.gated_loads = True
    async with (
        running(neuron),
        core(tmp_path, {"beast": neuron.url}, keys=[RICH], catalogue=CATALOGUE) as it,
    ):
        clients = [RecordingClient() for _ in range(500)]
        async with trio.open_nursery() as nursery:
            for number, client in enumerate(clients):
                asked = chat("oak" if number % 2 else "org/oak", stream=number % 3 == 0)
                nursery.start_soon(ask, it, asked, client)
            with trio.fail_after(20):
                await neuron.wait_for_path(LOADS)
                while it.traffic.waiting.get(OAK) != 500:
                    await trio.testing.wait_all_tasks_blocked(0.01)
            await neuron.allow_load()
        assert {client.status for client in clients} == {200}
        assert all(client.finished for client in clients)
        assert neuron.counters.hits[LOADS] == 1
        assert neuron.chat_hits == 500
        assert (await spent(it))[1] == 0


async def ask(it: Core, body: Mapping[str, object], client: RecordingClient) -> None:
    await it.ask(body, client=client)


async def test_a_stream_that_waits_for_its_model_gets_its_head_at_once_and_heartbeats(
    tmp_path: Path,
) -> None:
    neuron = a_neuron()
    neuron.switches.gated_loads = True
    async with (
        running(neuron),
        core(tmp_path, {"a": neuron.url}, keys=[RICH], catalogue=CATALOGUE, clocks=BUSY) as it,
        trio.open_nursery() as nursery,
    ):
        client = RecordingClient()
        nursery.start_soon(ask, it, chat(stream=True), client)
        with trio.fail_after(20):
            await client.wait_for_pieces(3)
        assert client.status == 200
        assert client.headers["content-type"].startswith("text/event-stream")
        assert set(client.pieces) == {b": still working\n\n"}
        assert (await spent(it))[1] > 0
        await neuron.allow_load()
        with trio.fail_after(20):
            await client.wait_for_end()
        assert client.events()[-1] == "[DONE]"
        assert client.tokens == 5
        told = it.told[-1]
        assert (told.status, told.neuron, told.code) == (200, "a", None)
        assert told.waited_ms > 0
        assert told.first_token_seconds is not None
        assert told.first_token_seconds * 1000 >= told.waited_ms  # heartbeats are no first token


async def test_heartbeats_go_on_while_a_neuron_reads_the_prompt_and_never_break_an_event(
    tmp_path: Path,
) -> None:
    neuron = a_neuron("org/oak")
    neuron.switches.gated_prefill = neuron.switches.head_with_first_token = True
    neuron.switches.dribble = True
    async with (
        running(neuron),
        core(tmp_path, {"a": neuron.url}, keys=[RICH], catalogue=CATALOGUE, clocks=BUSY) as it,
        trio.open_nursery() as nursery,
    ):
        client = RecordingClient()
        nursery.start_soon(ask, it, chat(stream=True), client)
        with trio.fail_after(20):
            await client.wait_for_pieces(2)
        await neuron.allow_prefill()
        with trio.fail_after(20):
            await client.wait_for_end()
        for event in client.body.decode().split("\n\n")[:-1]:
            assert event.startswith((": ", "data: ")), event
            assert event.startswith(": ") or event == "data: [DONE]" or json.loads(event[6:])


async def test_a_bug_in_a_heartbeat_ends_its_own_request_and_no_other(tmp_path: Path) -> None:
    """All heartbeats are written by tasks of one owner, which must not end with one of them."""

    class Failing(RecordingClient):
        async def write(self, data: bytes) -> None:
            if self.pieces:  # the first one was written by the request itself, as it has to wait
                raise ZeroDivisionError
            await super().write(data)

    neuron = a_neuron()
    neuron.switches.gated_loads = True
    async with (
        running(neuron),
        core(tmp_path, {"a": neuron.url}, keys=[RICH], catalogue=CATALOGUE, clocks=BUSY) as it,
        trio.open_nursery() as nursery,
    ):
        fine, failing = RecordingClient(), Failing()
        nursery.start_soon(ask, it, chat(stream=True), fine)
        with pytest.raises(ExceptionGroup):
            await it.ask(chat(stream=True), client=failing)
        assert not failing.finished
        assert len(it.told) == 1
        await fine.wait_for_pieces(len(fine.pieces) + 2)
        await neuron.allow_load()
        await fine.wait_for_end()
        assert fine.tokens == 5
        assert (await spent(it))[1] == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_hangs_up_while_waiting_pays_nothing_and_the_load_goes_on(
    tmp_path: Path, stream: bool
) -> None:
    neuron = a_neuron()
    neuron.switches.gated_loads = True
    async with (
        running(neuron),
        core(tmp_path, {"a": neuron.url}, keys=[RICH], catalogue=CATALOGUE) as it,
    ):
        client = RecordingClient()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, it, chat(stream=stream), client)
            await neuron.wait_for_path(LOADS)
            client.hang_up()
        assert await spent(it) == (0, 0)
        assert it.traffic.waiting == {}
        await neuron.allow_load()
        answered = await it.ask(chat())
        assert answered.status == 200
        assert neuron.counters.hits[LOADS] == 1


async def test_a_load_that_fails_is_told_to_all_who_wait_and_not_tried_again_at_once(
    tmp_path: Path,
) -> None:
    neuron = a_neuron()
    neuron.switches.gated_loads = neuron.switches.late_load_failures = True
    neuron.switches.load_failures["org/oak"] = "empty_repo"
    async with (
        running(neuron),
        core(tmp_path, {"a": neuron.url}, keys=[RICH], catalogue=CATALOGUE) as it,
    ):
        plain, streamed = RecordingClient(), RecordingClient()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, it, chat(), plain)
            nursery.start_soon(ask, it, chat(stream=True), streamed)
            await neuron.wait_for_path(LOADS)
            await streamed.wait_for_pieces(1)
            await neuron.allow_load()
        assert (plain.status, plain.error["code"]) == (503, "model_load_failed")
        assert plain.headers["x-should-retry"] == "false"
        assert "beast" not in str(plain.error["message"])
        assert streamed.status == 200
        [event] = streamed.events()
        assert json.loads(event)["error"]["code"] == "model_load_failed"
        again = await it.ask(chat(stream=True))
        assert (again.status, again.error["code"]) == (503, "model_load_failed")
        assert neuron.counters.hits[LOADS] == 1
        assert await spent(it) == (0, 0)
        assert [told.code for told in it.told] == ["model_load_failed"] * 3
        assert it.told[1].status == 200 or it.told[0].status == 200


async def test_a_model_that_fits_nowhere_is_unknown_with_a_reason(tmp_path: Path) -> None:
    neuron = a_neuron(devices=(Device(0, "a small card", 8_000),))
    async with (
        running(neuron),
        core(tmp_path, {"a": neuron.url}, keys=[RICH], catalogue=CATALOGUE) as it,
    ):
        refused = await it.ask(chat())
        assert (refused.status, refused.error["code"]) == (404, "model_not_found")
        assert refused.error["param"] == "model"
        assert "memory" in str(refused.error["message"])
        assert await spent(it) == (0, 0)
        listed = json.loads((await it.ask(b"", method="GET", path="/v1/models")).body)["data"]
        assert [each["id"] for each in listed] == ["org/moss"]


async def test_a_model_that_only_a_silent_neuron_could_run_is_worth_another_try(
    tmp_path: Path,
) -> None:
    neuron = a_neuron()
    neuron.bind()
    dead = neuron.url
    neuron.close()
    async with core(tmp_path, {"a": dead}, keys=[RICH], catalogue=CATALOGUE) as it:
        refused = await it.ask(chat())
        assert (refused.status, refused.error["code"]) == (503, "no_neuron")
        assert retry_after(refused) >= 1


async def test_a_plain_request_is_told_when_to_come_back_and_its_model_is_loaded_meanwhile(
    tmp_path: Path,
) -> None:
    """The guess for 16 GB is 42 s; nobody is kept for longer than it was told."""
    neuron = a_neuron()
    neuron.switches.gated_loads = True
    impatient = Waiting(plain_wait_seconds=10)
    async with (
        running(neuron),
        core(
            tmp_path, {"a": neuron.url}, keys=[RICH], catalogue=CATALOGUE, waiting=impatient
        ) as it,
    ):
        refused = await it.ask(chat())
        assert (refused.status, refused.error["code"]) == (503, "model_loading")
        assert 42 <= retry_after(refused) <= 50
        await neuron.allow_load()
        with trio.fail_after(20):
            while OAK in it.traffic.parts.loads:
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await it.ask(chat())).status == 200
        assert neuron.counters.hits[LOADS] == 1


async def test_an_idle_model_makes_room_and_a_busy_one_is_waited_for(tmp_path: Path) -> None:
    neuron = a_neuron("org/oak")
    neuron.switches.gated = True
    async with (
        running(neuron),
        core(
            tmp_path,
            {"a": neuron.url},
            keys=[RICH],
            catalogue=CATALOGUE,
            eviction=Eviction(min_residency_seconds=0),
        ) as it,
    ):
        first, second = RecordingClient(), RecordingClient()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, it, chat(stream=True), first)
            await neuron.allow()
            await first.wait_for_tokens(1)
            nursery.start_soon(ask, it, chat("org/fern", stream=True), second)
            await second.wait_for_pieces(1)
            assert neuron.counters.hits[UNLOADS] == 0
            await neuron.allow(20)
        assert (first.status, second.status) == (200, 200)
        assert (first.tokens, second.tokens) == (5, 5)
        assert first.events()[-1] == second.events()[-1] == "[DONE]"
        assert neuron.counters.hits[UNLOADS] == neuron.counters.hits[LOADS] == 1
        small = await it.ask(chat("org/moss"))  # there is room beside fern
        assert small.status == 200
        assert neuron.counters.hits[UNLOADS] == 1


async def test_where_nothing_may_be_displaced_nothing_is_and_the_answer_is_no_room(
    tmp_path: Path,
) -> None:
    neuron = a_neuron("org/oak")
    important = CatalogueModel("org/oak", vram_mb=16_000, residency_priority=500)
    async with (
        running(neuron),
        core(
            tmp_path,
            {"a": neuron.url},
            keys=[RICH],
            catalogue=Catalogue((important, *CATALOGUE.models[1:])),
            eviction=Eviction(min_residency_seconds=0),
        ) as it,
    ):
        refused = await it.ask(chat("org/fern"))
        assert (refused.status, refused.error["code"]) == (503, "no_room")
        assert neuron.counters.hits[UNLOADS] == neuron.counters.hits[LOADS] == 0
        assert await spent(it) == (0, 0)


async def test_a_neuron_that_lost_its_model_loads_it_again_and_the_request_is_answered(
    tmp_path: Path,
) -> None:
    neuron = a_neuron("org/oak")
    async with (
        running(neuron),
        core(tmp_path, {"a": neuron.url}, keys=[RICH], catalogue=CATALOGUE) as it,
    ):
        neuron.restart(empty=True)
        answered = await it.ask(chat())
        assert answered.status == 200
        assert (neuron.chat_hits, neuron.counters.hits[LOADS]) == (2, 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_neuron_that_lists_a_model_and_never_has_it_is_asked_twice_and_no_more(
    tmp_path: Path, stream: bool
) -> None:
    neuron = a_neuron("org/oak")
    neuron.switches.refuse(404, b'{"error":{"message":"model \'org/oak\' not found"}}')
    async with (
        running(neuron),
        core(tmp_path, {"a": neuron.url}, keys=[RICH], catalogue=CATALOGUE) as it,
    ):
        refused = await it.ask(chat(stream=stream))
        assert it.told[-1].code == "no_neuron"
        assert refused.finished
        assert (neuron.chat_hits, await spent(it)) == (2, (0, 0))


async def test_a_neuron_gets_as_many_requests_as_it_takes_and_the_others_wait_here(
    tmp_path: Path,
) -> None:
    neuron = a_neuron("org/oak", in_flight=1)
    neuron.switches.gated = True
    async with (
        running(neuron),
        core(tmp_path, {"a": neuron.url}, keys=[RICH], catalogue=CATALOGUE) as it,
    ):
        clients = [RecordingClient() for _ in range(5)]
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(ask, it, chat(stream=True), client)
            await neuron.wait_for_hits(1)
            for client in clients:
                await client.wait_for_pieces(1)
            assert neuron.in_flight == 1
            await neuron.allow(100)
        assert [client.tokens for client in clients] == [5] * 5
        assert neuron.chat_hits == 5  # it refuses a second one at once


async def test_one_key_with_many_waiting_requests_delays_another_by_one_turn_at_most(
    tmp_path: Path,
) -> None:
    neuron = a_neuron("org/oak", in_flight=1)
    neuron.switches.gated = True
    greedy, modest = RICH, key("sk-modest", "modest", hard_cap=100_000)
    turn = Waiting(quantum_tokens=1)  # a turn is one request
    async with (
        running(neuron),
        core(
            tmp_path,
            {"a": neuron.url},
            keys=[greedy, modest],
            catalogue=CATALOGUE,
            waiting=turn,
        ) as it,
    ):
        order: list[str] = []

        async def ask_as(owner: Key, text: str) -> None:
            answered = await it.ask(chat(), authorization=f"Bearer {text}")
            assert answered.status == 200
            order.append(owner.key_id)

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(ask_as, greedy, "sk-cap")
            with trio.fail_after(20):
                while it.traffic.waiting.get(OAK) != 199:
                    await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.start_soon(ask_as, modest, "sk-modest")
            with trio.fail_after(20):
                while it.traffic.waiting.get(OAK) != 200:
                    await trio.testing.wait_all_tasks_blocked(0.01)
            await neuron.allow(5 * 201)
        assert order.index("modest") <= 2
        assert len(order) == 201


async def test_the_next_replica_takes_over_and_a_busy_fleet_passes_its_retry_after_on(
    tmp_path: Path,
) -> None:
    one, other = a_neuron("org/oak", name="one"), a_neuron("org/oak", name="other")
    one.switches.refuse(503, retry_after="7")
    async with (
        running(one),
        running(other),
        core(
            tmp_path, {"one": one.url, "other": other.url}, keys=[RICH], catalogue=CATALOGUE
        ) as it,
    ):
        assert (await it.ask(chat())).status == 200
        assert (one.chat_hits, other.chat_hits) == (1, 1)
        other.switches.refuse(429, retry_after="21")
        refused = await it.ask(chat())
        assert refused.status == 503
        assert retry_after(refused) == 21
        assert await spent(it) != (0, 0)  # the first one


async def test_a_conversation_goes_back_to_the_replica_that_has_read_it(tmp_path: Path) -> None:
    one, other = a_neuron("org/oak", name="one"), a_neuron("org/oak", name="other")
    async with (
        running(one),
        running(other),
        core(
            tmp_path, {"one": one.url, "other": other.url}, keys=[RICH], catalogue=CATALOGUE
        ) as it,
    ):
        one.switches.refuse(503, retry_after="1")
        messages: list[dict[str, str]] = [{"role": "user", "content": "tell me a story"}]
        assert (await it.ask(chat(messages=messages))).status == 200
        one.switches.faults.clear()
        hits = other.chat_hits
        for turn in range(3):
            messages += [
                {"role": "assistant", "content": f"part {turn}"},
                {"role": "user", "content": "and then?"},
            ]
            assert (await it.ask(chat(messages=messages))).status == 200
        assert other.chat_hits == hits + 3


async def test_the_list_of_models_tells_what_cold_ones_can_do_once_a_neuron_has_told(
    tmp_path: Path,
) -> None:
    models = [SimulatedModel("org/eye", 2_000, resident=False, capabilities=("text", "vision"))]
    neuron = SimulatedNeuron("beast", models, CARD)
    catalogue = Catalogue((CatalogueModel("org/eye", vram_mb=2_000),))
    async with (
        running(neuron),
        core(tmp_path, {"a": neuron.url}, keys=[RICH], catalogue=catalogue) as it,
    ):
        await neuron.wait_for_path("/models/org%2Feye/capabilities")
        with trio.fail_after(20):
            while (entry := await only_entry(it))["modalities"] != ["text", "vision"]:
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert (entry["loaded"], entry["feasible_on"]) == (False, ["a"])
        assert entry["locations"] == []


async def only_entry(it: Core) -> dict[str, object]:
    listed = await it.ask(b"", method="GET", path="/v1/models")
    [entry] = json.loads(listed.body)["data"]
    found: dict[str, object] = entry
    return found


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_that_was_bounded_by_a_context_that_turns_out_larger_is_not_sent(
    tmp_path: Path, *, stream: bool
) -> None:
    """What was reserved is no bound any more; asked again, it is bounded by the larger one."""
    neuron = a_neuron()
    small = CatalogueModel("org/oak", vram_mb=16_000, limit=Limit(context=64))
    asked = chat(stream=stream, messages=[{"role": "user", "content": "a b " * 100}])
    async with (
        running(neuron),
        core(tmp_path, {"a": neuron.url}, catalogue=Catalogue(models=(small,))) as it,
    ):
        client = await it.ask(asked)
        error = json.loads(client.events()[-1])["error"] if stream else client.error
        assert error["code"] == "model_loading"
        assert "Send it again" in str(error["message"])
        assert it.told[-1].reserved == 64 + 5
        assert (await spent(it), neuron.chat_hits) == ((0, 0), 0)
        assert (await it.ask(asked)).status == 200
        assert it.told[-1].reserved > 400
