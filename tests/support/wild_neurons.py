"""Simulated neurons at their worst, in a process of their own that outlives the daemon.

    python -m tests.support.wild_neurons --log FILE --hint FILE --ports 0,0,0 --seed 7

Every request is met in a mood of its own, decided by the seed and the request's id: slow or fast,
honest or lying about usage, whole or broken off in one of many ways. Neurons vanish and come back
at the same address. Prints `neurons URL URL ...` and runs until it is killed.

What really happens is written down before it happens, one line and one write each, so that it
outlives a kill: `a` for an arrival, with what the ledger had promised to be durable in that very
moment (the hint file, read here), and `t` for tokens, before they are sent. See `Witnessed`.

Moods keep to what a neuron promises and cortexd believes: they never run past max_tokens, say no
less than they did where nothing else can tell, and produce no more than some hundred tokens a
second. The manual says that a cap does not hold against neurons which do otherwise.
"""

import argparse
import json
import math
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import msgspec
import trio

from cortexd.demo.counters import Counters, Served, ServedTokens
from cortexd.demo.http import Request
from cortexd.demo.neuron import SimulatedNeuron
from cortexd.demo.switches import CHAT_PATH, EVERY_PATH, BreakKind, Broken, Switches, UsageLie
from tests.support.fake_neuron import turned

ARRIVAL, TOKENS = "a", "t"
OVERSTATED_KEY = "free"
"""The one key for which neurons report more than they were allowed to generate."""

QUICK_TOKENS = 60
"""So many may come all at once: no more than is charged for what is in flight."""

_LIES = (
    UsageLie.ABSENT,
    UsageLie.NULL,
    UsageLie.ZERO,
    UsageLie.NEGATIVE,
    UsageLie.HUGE,
    UsageLie.FLOAT,
    UsageLie.STRING,
    UsageLie.NOT_A_NUMBER,
    UsageLie.BOOLEAN,
)
_REFUSALS = (400, 404, 429, 500, 503)

_mood: ContextVar[Switches | None] = ContextVar("_mood", default=None)
_request_id = ContextVar("_request_id", default="")


class Witnessed(msgspec.Struct, frozen=True):
    """One line of the log. `at_us`: CLOCK_BOOTTIME.

    An arrival: `amount` is the entry number up to which the ledger's hint promised durability.
    Tokens: so many are about to be sent, or a prompt of so many is about to be read.
    """

    kind: str
    key_id: str
    request_id: str
    at_us: int
    amount: int


def read_witnessed(data: bytes) -> Iterator[Witnessed]:
    """Lines of the log; a last one that is not whole is left out."""
    for line in data.decode().splitlines(keepends=True):
        if line.endswith("\n"):
            kind, key_id, request_id, at_us, amount = line.rstrip("\n").split("\t")
            yield Witnessed(kind, key_id, request_id, int(at_us), int(amount))


def boot_time_us() -> int:
    """The clock that the ledger's clock is made from, in microseconds."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


class _Witness(Counters):
    """Writes arrivals and tokens down, and puts each request's task into a mood."""

    def __init__(self, log: int, hint: str, seed: int) -> None:
        super().__init__()
        self.served = _ServedWitness(log)
        self._log = log
        self._hint = hint
        self._seed = seed

    def arrive(self, request: Request) -> None:
        if request.path == CHAT_PATH:
            request_id = request.header(b"x-request-id") or ""
            key_id = request.header(b"x-helexa-key-id") or ""
            _request_id.set(request_id)
            _mood.set(mood_of(request, random.Random(f"{self._seed}.{request_id}"), key_id))
            _write(self._log, ARRIVAL, key_id, _promised_durable(self._hint))
        else:
            _mood.set(None)
        super().arrive(request)


class _ServedWitness(Served):
    """Writes down whose tokens are about to be sent, and for which request."""

    def __init__(self, log: int) -> None:
        super().__init__()
        self._lines = log

    def add(
        self, request: ServedTokens, key_id: str, *, prompt: int = 0, completion: int = 0
    ) -> None:
        _write(self._lines, TOKENS, key_id, prompt + completion)


def _write(log: int, kind: str, key_id: str, amount: int) -> None:
    line = f"{kind}\t{key_id}\t{_request_id.get()}\t{boot_time_us()}\t{amount}\n"
    os.write(log, line.encode())


def _promised_durable(hint: str) -> int:
    """The entry number in the ledger's hint; 0 where there is none, or it is being written."""
    try:
        with open(hint, "rb") as file:
            return int(json.loads(file.read().partition(b"\t")[2])["n"])
    except (FileNotFoundError, ValueError):
        return 0


class _Moody(Switches):
    """In the task of a chat request, the switches are those of its mood."""

    def __getattribute__(self, name: str) -> object:
        mood = _mood.get()
        return super().__getattribute__(name) if mood is None else getattr(mood, name)


def mood_of(request: Request, choices: random.Random, key_id: str) -> Switches:
    """How this request is met, whatever may happen to others."""
    body = json.loads(request.body)
    tokens_max, stream = int(body.get("max_tokens", QUICK_TOKENS)), bool(body.get("stream"))
    reply_tokens = choices.randrange(1, 2 * tokens_max)
    is_quick = min(reply_tokens, tokens_max) <= QUICK_TOKENS
    mood = turned(
        reply_tokens=reply_tokens,
        token_seconds=choices.choice((0.0, 0.001, 0.004) if is_quick else (0.004, 0.006)),
        prefill_seconds=choices.choice((0.0, 0.0, 0.02, 0.1)),
        head_with_first_token=choices.random() < 0.2,
        usage_only_when_asked=choices.random() < 0.2,
        usage_on_finish_chunk=choices.random() < 0.2,
        no_finish_reason=choices.random() < 0.05,
        no_done=choices.random() < 0.05,
        until_close=choices.random() < 0.1,
        plain_chunked=choices.random() < 0.2,
        dribble=is_quick and choices.random() < 0.03,
    )
    if choices.random() < 0.4:
        # A plain answer that says too little is believed; chunks speak against a stream that does.
        mood.usage = choices.choice((*_LIES, UsageLie.LOW) if stream else _LIES)
    elif key_id == OVERSTATED_KEY and choices.random() < 0.2:
        mood.usage = {"prompt_tokens": 300, "completion_tokens": 300, "total_tokens": 600}
    if choices.random() < 0.25:
        after_tokens = choices.choice((None, 0, choices.randrange(tokens_max)))
        mood.broken = Broken(choices.choice(list(BreakKind)), after_tokens)
    elif choices.random() < 0.1:
        mood.refuse(choices.choice(_REFUSALS), path=EVERY_PATH)
    return mood


async def _live(neuron: SimulatedNeuron, choices: random.Random, calm: bool) -> None:
    """Serve; vanish now and then with every connection, and come back. Calm ones stay."""
    while True:
        with trio.move_on_after(math.inf if calm else choices.uniform(0.2, 3)):
            await neuron.serve()
        with trio.move_on_after(choices.uniform(0.01, 0.2)):
            await trio.sleep_forever()
        neuron.restart()
        neuron.bind(port=neuron.port)


async def _serve(neurons: Sequence[SimulatedNeuron], seed: int, calm: bool) -> None:
    async with trio.open_nursery() as nursery:
        for neuron in neurons:
            nursery.start_soon(_live, neuron, random.Random(f"{seed}.{neuron.name}"), calm)


def main() -> None:
    """Runs until killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--log", required=True, help="what is served is appended to this file")
    parser.add_argument("--hint", required=True, help="the ledger's durable.hint")
    parser.add_argument("--ports", default="0", help="one neuron each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calm", action="store_true", help="neurons never vanish")
    chosen = parser.parse_args()
    log = os.open(chosen.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    neurons = []
    for number, port in enumerate(map(int, chosen.ports.split(","))):
        neuron = SimulatedNeuron(f"n{number}", switches=_Moody())
        neuron.counters = neuron.machine.counters = _Witness(log, chosen.hint, chosen.seed)
        neuron.bind(port=port)
        neurons.append(neuron)
    sys.stdout.write(" ".join(["neurons", *(neuron.url for neuron in neurons)]) + "\n")
    sys.stdout.flush()
    trio.run(_serve, neurons, chosen.seed, chosen.calm)


if __name__ == "__main__":
    main()
