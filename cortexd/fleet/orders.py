"""What the fleet's plans want done, and what came of it: values between plan and deed.

Owns their shapes. Refuses to know how a plan is made (planner.py) and how it is carried out
(loader.py).
"""

from __future__ import annotations

import enum

import msgspec

from cortexd.fleet.load_calls import LoadSpec
from cortexd.fleet.reports import ModelId  # msgspec reads them at run time
from cortexd.fleet.view import NeuronName


class Load(msgspec.Struct, frozen=True):
    """Unload these models, in this order, then load that one. No two loads have one `number`."""

    number: int
    neuron: NeuronName
    spec: LoadSpec
    evict: tuple[ModelId, ...] = ()


class Why(enum.Enum):
    """Why a model is unloaded; the values are words for a log and a metric."""

    MAKES_ROOM = "makes_room"
    IDLE = "idle"
    OPERATOR = "operator"


class Unload(msgspec.Struct, frozen=True):
    """Unload a model that nobody uses."""

    neuron: NeuronName
    model: ModelId
    why: Why


class Wake(msgspec.Struct, frozen=True):
    """Send a neuron's host the packet that wakes it."""

    neuron: NeuronName


Order = Load | Unload | Wake


class Failure(msgspec.Struct, frozen=True):
    """Why a load or an unload did not work, in words for an operator.

    `permanent`: it will not work the next time either, as when there is no such file.
    """

    reason: str
    permanent: bool = False
