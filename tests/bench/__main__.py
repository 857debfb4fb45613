"""`make bench`: how fast cortexd is, beside what it can be compared with on the same machine.

    python -m tests.bench [--quick] [--only PART] [--peers] [--strict]

Everything is on loopback and takes less than ten minutes, `--quick` less than two; the first full
run writes a ledger of 2 GB besides, which is kept under build. A full run is written down in
RESULTS.md beside this file. `PEERS=1 make bench` installs what `--peers` compares with, under
build/peers.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.bench import (
    fleet_section,
    growth_section,
    ledger_section,
    machine,
    opening_section,
    requests_section,
    rolls_section,
    sqlite_section,
    start_section,
    streams_section,
    targets,
    translation_section,
)
from tests.bench.child import BenchFailed
from tests.bench.plan import FULL, QUICK, Plan
from tests.bench.report import Section, render
from tests.bench.stage import Stage, stage

RESULTS = Path(__file__).with_name("RESULTS.md")
_RESULTS_HEAD = """# What `make bench` last measured

Read the ratios: both sides of one were measured within seconds of each other, on the same cores.
"""


PARTS: Mapping[str, Callable[[Stage, Plan], Section]] = {
    "ledger": ledger_section.measure,
    "sqlite": sqlite_section.measure,
    "rolls": rolls_section.measure,
    "opening": opening_section.measure,
    "fleet": fleet_section.measure,
    "requests": requests_section.measure,
    "firehose": streams_section.firehose,
    "growth": growth_section.measure,
    "translation": translation_section.measure,
    "start": start_section.measure,
    "paced": streams_section.paced,  # last: a thousand streams wear out the load and the neuron
}


def measure(
    plan: Plan, parts: Sequence[str], say: Callable[[str], None], *, with_peers: bool = False
) -> dict[str, float]:
    """Measure these parts and say every table as soon as there is one; all figures.

    Raises BenchFailed.
    """
    figures: dict[str, float] = {}
    with stage(with_peers=with_peers) as on:
        say("\n".join(machine.describe(on.directory)))
        for part in parts:
            section = PARTS[part](on, plan)
            figures |= section.figures
            for table in section.tables:
                say(render(table))
    figures |= _beyond_the_sync(figures)
    say(render(targets.judged(figures)))
    return figures


def _beyond_the_sync(figures: Mapping[str, float]) -> Mapping[str, float]:
    """What a request waits for besides the disk; known only when both parts were run."""
    if not {"added_p50_us_1", "sync_p50_us"} <= figures.keys():
        return {}
    return {"added_beyond_sync_p50_us": figures["added_p50_us_1"] - figures["sync_p50_us"]}


def main() -> int:
    """Measure, print, write down; the exit code."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="shorter, and not written down")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="may be repeated")
    parser.add_argument("--peers", action="store_true", help="LiteLLM and sglang-router too")
    parser.add_argument("--strict", action="store_true", help="fail when a target is far off")
    arguments = parser.parse_args()
    began = time.monotonic()
    said: list[str] = []

    def say(text: str) -> None:
        print(text, end="\n\n", flush=True)
        said.append(text)

    plan, parts = QUICK if arguments.quick else FULL, arguments.only or list(PARTS)
    try:
        figures = measure(plan, parts, say, with_peers=arguments.peers)
    except BenchFailed as failed:
        print(f"the numbers would mean nothing: {failed}", file=sys.stderr)
        return 1
    print(f"took {time.monotonic() - began:.0f} s")
    if not (arguments.quick or arguments.only):
        fenced = "\n\n".join(said)
        RESULTS.write_text(f"{_RESULTS_HEAD}\n```\n{fenced}\n```\n")
    return 1 if arguments.strict and targets.far_off(figures) else 0


if __name__ == "__main__":
    sys.exit(main())
