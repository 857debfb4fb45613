"""What a user does with the other endpoints of the official openai package, as a program.

    PYTHONPATH=.sdk/openai3 python tests/whole/sdk_surfaces_script.py http://127.0.0.1:31313

Runs every scenario once and prints one JSON line for each: its name and the facts that it met. It
judges nothing, and imports nothing of the project. The key of a scenario is `sk-` and its name.
"""

import json
import sys
from collections.abc import Callable

import openai  # type: ignore[import-not-found]  # lives in a folder of its own, see Makefile

MODEL, VECTORS, DYING = "sim/small", "sim/vectors", "sim/dying"
AUDIO = ("hello.wav", b"RIFF" + bytes(1600), "audio/wav")
Facts = dict[str, object]


def completion(client: openai.OpenAI) -> Facts:
    answer = client.completions.create(model=MODEL, prompt=["Once", "Twice"], n=2, max_tokens=5)
    return {
        "texts": [choice.text for choice in answer.choices],
        "indices": [choice.index for choice in answer.choices],
        "total_tokens": answer.usage.total_tokens,
        "model": answer.model,
    }


def completion_streamed(client: openai.OpenAI) -> Facts:
    asked = {"model": MODEL, "prompt": [5, 6, 7], "suffix": "end.", "max_tokens": 5}
    chunks = list(client.completions.create(**asked, stream=True))
    return {
        "text": "".join(choice.text for chunk in chunks for choice in chunk.choices),
        "plain": client.completions.create(**asked).choices[0].text,
        "reasons": [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason],
        "usages": [chunk.usage.total_tokens for chunk in chunks if chunk.usage is not None],
    }


def completion_breaks(client: openai.OpenAI) -> Facts:
    stream = client.completions.create(model=DYING, prompt="Once", max_tokens=20, stream=True)
    return {"read": len(list(stream))}


def response(client: openai.OpenAI) -> Facts:
    answer = client.responses.create(
        model=MODEL, input="hi", instructions="Be brief.", max_output_tokens=50
    )
    return {
        "text": answer.output_text,
        "status": answer.status,
        "total_tokens": answer.usage.total_tokens,
        "model": answer.model,
    }


def response_streamed(client: openai.OpenAI) -> Facts:
    asked = {"model": MODEL, "input": [{"role": "user", "content": "hi"}], "max_output_tokens": 50}
    events = list(client.responses.create(**asked, stream=True))
    with client.responses.stream(**asked) as gathering:
        for _ in gathering:
            pass
        final = gathering.get_final_response()
    return {
        "kinds": [event.type for event in events],
        "numbers": [event.sequence_number for event in events],
        "text": "".join(event.delta for event in events if event.type.endswith("text.delta")),
        "final": final.output_text,
        "models": sorted({event.response.model for event in events if hasattr(event, "response")}),
    }


def response_breaks(client: openai.OpenAI) -> Facts:
    stream = client.responses.create(model=DYING, input="hi", max_output_tokens=20, stream=True)
    events = list(stream)
    last = events[-1]
    return {"last": last.type, "code": last.response.error.code, "status": last.response.status}


def response_breaks_while_gathered(client: openai.OpenAI) -> Facts:
    try:
        with client.responses.stream(model=DYING, input="hi", max_output_tokens=20) as gathering:
            for _ in gathering:
                pass
            gathering.get_final_response()
    except RuntimeError as error:
        return {"gathered": str(error)}
    return {"gathered": None}


def response_with_a_past(client: openai.OpenAI) -> Facts:
    client.responses.create(model=MODEL, input="hi", previous_response_id="resp_1")
    return {}


def response_with_a_hosted_tool(client: openai.OpenAI) -> Facts:
    client.responses.create(model=MODEL, input="hi", tools=[{"type": "web_search"}])
    return {}


def embeddings(client: openai.OpenAI) -> Facts:
    """The package asks for base64 by itself, and unpacks it."""
    packed = client.embeddings.create(model=VECTORS, input=["one", "two words"])
    plain = client.embeddings.create(
        model=VECTORS, input=["one", "two words"], encoding_format="float"
    )
    near = zip(packed.data[1].embedding, plain.data[1].embedding, strict=True)
    return {
        "lengths": [len(row.embedding) for row in packed.data],
        "apart": max(abs(one - other) for one, other in near),
        "total_tokens": packed.usage.total_tokens,
        "model": packed.model,
    }


def rerank(client: openai.OpenAI) -> Facts:
    body = {"model": MODEL, "query": "one", "documents": ["two", "one"], "top_n": 1}
    answer = client.post("/rerank", body=body, cast_to=object)
    return {"best": answer["results"][0]["index"], "total_tokens": answer["usage"]["total_tokens"]}


def image(client: openai.OpenAI) -> Facts:
    answer = client.images.generate(
        model=MODEL, prompt="a fox", size="512x512", extra_body={"num_steps": 4}
    )
    return {"picture": answer.data[0].b64_json[:8]}


def transcription(client: openai.OpenAI) -> Facts:
    answer = client.audio.transcriptions.create(model=MODEL, file=AUDIO, language="en")
    text = client.audio.transcriptions.create(model=MODEL, file=AUDIO, response_format="text")
    return {"text": answer.text, "bare": text}


def speech(client: openai.OpenAI) -> Facts:
    answer = client.audio.speech.create(model=MODEL, voice="alloy", input="Hello.")
    return {
        "begins": answer.content[:4].decode(),
        "content_type": answer.response.headers["content-type"],
    }


def unpriced_speech(client: openai.OpenAI) -> Facts:
    client.audio.speech.create(model=VECTORS, voice="alloy", input="Hello.")
    return {}


def too_long(client: openai.OpenAI) -> Facts:
    client.responses.create(model=MODEL, input="x" * 5_000_000)
    return {}


def poor_completion(client: openai.OpenAI) -> Facts:
    client.completions.create(model=MODEL, prompt="Once", max_tokens=50)
    return {}


def poor_response(client: openai.OpenAI) -> Facts:
    client.responses.create(model=MODEL, input="hi", max_output_tokens=50, stream=True)
    return {}


def poor_embeddings(client: openai.OpenAI) -> Facts:
    client.embeddings.create(model=VECTORS, input="x" * 50)
    return {}


def poor_rerank(client: openai.OpenAI) -> Facts:
    body = {"model": MODEL, "query": "one", "documents": ["two"] * 9}
    client.post("/rerank", body=body, cast_to=object)
    return {}


def poor_image(client: openai.OpenAI) -> Facts:
    client.images.generate(model=MODEL, prompt="a fox", extra_body={"num_steps": 4})
    return {}


def poor_transcription(client: openai.OpenAI) -> Facts:
    client.audio.transcriptions.create(model=MODEL, file=AUDIO)
    return {}


def poor_speech(client: openai.OpenAI) -> Facts:
    client.audio.speech.create(model=MODEL, voice="alloy", input="Hello. " * 9)
    return {}


SCENARIOS: tuple[Callable[[openai.OpenAI], Facts], ...] = (
    completion,
    completion_streamed,
    completion_breaks,
    response,
    response_streamed,
    response_breaks,
    response_breaks_while_gathered,
    response_with_a_past,
    response_with_a_hosted_tool,
    embeddings,
    rerank,
    image,
    transcription,
    speech,
    unpriced_speech,
    too_long,
    poor_completion,
    poor_response,
    poor_embeddings,
    poor_rerank,
    poor_image,
    poor_transcription,
    poor_speech,
)


def main() -> None:
    """Run all scenarios; an exception of the package is a fact like any other."""
    shared = openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="sk-none", timeout=20)
    for scenario in SCENARIOS:
        client = shared.with_options(api_key=f"sk-{scenario.__name__}")
        facts: Facts = {"scenario": scenario.__name__, "raised": None}
        try:
            facts |= scenario(client)
        except openai.OpenAIError as error:
            facts["raised"] = type(error).__name__
            for name in ("status_code", "code", "type", "param", "request_id", "message"):
                facts[name] = getattr(error, name, None)
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
