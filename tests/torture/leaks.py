"""What a long life full of cuts leaves behind: nothing.

Thousands of requests whose clients leave before the head, in the middle of a body or a stream, or
stop reading, and whose neurons break off, go silent or lie, run through one daemon process. Then
its open reservations, requests in flight, tasks and sockets are compared with what they were before
any request, and its memory with what it was half-way.
"""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import msgspec
import trio

from tests.support.daemon_process import DaemonProcess, serving
from tests.support.wild_clients import WildClients
from tests.torture.ends import ask

CLIENTS = 100
WARM_SHARE = 0.2
"""This share of the requests only warms the process up, before its memory is looked at."""

RESIDENT_GROWTH_MAX = 0.03
"""How much larger the second half of a run may leave the process than the first half did."""

RESIDENT_SLACK_KB = 1024
"""Besides, for an allocator's arenas: it is what a few hundred connections at once may move."""

PATIENCE_SECONDS = 60
_KEYS = ("sk-free", "sk-capped")


class Look(msgspec.Struct, frozen=True):
    """What a daemon holds. `descriptors`: files and sockets."""

    open_reservations: int
    in_flight: int
    tasks: int
    descriptors: int
    resident_kb: int


class Found(msgspec.Struct, frozen=True):
    """The looks before any request, half-way and at the end, and what is wrong with them."""

    requests: int
    answers: int
    fresh: Look
    middle: Look
    end: Look

    @property
    def problems(self) -> list[str]:
        """Whatever has leaked, in words."""
        problems = [
            f"{name}: {getattr(self.end, name)} at the end, {getattr(self.fresh, name)} before"
            for name in ("open_reservations", "in_flight", "tasks", "descriptors")
            if getattr(self.end, name) > getattr(self.fresh, name)
        ]
        allowed = self.middle.resident_kb * (1 + RESIDENT_GROWTH_MAX) + RESIDENT_SLACK_KB
        if self.end.resident_kb > allowed:
            grown = f"{self.middle.resident_kb} kB half-way, {self.end.resident_kb} kB at the end"
            problems.append(f"memory: {grown}")
        return problems


async def run(directory: Path, requests: int, seed: int) -> Found:
    """Warm up, then two halves, with a look after each."""
    async with (
        _neurons(directory, seed) as urls,
        serving(
            directory,
            {f"n{number}": url for number, url in enumerate(urls)},
            entitlements={
                "require_auth": True,
                "accounts": [],
                "keys": [
                    {"key": "sk-free", "account_id": "free"},
                    {"key": "sk-capped", "account_id": "capped", "hard_cap": 100 * requests},
                ],
            },
            polling={"interval_seconds": 1},
            gateway={
                "send_stall_seconds": 0.5,
                "first_byte_seconds": 0.5,
                "between_bytes_seconds": 0.3,
            },
        ) as daemon,
    ):
        fresh = await _at_rest(daemon)
        counts = [max(200, int(requests * WARM_SHARE))]
        counts += [(requests - counts[0]) // 2] * 2
        looks: list[Look] = []
        asked = answered = 0
        for turn, count in enumerate(counts):
            clients = WildClients(daemon.gateway, f"{seed}.{turn}", long_share=0.05)
            each = -(-count // CLIENTS)
            await clients.run(_KEYS, clients=CLIENTS, requests_max=each)
            assert not clients.is_gone, "the gateway went away"
            asked += clients.asked
            answered += len(clients.answers)
            looks.append(await _at_rest(daemon, fresh if turn == len(counts) - 1 else None))
        assert await daemon.stop() == 0
    return Found(asked, answered, fresh, *looks[1:])


@contextlib.asynccontextmanager
async def _neurons(directory: Path, seed: int) -> AsyncIterator[list[str]]:
    """Two calm neurons (they break off, but stay) as a process of their own; their URLs."""
    command = [sys.executable, "-m", "tests.support.wild_neurons", "--calm", "--ports", "0,0"]
    command += ["--seed", str(seed), "--log", str(directory / "served")]
    command += ["--hint", str(directory / "ledger" / "durable.hint")]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(trio.run_process, command, stdout=subprocess.PIPE, check=False)
        )
        with trio.fail_after(20):
            line = bytes(await process.stdout.receive_some()).decode()
        yield line.split()[1:]
        process.kill()


async def _at_rest(daemon: DaemonProcess, than: Look | None = None) -> Look:
    """Look until nothing is under way and, with `than`, until no more is held than there.

    The last look where that does not come to pass. A connection to a neuron is kept for some
    seconds, and given up at a poll.
    """
    look = await _look(daemon)
    with trio.move_on_after(PATIENCE_SECONDS):
        while look.open_reservations or look.in_flight or _holds_more(look, than):
            with trio.move_on_after(0.5):
                await trio.sleep_forever()
            look = await _look(daemon)
    return look


def _holds_more(look: Look, than: Look | None) -> bool:
    if than is None:
        return False
    return look.tasks > than.tasks or look.descriptors > than.descriptors


async def _look(daemon: DaemonProcess) -> Look:
    request = b"GET /metrics HTTP/1.1\r\nhost: cortexd\r\nconnection: close\r\n\r\n"
    status, body = await ask(daemon.metrics, request)
    assert status == 200, body
    pid = daemon.process.pid
    resident = await trio.Path(f"/proc/{pid}/statm").read_text()
    page_kb = os.sysconf("SC_PAGE_SIZE") // 1024
    return Look(
        _metric(body, "cortex_ledger_open_reservations"),
        _metric(body, "cortex_requests_in_flight"),
        _metric(body, "cortex_tasks"),
        len(await trio.to_thread.run_sync(os.listdir, f"/proc/{pid}/fd")),
        int(resident.split()[1]) * page_kb,
    )


def _metric(exposition: bytes, name: str) -> int:
    found = re.search(rf"^{name}(?:{{[^}}]*}})? (\S+)$", exposition.decode(), re.MULTILINE)
    assert found is not None, f"there is no {name}"
    return int(float(found[1]))
