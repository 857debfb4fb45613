"""The raw HTTP server under the simulated neuron."""

import pytest
import trio

from cortexd.demo.http import Framing, Reply, Request, bind, serve_http
from cortexd.demo.neuron import SimulatedNeuron
from tests.demo.asking import RawClient, question, raw_client
from tests.support.fake_neuron import fake_neuron


async def test_two_requests_share_a_connection_even_when_pipelined() -> None:
    async with fake_neuron(reply_tokens=2) as neuron, raw_client(neuron) as client:
        await client.post(question("one"))
        await client.post(question("two"))
        await client.read_until(b"chatcmpl-sim-2")

        assert client.received.count(b"HTTP/1.1 200 OK") == 2


async def test_a_request_that_asks_to_close_is_the_last_one() -> None:
    async with fake_neuron() as neuron, raw_client(neuron) as client:
        await client.connection.send_all(b"GET /version HTTP/1.1\r\nconnection: close\r\n\r\n")

        assert b"connection: close" in await client.read_to_end()


async def test_bytes_that_are_no_http_get_a_400() -> None:
    async with fake_neuron() as neuron, raw_client(neuron) as client:
        await client.connection.send_all(b"\x16\x03\x01 hello\r\n\r\n")

        assert (await client.read_to_end()).startswith(b"HTTP/1.1 400 Bad Request")


async def test_a_request_may_arrive_byte_by_byte_and_in_chunks() -> None:
    body = b'{"model":"sim/small","messages":[{"role":"user","content":"hi"}]}'
    sent = (
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    )
    async with fake_neuron() as neuron, raw_client(neuron) as client:
        for position in range(len(sent)):
            await client.connection.send_all(sent[position : position + 1])
        await client.read_until(b"helexa_timing")

        assert neuron.seen[0].body == body


async def test_a_dribbled_stream_arrives_whole_and_in_many_pieces() -> None:
    async with fake_neuron(reply_tokens=3, dribble=True) as neuron, raw_client(neuron) as client:
        await client.post(question(stream=True))
        pieces = 0
        while b"0\r\n\r\n" not in client.received:
            client.received += await client.connection.receive_some()
            pieces += 1

        assert pieces > 100
        assert client.received.endswith(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")


async def test_the_server_sends_any_status_and_framing_it_is_told() -> None:
    async def answer(request: Request, reply: Reply) -> None:
        await reply.start(299, [(b"x-path", request.path.encode())], Framing.UNTIL_CLOSE)
        await reply.write(b"")
        await reply.write(b"tail")
        await reply.end()

    listening = bind("127.0.0.1", 0)
    port = listening.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_http, listening, answer, lambda _: None)
        with trio.fail_after(5):
            client = RawClient(await trio.open_tcp_stream("127.0.0.1", port))
            async with client.connection:
                await client.connection.send_all(b"GET /a%2Fb?c=d HTTP/1.1\r\n\r\n")
                received = await client.read_to_end()
        nursery.cancel_scope.cancel()

    assert received == (b"HTTP/1.1 299 Unknown\r\nx-path: /a%2Fb\r\nconnection: close\r\n\r\ntail")


async def test_garbage_after_a_request_ends_the_reply_under_way() -> None:
    async with fake_neuron(gated=True) as neuron, raw_client(neuron) as client:
        await client.post(question(stream=True))
        await client.read_until(b"assistant")
        await client.connection.send_all(b"\x00\x01\x02\r\n\r\n")
        await client.read_to_end()

    assert b" 400 " not in client.received
    assert neuron.in_flight == 0


def test_a_taken_port_is_an_error_that_leaves_nothing_open() -> None:
    first = SimulatedNeuron()
    first.bind()
    with pytest.raises(OSError, match="in use"):
        SimulatedNeuron().bind(port=first.port)
    first.close()
    first.close()


async def test_a_neuron_that_nobody_bound_finds_its_own_port() -> None:
    neuron = SimulatedNeuron()
    async with trio.open_nursery() as nursery:
        await nursery.start(neuron.serve)
        assert neuron.port > 0
        nursery.cancel_scope.cancel()


async def test_an_ipv6_neuron_has_a_url_with_brackets() -> None:
    neuron = SimulatedNeuron()
    neuron.bind("::1")
    assert neuron.url == f"http://[::1]:{neuron.port}"
    neuron.close()
