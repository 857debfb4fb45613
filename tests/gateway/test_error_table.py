"""Every condition in which a client is refused, told in both dialects as their SDKs read it."""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec
import pytest
import trio

from cortexd.demo.neuron import SimulatedNeuron
from cortexd.demo.switches import BreakKind, Broken, Canned
from cortexd.dialects.refusals import Refusal, RefusalKind
from cortexd.gateway.exchange import Head
from tests.gateway.error_rows import (
    ANTHROPICS_IMAGE,
    ASKED,
    CHATTING,
    IMAGE,
    PAID,
    REQUEST,
    ROWS,
    SERVER,
    Asking,
    Row,
    World,
    refusing,
)
from tests.support.core import Core, RecordingClient, core
from tests.support.fake_neuron import turned


class Scene(msgspec.Struct):
    """A core, its only neuron, and the life of that."""

    it: Core
    neuron: SimulatedNeuron
    life: trio.CancelScope
    died: trio.Event


CASES = [pytest.param(row, path, id=f"{row.name} {path}") for row in ROWS for path in row.only]


@contextlib.asynccontextmanager
async def brought_about(world: World, directory: Path) -> AsyncIterator[Scene]:
    """The core and its only neuron in these circumstances."""
    switches = turned(**world.switches)
    neuron = SimulatedNeuron(
        "beast", world.models, world.devices, switches=switches, admission=world.admission
    )
    if world.is_silent:
        neuron.bind()
        neuron.close()
    life, died = trio.CancelScope(), trio.Event()

    async def live(task_status: trio.TaskStatus[None]) -> None:
        with life:
            await neuron.serve(task_status=task_status)
        died.set()

    async with trio.open_nursery() as nursery:
        if not world.is_silent:
            await nursery.start(live)
        async with core(
            directory,
            {"beast": neuron.url},
            kind=world.kind,
            keys=world.keys,
            catalogue=world.catalogue,
            clocks=world.clocks,
            waiting=world.waiting,
            room_bytes_min=world.room_bytes_min,
            calls_max=world.calls_max,
        ) as it:
            yield Scene(it, neuron, life, died)
        nursery.cancel_scope.cancel()


def check(row: Row, path: str, client: RecordingClient) -> None:
    """Hold an answer against a row."""
    assert client.finished
    assert client.status == row.status, client.body
    body = json.loads(client.body)
    assert client.headers["content-type"] == "application/json"
    assert client.headers["content-length"] == str(len(client.body))
    assert client.headers["x-request-id"] == client.headers["request-id"] == "req_test"
    error = body["error"]
    says = row.says
    if path == "/v1/messages":
        assert body.keys() == {"type", "error", "request_id"}
        assert (body["type"], body["request_id"]) == ("error", "req_test")
        assert error.keys() == {"type", "message", "details"}
        assert error["type"] == row.anthropic
        assert error["details"] == {"error_code": row.code}
        says = row.says_to_anthropic or says
    else:
        assert body.keys() == {"error"}
        assert error.keys() == {"message", "type", "param", "code"}
        assert (error["type"], error["code"]) == (row.openai, row.code)
        assert row.param in ("*", error["param"]) or path not in CHATTING
    message = error["message"]
    assert message.startswith(says[1:]) if says.startswith("^") else says in message, message
    check_asking_again(row, client.headers)


def check_asking_again(row: Row, headers: Mapping[str, str]) -> None:
    """What is said about asking again, in the two headers that SDKs read."""
    retry_after, should = headers.get("retry-after"), headers.get("x-should-retry")
    if isinstance(row.again, str):
        assert retry_after is None
        assert should == ("false" if row.again == "no" else None)
        return
    least, most = row.again
    assert retry_after is not None
    assert least <= int(retry_after) <= most
    is_final = int(retry_after) > 60 or "waiting cannot help" in row.says
    assert should == ("false" if is_final else None)


async def ask(it: Core, asking: Asking, path: str) -> RecordingClient:
    """One request of this kind."""
    body = asking.body(path)
    return await it.ask(body, client=None, path=path, method=asking.method, **asking.headers)


async def ask_beside_another(scene: Scene, asking: Asking, path: str) -> RecordingClient:
    """The second of two requests that are open at once."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, scene.it, asking, path)
        while not (scene.neuron.in_flight or scene.it.traffic.waiting):
            await scene.neuron.counters.arrived.wait_for(scene.neuron.counters.arrived.count + 1)
        client = await ask(scene.it, asking, path)
        nursery.cancel_scope.cancel()
    return client


@pytest.mark.parametrize(("row", "path"), CASES)
async def test_a_condition_is_told_as_its_clients_read_it(
    row: Row, path: str, tmp_path: Path
) -> None:
    asking = row.asking
    if path == "/v1/messages" and asking.prompt == [IMAGE]:
        asking = Asking(prompt=[ANTHROPICS_IMAGE])
    async with brought_about(row.given, tmp_path) as scene:
        if row.twice:
            assert (await ask(scene.it, asking, path)).status == 200
        if row.is_dead:
            scene.life.cancel()
            await scene.died.wait()
        if row.beside_another:
            client = await ask_beside_another(scene, asking, path)
            assert len(scene.it.told) == 2
            told = scene.it.told[0]
        else:
            client, told = await ask(scene.it, asking, path), scene.it.told[-1]
        check(row, path, client)
        charge = told.charge
        is_free = charge is None or charge.tokens == 0
        assert is_free == (row.code not in PAID)


PLACES = (
    "http://127.0.0.1:13131/v1/models",
    "https://user:secret@gpu-7.internal/x",
    "127.0.0.1",
    "10.0.0.7:8000",
    "[fd00::7]:13131",
    "beast.local",
    "beast:13131",
    "localhost",
    "HTTPConnectionPool(host='beast-7', port=1)",
)
SHAPES = (
    '{"error":{"message":"TEXT","type":"BadRequestError","param":"TEXT","code":400}}',
    '{"object":"error","message":"TEXT","type":"x","param":null,"code":400}',
    '{"error":"TEXT","code":"TEXT"}',
    '{"message":"TEXT"}',
    '{"detail":"TEXT"}',
    "<html>TEXT</html>",
)


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 429, 500, 503])
@pytest.mark.parametrize("path", ASKED)
async def test_a_neurons_words_lead_nobody_to_it(path: str, status: int, tmp_path: Path) -> None:
    async with brought_about(World(), tmp_path) as scene:
        places = (*PLACES, scene.neuron.url, scene.neuron.url.removeprefix("http://"))
        for shape in SHAPES:
            text = " and ".join(places)
            given = refusing(status, shape.replace("TEXT", text).encode())
            scene.neuron.switches.faults = refusing_faults(given)
            client = await ask(scene.it, Asking(), path)
            assert client.status is not None
            assert client.status >= 400
            for secret in ("127.0.0.1", "internal", "secret", "10.0.0.7", "fd00", "beast", "13131"):
                assert secret not in client.body.decode(), shape
                assert not [text for text in client.headers.values() if secret in text]


def refusing_faults(world: World) -> dict[str, Canned | Broken]:
    """The faults of a world, as a neuron has them."""
    faults = world.switches["faults"]
    assert isinstance(faults, dict)
    return faults


async def test_a_host_is_not_named_in_a_stream_either(tmp_path: Path) -> None:
    broken = Broken(
        BreakKind.GARBAGE, 2, b'data: {"error":{"message":"localhost of BEAST.internal died"}}\n\n'
    )
    async with brought_about(World({"broken": broken}), tmp_path) as scene:
        for path in ASKED:
            client = await ask(scene.it, Asking({"stream": True}), path)
            assert b"died" in client.body
            assert b"localhost" not in client.body
            assert b"BEAST" not in client.body


BEFORE_THE_BODY = {
    RefusalKind.REQUEST_TOO_LARGE: (413, REQUEST, "request_too_large", "false"),
    RefusalKind.REQUEST_TIMEOUT: (408, REQUEST, "timeout_error", None),
    RefusalKind.OVERLOADED: (503, SERVER, "overloaded_error", None),
}


@pytest.mark.parametrize("kind", BEFORE_THE_BODY)
@pytest.mark.parametrize("path", ASKED)
async def test_what_is_refused_before_its_body_was_read_is_told_alike(
    kind: RefusalKind, path: str, tmp_path: Path
) -> None:
    status, openai, anthropic, should = BEFORE_THE_BODY[kind]
    async with brought_about(World(), tmp_path) as scene:
        client, head = RecordingClient(), Head("POST", path, {}, "req_test")
        await scene.it.gateway.refuse(Refusal(kind, "why"), head, client)
        assert scene.it.told[-1].model == "", "which has it counted, under no name"
    expected = anthropic if path == "/v1/messages" else openai
    assert (client.status, client.error["type"], client.error["message"]) == (
        status,
        expected,
        "why",
    )
    assert client.headers.get("x-should-retry") == should
    assert client.headers["x-request-id"] == client.headers["request-id"] == "req_test"


@pytest.mark.parametrize("path", ASKED)
async def test_a_bug_is_told_without_a_word_of_it(path: str, tmp_path: Path) -> None:
    class Failing(RecordingClient):
        async def gone(self) -> None:
            raise ValueError("secret detail")

    async with brought_about(World(), tmp_path) as scene:
        client = await scene.it.ask(Asking().body(path), path=path, client=Failing())
        assert (client.status, client.error["type"]) == (500, "api_error")
        assert client.headers["x-should-retry"] == "false"
        assert b"secret" not in client.body
        assert (await scene.it.standing()).reserved == 0
