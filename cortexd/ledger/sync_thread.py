"""The one thread in which the ledger waits for the disk, so that no stream ever does.

It owns no data: the ledger task hands it a piece of blocking work and hears back in its own
(Trio) thread. `Syncer` is what tests replace by one that works under a virtual clock.
"""

import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import Protocol

import trio

Work = Callable[[], None]
Done = Callable[[BaseException | None], None]


class Syncer(Protocol):
    """Runs one piece of blocking work at a time."""

    def submit(self, work: Work, done: Done) -> None:
        """Run `work` elsewhere, then call `done` in the Trio thread with what it raised, if it did.

        Never blocks and is no checkpoint.
        """


class SyncThread:
    """A dedicated thread; a hop to it costs less than one to a thread of Trio's shared cache.

    A context manager inside a Trio run. Leave it with no work under way: it does not wait for the
    thread, which is a daemon thread so that a disk that hangs cannot hold up the process's end.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Work, Done] | None] = SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.Thread(target=self._serve, name="ledger-sync", daemon=True)

    def __enter__(self) -> "SyncThread":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._jobs.put(None)

    def submit(self, work: Work, done: Done) -> None:
        """See `Syncer.submit`."""
        self._jobs.put((work, done))

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, done = job
            raised: BaseException | None = None
            try:
                work()
            except BaseException as error:  # whatever it is, the ledger task has to hear of it
                raised = error
            with contextlib.suppress(trio.RunFinishedError):  # nobody is left to be told
                self._token.run_sync_soon(done, raised)
