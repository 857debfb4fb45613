"""POST /v1/embeddings of a simulated neuron: a deterministic unit vector per input."""

import base64
import struct

import msgspec

from cortexd.demo.http import Reply, Request
from cortexd.demo.machine import Machine, key_id, principal
from cortexd.demo.prompt import understand_embeddings
from cortexd.demo.words import embedding

_JSON = (b"content-type", b"application/json")


async def answer_embeddings(machine: Machine, request: Request, reply: Reply) -> None:
    """Answers one embeddings request in OpenAI's shape."""
    question = understand_embeddings(request.body, request.header(b"content-type"))
    resident = machine.serving(question.model, embeddings=True)
    async with machine.lines[question.model].admitted(principal(request)):
        served = machine.counters.served
        tokens = (machine.switches.fixed_usage or (question.prompt_tokens, 0))[0]
        served.add(served.begin(key_id(request)), key_id(request), prompt=tokens)
        await machine.read()
        floats = machine.switches.float_vectors
        dimensions = question.dimensions or resident.model.embedding_dimensions
        data = [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(
                _as_base64(vector) if question.as_base64 and not floats else vector
                for vector in (embedding(text, dimensions) for text in question.texts)
            )
        ]
        whole = {
            "object": "list",
            "model": question.model,
            "data": data,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        await reply.send(200, msgspec.json.encode(whole), (_JSON,))


def _as_base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
