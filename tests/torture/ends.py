"""How a round may end: each is a coroutine that ends the daemon while clients are at it.

A disk is filled by making it smaller: a file system of the ledger's own (tmpfs), which takes root.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import msgspec
import trio

from tests.support.daemon_process import DaemonProcess, run_cortexd
from tests.support.wild_clients import request_bytes
from tests.torture.books import Violation

DISK_BYTES = 80 << 20
_LITTLE_BYTES = 32 << 20  # below the 64 MiB at which nothing new is reserved
PATIENCE_SECONDS = 20
FULL_SECONDS = 3


class Scene(msgspec.Struct):
    """What an end has to do with. `exited`: the daemon ended by itself or as it was asked to."""

    daemon: DaemonProcess
    configuration: Path
    disk: Path
    number: int
    exited: int | None = None
    notes: tuple[str, ...] = ()


End = Callable[[Scene], Awaitable[None]]


async def kill(scene: Scene) -> None:
    """SIGKILL."""
    await scene.daemon.kill()


async def terminate(scene: Scene) -> None:
    """SIGTERM: it drains, settles everything that is its own, and says 0."""
    scene.exited = await scene.daemon.stop()
    _expect(scene.exited == 0, f"it ended with {scene.exited} after SIGTERM")


async def second_daemon(scene: Scene) -> None:
    """A second daemon on the same ledger is refused; the first one does not notice."""
    listen = ("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")
    started = await run_cortexd(["serve", "--config", scene.configuration, *listen])
    wanted = f"another cortexd (process {scene.daemon.process.pid}) has this ledger open"
    _expect(started.returncode == 1, f"a second daemon ended with {started.returncode}")
    _expect(wanted in started.stderr, f"a second daemon said: {started.stderr[-400:]}")
    _expect(scene.daemon.process.returncode is None, "the first daemon ended too")
    status, _ = await ask(scene.daemon.gateway, budget_bytes("sk-balance"))
    _expect(status == 200, f"the first daemon answers {status} now")
    await scene.daemon.kill()


async def fill_disk(scene: Scene) -> None:
    """Not a byte is free: a daemon that has something to write says so and ends by itself."""
    await _leave(scene, free_bytes=0)
    with trio.move_on_after(FULL_SECONDS):
        scene.exited = await scene.daemon.process.wait()
    if scene.exited is None:  # what was under way fitted into the last page of the journal
        await _expect_unavailable(scene)
        scene.notes += ("survived a full disk",)
        await scene.daemon.kill()
    else:
        _expect(scene.exited == 1, f"it ended with {scene.exited} when the disk was full")
        log = await trio.Path(scene.daemon.log).read_text()
        _expect("event=ledger_failed" in log, "a full disk is not in its log")
        scene.notes += ("poisoned by a full disk",)
    await _leave(scene, free_bytes=DISK_BYTES)


async def lower_room(scene: Scene) -> None:
    """Below the low-water mark new requests get 503; once there is room again they are served."""
    await _leave(scene, free_bytes=_LITTLE_BYTES)
    await _expect_unavailable(scene)
    _expect(scene.daemon.process.returncode is None, "it ended although the disk had room")
    await _leave(scene, free_bytes=DISK_BYTES)
    await _expect_answer(scene, "after", lambda status, _: status != 503)
    await scene.daemon.kill()


ENDS: Mapping[str, End] = {
    "kill": kill,
    "term": terminate,
    "second": second_daemon,
    "full": fill_disk,
    "low": lower_room,
}
NEED_A_DISK = frozenset({"full", "low"})


@contextlib.asynccontextmanager
async def small_disk(place: Path) -> AsyncIterator[None]:
    """A small file system of its own at `place`, an empty directory. Root only."""
    options = f"size={DISK_BYTES},mode=0700"
    await trio.run_process(["mount", "-t", "tmpfs", "-o", options, "cortexd-torture", str(place)])
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):  # a mount must not outlive the test
            await trio.run_process(["umount", "--lazy", str(place)])


def disk_problem() -> str | None:
    """Why the ends that fill a disk cannot be tried here; None where they can."""
    if os.geteuid() != 0:
        return "only root can mount a small disk"
    return None


async def ask(url: str, request: bytes) -> tuple[int, bytes]:
    """Status and body of one request on a connection of its own."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    received = b""
    with trio.fail_after(PATIENCE_SECONDS):
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(request)
            while data := await stream.receive_some():
                received += data
    head, _, body = received.partition(b"\r\n\r\n")
    _expect(head.startswith(b"HTTP/1.1 "), f"no answer, but {received[:100]!r}")
    return int(head.split(maxsplit=2)[1]), body


def budget_bytes(key: str) -> bytes:
    """A request for the budget of a key."""
    head = "GET /v1/budget HTTP/1.1\r\nhost: cortexd\r\nconnection: close\r\n"
    return f"{head}authorization: Bearer {key}\r\n\r\n".encode()


async def _expect_unavailable(scene: Scene) -> None:
    """New requests are refused, with a code that says why."""
    await _expect_answer(
        scene, "low", lambda status, body: status == 503 and b'"ledger_unavailable"' in body
    )


async def _expect_answer(scene: Scene, name: str, wanted: Callable[[int, bytes], bool]) -> None:
    """Ask until such an answer comes; the daemon looks at its disk once a second."""
    with trio.fail_after(PATIENCE_SECONDS):
        for number in range(1_000_000):
            if wanted(*await ask(scene.daemon.gateway, _probe(scene, f"{name}{number}"))):
                return
            with trio.move_on_after(0.05):
                await trio.sleep_forever()


def _probe(scene: Scene, name: str) -> bytes:
    body: dict[str, object] = {
        "model": "sim/small",
        "max_tokens": 1,
        "messages": [{"role": "user", "content": "?"}],
    }
    return request_bytes("sk-free", f"probe.{scene.number}.{name}", body)


async def _leave(scene: Scene, *, free_bytes: int) -> None:
    """Make the file system so large that so many bytes are free."""
    room = os.statvfs(scene.disk)
    size = (room.f_blocks - room.f_bfree) * room.f_frsize + free_bytes
    options = f"remount,size={size}"
    await trio.run_process(["mount", "-o", options, str(scene.disk)])


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)
