"""Simulated neurons for tests: `async with fake_neuron(reply_tokens=5) as neuron: neuron.url`."""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from cortexd.demo.neuron import SimulatedNeuron
from cortexd.demo.switches import Switches


@asynccontextmanager
async def running(neuron: SimulatedNeuron, *, port: int = 0) -> AsyncIterator[SimulatedNeuron]:
    """Serves while inside. Give the old `neuron.port` to have it come back where it was."""
    neuron.bind(port=port)
    async with trio.open_nursery() as nursery:
        await nursery.start(neuron.serve)
        yield neuron
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def fake_neuron(name: str = "sim", **switches: object) -> AsyncIterator[SimulatedNeuron]:
    """A running neuron with one 24 GB card, the model `sim/small` and these switches."""
    async with running(SimulatedNeuron(name, switches=turned(**switches))) as neuron:
        yield neuron


def turned(**switches: object) -> Switches:
    """Switches by name; a name that does not exist is a TypeError."""
    known = {field.name for field in dataclasses.fields(Switches)}
    if unknown := set(switches) - known:
        raise TypeError(f"no such switch: {', '.join(sorted(unknown))}")
    result = Switches()
    for name, value in switches.items():
        setattr(result, name, value)
    return result
