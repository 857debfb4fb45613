"""Nothing is sent to a neuron before the fdatasync that covers its reservation has returned.

The daemon's own system calls are the witness: no test of its own could see a sync that comes late.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import httpx
import msgspec
import pytest
import trio

from tests.support import strace
from tests.support.daemon_process import COMMAND, chat, serving
from tests.support.fake_neuron import fake_neuron
from tests.support.strace import Call

REQUESTS = [f"order-{number:02}" for number in range(50)]
#: Every way in which bytes could reach a file or a socket, and every way to sync.
WRITING = ("write", "writev", "pwrite64", "pwritev", "pwritev2", "sendfile", "splice")
SENDING = ("sendto", "sendmsg", "sendmmsg", "write", "writev", "io_uring_enter")
SYNCING = ("fdatasync", "fsync")
KEY = {"key": "sk-cap", "account_id": "acct", "key_id": "key", "hard_cap": 1_000_000}


class Dispatch(msgspec.Struct, frozen=True):
    """One request's way out, as places in the trace; None for what never happened.

    `written`: its reservation is in the journal. `synced`: the first sync of that file that began
    afterwards has succeeded. `sent`: the first bytes that name it go to a neuron.
    """

    written: int | None = None
    synced: int | None = None
    sent: int | None = None

    @property
    def is_in_order(self) -> bool:
        """Whether all three happened, one after the other."""
        if self.written is None or self.synced is None or self.sent is None:
            return False
        return self.written < self.synced < self.sent


def dispatches(calls: Sequence[Call], *, ledger: str, port: int) -> Mapping[str, Dispatch]:
    """The way of every request of which the journal in `ledger` or the neuron at `port` heard."""
    syncs = [call for call in calls if call.name in SYNCING and call.result == 0]
    found: dict[str, Dispatch] = {}
    for call in calls:
        if call.name in WRITING and call.target.startswith(f"{ledger}/"):
            for request_id in reserved_in(call.data):
                assert request_id not in found, f"{request_id} was sent, or reserved, before"
                found[request_id] = Dispatch(call.ended, covering(call, syncs))
        elif call.name in SENDING and call.target.endswith(f":{port}]"):
            for request_id in REQUESTS:
                if b"x-request-id: %b\r\n" % request_id.encode() in call.data:
                    known = found.get(request_id, Dispatch())
                    if known.sent is None:
                        found[request_id] = msgspec.structs.replace(known, sent=call.began)
    return found


def covering(write: Call, syncs: Iterable[Call]) -> int | None:
    """Where the first sync of the same file returned that began after this write."""
    if write.ended is None:
        return None
    ends = (s.ended for s in syncs if s.target == write.target and s.began > write.ended)
    return next(ends, None)


def reserved_in(data: bytes) -> Iterable[str]:
    """The request ids of the reservations in journal lines."""
    for line in data.splitlines():
        _, _, entry = line.partition(b"\t")
        if entry.startswith(b'{"k":"hold"'):
            yield msgspec.json.decode(entry, type=dict[str, object])["rid"]  # type: ignore[misc]


HOLD = r'7 write(3</l/seg-1>, "0\t{\"k\":\"hold\",\"rid\":\"order-00\"}\n", 9) = 9'
SYNC = "8 fdatasync(3</l/seg-1>) = 0"
SEND = r'7 sendto(5<TCP:[h:1->h:80]>, "POST\r\nx-request-id: order-00\r\n\r\n", 9, 0, NULL, 0) = 9'
BEGUN, DONE = "8 fdatasync(3</l/seg-1> <unfinished ...>", "8 <... fdatasync resumed>) = 0"


@pytest.mark.parametrize(
    ("trace", "is_in_order"),
    [
        ([HOLD, SYNC, SEND], True),
        ([HOLD, BEGUN, DONE, SEND], True),
        ([HOLD, BEGUN, SEND, DONE], False),
        ([BEGUN, HOLD, DONE, SEND], False),
        ([BEGUN, HOLD, DONE, SYNC, SEND], True),
        ([HOLD, SEND, SYNC], False),
        ([HOLD, SEND], False),
        ([SYNC, SEND], False),
        ([HOLD, SYNC], False),
        ([HOLD, SYNC.replace("seg-1", "seg-2"), SEND], False),
        ([HOLD, SYNC.replace("0", "-1 EIO"), SEND], False),
    ],
)
def test_only_a_finished_sync_after_the_write_and_before_the_sending_counts(
    trace: list[str], is_in_order: bool
) -> None:
    found = dispatches(strace.calls("\n".join(trace)), ledger="/l", port=80)
    assert found["order-00"].is_in_order == is_in_order


@pytest.mark.slow
async def test_no_request_is_sent_before_its_reservation_is_on_disk(tmp_path: Path) -> None:
    if (reason := strace.why_not()) is not None:
        pytest.skip(f"THE ORDER OF SYSTEM CALLS WAS NOT TESTED: {reason}")
    traces: list[str] = []
    pipe = tmp_path / "trace"
    os.mkfifo(pipe)

    async def read_trace() -> None:
        traces.append(await trio.to_thread.run_sync(pipe.read_text, abandon_on_cancel=True))

    syscalls = sorted({*WRITING, *SENDING, *SYNCING})
    with trio.fail_after(60):
        async with fake_neuron(fixed_usage=(5, 10)) as neuron:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_trace)
                await ask_all(tmp_path, neuron.url, strace.command(pipe, syscalls))
            assert neuron.chat_hits == len(REQUESTS)

    found = dispatches(strace.calls(traces[0]), ledger=str(tmp_path / "ledger"), port=neuron.port)
    assert sorted(found) == REQUESTS
    late = {name: way for name, way in found.items() if not way.is_in_order}
    assert not late


async def ask_all(directory: Path, neuron_url: str, tracer: Sequence[str]) -> None:
    """Ask all REQUESTS at once of a traced daemon, every second one for a stream; then stop it."""
    command = (*tracer, *COMMAND)
    async with (
        serving(directory, {"sim": neuron_url}, keys=[KEY], command=command) as daemon,
        daemon.client(limits=httpx.Limits(max_connections=len(REQUESTS))) as client,
    ):

        async def ask(number: int, request_id: str) -> None:
            body = chat(stream=bool(number % 2))
            headers = {"x-request-id": request_id}
            answer = await client.post("/v1/chat/completions", json=body, headers=headers)
            assert answer.status_code == 200

        async with trio.open_nursery() as nursery:
            for number, request_id in enumerate(REQUESTS):
                nursery.start_soon(ask, number, request_id)
        assert await daemon.stop() == 0
