"""One simulated neuron as a process: what it says it served outlives a kill."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from cortexd.demo.counters import read_served_log
from tests.demo.asking import RawClient, question


@pytest.mark.slow
async def test_a_killed_neuron_process_leaves_its_served_tokens(tmp_path: Path) -> None:
    log = tmp_path / "served"
    command = [sys.executable, "-m", "tests.support.neuron_process", "--name", "lone"]
    command += ["--served-log", str(log), "--switch", "fixed_usage=[5,500]"]
    command += ["--switch", "token_seconds=0.001"]
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            process = await nursery.start(
                partial(trio.run_process, command, stdout=subprocess.PIPE, check=False)
            )
            word, name, url = (await process.stdout.receive_some()).decode().split()
            assert (word, name) == ("neuron", "lone")
            port = int(url.rpartition(":")[2])
            async with await trio.open_tcp_stream("127.0.0.1", port) as connection:
                client = RawClient(connection)
                await client.post(question(stream=True))
                await client.read_until(b"assistant")
                while client.received.count(b'"content":') < 10:
                    client.received += await connection.receive_some()
                process.kill()

    arrived = client.received.count(b'"content":') - 1  # the first is the empty role chunk
    served = read_served_log(str(log))["anonymous"]
    assert served.prompt == 5
    assert arrived <= served.completion < 500
