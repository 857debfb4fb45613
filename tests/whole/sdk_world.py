"""The world that SDKs of clients are tested in: a daemon, keys, a neuron for each kind of mishap.

Each client is a program of its own that runs the same scenarios and prints what it met, a line of
JSON each. A session is one run of it, with what the daemon logged and the neurons counted.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence, Set
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import trio

from cortexd.demo.hardware import SimulatedModel
from cortexd.demo.neuron import SimulatedNeuron
from cortexd.demo.switches import CHAT_PATH, BreakKind, Broken, Canned
from tests.support.daemon_process import serving
from tests.support.fake_neuron import running, turned
from tests.whole.sdk_folders import sdk_folder

SECONDS_MAX = 90
SEEN_BEFORE_LEAVING = 7
DIMENSIONS = 8
HERE = Path(__file__).parent


class Session(msgspec.Struct, frozen=True):
    """One run of a client: what it met, and what the other two parties know of it.

    `met`: scenario -> facts. `requests`: key id ("" without a key) -> the daemon's log lines.
    `budgets`: key -> `GET /v1/budget` at the end. `served`: key id -> tokens that neurons produced.
    `paths`: where the neuron that does all as it should was asked for work.
    """

    client: str
    met: Mapping[str, Mapping[str, object]]
    requests: Mapping[str, Sequence[Mapping[str, str]]]
    budgets: Mapping[str, Mapping[str, object]]
    served: Mapping[str, int]
    paths: Set[str]

    def statuses(self, key_id: str) -> list[str]:
        """The status of every request that came with a key, in order."""
        return [line["status"] for line in self.requests.get(key_id, ())]


#: Client -> its script, and an argument; what is before the dash names the SDK's folder. In the
#: world of a native one the neurons speak Anthropic's dialect, but for those with a canned chat.
SCRIPTS = {
    "openai2": ("sdk_script.py",),
    "openai3": ("sdk_script.py",),
    "anthropic0": ("sdk_anthropic.py",),
    "anthropic2": ("sdk_anthropic.py",),
    "anthropic0-native": ("sdk_anthropic.py",),
    "anthropic2-native": ("sdk_anthropic.py",),
    "litellm": ("sdk_litellm.py",),
    "npm-openai": ("sdk_openai.mjs",),
    "npm-anthropic": ("sdk_anthropic.mjs",),
    "npm-ai-openai": ("sdk_ai.mjs", "openai"),
    "npm-ai-anthropic": ("sdk_ai.mjs", "anthropic"),
}


def folder_of(client: str) -> Path:
    """Where the SDK of a client is; skips the test where it is not."""
    return sdk_folder(client.partition("-")[0])


def _breaks(kind: BreakKind, garbage: bytes = b"proxy error\n") -> dict[str, object]:
    return {"broken": Broken(kind, after_tokens=3, garbage=garbage), "reply_tokens": 10}


def _chunk(delta: object, finish_reason: str | None) -> dict[str, object]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"object": "chat.completion.chunk", "choices": [choice]}


_NAMED = {"id": "chatcmpl-1", "created": 1, "model": "sim/tools"}
_USAGE = {"prompt_tokens": 5, "completion_tokens": 10, "total_tokens": 15}
_CALL = {"id": "call_1", "type": "function"}
_FUNCTION = {"name": "weather", "arguments": '{"city": "Köln"}'}
_CALLING = {"role": "assistant", "content": None, "tool_calls": [{**_CALL, "function": _FUNCTION}]}
_REPLY = {
    **_NAMED,
    "object": "chat.completion",
    "choices": [{"index": 0, "message": _CALLING, "finish_reason": "tool_calls"}],
    "usage": _USAGE,
}
_CHUNKS = (
    _chunk({"role": "assistant", "content": None}, None),
    _chunk(
        {"tool_calls": [{"index": 0, **_CALL, "function": {**_FUNCTION, "arguments": ""}}]}, None
    ),
    _chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]}, None),
    _chunk({"tool_calls": [{"index": 0, "function": {"arguments": ' "Köln"}'}}]}, None),
    _chunk({}, "tool_calls"),
    {"object": "chat.completion.chunk", "choices": [], "usage": _USAGE},
)
_EVENTS = b"".join(b"data: %b\n\n" % msgspec.json.encode({**_NAMED, **one}) for one in _CHUNKS)
_EVENT_STREAM = ((b"content-type", b"text/event-stream"),)
_HALF_A_CHARACTER = b'data: {"choices":[{"index":0,"delta":{"content":"\xe2\x82'

#: How a stream can break -> the switches of the neuron that does it.
BREAKS = {
    "dying": _breaks(BreakKind.EOF),
    "resetting": _breaks(BreakKind.RESET),
    "ending": _breaks(BreakKind.END),
    "erring": _breaks(BreakKind.ERROR_FRAME),
    "garbled": _breaks(BreakKind.GARBAGE),
    "cut": _breaks(BreakKind.GARBAGE, _HALF_A_CHARACTER),
    "stalling": _breaks(BreakKind.SILENCE),
}

NEURONS: dict[str, dict[str, object]] = {
    "small": {"fixed_usage": (5, 10)},
    "tools": {"faults": {CHAT_PATH: Canned(200, msgspec.json.encode(_REPLY))}},
    "tools-streamed": {
        "faults": {CHAT_PATH: Canned(200, _EVENTS + b"data: [DONE]\n\n", _EVENT_STREAM)}
    },
    "vectors": {},
    "vectors-as-numbers": {"float_vectors": True},
    "silent": {"silent": True},
    "endless": {"gated": True, "reply_tokens": 500},
    **BREAKS,
}


def _key(name: str, hard_cap: int = 100_000, seconds: float | None = None) -> dict[str, object]:
    """The key `sk-NAME` with a balance, or with a rolling window."""
    window = {"kind": "balance"} if seconds is None else {"kind": "rolling", "seconds": seconds}
    return {"key": f"sk-{name}", "account_id": name, "hard_cap": hard_cap, "window": window}


# A request reserves 52 tokens and costs 15: under a cap of 60 the second one does not fit.
KEYS = [
    _key("plain"),
    _key("tools"),
    _key("vectors"),
    _key("balance", 10),
    _key("balance-streamed", 10),
    _key("long", 60, seconds=3600),
    _key("short", 60, seconds=1),
    _key("unknown"),
    _key("silent"),
    _key("leaving"),
    *(_key(name) for name in BREAKS),
]


async def sessions_of(clients: Sequence[str], directory: Path) -> dict[str, Session | Exception]:
    """The sessions of several clients, a few at a time: most of them wait most of the time."""
    outcomes: dict[str, Session | Exception] = {}
    turns = trio.CapacityLimiter(3)

    async def run(client: str) -> None:
        async with turns:
            try:
                (directory / client).mkdir()
                outcomes[client] = await one_session(client, directory / client)
            except Exception as failure:
                outcomes[client] = failure

    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(run, client)
    return outcomes


async def one_session(client: str, directory: Path) -> Session:
    """Run a client's script against a daemon, and gather what everybody saw."""
    command, environment = _program(client)
    neurons = {
        name: SimulatedNeuron(name, [_model(name)], switches=turned(**switches))
        for name, switches in NEURONS.items()
    }
    async with AsyncExitStack() as stack:
        for each in neurons.values():
            await stack.enter_async_context(running(each))
        daemon = await stack.enter_async_context(
            serving(
                directory,
                {name: _configured(client, name, each.url) for name, each in neurons.items()},
                keys=KEYS,
                gateway={"first_byte_seconds": 2, "between_bytes_seconds": 1},
            )
        )
        await neurons["endless"].allow(SEEN_BEFORE_LEAVING)
        with trio.fail_after(SECONDS_MAX):
            done = await trio.run_process(
                [*command, daemon.gateway], env={**os.environ, **environment}, capture_stdout=True
            )
            await neurons["endless"].wait_for_hang_up()
        budgets = {name: await daemon.budget(name) for name in (str(one["key"]) for one in KEYS)}
        assert await daemon.stop() == 0
        lines = daemon.requests()
    met = {facts["scenario"]: facts for facts in map(json.loads, done.stdout.splitlines())}
    requests: dict[str, list[Mapping[str, str]]] = {}
    for line in lines:
        if line["path"] != "/v1/budget":
            requests.setdefault(line.get("key", ""), []).append(line)
    served: dict[str, int] = {}
    for each in neurons.values():
        for name, counted in each.counters.served.by_key.items():
            served[name] = served.get(name, 0) + counted.total
    paths = {one.path for one in neurons["small"].seen if one.method == "POST"}
    return Session(client, met, requests, budgets, served, paths)


def _configured(client: str, name: str, url: str) -> dict[str, object]:
    speaks_it = client.endswith("-native") and not name.startswith("tools")
    return {"endpoint": url, "anthropic": speaks_it}


def _model(name: str) -> SimulatedModel:
    return SimulatedModel(
        f"sim/{name}", embedding_dimensions=DIMENSIONS if name.startswith("vectors") else 0
    )


def _program(client: str) -> tuple[list[str], dict[str, str]]:
    """How a client is started, and what its environment has besides."""
    script, *arguments = SCRIPTS[client]
    folder = folder_of(client)
    if script.endswith(".py"):
        return [sys.executable, str(HERE / script)], {"PYTHONPATH": str(folder)}
    # An ES module looks for packages beside itself, whatever the environment says.
    copy = folder / script
    copy.write_bytes((HERE / script).read_bytes())
    return ["node", str(copy), *arguments], {}
