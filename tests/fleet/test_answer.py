"""Answers of scripted neurons: how they come, how they fail, and the clocks that run meanwhile."""

from __future__ import annotations

import socket
from contextlib import suppress

import pytest
import trio
import trio.testing

from cortexd.deadlines import Deadlines
from cortexd.fleet.link import PlainLink
from cortexd.fleet.pool import Answer, NeuronBroke, NeuronSilent, Pool
from tests.fleet.scripted import CHUNKED_HEAD, Peer, answering, ask, ok, scripted, whole

# How answers come and fail.


async def test_bytes_are_given_as_they_come(pool: Pool) -> None:
    step = [trio.Event() for _ in range(3)]

    async def slow(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED_HEAD)
        for each, piece in zip(
            step, (b"1\r\na\r\n", b"1\r\nb\r\n1\r\nc\r\n", b"0\r\n\r\n"), strict=True
        ):
            await each.wait()
            await peer.send(piece)

    async with scripted(slow) as neuron:
        answer = await ask(pool, neuron.url)
        for each, wanted in zip(step, (b"a", b"bc", b""), strict=True):
            each.set()
            assert await answer.read() == wanted
        assert await answer.read() == b""


async def test_an_answer_that_comes_byte_by_byte_is_whole(pool: Pool) -> None:
    async def slow(peer: Peer) -> None:
        await peer.request()
        for byte in CHUNKED_HEAD + b"5\r\nhello\r\n0\r\n\r\n":
            await peer.send(bytes([byte]))
        await peer.hung_up()

    async with scripted(slow) as neuron:
        assert await whole(await ask(pool, neuron.url)) == b"hello"


async def test_a_body_without_a_length_ends_with_the_connection(pool: Pool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhel")
        await peer.send(b"lo")

    async with scripted(script) as neuron:
        assert await whole(await ask(pool, neuron.url)) == b"hello"
        assert pool.idle_links == 0


async def test_interim_heads_are_skipped(pool: Pool) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    async with scripted(answering(interim * 3 + ok(b"x", b"b: c"), ok(b"y"))) as neuron:
        answer = await ask(pool, neuron.url)
        assert answer.headers == ((b"content-length", b"1"), (b"b", b"c"))
        assert await whole(answer) == b"x"
        assert await whole(await ask(pool, neuron.url)) == b"y"
        assert neuron.connections == 1


async def test_the_answer_to_head_has_no_body_and_keeps_the_connection(pool: Pool) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"
    async with scripted(answering(head, ok(b"y"))) as neuron:
        assert await (await ask(pool, neuron.url, method="HEAD")).read() == b""
        assert await whole(await ask(pool, neuron.url)) == b"y"
        assert neuron.connections == 1


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (b"", "without an answer"),
        (b"HTTP/1.1 200 OK\r\ncont", "without an answer"),
        (b"<html>", "does not speak"),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "switched"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000, "too large"),
    ],
)
async def test_a_head_that_is_none_breaks_the_request(pool: Pool, wire: bytes, reason: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(wire)

    async with scripted(script) as neuron:
        with pytest.raises(NeuronBroke, match=reason):
            await ask(pool, neuron.url)


@pytest.mark.parametrize(
    ("wire", "came"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", b"hello"),
        (CHUNKED_HEAD + b"5\r\nhello\r\n", b"hello"),
        (CHUNKED_HEAD + b"5\r\nhello\r\nzz\r\n", b"hello"),
        (CHUNKED_HEAD + b"9\r\nhello", b"hello"),
        (CHUNKED_HEAD, b""),
    ],
)
async def test_what_came_before_a_failure_is_given_first(
    pool: Pool, wire: bytes, came: bytes
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(wire)

    async with scripted(script) as neuron:
        answer = await ask(pool, neuron.url)
        got = b""
        with pytest.raises(NeuronBroke):  # noqa: PT012 - the failure may come with any of the reads
            while True:
                got += await answer.read()
        assert got == came
        with pytest.raises(NeuronBroke):
            await answer.read()
        assert pool.idle_links == 0


async def test_a_reset_in_mid_body_breaks_the_request(pool: Pool) -> None:
    go_on = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.stream.receive_some(10)  # the rest stays unread: closing resets
        await peer.send(CHUNKED_HEAD + b"1\r\nx\r\n")
        await go_on.wait()
        await peer.reset()

    async with scripted(script) as neuron:
        answer = await ask(pool, neuron.url)
        assert await answer.read() == b"x"
        go_on.set()
        with pytest.raises(NeuronBroke, match="reset"):
            await answer.read()


async def test_an_answer_that_was_left_cannot_be_read_further(pool: Pool) -> None:
    async with scripted(answering(CHUNKED_HEAD)) as neuron:
        answer = await ask(pool, neuron.url)
        await answer.aclose()
        with pytest.raises(NeuronBroke, match="left before its end"):
            await answer.read()


async def test_closing_while_another_task_reads_ends_the_read(pool: Pool) -> None:
    async with scripted(answering(CHUNKED_HEAD)) as neuron, trio.open_nursery() as nursery:
        answer = await ask(pool, neuron.url)

        async def read() -> None:
            with pytest.raises(NeuronBroke, match="closed"):
                await answer.read()

        nursery.start_soon(read, name="reader")
        await trio.testing.wait_all_tasks_blocked()
        answer.close()


# Clocks and cancellation.


async def silent(peer: Peer) -> None:
    await peer.request()
    await peer.hung_up()


async def test_no_head_within_the_first_byte_clock_is_silence(pool: Pool) -> None:
    async with scripted(silent) as neuron:
        with pytest.raises(NeuronSilent) as caught:
            await ask(pool, neuron.url, first_byte_seconds=0.03)
        assert caught.value.clock == "first_byte"


async def test_interim_heads_and_half_a_head_do_not_stop_the_first_byte_clock(pool: Pool) -> None:
    async with scripted(answering(b"HTTP/1.1 102 P\r\n\r\nHTTP/1.1 200 OK\r\n")) as neuron:
        with pytest.raises(NeuronSilent) as caught:
            await ask(pool, neuron.url, first_byte_seconds=0.03)
        assert caught.value.clock == "first_byte"


async def _whole_in_a_block(answer: Answer) -> bytes:
    async with answer:
        return await whole(answer)


@pytest.mark.parametrize("in_a_block", [True, False])
async def test_silence_between_bytes_is_told_inside_and_outside_a_block(
    pool: Pool, in_a_block: bool
) -> None:
    gone = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED_HEAD + b"1\r\nx\r\n")
        await peer.hung_up()
        gone.set()

    async with scripted(script) as neuron:
        answer = await ask(pool, neuron.url, between_bytes_seconds=0.03)
        read = _whole_in_a_block if in_a_block else whole
        with pytest.raises(NeuronSilent) as caught:
            await read(answer)
        assert caught.value.clock == "between_bytes"
        await gone.wait()
        assert pool.idle_links == 0


async def test_silence_breaks_the_answer_off_and_cancels_nothing_else(pool: Pool) -> None:
    async with scripted(answering(CHUNKED_HEAD)) as neuron:
        async with await ask(pool, neuron.url, between_bytes_seconds=0.03) as answer:
            with pytest.raises(NeuronSilent):
                await answer.read()
            await trio.lowlevel.checkpoint()
            with pytest.raises(NeuronBroke):
                await answer.read()
        assert pool.idle_links == 0


async def test_the_between_bytes_clock_stands_still_while_nobody_reads(
    pool: Pool, mock_clock: trio.testing.MockClock
) -> None:
    """A client that takes its time must not make its neuron look silent."""
    done = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED_HEAD + b"1\r\nx\r\n")
        await done.wait()
        await peer.send(b"1\r\ny\r\n0\r\n\r\n")

    async with (
        scripted(script, within_seconds=60) as neuron,
        await ask(pool, neuron.url, between_bytes_seconds=1) as answer,
    ):
        assert await answer.read() == b"x"
        mock_clock.jump(30)
        await trio.testing.wait_all_tasks_blocked()
        done.set()
        assert await whole(answer) == b"y"


@pytest.mark.parametrize("in_a_block", [True, False])
async def test_a_cancel_of_ours_stays_a_cancel(pool: Pool, in_a_block: bool) -> None:
    async with scripted(answering(CHUNKED_HEAD)) as neuron:
        with trio.move_on_after(0.03) as scope:
            answer = await ask(pool, neuron.url, between_bytes_seconds=9)
            if in_a_block:
                async with answer:
                    await answer.read()
            else:
                await answer.read()
        assert scope.cancelled_caught


@pytest.mark.parametrize("sent", [b"", CHUNKED_HEAD, CHUNKED_HEAD + b"1\r\nx\r\n"])
async def test_a_cancel_is_heard_by_the_neuron_at_once(pool: Pool, sent: bytes) -> None:
    asked = trio.Event()
    gone = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sent)
        asked.set()
        await peer.hung_up()
        gone.set()

    async with scripted(script) as neuron, trio.open_nursery() as nursery:

        async def client() -> None:
            await whole(await ask(pool, neuron.url))

        nursery.start_soon(client, name="client")
        await asked.wait()
        await trio.testing.wait_all_tasks_blocked(0.005)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True), trio.fail_after(1):
            await gone.wait()


async def test_leaving_a_block_early_is_heard_by_the_neuron_at_once(pool: Pool) -> None:
    gone = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED_HEAD + b"1\r\nx\r\n")
        await peer.hung_up()
        gone.set()

    async with scripted(script) as neuron:
        with suppress(KeyError):
            async with await ask(pool, neuron.url) as answer:
                await answer.read()
                raise KeyError
        await gone.wait()


async def test_a_neuron_that_floods_does_not_starve_others(deadlines: Deadlines) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    link = PlainLink(ours)
    with theirs:
        theirs.send(CHUNKED_HEAD)
        answer = Answer(link, lambda _: None, deadlines, 5, left_unread=print, head_only=False)
        await answer.receive_head(5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_turns)
            for _ in range(40):
                theirs.send(b"1\r\nx\r\n")
                assert await answer.read() == b"x"
            nursery.cancel_scope.cancel()
        assert 1 <= turns <= 3
        answer.close()
        link.close()
