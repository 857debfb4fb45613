"""Pages in a browser: preflights before any key, and answers that a page may read."""

from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from cortexd.gateway.cors import READABLE, is_preflight, origin_headers, preflight_headers
from cortexd.gateway.endpoints import ENDPOINTS, Endpoint
from cortexd.gateway.exchange import Head, Headers
from cortexd.ledger.cap_windows import rolling
from cortexd.ledger.entries import Standing, key_scope
from tests.support.core import RecordingClient, core
from tests.support.daemon_process import chat
from tests.support.fake_neuron import fake_neuron

PAGE = "https://chat.example.org"
ASKING = {
    "origin": PAGE,
    "access_control_request_method": "POST",
    "access_control_request_headers": "authorization,content-type,x-stainless-os",
    "authorization": "",
}


def head(**headers: str) -> Head:
    named = {name.replace("_", "-").encode(): text.encode() for name, text in headers.items()}
    return Head("OPTIONS", "/v1/models", named, "r")


def read(headers: Headers) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers}


@pytest.mark.parametrize("row", ENDPOINTS, ids=lambda row: row.path)
async def test_a_preflight_is_answered_without_a_key_and_asks_no_neuron(
    row: Endpoint, tmp_path: Path
) -> None:
    async with fake_neuron() as neuron, core(tmp_path, {"a": neuron.url}) as it:
        before = len(neuron.seen)
        client = RecordingClient()
        await it.ask(b"", client=client, path=row.path, method="OPTIONS", **ASKING)
        assert (client.status, client.body, client.finished) == (204, b"", True)
        assert client.headers["access-control-allow-origin"] == "*"
        assert client.headers["access-control-allow-headers"] == (
            "authorization,content-type,x-stainless-os"
        )
        assert "POST" in client.headers["access-control-allow-methods"]
        assert len(neuron.seen) == before
        assert [(told.status, told.charge) for told in it.told] == [(204, None)]


async def test_a_page_may_read_answers_streams_and_every_refusal(tmp_path: Path) -> None:
    async with fake_neuron(reply_tokens=2) as neuron, core(tmp_path, {"a": neuron.url}) as it:
        answers = [
            await it.ask(chat(), origin=PAGE),
            await it.ask(chat(stream=True), origin=PAGE),
            await it.ask(chat(model="absent"), origin=PAGE),
            await it.ask(chat(), origin=PAGE, authorization="Bearer sk-wrong"),
            await it.ask(chat(), origin=PAGE, path="/v1/nope"),
            await it.ask(b"", origin=PAGE, path="/v1/models", method="GET"),
        ]
    assert [client.status for client in answers] == [200, 200, 404, 401, 404, 200]
    for client in answers:
        assert client.headers["access-control-allow-origin"] == "*"
        readable = client.headers["access-control-expose-headers"].split(", ")
        assert {"x-request-id", "retry-after", "x-ratelimit-remaining-tokens"} <= set(readable)
        assert "access-control-allow-credentials" not in client.headers


async def test_a_page_that_is_closed_ends_its_request(tmp_path: Path) -> None:
    async with (
        fake_neuron(silent=True) as neuron,
        core(tmp_path, {"a": neuron.url}) as it,
        trio.open_nursery() as nursery,
    ):
        client = RecordingClient()
        nursery.start_soon(partial(it.ask, chat(), client=client, origin=PAGE))
        await neuron.wait_for_hits(1)
        client.hang_up()
        await neuron.wait_for_hang_up()


async def test_who_is_no_page_gets_no_header_of_this_kind(tmp_path: Path) -> None:
    async with fake_neuron() as neuron, core(tmp_path, {"a": neuron.url}) as it:
        client = await it.ask(chat())
        bare = await it.ask(b"", path="/v1/models", method="OPTIONS")
    assert not [name for name in client.headers if name.startswith("access-control")]
    assert bare.status == 405


@pytest.mark.parametrize(
    ("origin", "allowed", "answer"),
    [
        (PAGE, {"*"}, "*"),
        (PAGE, {PAGE}, PAGE),
        ("https://CHAT.example.org", {PAGE}, "https://CHAT.example.org"),
        ("https://chat.example.org.evil.test", {PAGE}, None),
        ("http://chat.example.org", {PAGE}, None),
        ("null", {PAGE}, None),
        (PAGE, set[str](), None),
    ],
)
def test_only_pages_of_an_allowed_origin_may_read(
    origin: str, allowed: set[str], answer: str | None
) -> None:
    headers = read(origin_headers(head(origin=origin), allowed))
    assert headers.get("access-control-allow-origin") == answer
    if "*" not in allowed:
        assert headers["vary"] == "origin"
    assert ("access-control-expose-headers" in headers) == (answer is not None)


@pytest.mark.parametrize("names", ["", "x\r\nset-cookie: a", "é", "x" * 5000])
def test_names_that_are_none_are_not_repeated(names: str) -> None:
    headers = read(preflight_headers(head(access_control_request_headers=names)))
    assert headers["access-control-allow-headers"] == "authorization, content-type, x-api-key"


def test_a_preflight_is_known_by_what_it_asks() -> None:
    asking = {"origin": PAGE, "access_control_request_method": "POST"}
    assert is_preflight(head(**asking))
    assert not is_preflight(head(origin=PAGE))
    post = Head("POST", "/v1/models", head(**asking).headers, "r")
    assert not is_preflight(post)


def test_a_page_may_read_of_limits_what_each_dialect_says() -> None:
    of_tokens = Standing(key_scope("k"), 100, rolling(60_000), 1, 2, 900)
    standings = (of_tokens, msgspec.structs.replace(of_tokens, unit="req"))
    told = {name for row in ENDPOINTS for name, _ in row.limits(standings, wall_ms=0)}
    assert len(told) == 12
    assert told <= set(READABLE.split(b", "))
