"""How long a ledger takes to open, and how much memory: measured in a process of its own.

python -m tests.bench.opening DIRECTORY          opens it, and prints one JSON object
python -m tests.bench.opening DIRECTORY ENTRIES  writes so many entries there before
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from cortexd.ledger.journal import Journal
from tests.bench import books
from tests.bench.child import ROOT, BenchFailed

KEYS = 1000
OPEN = 500


class Opened(msgspec.Struct, frozen=True):
    """One start. `peak_mb`: how far the process's memory grew while it opened the ledger.

    `replayed`: entries in the segment that was read, `segment_mb` its size; the rest is of all.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float
    entries: int
    replayed: int
    segments: int
    segment_mb: float
    disk_mb: float


def measure(directory: Path) -> Opened:
    """Open the ledger in a fresh process. Raises BenchFailed."""
    command = [sys.executable, "-m", "tests.bench.opening", str(directory)]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, check=False)
    if done.returncode:
        raise BenchFailed(done.stderr.decode()[-2000:])
    return msgspec.json.decode(done.stdout, type=Opened)


def _open(directory: Path) -> Opened:
    newest = max(directory.glob("seg-*.jsonl"), key=lambda path: (len(path.name), path.name))
    caps = books.caps_of(KEYS)
    before_kb = _peak_kb()
    began, cpu = time.perf_counter(), time.process_time()
    journal = Journal.open(str(directory), caps, retention_bytes=0)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak_kb = _peak_kb()
    use = journal.disk_use()
    journal.close()
    return Opened(
        seconds=seconds,
        cpu_seconds=cpu,
        peak_mb=(peak_kb - before_kb) / 1024,
        entries=journal.written,
        replayed=newest.read_bytes().count(b"\n") - 2,
        segments=use.segments,
        segment_mb=newest.stat().st_size / 1e6,
        disk_mb=use.size_bytes / 1e6,
    )


def _peak_kb() -> int:
    """The most memory that this program ever had; getrusage would tell its parent's too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    where = Path(sys.argv[1])
    if len(sys.argv) > 2:
        books.write(str(where), int(sys.argv[2]), keys=KEYS, open_at_end=OPEN, to_the_brim=True)
    print(json.dumps(msgspec.to_builtins(_open(where))))
