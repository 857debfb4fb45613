"""`cortexd demo`: the tour it prints, and the daemon it runs, as a process of its own."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio

from cortexd.cli.demo import what_to_try
from cortexd.cli.main import main
from cortexd.demo.engine import RunningEngine
from cortexd.demo.world import BALANCE_CAP_TOKENS, BALANCE_KEY, COLD, ROLLING_KEY, demo_world

PATIENCE_SECONDS = 20


@pytest.mark.parametrize("address", ["http://127.0.0.1:31313", "https://[::1]:8443", "unix:/run/x"])
@pytest.mark.parametrize("state", [None, Path("/srv/demo-state")])
def test_the_tour_fits_a_terminal_and_names_what_runs(address: str, state: Path | None) -> None:
    world = demo_world(
        listen="", metrics_listen="", ledger_directory="", admin_socket="/run/demo/admin.sock"
    )
    world.close()
    tour = what_to_try(address, world, state)

    assert max(map(len, tour.splitlines())) <= 80
    assert address.removeprefix("unix:") in tour
    assert ("kill -9 " in tour and str(state) in tour) or state is None
    assert "--socket /run/demo/admin.sock" in tour
    assert tour.isascii()
    assert not re.search(r"(?<!%){[a-z_]+}", tour)


def test_a_tour_without_an_admin_socket_names_no_verb_that_needs_one() -> None:
    """A kernel takes no long path for a socket, and --state may be one."""
    world = demo_world(listen="", metrics_listen="", ledger_directory="")
    world.close()

    assert "--socket" not in what_to_try("http://127.0.0.1:31313", world, None)


def test_the_tour_of_a_real_engine_names_its_model_its_process_and_its_log() -> None:
    engine = RunningEngine("http://127.0.0.1:9", "local/tiny", 4321, Path("/run/demo/engine.log"))
    world = demo_world(listen="", metrics_listen="", ledger_directory="", engine=engine)
    world.close()
    tour = what_to_try("http://127.0.0.1:31313", world, None)

    assert '{"model": "local/tiny", "stream": true' in tour
    assert "process 4321" in tour
    assert "/run/demo/engine.log" in tour
    assert max(map(len, tour.splitlines())) <= 80


class Demo:
    """`cortexd demo` as a process; everything it printed is in `output`."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.output = ""

    async def read_until(self, pattern: str) -> re.Match[str]:
        assert self.process.stdout is not None
        while (found := re.search(pattern, self.output)) is None:
            data = await self.process.stdout.receive_some()
            assert data, f"the demo ended: {self.output}"
            self.output += data.decode()
        return found

    async def gateway(self) -> str:
        await self.read_until("Ctrl-C ends the demo")
        return (await self.read_until(r"listening gateway (\S+)"))[1]


async def start_demo(nursery: trio.Nursery, *arguments: str, temporary: Path) -> Demo:
    command = [sys.executable, "-m", "cortexd", "demo", "--listen", "127.0.0.1:0"]
    command += ["--metrics-listen", "127.0.0.1:0", *arguments]
    environment = os.environ | {"TMPDIR": str(temporary)}
    process = await nursery.start(
        partial(
            trio.run_process,
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            check=False,
        )
    )
    return Demo(process)


async def ask(url: str, key: str, **fields: object) -> httpx.Response:
    body = {"model": "small", "messages": [{"role": "user", "content": "Hello?"}], **fields}
    named = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_SECONDS, verify=False) as client:
        return await client.post("/v1/chat/completions", json=body, headers=named)


async def budget(url: str, key: str) -> dict[str, int]:
    async with httpx.AsyncClient(base_url=url, timeout=10, verify=False) as client:
        response = await client.get("/v1/budget", headers={"authorization": f"Bearer {key}"})
        found: dict[str, int] = response.json()
        return found


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
async def test_the_demo_serves_streams_counts_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            demo = await start_demo(nursery, temporary=tmp_path)
            url = await demo.gateway()
            streamed = await ask(url, BALANCE_KEY, stream=True, max_tokens=5)
            plain = await ask(url, ROLLING_KEY, max_tokens=5)
            left = await budget(url, BALANCE_KEY)
            assert len(names_in(tmp_path)) == 1
            demo.process.send_signal(signal.SIGINT)

    assert streamed.text.endswith("data: [DONE]\n\n")
    assert plain.json()["usage"]["completion_tokens"] == 5
    assert 5 < left["spent"] < 100
    assert left["available"] == BALANCE_CAP_TOKENS - left["spent"]
    assert demo.process.returncode == 0
    assert names_in(tmp_path) == []


@pytest.mark.slow
async def test_a_budget_spent_in_a_kept_demo_is_spent_after_kill_9(tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "kept"))
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            demo = await start_demo(nursery, *state, temporary=tmp_path)
            url = await demo.gateway()
            await ask(url, BALANCE_KEY, max_tokens=5)
            spent = (await budget(url, BALANCE_KEY))["spent"]
            demo.process.kill()
        async with trio.open_nursery() as nursery:
            demo = await start_demo(nursery, *state, temporary=tmp_path)
            after = await budget(await demo.gateway(), BALANCE_KEY)
            demo.process.send_signal(signal.SIGINT)

    assert spent > 0
    assert after["spent"] + after["reserved"] >= spent
    assert names_in(tmp_path) == ["kept"]


@pytest.mark.slow
async def test_the_verbs_of_the_tour_work_as_printed_and_a_cold_model_is_waited_for(
    tmp_path: Path,
) -> None:
    short = tempfile.mkdtemp(prefix="demo-", dir="/tmp")  # for the path of a socket
    try:
        with trio.fail_after(PATIENCE_SECONDS):
            async with trio.open_nursery() as nursery:
                demo = await start_demo(nursery, temporary=Path(short))
                url = await demo.gateway()
                answer = await ask(url, BALANCE_KEY, model=COLD, stream=True, max_tokens=2)
                printed = re.search(r"^  (.* models) \\\n    (--socket .*)$", demo.output, re.M)
                assert printed
                verb = shlex.split(f"{printed[1]} {printed[2]}")
                shown = await trio.run_process(verb, capture_stdout=True)
                demo.process.send_signal(signal.SIGINT)
        assert names_in(Path(short)) == []
    finally:
        shutil.rmtree(short)

    assert answer.text.startswith(": still working\n\n")
    assert answer.text.endswith("data: [DONE]\n\n")
    assert re.search(rf"^{COLD} +beast +loaded", shown.stdout.decode(), re.M)


@pytest.mark.parametrize("flag", ["--listen", "--metrics-listen"])
@pytest.mark.parametrize("address", ["foo", "", "h:99999", "unix:"])
def test_half_an_address_is_wrong_usage(
    flag: str, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", flag, address]) == 2
    assert capsys.readouterr().err.startswith(f"cortexd demo: {flag}: ")


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--listen", "--metrics-listen"])
def test_a_taken_address_is_named_with_the_flag_to_use(flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        free = {"--listen", "--metrics-listen"} - {flag}
        ended = subprocess.run(
            [sys.executable, "-m", "cortexd", "demo", flag, taken, free.pop(), "127.0.0.1:0"],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    assert ended.returncode == 1
    assert taken in ended.stderr
    assert f"{flag} 127.0.0.1:0" in ended.stderr
    assert ended.stdout == ""
