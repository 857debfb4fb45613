"""A ledger whose clock is not the host's any more: the daemon says how far the two are apart."""

from pathlib import Path

import httpx
import msgspec

from cortexd.ledger.clock import system_time
from cortexd.ledger.disk import DirectoryDisk
from cortexd.ledger.journal import Journal, JournalSettings
from tests.support.daemon_process import serving
from tests.support.fake_neuron import fake_neuron

HOUR_MS = 3_600_000


def begin_ledger_an_hour_behind(directory: Path) -> None:
    """A new ledger, begun while the wall clock of this host was an hour late."""
    times = system_time()
    late = msgspec.structs.replace(times, wall_ms=lambda: times.wall_ms() - HOUR_MS)
    disk = DirectoryDisk.open(str(directory))
    Journal.recover(disk, (), late, JournalSettings()).close()


async def test_how_far_the_ledgers_clock_is_from_the_hosts_is_measured(tmp_path: Path) -> None:
    begin_ledger_an_hour_behind(tmp_path / "ledger")
    async with (
        fake_neuron() as neuron,
        serving(tmp_path, {"sim": neuron.url}) as daemon,
        httpx.AsyncClient(base_url=daemon.metrics, trust_env=False) as operator,
    ):
        lines = (await operator.get("/metrics")).text.splitlines()
        log = daemon.log.read_text()
    name = "cortex_ledger_clock_skew_seconds "
    [skew_seconds] = [float(line.split()[1]) for line in lines if line.startswith(name)]
    assert abs(skew_seconds - 3_600) < 1
    [opened] = [line for line in log.splitlines() if "event=ledger_opened" in line]
    skew_ms = int(opened.partition("clock_skew_ms=")[2].split()[0])
    assert abs(skew_ms - HOUR_MS) < 1_000
