"""Models and neurons as tables for people, for the verbs on the admin socket."""

import sys
from collections.abc import Sequence

from cortexd.cli.printable import printable
from cortexd.fleet.operations import ModelLine, NeuronLine

_WIDTH_FOR_PIPES = 1000  # a table that goes on to grep must not be folded

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


def print_models(lines: Sequence[ModelLine]) -> None:
    """Print one row per model and neuron."""
    _print_table(
        ("MODEL", "NEURON", "STATE", "DEVICES", "PINNED"),
        ("VRAM", "IN FLIGHT", "WAITING", "IDLE"),
        [
            (
                *(line.model, line.neuron or "-", _state(line), _devices(line)),
                "pinned" if line.pinned else "",
                _megabytes(line.vram_mb),
                *(str(line.in_flight), str(line.waiting), duration(line.idle_seconds)),
                line.note,
            )
            for line in lines
        ],
    )


def print_neurons(lines: Sequence[NeuronLine]) -> None:
    """Print one row per neuron."""
    _print_table(
        ("NEURON", "STATE", "BREAKER"),
        ("IN FLIGHT", "CYCLES", "VRAM FREE"),
        [
            (
                *(line.neuron, neuron_state(line), line.breaker),
                *(str(line.in_flight), str(line.load_cycles), _vram(line)),
                _neuron_note(line),
            )
            for line in lines
        ],
    )


def duration(seconds: float | None) -> str:
    """A time in the unit that tells most: `95 s`, `12 min`, `5 h`, `3 d`; empty if not known."""
    if seconds is None:
        return ""
    for unit, length in (("d", _DAY), ("h", _HOUR), ("min", _MINUTE)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def neuron_state(line: NeuronLine) -> str:
    """`healthy`, `unhealthy, draining` and the like."""
    return ("healthy" if line.healthy else "unhealthy") + (", draining" if line.draining else "")


def _print_table(left: Sequence[str], right: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns of words, then of numbers, and a last one for notes if there are any."""
    from rich.console import Console
    from rich.table import Table

    has_notes = any(row[-1] for row in rows)
    table = Table(box=None, pad_edge=False)
    for heading in left:
        table.add_column(heading, overflow="fold")
    for heading in right:
        table.add_column(heading, justify="right")
    if has_notes:
        table.add_column("NOTE", overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row if has_notes else row[:-1]))
    width = None if sys.stdout.isatty() else _WIDTH_FOR_PIPES
    Console(highlight=False, markup=False, emoji=False, width=width).print(table)


def _state(line: ModelLine) -> str:
    if line.status == "loading" and line.eta_seconds is not None:
        return f"loading, about {duration(line.eta_seconds)} more"
    return line.status


def _devices(line: ModelLine) -> str:
    return ",".join(str(index) for index in line.devices)


def _megabytes(size_mb: int | None) -> str:
    return "" if size_mb is None else f"{size_mb} MB"


def _vram(line: NeuronLine) -> str:
    if line.vram_free_mb is None:
        return ""
    total = f" of {line.vram_total_mb}" if line.vram_total_mb is not None else ""
    return f"{line.vram_free_mb} MB{total}"


def _neuron_note(line: NeuronLine) -> str:
    advice = "restart advised: its memory may be fragmented" if line.restart_advised else ""
    return "; ".join(part for part in (line.note, advice) if part)
