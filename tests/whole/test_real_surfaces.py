"""The other endpoints for text on a real llama-server, and what the engine says they cost."""

import base64
import json
import struct
from pathlib import Path

import pytest

from tests.engines.metered import metered
from tests.support.anthropic_grammar import read_stream

pytestmark = pytest.mark.slow


def events(body: str) -> list[dict[str, object]]:
    """The JSON objects of an event stream."""
    lines = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.parametrize("prompt", ["Once upon a time", [65, 66, 67], ["Once", "Twice"]])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_completion_costs_no_less_than_the_engine_counted(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path, prompt: object, stream: bool
) -> None:
    async with metered(llama_server_program, [tiny_models / "stops.gguf"], tmp_path) as both:
        body = {"model": "stops", "prompt": prompt, "max_tokens": 50, "stream": stream}
        answer = await both.client.post("/v1/completions", json=body)
        assert answer.status_code == 200, answer.text
        charged, counted = await both.costs()
        assert charged >= counted.tokens > 0
        if prompt != ["Once", "Twice"]:
            assert charged == counted.tokens


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_that_are_lost_with_a_prompt_that_was_too_long_are_paid_for(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path, stream: bool
) -> None:
    """The engine answers the other prompts first, and then nothing but an error."""
    models = [tiny_models / "endless.gguf"]
    async with metered(
        llama_server_program, models, tmp_path, kind="llama-server", slot_tokens=512
    ) as both:
        prompts = ["zq9 " * 20] * 8 + ["zq9 " * 200]
        body = {"model": "endless", "prompt": prompts, "max_tokens": 50, "stream": stream}
        answer = await both.client.post("/v1/completions", json=body)
        assert answer.status_code == 400 or '"error"' in answer.text
        charged, counted = await both.costs()
        assert charged >= counted.tokens > 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_costs_what_the_engine_counted_and_is_numbered(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path, stream: bool
) -> None:
    async with metered(llama_server_program, [tiny_models / "stops.gguf"], tmp_path) as both:
        body = {
            "model": "stops",
            "input": [{"role": "user", "content": "hi"}],
            "instructions": "Be brief.",
            "max_output_tokens": 100,
            "stream": stream,
        }
        answer = await both.client.post("/v1/responses", json=body)
        assert answer.status_code == 200, answer.text
        charged, counted = await both.costs()
        assert charged == counted.tokens > 0
        if stream:
            found = events(answer.text)
            assert [each["sequence_number"] for each in found] == list(range(len(found)))
            assert found[-1]["type"] in ("response.completed", "response.incomplete")
        else:
            assert answer.json()["object"] == "response"


@pytest.mark.parametrize("native", [False, True], ids=["as a chat", "as it is"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_message_costs_what_the_engine_counted(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path, stream: bool, native: bool
) -> None:
    async with metered(
        llama_server_program,
        [tiny_models / "stops.gguf"],
        tmp_path,
        kind="llama-server",
        anthropic=native,
    ) as both:
        body = {
            "model": "stops",
            "system": "Be brief.",
            "messages": [{"role": "user", "content": "hi"}],
            "max_tokens": 100,
            "stream": stream,
        }
        answer = await both.client.post("/v1/messages", json=body)
        while stream and answer.is_success and b"content_block_start" not in answer.content:
            # The model may end its answer before the first word, which is told as it is.
            answer = await both.client.post("/v1/messages", json=body)
        assert answer.status_code == 200, answer.text
        charged, counted = await both.costs()
        assert charged == counted.tokens > 0
        if stream:
            assert read_stream(answer.content).ending == "stop"
        else:
            usage = answer.json()["usage"]
            read = usage["input_tokens"] + usage["cache_read_input_tokens"]
            assert read + usage["output_tokens"] == charged


@pytest.mark.parametrize("native", [False, True], ids=["as a chat", "as it is"])
async def test_an_endless_message_ends_where_its_output_is_paid_for(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path, native: bool
) -> None:
    async with metered(
        llama_server_program,
        [tiny_models / "endless.gguf"],
        tmp_path,
        kind="llama-server",
        anthropic=native,
    ) as both:
        body = {
            "model": "endless",
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
            "max_tokens": 30,
            "n_predict": 1000,
            "stream": True,
        }
        answer = await both.client.post("/v1/messages", json=body)
        told = read_stream(answer.content)
        assert (told.ending, told.delta["stop_reason"]) == ("stop", "max_tokens")
        charged, counted = await both.costs()
        assert charged >= counted.tokens > 30
        assert counted.generated == 30


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": "hi"}),
        ("/v1/rerank", {"query": "hi", "documents": ["there"]}),
    ],
)
async def test_what_an_engine_is_not_started_for_is_said_once_and_costs_nothing(
    llama_server_program: Path,
    tiny_models: Path,
    tmp_path: Path,
    path: str,
    body: dict[str, object],
) -> None:
    async with metered(llama_server_program, [tiny_models / "stops.gguf"], tmp_path) as both:
        answer = await both.client.post(path, json={"model": "stops", **body})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "endpoint_not_served")
        assert (await both.costs())[0] == 0
        assert (await both.ask(model="stops", max_tokens=5)).status_code == 200


async def test_embeddings_come_in_both_forms_and_cost_what_the_engine_counted(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    flags = ("--embeddings", "--pooling", "mean")
    models = [tiny_models / "stops.gguf"]
    async with metered(llama_server_program, models, tmp_path, flags=flags) as both:
        body = {"model": "stops", "input": ["Once upon a time", "Twice"]}
        answers = [
            await both.client.post("/v1/embeddings", json={**body, "encoding_format": form})
            for form in ("float", "base64")
        ]
        floats, coded = (answer.json() for answer in answers)
        for plain, packed in zip(floats["data"], coded["data"], strict=True):
            numbers = plain["embedding"]
            unpacked = struct.unpack(f"<{len(numbers)}f", base64.b64decode(packed["embedding"]))
            assert unpacked == pytest.approx(numbers, abs=1e-5)
        spending = await both.spending()
        assert spending.spent == 2 * floats["usage"]["total_tokens"] > 0
