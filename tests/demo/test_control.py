"""The management calls of the neuron protocol, seen from the outside."""

import json
from urllib.parse import quote

import pytest
import trio
import trio.testing

from cortexd.demo.hardware import Device, DoesNotFit, SimulatedModel
from cortexd.demo.neuron import SimulatedNeuron
from cortexd.demo.switches import BreakKind, Broken, Canned
from tests.demo.asking import MODEL, ask, call, question, raw_client
from tests.support.fake_neuron import fake_neuron, running, turned

BIG = SimulatedModel(
    "org/Big-Model",
    vram_mb=30000,
    resident=False,
    tensor_parallel=2,
    quants=("q4k",),
    capabilities=("text", "vision"),
    cost={"input": 0.1, "output": 0.4},
)
SMALL = SimulatedModel(MODEL, vram_mb=4000)
CARDS = (Device(0, "card", 24576), Device(1, "card", 24576))


def two_cards(**switches: object) -> SimulatedNeuron:
    return SimulatedNeuron("duo", [SMALL, BIG], CARDS, switches=turned(**switches))


async def load(neuron: SimulatedNeuron, model_id: str, **fields: object) -> tuple[int, object]:
    response = await call(neuron, "POST", "/models/load", {"model_id": model_id, **fields})
    return response.status_code, response.json()


async def test_version_and_discovery_describe_the_machine() -> None:
    async with running(two_cards()) as neuron:
        version = (await call(neuron, "GET", "/version")).json()
        found = (await call(neuron, "GET", "/discovery")).json()
        neuron.switches.cuda_unavailable = "driver mismatch"
        broken = (await call(neuron, "GET", "/discovery")).json()

    assert {"package_version", "git_sha", "git_dirty", "features"} <= set(version)
    assert found["hostname"] == "duo"
    assert found["devices"][1] == {
        "index": 1,
        "name": "card",
        "vram_total_mb": 24576,
        "compute_capability": "8.6",
    }
    assert (found["harnesses"], found["max_prompt_tokens"]) == (["candle"], 32768)
    assert broken["cuda_unavailable_reason"] == "driver mismatch"


async def test_models_is_a_bare_array_of_what_is_resident() -> None:
    async with running(two_cards()) as neuron:
        neuron.machine.rack.resident[MODEL].servable = {"ok": False, "reason": "insufficient_vram"}
        listed = (await call(neuron, "GET", "/models")).json()

    assert listed == [
        {
            "id": MODEL,
            "harness": "candle",
            "status": "loaded",
            "devices": [0],
            "vram_used_mb": 4000,
            "capabilities": ["text"],
            "limit": {"context": 32768, "output": 4096},
            "tool_call": False,
            "reasoning": False,
            "servable": {"ok": False, "reason": "insufficient_vram"},
        }
    ]


async def test_the_same_simulator_plays_an_openai_compatible_server() -> None:
    async with fake_neuron() as neuron:
        listed = (await call(neuron, "GET", "/v1/models")).json()

    assert listed["object"] == "list"
    assert [(m["id"], m["object"]) for m in listed["data"]] == [(MODEL, "model")]


async def test_a_load_is_synchronous_and_books_memory_on_every_card() -> None:
    async with running(two_cards()) as neuron:
        assert await load(neuron, "huggingface:org/Big-Model", quant="q4k") == (
            200,
            {"status": "loaded"},
        )
        health = (await call(neuron, "GET", "/health")).json()
        listed = (await call(neuron, "GET", "/models")).json()
        assert (await ask(neuron, question() | {"model": BIG.id})).status_code == 200

    assert [device["vram_used_mb"] for device in health["devices"]] == [19000, 15000]
    assert [device["vram_free_mb"] for device in health["devices"]] == [5576, 9576]
    assert health["activation"]["completed"] == [MODEL, BIG.id]
    assert listed[1]["cost"] == BIG.cost


async def test_a_load_of_what_is_loaded_says_so() -> None:
    async with running(two_cards()) as neuron:
        status, body = await load(neuron, MODEL)

    assert status == 400
    assert "already loaded" in str(body)


async def test_loads_fail_in_every_way_of_the_protocol() -> None:
    async with running(two_cards()) as neuron:
        assert await load(neuron, "who/knows") == (
            422,
            {"error": {"kind": "repo_fetch_failed", "model_id": "who/knows"}},
        )
        assert await load(neuron, BIG.id, quant="q9") == (
            422,
            {"error": {"kind": "quant_not_found", "model_id": BIG.id}},
        )
        neuron.switches.load_failures["org/bad"] = "empty_repo"
        assert (await load(neuron, "org/bad"))[1] == {
            "error": {"kind": "empty_repo", "model_id": "org/bad"}
        }
        status, body = await load(neuron, BIG.id, tensor_parallel=1)
        assert (status, "insufficient VRAM" in str(body)) == (400, True)
        assert (await load(neuron, BIG.id, tensor_parallel=3))[0] == 400
        neuron.switches.cuda_unavailable = "driver mismatch"
        assert await load(neuron, BIG.id) == (
            503,
            {"error": "driver mismatch", "code": "cuda_unavailable"},
        )
        assert (await call(neuron, "POST", "/models/load", {})).status_code == 422
        assert neuron.machine.rack.free_mb(1) == 24576


async def test_a_load_body_that_is_no_json_is_refused() -> None:
    async with fake_neuron() as neuron, raw_client(neuron) as client:
        await client.connection.send_all(
            b"POST /models/load HTTP/1.1\r\ncontent-length: 1\r\n\r\n{"
        )

        assert b" 400 " in await client.read_until(b"malformed_json")


async def test_loads_of_one_model_are_one_load_and_outlive_their_first_asker() -> None:
    neuron = two_cards(gated_loads=True)
    async with running(neuron), raw_client(neuron) as first, raw_client(neuron) as second:
        await first.post({"model_id": BIG.id}, "/models/load")
        await neuron.wait_for_path("/models/load")
        await trio.testing.wait_all_tasks_blocked()
        health = (await call(neuron, "GET", "/health")).json()
        assert health["activation"]["in_progress"] == BIG.id
        assert len((await call(neuron, "GET", "/models")).json()) == 1
        await second.post({"model_id": "hf:" + BIG.id}, "/models/load")
        await neuron.wait_for_path("/models/load", 2)
        await first.hang_up()
        await neuron.counters.polls_hung_up.wait_for(1)
        await neuron.allow_load(1)

        assert b'{"status":"loaded"}' in await second.read_until(b"}")


@pytest.mark.parametrize("late", [False, True])
async def test_a_load_can_be_made_to_fail_in_any_words(late: bool) -> None:
    neuron = two_cards(late_load_failures=late)
    async with running(neuron):
        for status, told in ((400, "out of luck"), (500, "out of memory")):
            canned = Canned(status, json.dumps({"error": told}).encode())
            neuron.switches.load_failures[BIG.id] = canned
            assert await load(neuron, BIG.id) == (status, {"error": told})
            assert neuron.machine.rack.free_mb(1) == 24576
        neuron.switches.load_failures.clear()
        assert (await load(neuron, BIG.id))[0] == 200


async def test_a_load_that_fails_late_has_its_memory_until_then() -> None:
    neuron = two_cards(gated_loads=True, late_load_failures=True)
    neuron.switches.load_failures[BIG.id] = "repo_fetch_failed"
    async with running(neuron), raw_client(neuron) as client:
        await client.post({"model_id": BIG.id}, "/models/load")
        await neuron.wait_for_path("/models/load")
        await trio.testing.wait_all_tasks_blocked()
        assert neuron.machine.rack.free_mb(1) == 24576 - 15000
        await neuron.allow_load()
        assert b" 422 " in await client.read_until(b"repo_fetch_failed")
        assert neuron.machine.rack.free_mb(1) == 24576


@pytest.mark.parametrize("kind", [BreakKind.EOF, BreakKind.RESET, BreakKind.GARBAGE])
@pytest.mark.parametrize("by", ["load_failures", "load_breaks"])
async def test_a_connection_can_break_in_the_middle_of_a_load(kind: BreakKind, by: str) -> None:
    neuron = two_cards(gated_loads=True, late_load_failures=True)
    if by == "load_failures":
        neuron.switches.load_failures[BIG.id] = Broken(kind)
    else:
        neuron.switches.load_breaks[BIG.id] = kind
    async with running(neuron), raw_client(neuron) as client:
        await client.post({"model_id": BIG.id}, "/models/load")
        await neuron.wait_for_path("/models/load")
        if by == "load_failures":
            await neuron.allow_load()
        if kind is BreakKind.RESET:
            with pytest.raises(trio.BrokenResourceError):
                await client.read_to_end()
        else:
            assert b"HTTP/1.1 200" not in await client.read_to_end()
        await trio.testing.wait_all_tasks_blocked()
        goes_on = by == "load_breaks"
        assert (BIG.id in neuron.machine.rack.resident) is goes_on
        if goes_on:
            neuron.switches.load_breaks.clear()
            await neuron.allow_load()
            status, _ = await load(neuron, BIG.id)
            assert status in (200, 400)
            assert neuron.machine.completed_loads.count(BIG.id) == 1


async def test_nobody_may_ever_hear_of_the_end_of_a_load() -> None:
    neuron = two_cards()
    neuron.switches.load_breaks[BIG.id] = BreakKind.SILENCE
    async with running(neuron), raw_client(neuron) as client:
        await client.post({"model_id": BIG.id}, "/models/load")
        await neuron.wait_for_path("/models/load")
        await trio.testing.wait_all_tasks_blocked()
        assert neuron.machine.rack.resident[BIG.id].status == "loaded"
        await client.hang_up()
        await neuron.counters.polls_hung_up.wait_for(1)
        assert client.received == b""


async def test_a_model_that_is_being_loaded_is_listed_if_a_switch_says_so() -> None:
    neuron = two_cards(gated_loads=True, show_loading=True)
    async with running(neuron), raw_client(neuron) as client:
        await client.post({"model_id": BIG.id}, "/models/load")
        await neuron.wait_for_path("/models/load")
        await trio.testing.wait_all_tasks_blocked()
        listed = (await call(neuron, "GET", "/models")).json()
        assert {each["id"]: each["status"] for each in listed} == {
            MODEL: "loaded",
            BIG.id: "loading",
        }
        openai = (await call(neuron, "GET", "/v1/models")).json()["data"]
        assert [each["id"] for each in openai] == [MODEL]
        neuron.switches.show_loading = False
        assert len((await call(neuron, "GET", "/models")).json()) == 1
        refused = await ask(neuron, question() | {"model": BIG.id})
        assert refused.status_code == 404
        await neuron.allow_load()
        await client.read_until(b"loaded")


async def test_a_restart_loses_the_loads_under_way_and_their_memory() -> None:
    neuron = two_cards(gated_loads=True)
    async with running(neuron), raw_client(neuron) as client:
        await client.post({"model_id": BIG.id}, "/models/load")
        await neuron.wait_for_path("/models/load")
        await trio.testing.wait_all_tasks_blocked()
        neuron.restart(empty=True)
        with pytest.raises(trio.BrokenResourceError):
            await client.read_to_end()
        assert neuron.machine.rack.free_mb(1) == 24576
        await neuron.allow_load()
        assert (await load(neuron, BIG.id))[0] == 200
        assert neuron.machine.completed_loads == [BIG.id]


@pytest.mark.parametrize("devices", [[0, 7], [1, 1]])
async def test_a_load_onto_devices_that_cannot_be_is_refused(devices: list[int]) -> None:
    async with running(two_cards()) as neuron:
        status, body = await load(neuron, BIG.id, devices=devices)
    assert status == 400
    assert f"device {devices[1]} " in str(body)
    assert BIG.id not in neuron.machine.rack.resident


async def test_a_load_takes_its_time_unless_a_switch_says_otherwise() -> None:
    slow = SimulatedModel("slow", resident=False, load_seconds=3600)
    async with running(SimulatedNeuron(models=[slow], switches=turned(load_seconds=0))) as neuron:
        assert (await load(neuron, "slow"))[0] == 200


async def test_an_unload_frees_the_memory_and_starts_the_counters_anew() -> None:
    async with running(two_cards()) as neuron:
        await ask(neuron, question())
        assert (await call(neuron, "GET", "/health")).json()["models"][0]["tok_s_decode"] > 0
        unloaded = await call(neuron, "POST", "/models/unload", {"model_id": MODEL})
        again = await call(neuron, "POST", "/models/unload", {"model_id": MODEL})
        nothing = await call(neuron, "POST", "/models/unload", {})
        empty = (await call(neuron, "GET", "/health")).json()
        await load(neuron, MODEL)
        fresh = (await call(neuron, "GET", "/health")).json()

    assert unloaded.json() == {"status": "unloaded"}
    assert (again.status_code, nothing.status_code) == (404, 400)
    assert (empty["models"], empty["devices"][0]["vram_used_mb"]) == ([], 0)
    assert fresh["models"][0]["tok_s_decode"] == 0


async def test_a_model_may_be_unloaded_while_it_answers() -> None:
    async with fake_neuron(gated=True, reply_tokens=1) as neuron, raw_client(neuron) as client:
        await client.post(question(stream=True))
        await neuron.wait_for_hits(1)
        await call(neuron, "POST", "/models/unload", {"model_id": MODEL})
        await neuron.allow(1)
        answer = await client.read_until(b"[DONE]")
        health = (await call(neuron, "GET", "/health")).json()

    assert b'"finish_reason":"stop"' in answer
    assert health["models"] == []


async def test_endpoint_and_capabilities_know_ids_with_a_slash() -> None:
    async with running(two_cards()) as neuron:
        known, unknown = quote(MODEL, safe=""), quote(BIG.id, safe="")
        endpoint = await call(neuron, "GET", f"/models/{known}/endpoint")
        missing = await call(neuron, "GET", f"/models/{unknown}/endpoint")
        cached = await call(neuron, "GET", f"/models/{unknown}/capabilities")
        nobody = await call(neuron, "GET", "/models/nobody/capabilities")
        wrong = await call(neuron, "GET", f"/models/{known}/colour")

    assert endpoint.json() == {"url": f"http://localhost:{neuron.port}"}
    assert (missing.status_code, nobody.status_code, wrong.status_code) == (404, 404, 404)
    assert cached.json() == {"capabilities": ["text", "vision"]}


async def test_health_shows_work_in_progress() -> None:
    async with fake_neuron(gated=True, pre_warming=True) as neuron, raw_client(neuron) as client:
        await client.post(question(stream=True))
        await client.read_until(b"assistant")
        health = (await call(neuron, "GET", "/health")).json()

    assert health["models"][0]["in_flight"] == 1
    assert health["devices"][0]["utilization_pct"] > 0
    assert health["activation"]["state"] == "pre_warming"


def test_models_that_do_not_fit_at_start_are_a_mistake_of_the_test() -> None:
    with pytest.raises(DoesNotFit):
        SimulatedNeuron(models=[SimulatedModel("huge", 99999)])
