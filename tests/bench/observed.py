"""What the kernel tells of a process, and of the machine."""

import os
import time
from pathlib import Path

_CPU_CLOCK_OF_PROCESS = 2


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far: all threads, also those that have ended.

    The same as in /proc/PID/stat, but in nanoseconds instead of hundredths of a second: the clock
    that clock_getcpuclockid(3) names on Linux, put together as the kernel documents it in
    include/linux/posix-timers.h.
    """
    return time.clock_gettime((~pid << 3) | _CPU_CLOCK_OF_PROCESS)


def resident_kb(pid: int) -> int:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def cores() -> list[int]:
    """The cores that may be used."""
    return sorted(os.sched_getaffinity(0))
