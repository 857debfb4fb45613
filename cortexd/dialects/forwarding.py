"""Which fields of a JSON body go on to a neuron: the sorting that all endpoints share.

Owns the walk over a body's fields and the reading of output limits. Refuses to know which names
are on the lists: each dialect brings its own (`fields.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from cortexd.dialects.body import as_count, printable
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


class Lists(msgspec.Struct, frozen=True):
    """The names of one endpoint. Only `rendered` and `extra` ones can become part of a prompt.

    `read_here`: cortexd reads them, and writes them or not by its own rules. `special`: fields
    with a reading of their own. `extra`: what the operator lets through.
    """

    read_here: Set[str]
    rendered: Set[str]
    harmless: Set[str]
    special: Mapping[str, Reading] = {}
    extra: Set[str] = frozenset()


class Taken(msgspec.Struct, frozen=True):
    """What may go on, the names of what may not, and JSON that the prompt may hold."""

    fields: dict[str, msgspec.Raw]
    dropped: list[str]
    rendered: list[bytes]

    @property
    def dropped_names(self) -> tuple[str, ...]:
        """The first few names of what was taken out, fit for a log line."""
        return tuple(printable(name) for name in self.dropped[:DROPPED_NAMES_MAX])


def take(body: Body, lists: Lists) -> Taken:
    """Sort a body's fields. Every field that goes on has been decoded, so it is valid JSON."""
    taken = Taken({}, [], [])
    for name in body.fields:
        if name in lists.read_here:
            continue
        known = name in lists.harmless or name in lists.rendered or name in lists.extra
        if not known or name in NEVER_FORWARDED:
            taken.dropped.append(name)
            continue
        special = lists.special.get(name)
        if special is not None:
            raw, value = special(body, taken.dropped)
        else:
            raw, value = body.fields[name], body.value(name)
        taken.fields[name], encoded = said_once(raw, value)
        if name not in lists.harmless:
            taken.rendered.append(encoded)
    return taken


def output_requested(body: Body, spellings: tuple[str, ...]) -> int | None:
    """Return the smallest output limit in any spelling; `spellings` are the dialect's own.

    A nonsensical number in an engine's own spelling is not refused: it never gets there.
    """
    limits = [body.integer(name, largest=OUTPUT_TOKENS_MAX) for name in spellings]
    foreign = [name for name in NATIVE_OUTPUT_LIMITS if name not in spellings]
    limits += [as_count(body.value(name), largest=OUTPUT_TOKENS_MAX) for name in foreign]
    return min((limit for limit in limits if limit is not None), default=None)
