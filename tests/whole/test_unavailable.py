"""A ledger without room for more: who is refused, who is served by the operator's wish, and how
anybody can tell. The ledger lies on a small disk of its own, which takes root.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio

from tests.support.daemon_process import CAPPED_KEY, DaemonProcess, chat, serving
from tests.support.fake_neuron import fake_neuron
from tests.torture.ends import disk_problem, small_disk

PROBLEM = disk_problem()
pytestmark = pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM))

FILLER_BYTES = 32 << 20  # leaves less than the 64 MiB that new reservations need
KEYS = (
    {**CAPPED_KEY, "hard_cap": 100_000},
    {"key": "sk-free", "account_id": "free"},
)


class Disk:
    """The small disk under a ledger, at a directory that it makes."""

    def __init__(self, place: Path) -> None:
        place.mkdir()
        self._filler = place / "filler"

    def fill(self) -> None:
        """Leave too little."""
        self._filler.write_bytes(bytes(FILLER_BYTES))

    def free(self) -> None:
        """Give it back."""
        self._filler.unlink()


@contextlib.asynccontextmanager
async def disk_of(place: Path) -> AsyncIterator[Disk]:
    """A small disk mounted at a new directory."""
    disk = Disk(place)
    async with small_disk(place):
        yield disk


async def status_of(daemon: DaemonProcess, key: str) -> int:
    """How one more request of this key is answered."""
    async with daemon.client(key) as client:
        return (await client.post("/v1/chat/completions", json=chat())).status_code


async def wait_until_answered(daemon: DaemonProcess, key: str, status: int) -> None:
    """Ask until the answer is this one: room is measured with each sync, or once a second."""
    with trio.fail_after(20):
        while await status_of(daemon, key) != status:
            pass


async def health_of(daemon: DaemonProcess) -> tuple[str, str]:
    """Status and ledger of /health, the same on both listeners."""
    async with (
        daemon.client() as client,
        httpx.AsyncClient(base_url=daemon.metrics, trust_env=False) as operator,
    ):
        health = (await client.get("/health")).json()
        assert (await operator.get("/health")).json() == health
    return health["status"], health["ledger"]


async def wait_until_healthy(daemon: DaemonProcess, ledger: str) -> None:
    """Ask /health until it says so of the ledger."""
    with trio.fail_after(20):
        while (await health_of(daemon))[1] != ledger:
            pass


async def sample(daemon: DaemonProcess, name: str) -> float:
    """A metric without labels."""
    async with httpx.AsyncClient(base_url=daemon.metrics, trust_env=False) as operator:
        lines = (await operator.get("/metrics")).text.splitlines()
    [value] = [line.split()[1] for line in lines if line.split()[0] == name]
    return float(value)


async def test_without_room_everybody_waits_and_it_goes_on_by_itself(tmp_path: Path) -> None:
    async with (
        disk_of(tmp_path / "disk") as disk,
        fake_neuron() as neuron,
        serving(
            tmp_path,
            {"sim": neuron.url},
            keys=KEYS,
            ledger={"directory": str(tmp_path / "disk" / "ledger")},
        ) as daemon,
    ):
        assert await health_of(daemon) == ("ok", "ok")
        disk.fill()
        await wait_until_healthy(daemon, "low_on_room")  # though nobody has asked for anything
        hits = neuron.chat_hits
        assert [await status_of(daemon, key) for key in ("sk-cap", "sk-free")] == [503, 503]
        assert neuron.chat_hits == hits
        assert await health_of(daemon) == ("impaired", "low_on_room")
        assert await sample(daemon, "cortex_ledger_available") == 0
        assert await sample(daemon, "cortex_ledger_unjournalled_requests_total") == 0
        disk.free()
        await wait_until_answered(daemon, "sk-cap", 200)
        assert await health_of(daemon) == ("ok", "ok")
        assert await sample(daemon, "cortex_ledger_available") == 1


async def test_the_uncapped_are_served_meanwhile_if_the_operator_says_so(tmp_path: Path) -> None:
    ledger = {"directory": str(tmp_path / "disk" / "ledger"), "when_unavailable": "serve_uncapped"}
    async with (
        disk_of(tmp_path / "disk") as disk,
        fake_neuron(fixed_usage=(5, 10)) as neuron,
        serving(tmp_path, {"sim": neuron.url}, keys=KEYS, ledger=ledger) as daemon,
    ):
        assert await status_of(daemon, "sk-free") == 200
        disk.fill()
        await wait_until_answered(daemon, "sk-cap", 503)
        assert [await status_of(daemon, key) for key in ("sk-free", "sk-cap")] == [200, 503]
        assert (await daemon.budget("sk-free"))["spent"] == 15, "only what was written down"
        assert await sample(daemon, "cortex_ledger_unjournalled_requests_total") == 1
        assert await daemon.stop() == 0
        told = [line for line in daemon.requests() if line.get("unjournalled")]
        assert [(line["key"], line["charged"], line["status"]) for line in told] == [
            ("free", "15", "200")
        ]
        assert "event=ledger_low_on_room" in daemon.log.read_text()
