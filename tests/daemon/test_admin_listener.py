"""The admin socket over a real unix socket: what is asked arrives, what came of it comes back."""

import contextlib
import logging
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from cortexd.daemon.admin_listener import METHODS, serve_admin
from cortexd.deadlines import Deadlines
from cortexd.fleet.operations import NotDone
from tests.support.fake_operations import FakeOperations
from tests.test_manual import page, rows, section, spans


class Admin:
    """A client of a served admin socket."""

    def __init__(self, operations: FakeOperations, path: Path) -> None:
        self.operations = operations
        self.path = path
        self.contained = 0
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    def count(self) -> None:
        """Count a contained connection."""
        self.contained += 1

    async def post(self, path: str, body: object) -> httpx.Response:
        """Ask for something."""
        return await self.http.post(path, json=body)


@contextlib.asynccontextmanager
async def served(tmp_path: Path, operations: FakeOperations) -> AsyncIterator[Admin]:
    """The admin socket, until left."""
    admin = Admin(operations, tmp_path / "admin.sock")
    with trio.fail_after(30):
        async with admin.http, trio.open_nursery() as nursery:
            deadlines = Deadlines()
            await nursery.start(deadlines.run, name="deadlines")

            async def start(*, task_status: trio.TaskStatus[None]) -> None:
                await serve_admin(
                    operations,
                    str(admin.path),
                    deadlines,
                    contained=admin.count,
                    task_status=task_status,
                )

            await nursery.start(start, name="admin socket")
            yield admin
            nursery.cancel_scope.cancel()
    assert admin.contained == 0


async def test_models_and_neurons_are_those_of_the_fleet(tmp_path: Path) -> None:
    async with served(tmp_path, FakeOperations()) as admin:
        models = (await admin.http.get("/models")).json()
        neurons = (await admin.http.get("/neurons")).json()
    assert models.keys() == {"models"}
    assert [(line["model"], line["status"]) for line in models["models"]] == [
        ("org/oak", "loaded"),
        ("org/fern", "cold"),
    ]
    assert models["models"][0]["devices"] == [0, 1]
    assert neurons.keys() == {"neurons"}
    assert [line["neuron"] for line in neurons["neurons"]] == ["beast", "scout"]


@pytest.mark.parametrize(
    ("path", "body", "asked"),
    [
        ("/load", {"model": "org/fern"}, ("load", "org/fern", None)),
        ("/load", {"model": "org/fern", "neuron": "beast"}, ("load", "org/fern", "beast")),
        ("/load", {"model": "org/fern", "neuron": None}, ("load", "org/fern", None)),
        ("/unload", {"model": "org/oak"}, ("unload", "org/oak", None)),
        ("/unload", {"model": "org/oak", "neuron": "beast"}, ("unload", "org/oak", "beast")),
        ("/pin", {"model": "org/oak", "neurons": ["b", "a", "b"]}, ("pin", "org/oak", ("b", "a"))),
        ("/pin", {"model": "org/oak", "neurons": []}, ("pin", "org/oak", ())),
        ("/unpin", {"model": "org/oak"}, ("pin", "org/oak", None)),
        ("/drain", {"neuron": "beast"}, ("drain", "beast")),
        ("/undrain", {"neuron": "scout"}, ("undrain", "scout")),
    ],
)
async def test_what_is_asked_arrives_and_the_rows_it_is_about_come_back(
    tmp_path: Path, path: str, body: dict[str, object], asked: tuple[object, ...]
) -> None:
    async with served(tmp_path, FakeOperations()) as admin:
        answer = await admin.post(path, body)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert admin.operations.asked == [asked]
    [lines] = answer.json().values()
    assert [line.get("model", line["neuron"]) for line in lines] == [asked[1]]


async def test_a_drained_neuron_is_told_as_one(tmp_path: Path) -> None:
    async with served(tmp_path, FakeOperations()) as admin:
        drained = (await admin.post("/drain", {"neuron": "beast"})).json()
        undrained = (await admin.post("/undrain", {"neuron": "beast"})).json()
    assert drained["neurons"][0]["draining"] is True
    assert undrained["neurons"][0]["draining"] is False


@pytest.mark.parametrize("path", ["/load", "/unload", "/pin", "/unpin"])
@pytest.mark.parametrize("status", [404, 409, 502])
async def test_what_was_not_done_is_told_with_what_to_do(
    tmp_path: Path, path: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    operations = FakeOperations()
    operations.refusal = NotDone("It is busy.", "Wait.", status)
    body: dict[str, object] = {"model": "org/oak"} | ({"neurons": []} if path == "/pin" else {})
    async with served(tmp_path, operations) as admin:
        answer = await admin.post(path, body)
    assert answer.status_code == status
    assert answer.json() == {"error": {"message": "It is busy.", "hint": "Wait."}}
    assert f'event=operator_not_done path={path} what="It is busy."' in caplog.text


@pytest.mark.parametrize("path", ["/drain", "/undrain"])
async def test_a_neuron_that_nobody_knows_is_not_found(tmp_path: Path, path: str) -> None:
    async with served(tmp_path, FakeOperations()) as admin:
        answer = await admin.post(path, {"neuron": "ghost"})
    assert answer.status_code == 404
    assert answer.json()["error"]["hint"] == "Name one of: beast, scout."


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/load", b"", "not JSON"),
        ("/load", b"{", "not JSON"),
        ("/load", b'{"model": "\xff"}', "not JSON"),
        ("/load", b"[]", "Expected `object`"),
        ("/load", b"{}", "missing required field `model`"),
        ("/load", b'{"model": ""}', "length >= 1"),
        ("/load", b'{"model": 7}', "got `int`"),
        ("/load", b'{"model": "m", "neuron": ""}', "$.neuron"),
        ("/load", b'{"model": "m", "nueron": "beast"}', "unknown field `nueron`"),
        ("/unload", b'{"neuron": "beast"}', "missing required field `model`"),
        ("/pin", b'{"model": "m"}', "missing required field `neurons`"),
        ("/pin", b'{"model": "m", "neurons": "beast"}', "Expected `array`"),
        ("/pin", b'{"model": "m", "neurons": [null]}', "$.neurons[0]"),
        ("/unpin", b'{"model": "m", "neurons": []}', "unknown field `neurons`"),
        ("/drain", b'{"name": "beast"}', "unknown field `name`"),
        ("/undrain", b"null", "Expected `object`"),
    ],
)
async def test_a_body_that_is_not_understood_is_told_what_to_send(
    tmp_path: Path, path: str, body: bytes, said: str
) -> None:
    async with served(tmp_path, FakeOperations()) as admin:
        answer = await admin.http.post(path, content=body)
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    assert said in message
    assert f"POST {path}" in message
    assert "Send {" in message
    assert admin.operations.asked == []


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/load", 405, "POST"),
        ("DELETE", "/models", 405, "GET, HEAD"),
        ("POST", "/neurons", 405, "GET, HEAD"),
        ("GET", "/", 404, None),
        ("GET", "/metrics", 404, None),
    ],
)
async def test_other_methods_and_paths_are_refused(
    tmp_path: Path, method: str, path: str, status: int, allow: str | None
) -> None:
    async with served(tmp_path, FakeOperations()) as admin:
        answer = await admin.http.request(method, path)
    assert answer.status_code == status
    assert answer.headers.get("allow") == allow
    assert "/" in answer.json()["error"]["message"]


async def test_a_body_without_end_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path, FakeOperations()) as admin:
        answer = await admin.http.post("/drain", content=b" " * 70_000)
    assert answer.status_code == 413


async def test_a_client_that_leaves_does_not_stop_the_load_it_asked_for(tmp_path: Path) -> None:
    operations = FakeOperations(gate := trio.Event())
    async with served(tmp_path, operations) as admin:
        stream = await trio.open_unix_socket(str(admin.path))
        body = b'{"model": "org/fern"}'
        head = b"POST /load HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        await stream.send_all(head + body)
        await operations.begun.wait()
        await stream.aclose()
        assert (await admin.http.get("/neurons")).status_code == 200
        assert not operations.ended.is_set()
        gate.set()
        await operations.ended.wait()
        assert (await admin.http.get("/neurons")).status_code == 200


async def test_other_questions_are_answered_while_a_load_goes_on(tmp_path: Path) -> None:
    operations = FakeOperations(gate := trio.Event())
    answers: list[httpx.Response] = []
    async with served(tmp_path, operations) as admin, trio.open_nursery() as nursery:

        async def load() -> None:
            answers.append(await admin.post("/load", {"model": "org/fern"}))

        nursery.start_soon(load, name="load")
        await operations.begun.wait()
        assert (await admin.post("/drain", {"neuron": "beast"})).status_code == 200
        assert answers == []
        gate.set()
    assert answers[0].json()["models"][0]["neuron"] == "scout"


async def test_what_was_asked_is_logged_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with served(tmp_path, FakeOperations()) as admin:
        await admin.post("/load", {"model": "org/oak\nevent=ledger_failed"})
        await admin.post("/pin", {"model": "org/oak", "neurons": ["beast", "scout"]})
    lines = [record.getMessage() for record in caplog.records if "operator" in record.msg]
    assert lines == [
        'event=operator_asked action=load model="org/oak?event=ledger_failed"',
        'event=operator_asked action=pin model=org/oak neurons="beast,scout"',
    ]


async def test_the_socket_is_the_users_alone_while_it_is_there(tmp_path: Path) -> None:
    async with served(tmp_path, FakeOperations()) as admin:
        mode = admin.path.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
    assert not admin.path.exists()


def test_the_requests_are_those_of_the_manual() -> None:
    table: list[Any] = rows(section(page("operations.md"), "The admin socket"))
    assert {span for row in table for span in spans(row[0])} == {
        f"{method} {path}" for path, method in METHODS.items()
    }
