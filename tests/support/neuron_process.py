"""One simulated neuron as a process of its own, for tests that kill things.

    python -m tests.support.neuron_process --served-log FILE --switch token_seconds=0.01

Prints `neuron NAME URL` once it accepts, and runs until it is killed. Values of switches are JSON;
`fixed_usage=[5,10]` is a pair. `read_served_log` of cortexd.demo.counters reads the log, also of a
neuron that was killed; with --served-by-request its names are `KEY_ID/REQUEST_ID`.
"""

import argparse
import json
import sys
from contextvars import ContextVar

import trio

from cortexd.demo.admission import AdmissionLimits
from cortexd.demo.counters import Counters, Served, ServedTokens
from cortexd.demo.hardware import SimulatedModel
from cortexd.demo.http import Request
from cortexd.demo.neuron import SimulatedNeuron
from tests.support.fake_neuron import turned


def main() -> None:
    """Runs until killed."""
    arguments = _parser().parse_args()
    neuron = SimulatedNeuron(
        arguments.name,
        _models(arguments),
        switches=turned(**dict(_switch(text) for text in arguments.switch)),
        admission=AdmissionLimits(max_in_flight=arguments.max_in_flight),
        served_log=arguments.served_log,
    )
    if arguments.served_by_request:
        neuron.counters = neuron.machine.counters = _CountersByRequest(arguments.served_log)
    neuron.bind(port=arguments.port)
    sys.stdout.write(f"neuron {neuron.name} {neuron.url}\n")  # the socket already accepts
    sys.stdout.flush()
    trio.run(neuron.serve)


_request_id = ContextVar("_request_id", default="")


class _CountersByRequest(Counters):
    """Knows which request a task is answering."""

    def __init__(self, served_log: str) -> None:
        super().__init__()
        self.served = _ServedByRequest(served_log)

    def arrive(self, request: Request) -> None:
        _request_id.set(request.header(b"x-request-id") or "")
        super().arrive(request)


class _ServedByRequest(Served):
    """Counts under key and request in place of the key alone."""

    def add(
        self, request: ServedTokens, key_id: str, *, prompt: int = 0, completion: int = 0
    ) -> None:
        name = f"{key_id}/{_request_id.get()}"
        super().add(request, name, prompt=prompt, completion=completion)


def _models(arguments: argparse.Namespace) -> list[SimulatedModel]:
    size_mb, cold = arguments.vram_mb, arguments.cold
    resident = arguments.model or ([] if cold else ["sim/small"])
    known = [*((id, True) for id in resident), *((id, False) for id in cold)]
    return [SimulatedModel(id, size_mb, resident=there) for id, there in known]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="sim")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", action="append", help="model id, resident; may be repeated")
    parser.add_argument("--cold", action="append", default=[], help="the same, to be loaded first")
    parser.add_argument("--vram-mb", type=int, default=1000, help="of each model")
    parser.add_argument("--served-log", help="file that the tokens really served are appended to")
    parser.add_argument("--served-by-request", action="store_true")
    parser.add_argument("--max-in-flight", type=int, default=1024)
    parser.add_argument("--switch", action="append", default=[], metavar="NAME=JSON")
    return parser


def _switch(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    read = json.loads(value)
    return name, tuple(read) if isinstance(read, list) else read


if __name__ == "__main__":
    main()
