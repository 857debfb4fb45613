"""Requests through the core to engines of a kind, scripted on real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cortexd.config.schema import Catalogue, CatalogueModel, NeuronKind
from tests.fleet.engines.recorded import Recorded, Reply
from tests.fleet.engines.test_llama_router import DONE, error, models
from tests.fleet.scripted import scripted
from tests.support.core import Core, core

CHAT = {"model": "a", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
PATH = "/v1/chat/completions"
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "model": "a",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "hi there"},
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
}
LISTED: Reply = (200, {"object": "list", "data": [{"id": "a", "max_model_len": 4096}]})


@asynccontextmanager
async def before(kind: NeuronKind, recorded: Recorded, directory: Path) -> AsyncIterator[Core]:
    """A gateway in front of one engine, which it may have load the model `a`."""
    catalogue = Catalogue((CatalogueModel("a"),))
    async with (
        scripted(recorded.script, within_seconds=30) as server,
        core(directory, {"beast": server.url}, kind=kind, catalogue=catalogue) as it,
    ):
        yield it


async def test_a_model_that_left_its_router_is_loaded_again_and_the_client_never_knows(
    tmp_path: Path,
) -> None:
    call = f"POST {PATH}?autoload=false"
    recorded = Recorded(
        {"GET /v1/models": models(a="loaded"), "POST /models/load": DONE},
        {
            call: {"GET /v1/models": models(a="unloaded")},
            "POST /models/load": {"GET /v1/models": models(a="loaded"), call: (200, ANSWER)},
        },
    )
    recorded.replies[call] = error(400, "model is not loaded")
    async with before("llama-router", recorded, tmp_path) as it:
        client = await it.ask(CHAT)
        assert client.status == 200, client.body
        standing = await it.standing()
    assert (standing.spent, standing.reserved) == (11, 0)
    assert [path for path, _ in recorded.sent] == [
        f"{PATH}?autoload=false",
        "/models/load",
        f"{PATH}?autoload=false",
    ]


async def test_each_kind_is_told_the_limit_under_the_names_that_it_obeys(tmp_path: Path) -> None:
    recorded = Recorded(
        {"GET /health": (200, ""), "GET /v1/models": LISTED, f"POST {PATH}": (200, ANSWER)}
    )
    async with before("vllm", recorded, tmp_path) as it:
        client = await it.ask({**CHAT, "ebnf": "x", "guided_choice": ["a"]})
        assert client.status == 200, client.body
    [(_, sent)] = recorded.sent
    assert isinstance(sent, dict)
    assert (sent["max_tokens"], sent["max_completion_tokens"]) == (5, 5)
    assert sent["guided_choice"] == ["a"]
    assert "ebnf" not in sent


async def test_several_answers_of_an_engine_that_counts_them_all_cost_its_count(
    tmp_path: Path,
) -> None:
    two = json.loads(json.dumps(ANSWER))
    two["choices"].append({**two["choices"][0], "index": 1})
    recorded = Recorded(
        {"GET /health": (200, ""), "GET /v1/models": LISTED, f"POST {PATH}": (200, two)}
    )
    async with before("vllm", recorded, tmp_path) as it:
        client = await it.ask({**CHAT, "n": 2})
        assert client.status == 200, client.body
        assert (await it.standing()).spent == USAGE["total_tokens"]
