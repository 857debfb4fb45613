"""httpx over the pool."""

from __future__ import annotations

import httpx
import pytest

from cortexd.fleet.pool import Pool, PoolTransport
from tests.fleet.scripted import CHUNKED_HEAD, Peer, answering, ok, scripted


def client(pool: Pool, *, timeout: float = 5) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=PoolTransport(pool), trust_env=False, timeout=timeout)


async def test_an_httpx_client_asks_and_reads_through_the_pool(pool: Pool) -> None:
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        for answer in (
            ok(b'{"a":1}', b"content-type: application/json"),
            CHUNKED_HEAD + b"0\r\n\r\n",
        ):
            seen.append(await peer.request())
            await peer.send(answer)
        await peer.hung_up()

    async with scripted(script) as neuron, client(pool) as asking:
        reply = await asking.post(neuron.url + "/a%2Fb?c=d", json={"x": "y"})
        assert (reply.status_code, reply.json()) == (200, {"a": 1})
        assert (await asking.get(neuron.url)).content == b""
        assert (neuron.connections, pool.idle_links) == (1, 1)
    assert seen[0].startswith(b"POST /a%2Fb?c=d HTTP/1.1\r\nhost: 127.0.0.1:")
    assert seen[0].endswith(b'content-length: 9\r\n\r\n{"x":"y"}')
    assert seen[0].lower().count(b"host:") == seen[0].lower().count(b"content-length:") == 1


async def test_a_stream_left_early_closes_its_connection(pool: Pool) -> None:
    async with scripted(answering(CHUNKED_HEAD + b"1\r\nx\r\n")) as neuron, client(pool) as asking:
        async with asking.stream("GET", neuron.url):
            pass
        assert pool.idle_links == 0


async def test_failures_are_told_in_the_words_of_httpx(pool: Pool) -> None:
    async with client(pool, timeout=0.03) as asking:
        async with scripted(answering()) as neuron:
            with pytest.raises(httpx.ReadTimeout):
                await asking.get(neuron.url)
        async with scripted(answering(CHUNKED_HEAD)) as neuron:
            with pytest.raises(httpx.ReadTimeout):
                await asking.get(neuron.url)
    async with client(pool) as asking:
        async with scripted(answering(b"<html>")) as neuron:
            with pytest.raises(httpx.RemoteProtocolError, match="does not speak"):
                await asking.get(neuron.url)
        with pytest.raises(httpx.ConnectError):
            await asking.get(neuron.url)
