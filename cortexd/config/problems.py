"""What is wrong with a configuration, where, and what to do about it; and the report that says so.

Owns the words' shape, not the rules: those are in convert.py, check.py and load.py. A value is
never repeated here, because it may be a secret in the wrong place; names and ids may be.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

SHOWN_PROBLEMS_MAX = 100
"""Problems that a report spells out; the rest is counted."""

_HARMLESS_NAME = re.compile(r"[A-Za-z_]{1,40}")


class Problem(Struct, frozen=True):
    """One thing to put right.

    `where` is the setting's path (`neurons[1].endpoint`, "" for the whole file), `what` the cause
    and `hint` the way out (may be empty). `source` is a file, an environment variable or a flag;
    `line` counts from 1 where a file has one. `may_pass`: it is about what the configuration finds
    on this host right now, so that the next try may go well with the same words.
    """

    where: str
    what: str
    hint: str = ""
    source: str = ""
    line: int | None = None
    may_pass: bool = False


class Place(Struct, frozen=True):
    """Where a value was written: a file's name and line, or the name of a variable or flag."""

    source: str
    line: int | None = None


class Report:
    """Collects problems and notices, and knows for each path where it was written."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.places: dict[str, Place] = {}
        self.problems: list[Problem] = []
        self.notices: list[str] = []

    def add(
        self,
        where: str,
        what: str,
        hint: str = "",
        *,
        at: str | None = None,
        may_pass: bool = False,
    ) -> None:
        """Notes a problem of the setting at `where`; the line shown is that of `at` if given."""
        place = self.place_of(where if at is None else at)
        self.problems.append(Problem(where, what, hint, place.source, place.line, may_pass))

    def place_of(self, where: str) -> Place:
        """The line of this path, or of the nearest thing around it that was written down."""
        while where:
            place = self.places.get(where)
            if place is not None:
                return place
            where = where[: max(where.rfind("."), where.rfind("["), 0)]
        return Place(self.source)

    def closest(self, name: str, known: Iterable[str]) -> str | None:
        """The known name most like this one, while the report is still short enough to be read."""
        if len(self.problems) >= SHOWN_PROBLEMS_MAX or len(name) > 64:
            return None
        import difflib  # for a mistake only; a daemon that serves has found none

        return next(iter(difflib.get_close_matches(name.lower(), list(known), n=1)), None)

    def add_unknown(self, where: str, name: str, known: Sequence[str]) -> None:
        """Notes a name under `where` that is no setting; `known` are the names that are."""
        meant = self.closest(name, known)
        path = join(where, name)
        hint = f"did you mean {meant}?" if meant else f"known here: {', '.join(known)}"
        if meant or may_be_shown(name):
            self.add(path, "unknown setting", hint)
        else:
            self.add(
                where, "unknown setting (its name is not shown: it may be a secret)", hint, at=path
            )


def join(where: str, name: str) -> str:
    """The path of the setting `name` inside `where`."""
    return f"{where}.{name}" if where else name


def may_be_shown(name: str) -> bool:
    """Whether this looks like the name of a setting, and not like a secret that slipped there."""
    return _HARMLESS_NAME.fullmatch(name) is not None


def in_reading_order(problems: Iterable[Problem], sources: Sequence[str]) -> list[Problem]:
    """The problems by source (those named first, in that order) and by line."""
    ranks: Mapping[str, int] = {source: rank for rank, source in enumerate(sources)}
    return sorted(problems, key=lambda one: (ranks.get(one.source, -1), one.line or 0))


def render(problems: Sequence[Problem]) -> str:
    """The report for people: each problem's place, path and cause on a line, its hint beneath."""
    lines: list[str] = []
    for problem in problems[:SHOWN_PROBLEMS_MAX]:
        line = "" if problem.line is None else f":{problem.line}"
        head = [part for part in (f"{problem.source}{line}", problem.where, problem.what) if part]
        lines.append(": ".join(head))
        if problem.hint:
            lines.append(f"    hint: {problem.hint}")
    if len(problems) > SHOWN_PROBLEMS_MAX:
        lines.append(f"... and {len(problems) - SHOWN_PROBLEMS_MAX} more")
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines.append(f"{count} in the configuration")
    return "\n".join(lines)
