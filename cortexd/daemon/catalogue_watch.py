"""The catalogue's file while the daemon runs: noticed when it changes, read, and handed on.

Owns when the file is looked at, when it counts as changed, and what is logged about it. What it may
say is checked by the code that checks it at start (config/load.py). Refuses to know what follows
from a new catalogue.

A file is read once it has been the same for two looks in a row: what is read too early, while an
editor or a deployment still writes it, may be half of a catalogue, and half of one is often valid.
The same rule keeps a file that is being replaced from counting as gone.
"""

import logging
import os
from collections.abc import Callable, Iterable
from typing import Final

import trio

from cortexd.config.load import ConfigProblems, LoadedCatalogue, load_catalogue
from cortexd.config.problems import Problem
from cortexd.config.schema import Catalogue, Config
from cortexd.daemon.logs import quoted

LOOK_SECONDS: Final = 1.0

_PROBLEMS_MAX = 20
_NOTICES_MAX = 10
_NAMES_MAX = 10
_PROBLEM_CHARACTERS_MAX = 8_000

log = logging.getLogger("cortexd.daemon")

Mark = tuple[int, ...]
"""What tells one version of the file from another; empty: there is no file."""


class CatalogueWatch:
    """Watches the file that a configuration names, and gives new catalogues to `on_catalogue`."""

    def __init__(
        self, config: Config, catalogue: Catalogue, on_catalogue: Callable[[Catalogue], None]
    ) -> None:
        """`catalogue` is what was read at start. `on_catalogue` is called when it is another."""
        self._config = config
        self._catalogue = catalogue
        self._on_catalogue = on_catalogue
        self._seen: Mark | None = None
        self._read: Mark | None = None
        self._trouble = False
        self._told = trio.Event()
        self._asked = False

    def reload(self) -> None:
        """Look at once, and say in the log what came of it, if only that nothing changed."""
        log.info(
            "event=reload catalogue=%s note=%s",
            quoted(self._config.models_config or "none"),
            quoted("the catalogue alone is read again: a changed configuration takes a restart"),
        )
        self._told.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look for ever, every second and when told; ends only by cancellation.

        Without a file to watch it returns at once. Nothing that is in a file raises here.
        """
        task_status.started()
        while self._config.models_config is not None:
            with trio.move_on_after(LOOK_SECONDS):
                await self._told.wait()
            told, self._told = self._told.is_set(), trio.Event()
            await self.look(told=told)

    async def look(self, *, told: bool = False) -> None:
        """One look, and what follows from it.

        `told`: by somebody who has finished writing and wants an answer, so a file that is there is
        read in any case. Checkpoints: files are read in a thread. A cancel leaves the old
        catalogue.
        """
        path = self._config.models_config
        assert path is not None, "there is a file to look at"
        mark = await trio.to_thread.run_sync(_mark_of, path, abandon_on_cancel=True)
        settled, self._seen = mark == self._seen, mark
        self._asked = self._asked or told
        if not (self._asked or mark != self._read) or not (settled or (told and mark)):
            return
        try:
            found = await trio.to_thread.run_sync(
                load_catalogue, self._config, abandon_on_cancel=True
            )
        except ConfigProblems as broken:
            self._read, self._asked = mark, False
            self._keep(path, broken.problems)
            return
        if found.missing and mark:  # it went away just now: the next look will tell
            return
        self._read = mark
        self._take(path, found)
        self._asked = False

    def _keep(self, path: str, problems: list[Problem]) -> None:
        self._trouble = True
        log.error(
            "event=catalogue_broken file=%s problems=%d models_kept=%d reason=%s "
            'do="correct the file and save it: it is read again then, and the old catalogue counts '
            'until it is right"',
            quoted(path),
            len(problems),
            len(self._catalogue.models),
            quoted(_in_a_line(problems), characters_max=_PROBLEM_CHARACTERS_MAX),
        )

    def _take(self, path: str, found: LoadedCatalogue) -> None:
        before, self._catalogue = self._catalogue, found.catalogue
        recovered, self._trouble = self._trouble, found.missing
        changed = found.catalogue != before
        if changed:
            self._on_catalogue(found.catalogue)
        if found.missing:
            log.warning(
                "event=catalogue_missing file=%s models_lost=%d "
                'do="put a catalogue there, or take models_config out of the configuration"',
                quoted(path),
                len(before.models),
            )
        elif changed or recovered:
            _tell_the_difference(before, found.catalogue)
        elif self._asked:
            log.info("event=catalogue_unchanged models=%d", len(before.models))
        if changed:
            for notice in found.notices[:_NOTICES_MAX]:
                log.warning("event=catalogue_notice notice=%s", quoted(notice, characters_max=400))


def _mark_of(path: str) -> Mark:
    """Empty where there is no file; a single number, the system's, where it cannot be looked at."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return ()
    except OSError as error:
        return (error.errno or 0,)
    # The change time also tells of rights that were given or taken.
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev)


def _tell_the_difference(before: Catalogue, after: Catalogue) -> None:
    old = {model.id: model for model in before.models}
    new = {model.id: model for model in after.models}
    log.info(
        "event=catalogue_reloaded models=%d added=%s removed=%s changed=%s aliases_changed=%s",
        len(new),
        _named(new.keys() - old.keys()),
        _named(old.keys() - new.keys()),
        _named(name for name in new.keys() & old.keys() if new[name] != old[name]),
        _named({alias for alias, _ in before.aliases.items() ^ after.aliases.items()}),
    )


def _named(models: Iterable[str]) -> str:
    """Names for a log line, not too many; "none" without any."""
    names = sorted(models)
    more = [f"and {len(names) - _NAMES_MAX} more"] if len(names) > _NAMES_MAX else []
    return quoted(", ".join([*names[:_NAMES_MAX], *more]) or "none", characters_max=3_000)


def _in_a_line(problems: list[Problem]) -> str:
    told = [_problem(each) for each in problems[:_PROBLEMS_MAX]]
    more = len(problems) - len(told)
    return "; ".join([*told, *([f"and {more} more, see check-config"] if more else [])])


def _problem(problem: Problem) -> str:
    line = "" if problem.line is None else f"line {problem.line}"
    words = ": ".join(part for part in (line, problem.where, problem.what) if part)
    return f"{words} ({problem.hint})" if problem.hint else words
