"""The machine and the versions that a table of numbers is worth nothing without. Names no host."""

import os
import platform
import sysconfig
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from cortexd import __version__
from tests.bench.child import LOAD_CORES, SERVER_CORES

_PACKAGES = ("trio", "hypercorn", "h11", "msgspec", "httptools")


def describe(written_to: Path) -> list[str]:
    """Lines of text; `written_to` is the directory in which the ledgers are written."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    load = os.getloadavg()[0]
    cores = os.cpu_count()
    return [
        f"{datetime.now(tz=UTC):%Y-%m-%d %H:%M} UTC, cortexd {__version__}",
        f"{cores} cores, {_processor()}, {_memory_gb():.0f} GB, {platform.system()} "
        f"{platform.release()}, journal on {_file_system(written_to)}",
        f"{platform.python_implementation()} {platform.python_version()} ({_build()}), {versions}",
        f"load average at the start: {load:.1f}" + (_BUSY if load > 0.5 else ""),
        _placement(),
    ]


_BUSY = " (other work was running: only ratios and CPU time can be trusted)"


def _placement() -> str:
    if SERVER_CORES == LOAD_CORES:
        return "only one core: everybody shares it, so rates are of all of them together"
    return "cortexd and what it is compared with on one core, the neuron and the load on another"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _build() -> str:
    """Distributions build Python with optimizations, version managers often do not."""
    arguments = str(sysconfig.get_config_var("CONFIG_ARGS"))
    return "optimized build" if "--enable-optimizations" in arguments else "plain build"


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _file_system(directory: Path) -> str:
    """The type of the file system that the directory is on: that of the longest mount above it."""
    best = ("", "an unknown file system")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mounted_on, kind, *_ = line.split()
        if directory.is_relative_to(mounted_on) and len(mounted_on) >= len(best[0]):
            best = (mounted_on, kind)
    return best[1]
