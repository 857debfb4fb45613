"""The words in which the verbs of the ledger tell people about scopes, units and windows."""

from typing import Final, Self

import msgspec

from cortexd.ledger.cap_windows import CapWindow, Unit
from cortexd.ledger.entries import Scope, scope_words

_UNITS: Final = {"tok": "tokens", "req": "requests", "con": "in flight"}


def scope_name(scope: Scope) -> tuple[str, str]:
    """A scope's kind and id: `("key", "ci bot")`. An id that cannot be printed stays quoted."""
    kind, name = scope_words(scope)
    return kind, name if name.isprintable() else scope.partition(":")[2]


def unit_words(unit: Unit) -> str:
    """What a cap counts: `tokens`, `requests` or `in flight`."""
    return _UNITS[unit]


class WindowWords(msgspec.Struct, frozen=True, omit_defaults=True):
    """A window as JSON: `{"kind": "rolling", "ms": 3600000}`; a calendar's has a zone instead."""

    kind: str
    ms: int = 0
    period: str = ""
    time_zone: str = ""

    @classmethod
    def of(cls, window: CapWindow) -> Self:
        """The same, out of the ledger's own words."""
        return cls(window.kind, window.ms, window.period, window.time_zone)

    def __str__(self) -> str:
        """`balance`, `rolling 3600 s`, `day Europe/Berlin`; of what is in flight, `now`."""
        match self.kind:
            case "calendar":
                return f"{self.period} {self.time_zone}"
            case "held":
                return "now"
            case _ if self.ms:
                seconds, rest = divmod(self.ms, 1000)
                return f"{self.kind} {seconds}{f'.{rest:03d}' if rest else ''} s"
            case _:
                return self.kind
