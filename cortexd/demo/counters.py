"""What a simulated neuron has seen and served: hits, hang-ups, requests, tokens really produced.

The served tokens are the outside judge of cortexd's ledger: they are counted before a byte of the
token is sent, and with a log they reach the kernel by plain writes, so they outlive a kill.
"""

import os
from collections import Counter, deque
from typing import TYPE_CHECKING

import msgspec
import trio

if TYPE_CHECKING:
    from cortexd.demo.http import Request

ANONYMOUS = "anonymous"
_SEEN_MAX = 1000


class Tally:
    """A number that only grows, and can be waited for."""

    def __init__(self) -> None:
        self.count = 0
        self._changed = trio.Event()

    def add(self, amount: int = 1) -> None:
        """Counts, and wakes everyone who waits."""
        self.count += amount
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def wait_for(self, count: int) -> None:
        """Returns once the tally has reached `count`."""
        while self.count < count:
            await self._changed.wait()


class ServedTokens(msgspec.Struct):
    """What one key, or one request, was really served."""

    prompt: int = 0
    completion: int = 0

    @property
    def total(self) -> int:
        """Prompt and completion together."""
        return self.prompt + self.completion


class Served:
    """Tokens really served, per request and by key id (the header; without it: "anonymous").

    Log: a line `KEY_ID <tab> PROMPT_TOKENS <tab> COMPLETION_TOKENS` per event, to be summed.
    """

    def __init__(self, log: str | None = None) -> None:
        self.by_key: dict[str, ServedTokens] = {}
        self.requests: deque[ServedTokens] = deque(maxlen=_SEEN_MAX)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._log = None if log is None else os.open(log, flags, 0o600)

    @property
    def total(self) -> int:
        """All tokens of all keys."""
        return sum(served.total for served in self.by_key.values())

    def begin(self, key_id: str) -> ServedTokens:
        """The record of a new request, to be given to `add`."""
        request = ServedTokens()
        self.requests.append(request)
        return request

    def add(
        self, request: ServedTokens, key_id: str, *, prompt: int = 0, completion: int = 0
    ) -> None:
        """Counts tokens for a request and its key; call it before they are sent."""
        for record in (request, self.by_key.setdefault(key_id, ServedTokens())):
            record.prompt += prompt
            record.completion += completion
        if self._log is not None:
            os.write(self._log, f"{key_id}\t{prompt}\t{completion}\n".encode())

    def close(self) -> None:
        """Closes the log."""
        if self._log is not None:
            os.close(self._log)
            self._log = None


def read_served_log(path: str) -> dict[str, ServedTokens]:
    """Key id -> what the log of a neuron says it was served; a torn last line is left out."""
    by_key: dict[str, ServedTokens] = {}
    with open(path, encoding="utf-8") as log:
        for line in log:
            if not line.endswith("\n"):
                break
            key_id, prompt, completion = line.rstrip("\n").split("\t")
            served = by_key.setdefault(key_id, ServedTokens())
            served.prompt += int(prompt)
            served.completion += int(completion)
    return by_key


class Counters:
    """Everything countable about one neuron."""

    def __init__(self, served_log: str | None = None) -> None:
        self.hits: Counter[str] = Counter()
        self.arrived = Tally()
        self.chat_hits = Tally()
        self.hang_ups = Tally()
        self.polls_hung_up = Tally()
        self.tokens = Tally()
        self.in_flight = 0
        self.seen: deque[Request] = deque(maxlen=_SEEN_MAX)
        self.served = Served(served_log)

    def arrive(self, request: "Request") -> None:
        """Notes a request before it is answered."""
        self.hits[request.path] += 1
        self.seen.append(request)
        self.arrived.add()
