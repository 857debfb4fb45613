"""Metrics that engines expose as Prometheus text: the few samples that are asked for.

Owns a reader with an end to it: lines, samples and labels are bounded, and what cannot be read is
left out, because a metric is never worth more than a hint. Refuses to know which metrics matter.
Source of the format: https://prometheus.io/docs/instrumenting/exposition_formats.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Set

LINES_MAX = 50_000
SAMPLES_MAX = 1_000
LINE_CHARACTERS_MAX = 4_096
VALUE_LIMIT = 2**53
"""Values from this on say nothing about how busy an engine is."""

_SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})?[ \t]+(\S+)", re.ASCII)
_LABEL = re.compile(r'[ \t]*([a-zA-Z_]\w*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"[ \t]*,?', re.ASCII)
_ESCAPE = re.compile(r"\\(.)")


class Sample(msgspec.Struct, frozen=True):
    """One value of a metric; `labels` as they were said."""

    name: str
    value: float
    labels: Mapping[str, str] = {}


def read_samples(body: bytes, wanted: Set[str]) -> list[Sample]:
    """The samples of the `wanted` metrics: finite and not negative, in the order of the text."""
    found: list[Sample] = []
    lines = body.decode("utf-8", "replace").split("\n", LINES_MAX)[:LINES_MAX]
    for line in lines:
        if len(found) == SAMPLES_MAX:
            break
        if line.startswith("#") or len(line) > LINE_CHARACTERS_MAX:
            continue
        sample = _read(line, wanted)
        if sample is not None:
            found.append(sample)
    return found


def total(samples: Iterable[Sample], name: str, **labels: str) -> int | None:
    """The sum of a metric over all samples that do not contradict `labels`; None: not exposed."""
    values = [
        each.value
        for each in samples
        if each.name == name
        and all(each.labels.get(label, wanted) == wanted for label, wanted in labels.items())
    ]
    return min(round(sum(values)), VALUE_LIMIT - 1) if values else None


def _read(line: str, wanted: Set[str]) -> Sample | None:
    matched = _SAMPLE.match(line)
    if matched is None or matched[1] not in wanted:
        return None
    try:
        value = float(matched[3])
    except ValueError:
        return None
    if not math.isfinite(value) or not 0 <= value < VALUE_LIMIT:
        return None
    return Sample(matched[1], value, _labels(matched[2] or ""))


def _labels(text: str) -> dict[str, str]:
    """The labels up to the first fault. To look for the next one behind it would try every place in
    the line, and could read to the end of the line at each.
    """
    labels: dict[str, str] = {}
    matched = _LABEL.match(text)
    while matched is not None:
        labels[matched[1]] = _unescaped(matched[2])
        matched = _LABEL.match(text, matched.end())
    return labels


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda escape: "\n" if escape[1] == "n" else escape[1], text)
