"""Which fields of a JSON body go on to a neuron: the sorting that all endpoints share.

Owns the walk over a body's fields and the reading of output limits. Refuses to know which names
are on the lists: each dialect brings its own (`fields.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from cortexd.dialects.body import as_count, as_flag, printable
from cortexd.dialects.fields import NATIVE_OUTPUT_LIMITS, NEVER_FORWARDED
from cortexd.dialects.json_text import said_once

if TYPE_CHECKING:
    from collections.abc import Set

    from cortexd.dialects.body import Body

OUTPUT_TOKENS_MAX = 2**31 - 1
"""Beyond it engines overflow: 2**40 made one generate for ever and another stop at one token."""

DROPPED_NAMES_MAX = 8
"""Names of removed fields that are kept for the log."""

Reading = Callable[["Body", list[str]], tuple[msgspec.Raw, object]]
"""Reads one field by rules of its own: what to forward, and its value. Adds what it takes out."""

_COMPOSITE = (dict, list)
_NATIVE = frozenset(NATIVE_OUTPUT_LIMITS)
_ENCODE = msgspec.json.Encoder().encode


class Lists(msgspec.Struct, frozen=True):
    """The names of one endpoint. Of these only `rendered` ones can become part of a prompt.

    `read_here`: cortexd reads them, and writes them or not by its own rules. `special`: fields
    with a reading of their own.
    """

    read_here: Set[str]
    rendered: Set[str]
    harmless: Set[str]
    special: Mapping[str, Reading] = {}


class Taken(msgspec.Struct, frozen=True):
    """What may go on, the first few names of what may not, and JSON that the prompt may hold."""

    fields: dict[str, msgspec.Raw]
    dropped: tuple[str, ...]
    rendered: list[bytes]


def take(body: Body, lists: Lists, extra: Set[str], *, forwarded: dict[str, msgspec.Raw]) -> Taken:
    """Sort a body's fields. Every field that goes on has been decoded, so it is valid JSON.

    `extra`: names that the operator lets through, which may become part of a prompt. `forwarded`:
    what goes on already, to which the others are added.
    """
    dropped: list[str] = []
    rendered: list[bytes] = []
    read_here, harmless = lists.read_here, lists.harmless
    for name, raw in body.fields.items():
        if name in read_here:
            continue
        is_harmless = name in harmless
        if not is_harmless and not _may_be_rendered(name, lists, extra):
            dropped.append(name)
            continue
        if name in lists.special:
            raw, value = lists.special[name](body, dropped)
        else:
            value = body.value(name)
        if isinstance(value, _COMPOSITE):
            forwarded[name], encoded = said_once(raw, value)
            if not is_harmless:
                rendered.append(encoded)
        else:  # nothing that could say something twice
            forwarded[name] = raw
            if not is_harmless:
                rendered.append(_ENCODE(value))
    return Taken(forwarded, names_for_log(dropped), rendered)


def names_for_log(dropped: list[str]) -> tuple[str, ...]:
    """The first few names of what was taken out, fit for a log line."""
    return tuple([printable(name) for name in dropped[:DROPPED_NAMES_MAX]]) if dropped else ()


def _may_be_rendered(name: str, lists: Lists, extra: Set[str]) -> bool:
    return name in lists.rendered or (name in extra and name not in NEVER_FORWARDED)


def streaming(body: Body) -> tuple[bool, bool]:
    """Whether a stream is asked for, and whether with its usage, which is only told in streams."""
    stream, include_usage = body.flag("stream"), False
    if "stream_options" in body.fields:
        options = body.mapping("stream_options") or {}
        include_usage = as_flag(options.get("include_usage"), "stream_options.include_usage")
    return stream, stream and include_usage


def output_requested(body: Body, spellings: tuple[str, ...]) -> int | None:
    """Return the smallest output limit in any spelling; `spellings` are the dialect's own.

    A nonsensical number in an engine's own spelling is not refused: it never gets there.
    """
    smallest, fields = OUTPUT_TOKENS_MAX + 1, body.fields
    for name in spellings:
        if name in fields:
            smallest = min(smallest, body.integer(name, largest=OUTPUT_TOKENS_MAX) or smallest)
    if not _NATIVE.isdisjoint(fields):
        for name in NATIVE_OUTPUT_LIMITS:
            if name not in spellings:
                limit = as_count(body.value(name), largest=OUTPUT_TOKENS_MAX)
                smallest = min(smallest, limit or smallest)
    return smallest if smallest <= OUTPUT_TOKENS_MAX else None
