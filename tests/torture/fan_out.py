"""Two thousand requests at once on a cap that fits k: exactly k reach a neuron, all others get 429.

The neurons tell no usage, so that each of the k is charged all that it reserved and nothing ever
comes back: the count is exact, whatever the order. Each repetition has a key, and so a cap, of its
own. `in_process` asks the core over the real ledger; `over_sockets` asks a daemon process.
"""

import random
from collections import Counter
from functools import partial
from pathlib import Path

import trio

from cortexd.daemon.descriptors import raise_descriptor_limit
from cortexd.demo.neuron import SimulatedNeuron
from cortexd.demo.switches import UsageLie
from tests.support.core import core, key
from tests.support.daemon_process import chat, serving
from tests.support.fake_neuron import fake_neuron
from tests.support.traffic import answer_of
from tests.support.wild_clients import request_bytes

REQUESTS = 2000
BOUND_TOKENS = 52
"""What `chat()` reserves: 32 bytes of messages and 20 tokens of output."""

SOCKETS_FITTING_MAX = 500
SECONDS_MAX = 120


class Miscounted(AssertionError):
    """More or fewer than k were dispatched."""


def caps_for(repetitions: int, seed: int) -> list[int]:
    """How many requests fit into the cap of each repetition; the first fit none and nearly all."""
    choices = random.Random(seed)
    edges = [0, 1, REQUESTS - 1][: max(0, repetitions - 1)]
    return edges + [choices.randrange(2, 300) for _ in range(repetitions - len(edges))]


def cap_tokens(fitting: int) -> int:
    """A cap into which exactly so many requests fit, and all but a token of one more."""
    return fitting * BOUND_TOKENS + BOUND_TOKENS - 1


async def in_process(directory: Path, repetitions: int, seed: int) -> Counter[str]:
    """Through the core and the real ledger, to neurons on real sockets. Raises Miscounted."""
    fits = caps_for(repetitions, seed)
    keys = [
        key(f"sk-{number}", f"key-{number}", hard_cap=cap_tokens(fitting), account_id=f"a-{number}")
        for number, fitting in enumerate(fits)
    ]
    tally: Counter[str] = Counter()
    async with (
        fake_neuron("a", usage=UsageLie.ABSENT, reply_tokens=1) as one,
        fake_neuron("b", usage=UsageLie.ABSENT, reply_tokens=1) as other,
        core(directory, {"a": one.url, "b": other.url}, keys=keys) as it,
    ):
        for number, fitting in enumerate(fits):
            before = _hits(one, other)
            statuses: Counter[int] = Counter()

            async def ask(number: int, statuses: Counter[int]) -> None:
                client = await it.ask(chat(), authorization=f"Bearer sk-{number}")
                statuses[client.status or 0] += 1

            async with trio.open_nursery() as nursery:
                for _ in range(REQUESTS):
                    nursery.start_soon(ask, number, statuses)
            standing = await it.standing(f"key-{number}")
            _judge(statuses, _hits(one, other) - before, standing.spent, fitting)
            tally += Counter(requests=REQUESTS, dispatched=fitting, repetitions=1)
    return tally


async def over_sockets(directory: Path, repetitions: int, seed: int) -> Counter[str]:
    """Over so many connections to a daemon process, all of which send at once."""
    raise_descriptor_limit(REQUESTS)
    # No more than the simulated neurons' backlog takes: behind it the kernel makes clients wait.
    fits = [min(fitting, SOCKETS_FITTING_MAX) for fitting in caps_for(repetitions, seed)]
    keys = [
        {"key": f"sk-{number}", "account_id": f"key-{number}", "hard_cap": cap_tokens(fitting)}
        for number, fitting in enumerate(fits)
    ]
    tally: Counter[str] = Counter()
    gateway = {"connections_max": REQUESTS + 100}
    async with (
        fake_neuron("a", usage=UsageLie.ABSENT, reply_tokens=1) as one,
        fake_neuron("b", usage=UsageLie.ABSENT, reply_tokens=1) as other,
        serving(directory, {"a": one.url, "b": other.url}, keys=keys, gateway=gateway) as daemon,
    ):
        for number, fitting in enumerate(fits):
            before = _hits(one, other)
            with trio.fail_after(SECONDS_MAX):
                statuses = await _ask_all(daemon.gateway, f"sk-{number}")
            budget = await daemon.budget(f"sk-{number}")
            _judge(statuses, _hits(one, other) - before, int(str(budget["spent"])), fitting)
            tally += Counter(requests=REQUESTS, dispatched=fitting, repetitions=1)
    return tally


async def _ask_all(url: str, key_text: str) -> Counter[int]:
    """Open all connections, let all send in the same moment, and count the answers' statuses."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    statuses: Counter[int] = Counter()
    go, connected = trio.Event(), trio.Semaphore(0)
    a_few_at_a_time = trio.Semaphore(100)

    async def ask(number: int) -> None:
        async with a_few_at_a_time:
            stream = await trio.open_tcp_stream(host, int(port))
            await _be_accepted(stream)
        async with stream:
            connected.release()
            await go.wait()
            request = request_bytes(key_text, f"fan.{key_text}.{number}", chat())
            await stream.send_all(request)
            received = b""
            while data := await stream.receive_some():
                received += data
        answer = answer_of(received)
        statuses[answer.status or 0] += answer.is_whole

    async with trio.open_nursery() as nursery:
        for number in range(REQUESTS):
            nursery.start_soon(partial(ask, number))
        for _ in range(REQUESTS):
            await connected.acquire()
        go.set()
    return statuses


async def _be_accepted(stream: trio.SocketStream) -> None:
    """Ask something, so that the connection is the daemon's and not just its kernel's."""
    await stream.send_all(b"HEAD / HTTP/1.1\r\nhost: cortexd\r\n\r\n")
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        data = await stream.receive_some()
        assert data, f"the gateway hung up after {received!r}"
        received += data


def _hits(*neurons: SimulatedNeuron) -> int:
    return sum(neuron.chat_hits for neuron in neurons)


def _judge(statuses: Counter[int], dispatched: int, spent: int, fitting: int) -> None:
    expected = Counter({200: fitting, 429: REQUESTS - fitting})
    found = (+statuses, dispatched, spent)
    if found != (+expected, fitting, fitting * BOUND_TOKENS):
        raise Miscounted(f"{fitting} fit; statuses, dispatched and spent are {found}")
