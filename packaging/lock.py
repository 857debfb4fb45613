"""Writes the lock files: every wheel that cortexd runs or is tested with, by version and hash.

One file per purpose: ``requirements.lock`` (run time), ``requirements-test.lock`` (run time and the
test tools), ``sdk-NAME.lock`` (one per line of tests/sdk-versions.txt) and ``peer-NAME.lock`` (what
the benchmark compares with, one per line of tests/bench/peer-versions.txt; it never meets our own
packages). What is wanted is read from pyproject.toml; which index answers is the business of pip's
own configuration and is written nowhere.

Run it with ``make lock`` under the oldest supported Python, because environment markers are
evaluated for the interpreter that runs this.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
MACHINES = ("x86_64", "aarch64")
#: glibc baselines that Debian 12 and everything later satisfy.
BASELINES = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")

#: Project name in normal form -> (version, hashes of the wheels seen so far).
Pins = dict[str, tuple[str, set[str]]]


def resolved(wanted: Sequence[str], *, python: str, machine: str, pins: Pins) -> Pins:
    """What pip would install for one Python on one machine; versions already in ``pins`` are kept.

    Raises `subprocess.CalledProcessError` when pip finds no solution in wheels alone.
    """
    with tempfile.TemporaryDirectory() as scratch:
        constraints = Path(scratch, "constraints.txt")
        constraints.write_text("".join(f"{name}=={pins[name][0]}\n" for name in sorted(pins)))
        report = Path(scratch, "report.json")
        command = [sys.executable, "-m", "pip", "install", "-qq", "--dry-run"]
        command += ["--ignore-installed", "--only-binary", ":all:", "--target", scratch]
        command += ["--implementation", "cp", "--python-version", python]
        for baseline in BASELINES:
            command += ["--platform", f"{baseline}_{machine}"]
        command += ["--constraint", str(constraints), "--report", str(report), *wanted]
        subprocess.run(command, check=True)
        return pins_of(report.read_text())


def pins_of(report: str) -> Pins:
    """The pins in a pip installation report (JSON, format 1)."""
    pins: Pins = {}
    for item in json.loads(report)["install"]:
        metadata = item["metadata"]
        name = str(metadata["name"]).lower().replace("_", "-").replace(".", "-")
        wheel_hash = item["download_info"]["archive_info"]["hashes"]["sha256"]
        pins[name] = (str(metadata["version"]), {wheel_hash})
    return pins


def merge(pins: Pins, more: Pins) -> None:
    """Add the hashes of ``more``; every Python gets the same version, anything else is a bug."""
    for name, (version, hashes) in more.items():
        known, known_hashes = pins.setdefault(name, (version, set()))
        if known != version:
            raise ValueError(f"{name}: {known} for one Python, {version} for another")
        known_hashes.update(hashes)


def render(wanted: Iterable[str], pins: Pins) -> str:
    """The lock file's text, sorted, so that a second run on the same day changes nothing."""
    lines = ["# Written by packaging/lock.py (make lock); do not edit.", "# Wanted:"]
    lines += [f"#   {requirement}" for requirement in wanted]
    for name, (version, hashes) in sorted(pins.items()):
        lines.append(f"{name}=={version} \\")
        lines.append(" \\\n".join(f"    --hash=sha256:{digest}" for digest in sorted(hashes)))
    return "\n".join(lines) + "\n"


def lock(wanted: Sequence[str], path: Path, *, known: Pins | None = None) -> Pins:
    """Resolve ``wanted`` for every Python and machine and write ``path``; gives the pins back."""
    preferred: Pins = {name: (version, set()) for name, (version, _) in (known or {}).items()}
    pins: Pins = {}
    for machine in MACHINES:
        for python in PYTHONS:
            found = resolved(wanted, python=python, machine=machine, pins={**preferred, **pins})
            merge(pins, found)
    path.write_text(render(wanted, pins))
    print(f"{path.relative_to(ROOT)}: {len(pins)} packages")
    return pins


def main() -> int:
    """Write every lock file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    run_time = list(project["dependencies"])
    test = list(project["optional-dependencies"]["test"])
    pins = lock(run_time, ROOT / "packaging/requirements.lock")
    lock([*run_time, *test], ROOT / "packaging/requirements-test.lock", known=pins)
    for line in (ROOT / "tests/sdk-versions.txt").read_text().splitlines():
        name, *requirements = line.split()
        lock(requirements, ROOT / f"packaging/sdk-{name}.lock")
    for line in (ROOT / "tests/bench/peer-versions.txt").read_text().splitlines():
        name, requirement = line.split()
        lock([requirement], ROOT / f"packaging/peer-{name}.lock")
    return 0


if __name__ == "__main__":
    sys.exit(main())
