"""A good request for every endpoint that has neurons do work, and a fleet that serves them all."""

import msgspec

from cortexd.config.schema import Catalogue, CatalogueModel
from cortexd.demo.hardware import SimulatedModel
from cortexd.demo.neuron import SimulatedNeuron
from cortexd.demo.switches import Switches
from cortexd.dialects.multipart import Part, write_form
from tests.support.core import RecordingClient

MODEL = "sim/small"
VECTORS = "sim/vectors"
AUDIO = Part("file", b"RIFF" + bytes(1600), "hello.wav", "audio/wav")


class Posted(msgspec.Struct, frozen=True):
    """A body and what kind it is. `answers`: how many it asks for."""

    body: bytes
    content_type: str = "application/json"
    answers: int = 1


def posted(*, answers: int = 1, **fields: object) -> Posted:
    """A JSON body for the model that can nearly everything."""
    return Posted(msgspec.json.encode({"model": MODEL, **fields}), answers=answers)


def spoken(*parts: Part) -> Posted:
    """A form with a piece of audio."""
    content_type, body = write_form([AUDIO, Part("model", MODEL.encode()), *parts])
    return Posted(body, content_type)


_RERANK = (posted(query="which?", documents=["this", {"text": "that"}]),)

REQUESTS: dict[str, tuple[Posted, ...]] = {
    "/v1/chat/completions": tuple(
        posted(messages=[{"role": "user", "content": "hi"}], max_tokens=20, stream=stream)
        for stream in (False, True)
    ),
    "/v1/completions": (
        posted(prompt="Once", suffix="end.", max_tokens=20),
        posted(answers=4, prompt=[[1, 2], [3]], n=2, max_tokens=20),
        posted(answers=2, prompt=["Once", "Twice"], max_tokens=20, stream=True),
    ),
    "/v1/responses": (
        posted(input="hi", instructions="Be brief.", max_output_tokens=20),
        posted(input=[{"role": "user", "content": "hi"}], max_output_tokens=20, stream=True),
    ),
    "/v1/embeddings": (
        posted(model=VECTORS, input=["one", "two words"]),
        posted(model=VECTORS, input=[1, 2, 3], encoding_format="base64"),
    ),
    "/v1/rerank": _RERANK,
    "/rerank": _RERANK,
    "/v2/rerank": _RERANK,
    "/v1/images/generations": (posted(prompt="a fox", size="512x512", num_steps=4),),
    "/v1/audio/transcriptions": (spoken(), spoken(Part("response_format", b"text"))),
    "/v1/messages": tuple(
        posted(messages=[{"role": "user", "content": "hi"}], max_tokens=20, stream=stream)
        for stream in (False, True)
    ),
    "/v1/audio/speech": (posted(input="Hello.", voice="alloy"),),
}
"""Path -> requests that are served, plain and streamed."""

CATALOGUE = Catalogue((CatalogueModel(MODEL, audio_tokens_max=500, tokens_per_speech_character=2),))
"""With all prices that capped keys need."""


def all_round_neuron(name: str = "sim", switches: Switches | None = None) -> SimulatedNeuron:
    """A neuron that serves all of them."""
    serves = ("text", "rerank", "image", "transcription", "speech")
    models = [
        SimulatedModel(MODEL, capabilities=serves),
        SimulatedModel(VECTORS, embedding_dimensions=8),
    ]
    return SimulatedNeuron(name, models, switches=switches)


def code_of(client: RecordingClient) -> object:
    """The code of a refusal, in either envelope."""
    details = client.error.get("details")
    return details["error_code"] if isinstance(details, dict) else client.error["code"]
