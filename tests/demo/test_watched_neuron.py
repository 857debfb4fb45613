"""Who is robbed by an unload: whoever still waits for an answer, and nobody who has left."""

import httpx
import pytest
import trio
import trio.testing

from cortexd.demo.hardware import SimulatedModel
from tests.support.fake_neuron import running, turned
from tests.support.watched_neuron import CHATS, UNLOADS, WatchedNeuron

MODEL = "sim/oak"
CHAT = b'{"model":"%b","messages":[{"role":"user","content":"x"}]}' % MODEL.encode()
ASK = (
    b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
    % (
        CHATS.encode(),
        len(CHAT),
        CHAT,
    )
)


@pytest.mark.parametrize(("stay", "leave"), [(1, 0), (0, 1), (2, 1), (1, 2), (0, 3)])
async def test_only_those_who_are_still_there_are_robbed(stay: int, leave: int) -> None:
    models = [SimulatedModel(MODEL, 16_000, resident=True)]
    neuron = WatchedNeuron("a", models, switches=turned(gated=True))
    async with running(neuron), httpx.AsyncClient(base_url=neuron.url, trust_env=False) as http:
        streams = [
            await trio.open_tcp_stream("127.0.0.1", neuron.port) for _ in range(stay + leave)
        ]
        for stream in streams:
            await stream.send_all(ASK)
        await neuron.wait_for_hits(stay + leave)
        await trio.testing.wait_all_tasks_blocked()
        for stream in streams[:leave]:
            stream.socket.close()  # with no checkpoint before the unload is on its way
        await http.post(UNLOADS, json={"model_id": MODEL})
        assert len(neuron.robbed) == (1 if stay else 0)
        for stream in streams[leave:]:
            await stream.aclose()
