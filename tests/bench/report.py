"""What a part of the benchmark hands in, and how it is printed. Pure."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

import msgspec


class Table(msgspec.Struct, frozen=True):
    """Rows of texts under a title; the notes say what one has to know to read the numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


class Section(msgspec.Struct, frozen=True):
    """Tables, and the figures that targets are set for."""

    tables: tuple[Table, ...]
    figures: Mapping[str, float]


def render(table: Table) -> str:
    """A table as aligned text: the first column to the left, numbers to the right."""
    rows = [table.columns, *table.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_aligned(row, widths) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([table.title, *lines, *(f"  {note}" for note in table.notes)])


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    cells = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
    return "  ".join(cells).rstrip()


def median(values: Iterable[float]) -> float:
    """The median of one number from each round."""
    return statistics.median(values)


def median_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """The median over the rounds of the ratio within a round, which noise moves least.

    Rounds in which there was nothing to compare with do not count; NaN if none does.
    """
    ratios = [a / b for a, b in zip(numerator, denominator, strict=True) if b]
    return median(ratios) if ratios else math.nan


def number(value: float) -> str:
    """Two or three digits, and all before the point: 8123, 81.2, 0.81, 0.0081; nothing of NaN."""
    if math.isnan(value):
        return "-"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def times(value: float) -> str:
    """A ratio: 0.25x."""
    return number(value) + "x"
