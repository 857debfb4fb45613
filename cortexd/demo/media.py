"""Rerank, images, transcriptions and speech of a simulated neuron: small, cheap and repeatable."""

import base64
import struct
import time
import zlib

import msgspec

from cortexd.demo.http import Reply, Request
from cortexd.demo.machine import Machine, key_id, principal
from cortexd.demo.media_prompt import (
    understand_image,
    understand_rerank,
    understand_speech,
    understand_transcription,
)
from cortexd.demo.switches import UsageLie
from cortexd.demo.words import embedding, reply_tokens

_JSON = (b"content-type", b"application/json")
_SAMPLES_PER_SECOND = 8000
_SAMPLES_PER_CHARACTER = 400
_AUDIO_BYTES_PER_TOKEN = 160
_RELEVANCE_DIMENSIONS = 16


async def answer_rerank(machine: Machine, request: Request, reply: Reply) -> None:
    """Answers with the likeness of two vectors: the same documents, the same order."""
    asked = understand_rerank(request.body, request.header(b"content-type"))
    machine.serving(asked.model, embeddings=False, capability="rerank")
    async with machine.lines[asked.model].admitted(principal(request)):
        await _work(machine, request, asked.prompt_tokens)
        query = embedding(asked.query, _RELEVANCE_DIMENSIONS)
        results = [
            {
                "index": index,
                "relevance_score": _likeness(query, embedding(text, _RELEVANCE_DIMENSIONS)),
                "document": {"text": text},
            }
            for index, text in enumerate(asked.documents)
        ]
        results.sort(key=lambda result: -float(str(result["relevance_score"])))
        tokens = asked.prompt_tokens
        usage: dict[str, object] = {"prompt_tokens": tokens, "total_tokens": tokens}
        whole: dict[str, object] = {
            "id": machine.next_reply_id("rerank"),
            "model": asked.model,
            "results": results[: asked.top_n],
        }
        await _send(machine, whole, usage, reply)


async def answer_images(machine: Machine, request: Request, reply: Reply) -> None:
    """Answers with pictures of one pixel, and says how much work larger ones would have been."""
    asked = understand_image(request.body, request.header(b"content-type"))
    machine.serving(asked.model, embeddings=False, capability="image")
    async with machine.lines[asked.model].admitted(principal(request)):
        passes = 2 if asked.negative_prompt else 1
        units = asked.width * asked.height * asked.num_steps * passes * asked.images / 1e6
        await _work(machine, request, 0)
        picture = base64.b64encode(_one_pixel(asked.prompt)).decode("ascii")
        whole: dict[str, object] = {
            "created": int(time.time()),
            "data": [{"b64_json": picture}] * asked.images,
        }
        timing = {"steps": asked.num_steps, "cfg": asked.negative_prompt is not None}
        await _send(machine, whole, {"helexa_image_units": units, "helexa_timing": timing}, reply)


async def answer_transcription(machine: Machine, request: Request, reply: Reply) -> None:
    """Answers with words that the audio decides, and the tokens that it had."""
    asked = understand_transcription(request.body, request.header(b"content-type") or "")
    machine.serving(asked.model, embeddings=False, capability="transcription")
    async with machine.lines[asked.model].admitted(principal(request)):
        words = reply_tokens(repr(zlib.crc32(asked.audio)))
        text = "".join(word for word, _ in zip(words, range(12), strict=False))
        tokens = -(-len(asked.audio) // _AUDIO_BYTES_PER_TOKEN)
        await _work(machine, request, tokens + 12)
        if asked.response_format == "text":
            await reply.send(200, text.encode(), ((b"content-type", b"text/plain"),))
            return
        usage = {
            "type": "tokens",
            "input_tokens": tokens,
            "output_tokens": 12,
            "total_tokens": tokens + 12,
        }
        await _send(machine, {"text": text}, usage, reply)


async def answer_speech(machine: Machine, request: Request, reply: Reply) -> None:
    """Answers with a WAV of a tone, longer for a longer text."""
    asked = understand_speech(request.body, request.header(b"content-type"))
    machine.serving(asked.model, embeddings=False, capability="speech")
    async with machine.lines[asked.model].admitted(principal(request)):
        await _work(machine, request, len(asked.input))
        samples = bytes(128 + 40 * (index % 2) for index in range(_SAMPLES_PER_CHARACTER))
        wav = _wav(samples * len(asked.input))
        await reply.send(200, wav, ((b"content-type", b"audio/wav"),))


async def _work(machine: Machine, request: Request, tokens: int) -> None:
    """Counts what is about to be served, and takes as long as a prompt would."""
    served = machine.counters.served
    served.add(served.begin(key_id(request)), key_id(request), prompt=tokens)
    await machine.read()


async def _send(
    machine: Machine, whole: dict[str, object], usage: dict[str, object], reply: Reply
) -> None:
    """Sends an object with an honest usage, without one, or with what the switch says."""
    lie = machine.switches.usage
    if isinstance(lie, dict):
        whole["usage"] = lie
    elif lie is UsageLie.HONEST:
        whole["usage"] = usage
    elif lie is not UsageLie.ABSENT:
        whole["usage"] = None
    await reply.send(200, msgspec.json.encode(whole), (_JSON,))


def _likeness(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def _one_pixel(prompt: str) -> bytes:
    """A PNG whose one grey value the prompt decides."""
    grey = zlib.crc32(prompt.encode()) % 256
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes([0, grey]))
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def _wav(samples: bytes) -> bytes:
    """Eight-bit mono."""
    form = struct.pack("<HHIIHH", 1, 1, _SAMPLES_PER_SECOND, _SAMPLES_PER_SECOND, 1, 8)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    body += b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body
