"""Every condition in which a client is refused, and how it comes about: the table of the errors.

One row is one condition: status, types, code, whether to ask again and when, and the words that
clients look for. `test_error_table.py` brings each about in the real core.
"""

import json
from collections.abc import Sequence

import msgspec

from cortexd.config.schema import Catalogue, CatalogueModel, Key, Limit, NeuronKind, Waiting
from cortexd.demo.admission import AdmissionLimits
from cortexd.demo.hardware import Device, SimulatedModel
from cortexd.demo.switches import BreakKind, Broken, Canned
from cortexd.gateway.relay import Clocks
from tests.support.core import RollingWindow, key
from tests.support.fake_neuron import turned
from tests.support.surfaces import MODEL

REQUEST, RATE, SERVER = "invalid_request_error", "rate_limit_error", "api_error"
CHAT = [{"role": "user", "content": "hi"}]
IMAGE = {"type": "image_url", "image_url": {"url": "https://x.example/i.png"}}
ANTHROPICS_IMAGE = {"type": "image", "source": {"type": "url", "url": "https://x.example/i.png"}}
PLAINLY_LISTED = {"/v1/models": Canned(body=b'{"object":"list","data":[{"id":"sim/small"}]}')}
ASKED: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"messages": CHAT, "max_tokens": 20},
    "/v1/completions": {"prompt": "Once", "max_tokens": 20},
    "/v1/responses": {"input": "hi", "max_output_tokens": 20},
    "/v1/messages": {"messages": CHAT, "max_tokens": 20},
}
"""Path -> a good request."""

PAID = ("upstream_failed", "upstream_timeout")
"""Codes behind which a neuron may have worked; nothing else costs anything."""

LIMITS = {"/v1/responses": "max_output_tokens"}
PROMPTS = {"/v1/completions": "prompt", "/v1/responses": "input"}
QUICK = Clocks(first_byte_seconds=0.2, between_bytes_seconds=0.2)
CARD = (Device(0, "a card", 24_000),)


class World(msgspec.Struct):
    """What a condition needs: a fleet, keys and settings, all as they are when nothing is wrong."""

    switches: dict[str, object] = {}
    keys: Sequence[Key] = ()
    catalogue: Catalogue = Catalogue()
    models: Sequence[SimulatedModel] | None = None
    devices: Sequence[Device] = CARD
    clocks: Clocks = Clocks(first_byte_seconds=20, between_bytes_seconds=20)
    waiting: Waiting = Waiting()
    room_bytes_min: int = 0
    calls_max: int = 100
    is_silent: bool = False
    kind: NeuronKind = "neuron"
    admission: AdmissionLimits = AdmissionLimits()


class Asking(msgspec.Struct):
    """How the request differs from a good one; `whole` replaces its body."""

    fields: dict[str, object] = {}
    without: tuple[str, ...] = ()
    whole: bytes | None = None
    method: str = "POST"
    headers: dict[str, str] = {}
    prompt: object = None
    output: int | None = None

    def body(self, path: str) -> bytes:
        """The body as it is posted on a path."""
        if self.whole is not None:
            return self.whole
        asked = {"model": MODEL, **ASKED[path], **self.fields}
        if self.prompt is not None:
            name = PROMPTS.get(path, "messages")
            chat = [{"role": "user", "content": self.prompt}]
            asked[name] = self.prompt if name in PROMPTS.values() else chat
        if self.output is not None:
            asked[LIMITS.get(path, "max_tokens")] = self.output
        return json.dumps({n: v for n, v in asked.items() if n not in self.without}).encode()


class Row(msgspec.Struct):
    """A condition and what is told of it.

    `again`: "no", "maybe", or the seconds of Retry-After as (least, most). `openai`, `anthropic`:
    the types. `says`, `says_to_anthropic`: how the message has to begin or what it has to hold;
    the latter is the former where nothing is given. `given`, `asking`: how it comes about. `twice`:
    the first request of two is served. `beside_another`: another is open meanwhile. `is_dead`: the
    neuron has just died. `only`: where it can come about at all.
    """

    name: str
    status: int
    code: str
    openai: str
    anthropic: str
    again: str | tuple[int, int]
    says: str
    says_to_anthropic: str = ""
    param: str | None = None
    given: World = msgspec.field(default_factory=World)
    asking: Asking = msgspec.field(default_factory=Asking)
    twice: bool = False
    beside_another: bool = False
    only: tuple[str, ...] = tuple(ASKED)
    is_dead: bool = False


def refusing(status: int, body: bytes, retry_after: str | None = None) -> World:
    """A neuron that answers every request for work so."""
    switches = turned()
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses"):
        switches.refuse(status, body, path=path, retry_after=retry_after)
    return World({"faults": switches.faults})


def cold(**switches: object) -> World:
    """A model that has to be loaded first, which takes as long as it takes."""
    return World(
        switches,
        keys=[key(hard_cap=10**9)],
        models=[SimulatedModel(MODEL, 16_000, load_seconds=0, resident=False)],
        catalogue=Catalogue((CatalogueModel(MODEL, vram_mb=16_000),)),
        waiting=Waiting(plain_wait_seconds=10),
    )


def crowded() -> World:
    """A card that a model holds which nothing may displace."""
    return World(
        keys=[key(hard_cap=10**9)],
        models=[
            SimulatedModel("org/oak", 16_000),
            SimulatedModel(MODEL, 16_000, resident=False),
        ],
        catalogue=Catalogue(
            (
                CatalogueModel("org/oak", vram_mb=16_000, residency_priority=500),
                CatalogueModel(MODEL, vram_mb=16_000),
            )
        ),
    )


OVER_CONTEXT = (
    b'{"error":{"code":400,"type":"exceed_context_size_error","n_prompt_tokens":5000,"n_ctx":4096,'
    b'"message":"the request exceeds the available context size"}}'
)
OUTPUT_OVER_CONTEXT = (
    b'{"error":{"message":"This model\'s maximum context length is 4096 tokens. However, you '
    b"requested 4196 tokens (4000 in the messages, 196 in the completion). Please reduce the "
    b'length of the messages or completion.","type":"BadRequestError","code":400}}'
)
CHATTING = ("/v1/chat/completions", "/v1/messages")
HOURLY = RollingWindow(seconds=3600)

ROWS = [
    Row(
        "no JSON", 400, "invalid_json", REQUEST, REQUEST, "no", "not valid JSON",
        asking=Asking(whole=b'{"model":'),
    ),
    Row(
        "no object", 400, "invalid_json", REQUEST, REQUEST, "no", "must be a JSON object",
        asking=Asking(whole=b"[]"),
    ),
    Row(
        "no model", 400, "missing_required_parameter", REQUEST, REQUEST, "no",
        "Missing required parameter: 'model'.", param="model", asking=Asking(without=("model",)),
    ),
    Row(
        "a strange limit", 400, "invalid_value", REQUEST, REQUEST, "no",
        "must be an integer from 1", asking=Asking(output=-1),
        param="*",
    ),
    Row(
        "no key", 401, "invalid_api_key", REQUEST, "authentication_error", "no",
        "Incorrect API key provided: no API key", asking=Asking(headers={"authorization": ""}),
    ),
    Row(
        "an unknown key", 401, "invalid_api_key", REQUEST, "authentication_error", "no",
        "Incorrect API key provided: this key",
        asking=Asking(headers={"authorization": "", "x_api_key": "sk-who"}),
    ),
    Row(
        "two keys", 401, "invalid_api_key", REQUEST, "authentication_error", "no",
        "Incorrect API key provided: ", asking=Asking(headers={"x_api_key": "sk-other"}),
    ),
    Row(
        "a model that is not on the list", 403, "model_not_allowed", "permission_error",
        "permission_error", "no", "may not use the model 'sim/small'", param="model",
        given=World(keys=[msgspec.structs.replace(key(), models=("org/other",))]),
    ),
    Row(
        "an unknown model", 404, "model_not_found", REQUEST, "not_found_error", "no",
        "The model 'nobody/knows' does not exist", "^model: nobody/knows. The model", "model",
        asking=Asking({"model": "nobody/knows"}),
    ),
    Row(
        "a model that fits nowhere", 404, "model_not_found", REQUEST, "not_found_error", "no",
        "cannot run here", "^model: sim/small. ", "model",
        given=msgspec.structs.replace(cold(), devices=(Device(0, "a small card", 1_000),)),
    ),
    Row(
        "another method", 405, "method_not_allowed", REQUEST, REQUEST, "no", "use POST",
        asking=Asking(method="GET"),
    ),
    Row(
        "a compressed body", 415, "unsupported_media_type", REQUEST, REQUEST, "no", "Compressed",
        asking=Asking(headers={"content_encoding": "gzip"}),
    ),
    Row(
        "a prompt beyond any context", 400, "context_length_exceeded", REQUEST, REQUEST, "no",
        "This model's maximum context length is 64 tokens. However, your messages resulted in 65 "
        "tokens", "^prompt is too long: 65 tokens > 64 maximum",
        given=World(
            models=[SimulatedModel(MODEL, context=64)],
            catalogue=Catalogue((CatalogueModel(MODEL, limit=Limit(context=64)),)),
        ),
        asking=Asking(prompt="x" * 128 * 65),
    ),
    Row(
        "a prompt beyond the neuron's context", 400, "context_length_exceeded", REQUEST, REQUEST,
        "no", "This model's maximum context length is 4096 tokens. However, your messages resulted "
        "in 5000 tokens", "^prompt is too long: 5000 tokens > 4096 maximum", "messages",
        given=refusing(400, OVER_CONTEXT),
    ),
    Row(
        "an output beyond the context", 400, "context_length_exceeded", REQUEST, REQUEST, "no",
        "This model's maximum context length is 4096 tokens", "^input length and `max_tokens` "
        "exceed context limit: 4000 + 196 > 4096, decrease input length or `max_tokens` and try "
        "again", "messages", given=refusing(400, OUTPUT_OVER_CONTEXT),
    ),
    Row(
        "an image that nothing bounds", 400, "unsupported_parameter", REQUEST, REQUEST, "no",
        "image_tokens_max", param="messages",
        given=World({"faults": PLAINLY_LISTED}, kind="openai"),
        asking=Asking(prompt=[IMAGE]), only=CHATTING,
    ),
    Row(
        "a hosted tool", 400, "unsupported_parameter", REQUEST, REQUEST, "no", "tools[0].type",
        param="tools[0].type", asking=Asking({"tools": [{"type": "web_search_20250305"}]}),
        only=(*CHATTING, "/v1/responses"),
    ),
    Row(
        "a balance that is used up", 429, "insufficient_quota", "insufficient_quota", RATE, "no",
        "its hard cap is 10 tokens in all; 0 spent, 0 reserved by open requests, 10 left",
        given=World(keys=[key(hard_cap=10)]),
    ),
    Row(
        "a window that opens soon", 429, "rate_limit_exceeded", RATE, RATE, (1, 31),
        "tokens in any 30 s; 40 spent", twice=True,
        given=World(
            {"fixed_usage": (30, 10)}, [key(hard_cap=80, window=RollingWindow(seconds=30))]
        ),
    ),
    Row(
        "a window that opens late", 429, "rate_limit_exceeded", RATE, RATE, (3500, 3610),
        "tokens in any 3600 s; 40 spent", twice=True,
        given=World({"fixed_usage": (30, 10)}, [key(hard_cap=80, window=HOURLY)]),
    ),
    Row(
        "more than the whole window", 429, "rate_limit_exceeded", RATE, RATE, (3600, 3600),
        "waiting cannot help", given=World(keys=[key(hard_cap=10, window=HOURLY)]),
    ),
    Row(
        "too many in flight", 429, "rate_limit_exceeded", RATE, RATE, (1, 5),
        "Too many requests in flight for key 'key-cap'", beside_another=True,
        given=World({"gated_prefill": True}, [msgspec.structs.replace(key(), max_in_flight=1)]),
    ),
    Row(
        "a model that is being loaded", 503, "model_loading", SERVER, "overloaded_error",
        (42, 60), "is not ready yet", given=cold(gated_loads=True),
    ),
    Row(
        "too many who wait", 503, "queue_full", SERVER, "overloaded_error", (5, 5),
        "has too many requests waiting", beside_another=True,
        given=msgspec.structs.replace(cold(gated_loads=True), waiting=Waiting(requests_max=1)),
    ),
    Row(
        "a turn that does not come", 503, "queue_timeout", SERVER, "overloaded_error", (1, 60),
        "is busy", beside_another=True,
        given=World(
            {"gated_prefill": True},
            waiting=Waiting(queue_seconds=0.05),
            admission=AdmissionLimits(max_in_flight=1),
        ),
    ),
    Row(
        "no room for the model", 503, "no_room", SERVER, "overloaded_error", (1, 600),
        "cannot be loaded right now", given=crowded(),
    ),
    Row(
        "a model that cannot be loaded", 503, "model_load_failed", SERVER, SERVER, "no",
        "could not be loaded", given=msgspec.structs.replace(
            cold(load_failures={MODEL: "empty_repo"}), waiting=Waiting()
        ),
    ),
    Row(
        "nobody there", 503, "no_neuron", SERVER, "overloaded_error", (1, 30),
        "Try again in", given=msgspec.structs.replace(cold(), is_silent=True),
    ),
    Row(
        "a neuron that is full", 503, "overloaded", SERVER, "overloaded_error", (7, 7),
        "no room for the request now: busy", given=refusing(503, b'{"error":"busy"}', "7"),
    ),
    Row(
        "a neuron that counts requests", 503, "overloaded", SERVER, "overloaded_error", (9, 9),
        "no room for the request now", given=refusing(429, b"", "9"),
    ),
    Row(
        "a disk that is nearly full", 503, "ledger_unavailable", SERVER, "overloaded_error", (5, 5),
        "disk is nearly full", given=World(room_bytes_min=1 << 60),
    ),
    Row(
        "a ledger that is busy", 503, "ledger_unavailable", SERVER, "overloaded_error", (5, 5),
        "The ledger is busy", given=World(calls_max=0),
    ),
    Row(
        "a neuron that is gone", 502, "upstream_unreachable", SERVER, SERVER, (1, 1),
        "could not be reached", is_dead=True,
    ),
    Row(
        "a neuron that breaks off", 502, "upstream_failed", SERVER, SERVER, "maybe",
        "The neuron broke off its answer", given=World({"broken": Broken(BreakKind.RESET)}),
    ),
    Row(
        "a neuron that fails", 502, "upstream_failed", SERVER, SERVER, "maybe",
        "The neuron failed with status 500: CUDA", given=refusing(500, b'{"detail":"CUDA"}'),
    ),
    Row(
        "a neuron that sends no answer", 502, "upstream_failed", SERVER, SERVER, "maybe",
        "The neuron's answer was no ", given=refusing(200, b"[]"),
    ),
    Row(
        "our own key is refused", 502, "upstream_auth_failed", SERVER, SERVER, "no",
        "did not accept cortexd's own credential", given=refusing(401, b'{"error":"Unauthorized"}'),
    ),
    Row(
        "our own key is forbidden", 502, "upstream_auth_failed", SERVER, SERVER, "no",
        "did not accept cortexd's own credential", given=refusing(403, b""),
    ),
    Row(
        "a neuron that is silent", 504, "upstream_timeout", SERVER, "timeout_error", "no",
        "The neuron fell silent", given=World({"silent": True}, clocks=QUICK),
    ),
    Row(
        "a neuron that ran out of time", 504, "upstream_timeout", SERVER, "timeout_error", "no",
        "The neuron ran out of time", given=refusing(504, b"<html>"),
    ),
    Row(
        "a neuron that rejects", 400, "vision_unsupported", REQUEST, REQUEST, "no",
        "The neuron rejected the request: no eyes",
        given=refusing(400, b'{"error":{"message":"no eyes","code":"vision_unsupported"}}'),
    ),
    Row(
        "a neuron that cannot process", 422, "neuron_rejected", REQUEST, REQUEST, "no",
        "The neuron rejected the request: odd",
        given=refusing(422, b'{"object":"error","message":"odd","code":422}'),
    ),
    Row(
        "too large for the neuron", 413, "request_too_large", REQUEST, "request_too_large", "no",
        "The neuron found the request too large", given=refusing(413, b'{"message":"big"}'),
    ),
]  # fmt: skip
"""All but those that come before a body is read or after a bug: they have tests of their own."""
