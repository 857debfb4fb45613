"""The pool against scripted neurons: which connection a request gets, and when it is sent again."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from cortexd.deadlines import Deadlines
from cortexd.fleet.link import PlainLink
from cortexd.fleet.pool import (
    IDLE_LINKS_MAX,
    Answer,
    NeuronBroke,
    NeuronUnreachable,
    Outgoing,
    Pool,
)
from tests.fleet.scripted import CHUNKED_HEAD, Peer, answering, ask, ok, scripted, whole

# How connections are used again, and when not.


async def test_answers_one_after_the_other_share_a_connection(pool: Pool) -> None:
    async with scripted(answering(*[ok(b"one"), ok(b"two"), ok(b"three")])) as neuron:
        for wanted in (b"one", b"two", b"three"):
            assert await whole(await ask(pool, neuron.url)) == wanted
        assert (neuron.connections, pool.idle_links) == (1, 1)


async def test_a_request_arrives_as_it_was_given(pool: Pool) -> None:
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(ok(b""))

    async with scripted(script) as neuron:
        body = b"x" * 300_000
        answer = await ask(pool, neuron.url, body=body)
        assert (answer.status, await answer.read()) == (200, b"")
        port = b"%d" % neuron.port
    head = b"POST /v1/x HTTP/1.1\r\nhost: 127.0.0.1:" + port + b"\r\na: b\r\n"
    assert seen == [head + b"content-length: 300000\r\n\r\n" + body]


async def test_requests_at_once_get_connections_of_their_own_and_the_last_used_comes_first(
    pool: Pool,
) -> None:
    async with scripted(answering(*[ok(b"x")] * 2)) as neuron:
        answers: list[Answer] = []
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(
                    _collect, pool, neuron.url, answers, name="one of three requests"
                )
        assert (neuron.connections, pool.idle_links) == (3, 3)
        await whole(await ask(pool, neuron.url))
        assert (neuron.connections, pool.idle_links) == (3, 3)


async def _collect(pool: Pool, url: str, answers: list[Answer]) -> None:
    answer = await ask(pool, url)
    await trio.testing.wait_all_tasks_blocked(0.01)
    answers.append(answer)
    await whole(answer)


async def test_a_connection_that_the_neuron_closed_meanwhile_is_not_used(pool: Pool) -> None:
    closed = trio.Event()

    async def closes(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"one"))
        await peer.stream.aclose()
        closed.set()

    async with scripted(closes, answering(ok(b"two"))) as neuron:
        assert await whole(await ask(pool, neuron.url)) == b"one"
        await closed.wait()
        assert await whole(await ask(pool, neuron.url)) == b"two"
        assert neuron.connections == 2


async def test_a_connection_on_which_unasked_bytes_arrived_is_not_used(pool: Pool) -> None:
    """Else the next client would be given an answer that was not for it."""
    told = trio.Event()
    go_on = trio.Event()

    async def talks(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"one"))
        await go_on.wait()
        await peer.send(ok(b"stray"))
        told.set()
        await peer.hung_up()

    async with scripted(talks, answering(ok(b"two"))) as neuron:
        assert await whole(await ask(pool, neuron.url)) == b"one"
        go_on.set()
        await told.wait()
        assert await whole(await ask(pool, neuron.url)) == b"two"
        assert neuron.connections == 2


@pytest.mark.parametrize(
    "first",
    [
        ok(b"one") + ok(b"stray"),
        ok(b"one") + b"junk",
        ok(b"one", b"connection: close"),
    ],
)
async def test_a_connection_out_of_step_or_closing_is_closed_by_us_too(
    pool: Pool, first: bytes
) -> None:
    gone = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(first)
        await peer.hung_up()
        gone.set()

    async with scripted(script) as neuron:
        assert await whole(await ask(pool, neuron.url)) == b"one"
        await gone.wait()
        assert pool.idle_links == 0


async def test_a_connection_idle_for_too_long_is_not_used(
    mock_clock: trio.testing.MockClock, deadlines: Deadlines
) -> None:
    pool = Pool(deadlines, 3, idle_seconds=4)
    async with scripted(answering(ok(b"x"), ok(b"x")), within_seconds=60) as neuron:
        await whole(await ask(pool, neuron.url))
        mock_clock.jump(3.9)
        await whole(await ask(pool, neuron.url))
        assert neuron.connections == 1
        mock_clock.jump(4.1)
        await whole(await ask(pool, neuron.url))
        assert (neuron.connections, pool.idle_links) == (2, 1)
        await pool.aclose()


async def test_old_idle_connections_to_other_neurons_are_closed_in_passing(
    mock_clock: trio.testing.MockClock, deadlines: Deadlines
) -> None:
    pool = Pool(deadlines, 3, idle_seconds=4)
    async with (
        scripted(answering(ok(b"x")), within_seconds=60) as one,
        scripted(answering(ok(b"x")), within_seconds=60) as other,
    ):
        await whole(await ask(pool, one.url))
        mock_clock.jump(2)
        await whole(await ask(pool, other.url))
        mock_clock.jump(2.1)
        with pytest.raises(NeuronUnreachable):
            await ask(pool, "http://127.0.0.1:1")
        assert pool.idle_links == 1
        mock_clock.jump(4.1)
        with pytest.raises(NeuronUnreachable):
            await ask(pool, "http://127.0.0.1:1")
        assert pool.idle_links == 0
        await pool.aclose()


async def test_no_more_idle_connections_are_kept_than_the_limit(pool: Pool) -> None:
    async with scripted(answering(ok(b"x"))) as neuron:
        held = [await connected(pool, neuron.url) for _ in range(IDLE_LINKS_MAX + 3)]
        for link in held:
            pool._put_back(neuron.url, link)
        assert pool.idle_links == IDLE_LINKS_MAX
        await pool.aclose()
        assert pool.idle_links == 0


async def connected(pool: Pool, url: str) -> PlainLink:
    port = int(url.rpartition(":")[2])
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    plain = socket.socket(fileno=stream.socket.detach())
    plain.setblocking(False)
    return PlainLink(plain)


async def test_a_closed_pool_keeps_nothing_and_connects_no_more(pool: Pool) -> None:
    async with scripted(answering(CHUNKED_HEAD, b"0\r\n\r\n")) as neuron:
        answer = await ask(pool, neuron.url)
        await pool.aclose()
        await answer.aclose()
        assert pool.idle_links == 0
        with pytest.raises(NeuronUnreachable, match="closed"):
            await ask(pool, neuron.url)


async def test_leaving_a_stream_at_its_last_event_keeps_the_connection(pool: Pool) -> None:
    """Whoever reads events stops at [DONE]; the empty chunk behind it has come by then."""
    event = b"e\r\ndata: [DONE]\n\n\r\n"
    async with scripted(answering(CHUNKED_HEAD + event + b"0\r\n\r\n", ok(b"two"))) as neuron:
        async with await ask(pool, neuron.url) as answer:
            assert await answer.read() == b"data: [DONE]\n\n"
        assert await whole(await ask(pool, neuron.url)) == b"two"
        assert neuron.connections == 1


async def test_the_end_of_a_stream_that_comes_a_little_later_still_keeps_the_connection(
    pool: Pool,
) -> None:
    sent = trio.Event()
    read = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED_HEAD + b"1\r\nx\r\n")
        await read.wait()
        await peer.send(b"0\r\n\r\n")
        sent.set()
        await peer.hung_up()

    async with scripted(script) as neuron:
        async with await ask(pool, neuron.url) as answer:
            assert await answer.read() == b"x"
            read.set()
            await sent.wait()
        assert pool.idle_links == 1


# When a request may be sent again.


async def test_a_request_is_sent_again_when_a_reused_connection_did_not_take_all_of_it(
    pool: Pool,
) -> None:
    received: list[int] = []

    async def dies_in_the_second(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"one"))
        await peer.stream.receive_some(10)
        await peer.reset()

    async def takes_it(peer: Peer) -> None:
        received.append(len(await peer.request()))
        await peer.send(ok(b"two"))

    async with scripted(dies_in_the_second, takes_it) as neuron:
        assert await whole(await ask(pool, neuron.url)) == b"one"
        big = b"x" * 30_000_000
        assert await whole(await ask(pool, neuron.url, body=big)) == b"two"
        assert neuron.connections == 2
    assert received[0] > len(big)


async def test_a_request_that_may_have_arrived_is_never_sent_again(pool: Pool) -> None:
    async def dies_after_the_second(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"one"))
        await peer.request()

    async with scripted(dies_after_the_second) as neuron:
        await whole(await ask(pool, neuron.url))
        with pytest.raises(NeuronBroke, match="without an answer"):
            await ask(pool, neuron.url)
        assert (neuron.connections, pool.idle_links) == (1, 0)


async def test_a_new_connection_that_does_not_take_the_request_is_unreachable(pool: Pool) -> None:
    async def dies(peer: Peer) -> None:
        await peer.stream.receive_some(10)
        await peer.reset()

    async with scripted(dies) as neuron:
        with pytest.raises(NeuronUnreachable, match="did not take the request: "):
            await ask(pool, neuron.url, body=b"x" * 30_000_000)


async def test_a_neuron_that_does_not_read_is_unreachable_after_a_while(pool: Pool) -> None:
    gone = trio.Event()
    read_on = trio.Event()

    async def does_not_read(peer: Peer) -> None:
        await read_on.wait()
        await peer.hung_up()
        gone.set()

    async with scripted(does_not_read) as neuron:
        with pytest.raises(NeuronUnreachable, match=r"within 0\.05 s"):
            await ask(pool, neuron.url, body=b"x" * 30_000_000, first_byte_seconds=0.05)
        read_on.set()
        await gone.wait()


async def test_nobody_listening_is_unreachable(pool: Pool) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(NeuronUnreachable, match="refused"):
        await ask(pool, f"http://127.0.0.1:{port}")


async def test_a_listener_whose_queue_is_full_is_unreachable_after_the_connect_time(
    deadlines: Deadlines,
) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = []
        for _ in range(4):
            each = socket.socket()
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
            waiting.append(each)
        with trio.fail_after(5), pytest.raises(NeuronUnreachable, match=r"within 0\.05 s"):
            await ask(Pool(deadlines, 0.05), f"http://127.0.0.1:{port}")
        for each in waiting:
            each.close()


@pytest.mark.parametrize("url", ["beast", "ftp://beast", "http://x:99999", "http://.."])
async def test_an_address_that_is_none_is_unreachable(pool: Pool, url: str) -> None:
    with pytest.raises(NeuronUnreachable):
        await ask(pool, url)


async def test_a_header_that_must_not_be_sent_is_refused_before_anything_is(pool: Pool) -> None:
    outgoing = Outgoing("http://127.0.0.1:1", "GET", "/", request_id=b"b\r\nc: d")
    with pytest.raises(ValueError, match="forbids"):
        await pool.send(outgoing, first_byte_seconds=1, between_bytes_seconds=1)


async def test_old_idle_connections_are_closed_while_others_to_the_same_neuron_are_in_use(
    mock_clock: trio.testing.MockClock, deadlines: Deadlines
) -> None:
    """The one used last is used next, so that the others of a burst get old behind it."""
    pool = Pool(deadlines, 3, idle_seconds=4)
    async with scripted(*[answering(*[ok(b"x")] * 4)] * 3, within_seconds=60) as neuron:
        async with trio.open_nursery() as together:
            for _ in range(3):
                together.start_soon(ask, pool, neuron.url, name="asks")
        assert (neuron.connections, pool.idle_links) == (3, 3)
        for _ in range(2):
            mock_clock.jump(3)
            await whole(await ask(pool, neuron.url))
        assert (neuron.connections, pool.idle_links) == (3, 1)
        await pool.aclose()
