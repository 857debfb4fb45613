"""What the fleet's state machine is made of, put together.

Owns which part is built from what. Every part is its own page; all of them are one thread's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cortexd.fleet.board import Board
from cortexd.fleet.drains import Drains
from cortexd.fleet.errands import Errands
from cortexd.fleet.eviction import Cycles
from cortexd.fleet.loads import Loads
from cortexd.fleet.observer import FleetObserver
from cortexd.fleet.planner import Planner
from cortexd.fleet.residents import Residents
from cortexd.fleet.routing import Replicas
from cortexd.fleet.swaps import rules_of
from cortexd.fleet.view import NeuronName
from cortexd.fleet.wakes import Wakes

if TYPE_CHECKING:
    from cortexd.config.schema import Config


class Parts(msgspec.Struct, frozen=True):
    """The parts of one fleet."""

    board: Board
    residents: Residents
    replicas: Replicas
    loads: Loads
    planner: Planner
    errands: Errands
    cycles: Cycles
    observer: FleetObserver


def parts_of(config: Config, board: Board, observer: FleetObserver) -> Parts:
    """Build them for a configuration; the catalogue is told to the planner later."""
    residents, loads = Residents(), Loads()
    eviction = config.eviction
    rules = rules_of(eviction, drain_seconds=eviction.drain_seconds)
    planner = Planner(
        board,
        residents,
        loads,
        Drains(board, residents, rules),
        Wakes(NeuronName(each.name) for each in config.neurons if each.mac),
        eviction,
    )
    return Parts(
        board=board,
        residents=residents,
        replicas=Replicas(config.neurons, board, residents),
        loads=loads,
        planner=planner,
        errands=Errands(board, residents, planner),
        cycles=Cycles(eviction.defrag_after_cycles),
        observer=observer,
    )
