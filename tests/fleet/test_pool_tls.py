"""The pool over TLS."""

from __future__ import annotations

import ssl

import pytest
import trio
import trio.testing
import trustme

from cortexd.deadlines import Deadlines
from cortexd.fleet.outgoing import NO_LINES, Outgoing
from cortexd.fleet.pool import NeuronBroke, NeuronUnreachable, Pool
from tests.fleet.scripted import CHUNKED_HEAD, Peer, answering, ask, ok, scripted, whole


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, host: str = "localhost") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(host).configure_cert(context)
    return context


def trusting_pool(authority: trustme.CA, deadlines: Deadlines) -> Pool:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return Pool(deadlines, 3, ssl_context=context)


async def test_answers_share_a_tls_connection(authority: trustme.CA, deadlines: Deadlines) -> None:
    pool = trusting_pool(authority, deadlines)
    big = b"x" * 300_000
    async with scripted(answering(ok(b"one"), ok(big)), tls=server_context(authority)) as neuron:
        assert await whole(await ask(pool, neuron.url)) == b"one"
        assert await whole(await ask(pool, neuron.url, body=big)) == big
        assert (neuron.connections, pool.idle_links) == (1, 1)
        await pool.aclose()


@pytest.mark.parametrize("farewell", [b"", ok(b"stray")])
async def test_a_tls_connection_that_was_closed_or_talks_unasked_is_not_used(
    authority: trustme.CA, farewell: bytes, deadlines: Deadlines
) -> None:
    done = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"one"))
        if farewell:
            await peer.send(farewell)
            done.set()
            await peer.hung_up()
        else:
            await peer.stream.aclose()
            done.set()

    pool = trusting_pool(authority, deadlines)
    tls = server_context(authority)
    async with scripted(script, answering(ok(b"two")), tls=tls) as neuron:
        assert await whole(await ask(pool, neuron.url)) == b"one"
        await done.wait()
        assert await whole(await ask(pool, neuron.url)) == b"two"
        assert neuron.connections == 2
        await pool.aclose()


async def test_a_cancel_while_an_idle_tls_connection_is_looked_at_closes_it(
    authority: trustme.CA, deadlines: Deadlines
) -> None:
    pool = trusting_pool(authority, deadlines)
    async with scripted(answering(ok(b"one")), tls=server_context(authority)) as neuron:
        assert await whole(await ask(pool, neuron.url)) == b"one"
        with trio.CancelScope() as scope:
            scope.cancel()
            await ask(pool, neuron.url)
        assert scope.cancelled_caught
        assert pool.idle_links == 0


@pytest.mark.parametrize("records", [1, 2, 20])
async def test_what_a_cancel_leaves_unread_is_told_although_it_has_left_the_kernel(
    authority: trustme.CA, deadlines: Deadlines, records: int
) -> None:
    """Many records come in one read, and are given out one by one."""
    left: list[str] = []
    pool = trusting_pool(authority, deadlines)
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    may_go_on = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(head)
        await may_go_on.wait()
        for _ in range(records):
            await peer.send(b"1\r\nx\r\n")
        await peer.hung_up()

    async with scripted(script, tls=server_context(authority)) as neuron:
        outgoing = Outgoing(neuron.url, "POST", "/x", NO_LINES, b"{}", b"r")
        answer = await pool.send(
            outgoing,
            first_byte_seconds=5,
            between_bytes_seconds=5,
            left_unread=lambda: left.append("unread"),
        )
        may_go_on.set()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert await answer.read() == b"x"
        async with trio.open_nursery() as nursery:
            if records == 1:  # it waits for more, as a stream does between two tokens
                nursery.start_soon(answer.read)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            else:
                nursery.cancel_scope.cancel()
                await answer.read()
        assert left == ["unread"] * (records > 1)


async def test_a_certificate_that_nobody_trusts_is_unreachable(
    authority: trustme.CA, deadlines: Deadlines
) -> None:
    async with scripted(answering(), tls=server_context(authority)) as neuron:
        with pytest.raises(NeuronUnreachable, match="certificate is not trusted"):
            await ask(Pool(deadlines, 3), neuron.url)


async def test_a_certificate_for_another_name_is_unreachable(
    authority: trustme.CA, deadlines: Deadlines
) -> None:
    async with scripted(answering(), tls=server_context(authority, "elsewhere.test")) as neuron:
        with pytest.raises(NeuronUnreachable, match="certificate is not trusted"):
            await ask(trusting_pool(authority, deadlines), neuron.url)


async def test_a_neuron_that_speaks_no_tls_is_unreachable(
    authority: trustme.CA, deadlines: Deadlines
) -> None:
    async with scripted(answering(ok(b"x"))) as neuron:
        url = f"https://localhost:{neuron.port}"
        with pytest.raises(NeuronUnreachable):
            await ask(Pool(deadlines, 0.2), url)


async def test_a_cancel_is_heard_through_tls(authority: trustme.CA, deadlines: Deadlines) -> None:
    gone = trio.Event()
    asked = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED_HEAD)
        asked.set()
        await peer.hung_up()
        gone.set()

    pool = trusting_pool(authority, deadlines)
    async with scripted(script, tls=server_context(authority)) as neuron:
        async with trio.open_nursery() as nursery:

            async def client() -> None:
                await whole(await ask(pool, neuron.url))

            nursery.start_soon(client, name="client")
            await asked.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(1):
            await gone.wait()


async def test_a_tls_connection_cut_in_mid_body_breaks_the_request(
    authority: trustme.CA, deadlines: Deadlines
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED_HEAD + b"1\r\nx\r\n")

    async with scripted(script, tls=server_context(authority)) as neuron:
        answer = await ask(trusting_pool(authority, deadlines), neuron.url)
        assert await answer.read() == b"x"
        with pytest.raises(NeuronBroke, match="in the middle"):
            await answer.read()


async def test_tls_garbage_in_mid_body_breaks_the_request(
    authority: trustme.CA, deadlines: Deadlines
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED_HEAD)
        assert isinstance(peer.stream, trio.SSLStream)
        await peer.stream.transport_stream.send_all(b"this is no TLS record at all")
        await peer.hung_up()

    async with scripted(script, tls=server_context(authority)) as neuron:
        answer = await ask(trusting_pool(authority, deadlines), neuron.url)
        with pytest.raises(NeuronBroke, match="TLS failed"):
            await answer.read()


async def test_a_cancelled_handshake_closes_the_connection(
    authority: trustme.CA, deadlines: Deadlines
) -> None:
    accepted = trio.Event()
    gone = trio.Event()

    async def says_nothing(peer: Peer) -> None:
        accepted.set()
        await peer.hung_up()
        gone.set()

    async with scripted(says_nothing) as neuron:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                ask,
                trusting_pool(authority, deadlines),
                f"https://localhost:{neuron.port}",
                name="client",
            )
            await accepted.wait()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        with trio.fail_after(1):
            await gone.wait()
