"""The one thread that waits for the disk."""

import threading

import pytest
import trio

from cortexd.ledger.sync_thread import SyncThread


async def test_work_is_done_in_one_other_thread_and_reported_in_this_one() -> None:
    worked: list[threading.Thread] = []
    reported: list[tuple[threading.Thread, BaseException | None]] = []
    send, receive = trio.open_memory_channel[None](1)

    def work() -> None:
        worked.append(threading.current_thread())

    def done(error: BaseException | None) -> None:
        reported.append((threading.current_thread(), error))
        send.send_nowait(None)

    with SyncThread() as thread, trio.fail_after(10):
        for _ in range(3):
            thread.submit(work, done)
            await receive.receive()
    assert len(set(worked)) == 1
    assert worked[0] is not threading.current_thread()
    assert reported == [(threading.current_thread(), None)] * 3
    worked[0].join(timeout=10)
    assert not worked[0].is_alive()


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt()])
async def test_whatever_the_work_raises_is_handed_over(error: BaseException) -> None:
    send, receive = trio.open_memory_channel[BaseException | None](1)

    def work() -> None:
        raise error

    with SyncThread() as thread, trio.fail_after(10):
        thread.submit(work, send.send_nowait)
        assert await receive.receive() is error


def test_work_that_outlives_the_run_is_reported_to_nobody() -> None:
    """A disk that hangs for longer than the daemon lives must not end in a traceback."""
    started, release = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []
    reports: list[BaseException | None] = []

    def work() -> None:
        threads.append(threading.current_thread())
        started.set()
        release.wait(10)

    async def main() -> None:
        with SyncThread() as thread:
            thread.submit(work, reports.append)

    trio.run(main)
    assert started.wait(10)
    release.set()
    threads[0].join(timeout=10)
    assert not threads[0].is_alive()
    assert reports == []
