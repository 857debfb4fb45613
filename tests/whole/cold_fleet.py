"""What tests of cold models share: a catalogue in a file, quick polls, requests and answers."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import httpx
import trio
import yaml

from tests.support.daemon_process import CAPPED_KEY, PATIENCE_SECONDS, DaemonProcess, chat
from tests.support.raw_client import raw_client
from tests.support.traffic import Answer, answer_of

RICH = {**CAPPED_KEY, "hard_cap": 100_000_000}
QUICK_POLLS = {"interval_seconds": 0.2, "timeout_seconds": 2}


def catalogue(
    directory: Path,
    *models: str,
    vram_mb: int = 1000,
    aliases: Mapping[str, str] | None = None,
    others_mb: Mapping[str, int] | None = None,
) -> str:
    """Write a catalogue with these models, in place of the one there is; its path.

    `others_mb`: models of other sizes.
    """
    sizes = dict.fromkeys(models, vram_mb) | dict(others_mb or {})
    entries = [{"id": model, "vram_mb": size_mb} for model, size_mb in sizes.items()]
    return saved(directory, yaml.safe_dump({"models": entries, "aliases": dict(aliases or {})}))


def saved(directory: Path, text: str) -> str:
    """Write whatever in place of the catalogue; its path."""
    path = directory / "models.yaml"
    path.write_text(text)
    return str(path)


class Asked:
    """One request, on a connection of its own, and all that came back."""

    def __init__(self, answer: Answer, received: bytes) -> None:
        self.answer = answer
        self.received = received

    @property
    def is_served(self) -> bool:
        """Whether it was answered, to the end."""
        return self.answer.status == 200 and self.answer.is_whole

    @property
    def error_codes(self) -> list[str]:
        """The codes of the errors that were told, in the body or as events of a stream."""
        if self.answer.code is not None:
            return [self.answer.code]
        lines = self.received.decode().splitlines()
        events = [json.loads(line[6:]) for line in lines if line.startswith('data: {"error"')]
        return [event["error"]["code"] for event in events]


async def asked(daemon: DaemonProcess, model: str, **fields: object) -> Asked:
    """Ask the gateway, and read to the end."""
    async with raw_client(daemon.gateway) as client:
        await client.post({**chat(model=model), **fields}, last=True)
        await client.read_to_the_end()
    return Asked(answer_of(client.received), client.received)


async def asked_at_once(
    daemon: DaemonProcess, model: str, *, count: int, **fields: object
) -> list[Asked]:
    """So many requests at the same time, every third of them streamed."""
    answers: list[Asked] = []

    async def one(number: int) -> None:
        answers.append(await asked(daemon, model, stream=number % 3 == 0, **fields))

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, number)
    return answers


async def served_in_the_end(daemon: DaemonProcess, model: str) -> list[str]:
    """Ask until it is answered; the codes of the refusals before that."""
    codes: list[str] = []
    with trio.fail_after(PATIENCE_SECONDS):
        while not (answer := await asked(daemon, model)).is_served:
            codes += answer.error_codes
    return codes


async def logged(daemon: DaemonProcess, event: str, count: int = 1) -> list[str]:
    """The lines of an event in the daemon's log, once there are so many."""
    with trio.fail_after(PATIENCE_SECONDS):
        while len(lines := _lines(daemon, event)) < count:
            await trio.to_thread.run_sync(partial(_lines, daemon, event))
    return lines


def _lines(daemon: DaemonProcess, event: str) -> list[str]:
    lines = daemon.log.read_text().splitlines()
    return [line for line in lines if f"event={event} " in f"{line} "]


def admin(socket: Path) -> httpx.AsyncClient:
    """A client of the admin socket."""
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    return httpx.AsyncClient(transport=transport, base_url="http://admin", trust_env=False)


async def waiting_for(client: httpx.AsyncClient, model: str) -> int:
    """How many requests wait for a model, as the admin socket has it."""
    lines = (await client.get("/models")).json()["models"]
    return max(int(line["waiting"]) for line in lines if line["model"] == model)


async def metrics(daemon: DaemonProcess) -> Mapping[str, float]:
    """Every sample of /metrics, by its name and labels as they are written."""
    async with httpx.AsyncClient(base_url=daemon.metrics, trust_env=False) as client:
        lines = (await client.get("/metrics")).text.splitlines()
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}
