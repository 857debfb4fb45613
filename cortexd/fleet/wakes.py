"""Which sleeping hosts are to be woken, how often, and when nobody counts on them any more.

Owns the packets that were sent. Refuses to know what a packet is (wake.py), and which model wants
which host (planner.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cortexd.fleet.view import NeuronName

AGAIN_MS = 10_000
"""A packet may be lost, so another one follows while somebody waits."""

GIVE_UP_MS = 300_000
"""A host that does not answer for so long has not heard; nobody is kept waiting for it as long
again."""


class _Waking(msgspec.Struct, frozen=True):
    since_ms: int
    sent_ms: int


class Wakes:
    """The hosts that can be woken, and since when we try."""

    def __init__(self, wakeable: Iterable[NeuronName]) -> None:
        """`wakeable`: the neurons whose hardware address is configured."""
        self._wakeable = frozenset(wakeable)
        self._waking: dict[NeuronName, _Waking] = {}

    def awake(self, neuron: NeuronName) -> None:
        """It answers: the next time it sleeps begins anew."""
        self._waking.pop(neuron, None)

    def want(
        self, neurons: Iterable[NeuronName], now_ms: int
    ) -> tuple[list[NeuronName], int | None]:
        """Whom of these to send a packet now, when to ask again; None: count on nobody."""
        send: list[NeuronName] = []
        again_ms: int | None = None
        for name in neurons:
            if name not in self._wakeable:
                continue
            waking = self._waking.get(name)
            if waking is None or now_ms >= waking.since_ms + 2 * GIVE_UP_MS:
                waking = _Waking(now_ms, now_ms)
                send.append(name)
            elif now_ms >= waking.since_ms + GIVE_UP_MS:
                continue
            elif now_ms >= waking.sent_ms + AGAIN_MS:
                waking = _Waking(waking.since_ms, now_ms)
                send.append(name)
            self._waking[name] = waking
            again_ms = min(again_ms or now_ms + AGAIN_MS, waking.sent_ms + AGAIN_MS)
        return send, again_ms
