"""Real llama.cpp servers by their own kinds: what is read of them, loaded, unloaded and woken."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import trio

from cortexd.cli.main import main
from cortexd.config.schema import Neuron, NeuronKind
from cortexd.deadlines import watched_deadlines
from cortexd.fleet.engines.controls import control_of
from cortexd.fleet.load_calls import LoadFailed, LoadSpec
from cortexd.fleet.neuron import Control
from cortexd.fleet.pool import Pool
from cortexd.fleet.reports import ModelId
from tests.engines.metered import metered
from tests.engines.real_engine import llama_router, llama_server
from tests.support.daemon_process import CAPPED_KEY, chat, serving

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 30
STOPS, ENDLESS = ModelId("stops"), ModelId("endless")


@asynccontextmanager
async def controlled(url: str, kind: NeuronKind) -> AsyncIterator[Control]:
    """The control client of an engine that runs."""
    async with watched_deadlines() as deadlines, aclosing(Pool(deadlines, 3)) as pool:
        control = control_of(Neuron("real", url, kind), pool, timeout_seconds=PATIENCE_SECONDS)
        async with aclosing(control):
            with trio.fail_after(PATIENCE_SECONDS):
                yield control


async def states(control: Control) -> dict[str, str]:
    """Status by model, as the engine lists them now."""
    return {model.id: model.status for model in (await control.poll()).models}


async def test_a_server_tells_its_context_and_its_slots(
    llama_server_program: Path, tiny_models: Path
) -> None:
    model = tiny_models / "endless.gguf"
    async with (
        llama_server(llama_server_program, model, slots=3, slot_tokens=1024) as engine,
        controlled(engine.url, "llama-server") as control,
    ):
        answered = await control.poll()
        assert [(each.id, each.limit.context) for each in answered.models] == [("endless", 1024)]
        assert [(each.max_in_flight, each.in_flight) for each in answered.loads] == [(3, 0)]
        body = chat(model="endless", max_tokens=900) | {"stream": True}
        url = f"{engine.url}/v1/chat/completions"
        async with engine.client.stream("POST", url, json=body):
            (load,) = (await control.poll()).loads
            assert load.in_flight == 1


async def test_a_router_loads_and_unloads_what_it_is_told(
    llama_server_program: Path, tiny_models: Path
) -> None:
    async with (
        llama_router(llama_server_program, tiny_models) as engine,
        controlled(engine.url, "llama-router") as control,
    ):
        assert await states(control) == {"endless": "unloaded", "stops": "unloaded"}
        await control.load(LoadSpec(STOPS))
        assert await states(control) == {"endless": "unloaded", "stops": "loaded"}
        await control.load(LoadSpec(STOPS))
        answered = await control.poll()
        (load,) = answered.loads
        assert (load.id, load.max_in_flight) == ("stops", 2)
        assert {each.id: each.limit.context for each in answered.models}[STOPS] == 2048
        await control.unload(STOPS)
        assert await states(control) == {"endless": "unloaded", "stops": "unloaded"}
        await control.unload(STOPS)
        with pytest.raises(LoadFailed) as failed:
            await control.load(LoadSpec(ModelId("nobody")))
        assert failed.value.permanent


async def test_a_file_that_is_no_model_fails_to_load_and_is_shown_so(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.gguf").write_bytes((tiny_models / "stops.gguf").read_bytes()[:4096])
    async with (
        llama_router(llama_server_program, tmp_path) as engine,
        controlled(engine.url, "llama-router") as control,
    ):
        with pytest.raises(LoadFailed):
            await control.load(LoadSpec(ModelId("broken")))
        (model,) = (await control.poll()).models
        assert model.status == "unloaded"
        assert model.servable is not None
        assert not model.servable.ok


async def test_a_client_gets_whichever_model_of_a_router_it_asks_for(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    """The router holds one model; each request for the other has it loaded first."""
    catalogue = tmp_path / "models.yaml"
    catalogue.write_text(json.dumps({"models": [{"id": "stops"}, {"id": "endless"}]}))
    async with (
        llama_router(llama_server_program, tiny_models, models_max=1) as engine,
        serving(
            tmp_path,
            {"router": {"endpoint": engine.url, "kind": "llama-router"}},
            keys=[{**CAPPED_KEY, "hard_cap": 100_000}],
            polling={"interval_seconds": 0.2},
            models_config=str(catalogue),
        ) as daemon,
        daemon.client() as client,
    ):
        for model in ("stops", "endless") * 6:
            body = chat(model=model, max_tokens=5)
            answer = await client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
            assert answer.json()["model"] == model
            assert answer.json()["usage"]["completion_tokens"] <= 5


async def test_the_doctor_tells_a_server_from_a_router(
    llama_server_program: Path, tiny_models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        llama_server(llama_server_program, tiny_models / "stops.gguf") as server,
        llama_router(llama_server_program, tiny_models) as router,
    ):
        for url, kind in ((server.url, "llama-server"), (router.url, "llama-router")):
            assert await trio.to_thread.run_sync(main, ["doctor", url, "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["kind"] == kind
        async with controlled(router.url, "llama-router") as control:
            assert set((await states(control)).values()) == {"unloaded"}, "a question loaded it"


async def test_a_prompt_that_does_not_fit_by_its_bytes_is_counted_by_the_engine_and_served(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    """What was reserved is to the token what the engine then read, and the cap holds."""
    async with metered(
        llama_server_program,
        [tiny_models / "stops.gguf"],
        tmp_path,
        kind="llama-server",
        hard_cap=400,
    ) as both:
        words = [{"role": "user", "content": "every neuron and every answer " * 16}]
        assert len(json.dumps(words)) > 400
        answer = await both.ask(model="stops", max_tokens=200, messages=words)
        assert answer.status_code == 200, answer.text
        charged, counted = await both.costs()
        assert charged == counted.tokens == answer.json()["usage"]["total_tokens"]
        refused = await both.ask(model="stops", max_tokens=350, messages=words)
        assert refused.status_code == 429
        assert (await both.costs())[1].tokens == 0


async def test_no_more_requests_than_slots_are_given_to_a_server(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    async with metered(
        llama_server_program,
        [tiny_models / "stops.gguf"],
        tmp_path,
        kind="llama-server",
        slots=1,
        polling={"interval_seconds": 0.2},
    ) as both:
        statuses: list[int] = []

        async def ask() -> None:
            answer = await both.ask(model="stops", max_tokens=60)
            statuses.append(answer.status_code)

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(ask, name=f"request {number}")
        assert statuses == [200] * 6
        charged, counted = await both.costs()
        assert charged == counted.tokens
