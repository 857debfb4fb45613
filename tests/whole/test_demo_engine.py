"""`cortexd demo` with a real llama-server, which it starts, charges for and ends."""

import os
import signal
from pathlib import Path

import pytest
import trio

from cortexd.demo.world import BALANCE_KEY, SMALL
from tests.demo.test_demo_verb import ask, budget, names_in, start_demo

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 30


async def test_a_real_model_answers_beside_the_simulated_ones_and_is_charged_what_it_counted(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    flags = ["--engine", "llama-server", "--engine-path", str(llama_server_program)]
    flags += ["--model", str(tiny_models / "stops.gguf")]
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            demo = await start_demo(nursery, *flags, temporary=tmp_path)
            url = await demo.gateway()
            answer = await ask(url, BALANCE_KEY, model="local/stops")
            spent = (await budget(url, BALANCE_KEY))["spent"]
            simulated = await ask(url, BALANCE_KEY, model=SMALL, max_tokens=2)
            log = (await demo.read_until(r"\n  (\S+/llama-server\.log)\n"))[1]
            assert said_in(log)
            demo.process.send_signal(signal.SIGINT)

    assert answer.status_code == 200, answer.text
    assert spent == answer.json()["usage"]["total_tokens"] > 0
    assert simulated.status_code == 200
    assert demo.process.returncode == 0
    assert names_in(tmp_path) == []
    assert not running_with(str(tiny_models / "stops.gguf"))


def said_in(log: str) -> str:
    """What the engine wrote."""
    return Path(log).read_text()


def running_with(argument: str) -> list[str]:
    """Processes that were started with this argument."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended meanwhile
            continue
        if argument in arguments and int(process.name) != os.getpid():
            found.append(process.name)
    return found
