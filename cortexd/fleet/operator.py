"""The operator's side of the fleet: what there is, as lines, and what can be asked of it.

Owns names (aliases count, unknown ones are told) and the words for what was not done. Refuses to
know how it is asked for: `Operations` is the shape (operations.py), a socket the way.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from cortexd.fleet.breaker import State
from cortexd.fleet.catalogue import resolve
from cortexd.fleet.feasibility import Reason, pinned_to, why_infeasible
from cortexd.fleet.operations import ModelLine, NeuronLine, NotDone
from cortexd.fleet.reach import NOWHERE
from cortexd.fleet.reports import ModelId
from cortexd.fleet.serving import Cause, Unserved
from cortexd.fleet.view import NeuronName, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cortexd.config.schema import CatalogueModel
    from cortexd.fleet.errands import Errand
    from cortexd.fleet.traffic import Traffic
    from cortexd.fleet.view import ModelView, NeuronView

_HINTS = {
    Cause.UNKNOWN: "`cortexd models` lists those there are; others belong into the catalogue.",
    Cause.NOWHERE: "Compare what the catalogue says of it with the neurons of `cortexd models`.",
    Cause.UNHEALTHY: "See whether the neurons run: `cortexd models` shows their health.",
    Cause.DRAINING: "`cortexd undrain` lets a neuron take part again.",
    Cause.NO_ROOM: "Unload something that it may not displace, or raise its residency_priority.",
    Cause.IN_USE: "Try again later, or unload the model in its place by name.",
    Cause.UNSERVABLE: "The neuron's own log says why.",
    Cause.LOADING: "Wait for it: `cortexd models` shows how far it is.",
    Cause.LOAD_FAILED: "The log has the neuron's own words.",
}
_UNLOAD_HINT = "Try again later; a neuron that never ends its requests has to be restarted."
_LOAD_HINT = "The log has more; a load that failed is not tried again at once."


class FleetOperations:
    """`Operations` on the daemon's fleet."""

    def __init__(self, traffic: Traffic) -> None:
        """Show and change this one."""
        self._traffic = traffic

    def models(self) -> list[ModelLine]:
        """See `Operations`."""
        names: dict[str, list[str]] = {}
        for alias, model in self._traffic.catalogue.aliases.items():
            names.setdefault(model, []).append(alias)
        return [
            replace(line, aliases=tuple(names[line.model])) if line.model in names else line
            for line in self._lines()
        ]

    def _lines(self) -> list[ModelLine]:
        lines = [line for neuron in self._neurons() for line in self._on(neuron)]
        there = {line.model for line in lines}
        catalogue = self._traffic.catalogue
        cold = [each for each in catalogue.models if each.id not in there]
        return [*lines, *(self._cold(each) for each in cold)]

    def neurons(self) -> list[NeuronLine]:
        """See `Operations`."""
        return [self._neuron(neuron) for neuron in self._neurons()]

    async def load(self, model: str, neuron: str | None) -> list[ModelLine] | NotDone:
        """See `Operations`."""
        unknown = self._unknown(model, neuron)
        if unknown is not None:
            return unknown
        id = self._id(model)
        name = None if neuron is None else NeuronName(neuron)
        errand = await self._traffic.errand(partial(self._traffic.parts.errands.load, id, name))
        return self._of(id) if errand.failed is None else _not_loaded(errand)

    async def unload(self, model: str, neuron: str | None) -> list[ModelLine] | NotDone:
        """See `Operations`."""
        unknown = self._unknown(model, neuron)
        if unknown is not None:
            return unknown
        id = self._id(model)
        name = None if neuron is None else NeuronName(neuron)
        errand = await self._traffic.errand(partial(self._traffic.parts.errands.unload, id, name))
        if errand.failed is None:
            return self._of(id)
        return NotDone(f"{id} was not unloaded: {errand.failed}.", _UNLOAD_HINT)

    def pin(self, model: str, neurons: tuple[str, ...] | None) -> list[ModelLine] | NotDone:
        """See `Operations`."""
        for neuron in neurons or ():
            unknown = self._unknown(model, neuron)
            if unknown is not None:
                return unknown
        unknown = self._unknown(model, None)
        if unknown is not None:
            return unknown
        planner, id = self._traffic.parts.planner, self._id(model)
        pins = {each: names for each, names in planner.pins.items() if each != id}
        if neurons is not None:
            pins[id] = frozenset(map(NeuronName, neurons))
        planner.pins = pins
        self._traffic.changed()
        return self._of(id)

    def drain(self, neuron: str) -> NotDone | None:
        """See `Operations`."""
        return self._set_draining(neuron, draining=True)

    def undrain(self, neuron: str) -> NotDone | None:
        """See `Operations`."""
        return self._set_draining(neuron, draining=False)

    def _set_draining(self, neuron: str, *, draining: bool) -> NotDone | None:
        unknown = self._unknown_neuron(neuron)
        if unknown is not None:
            return unknown
        names = self._traffic.parts.residents.draining
        (names.add if draining else names.discard)(NeuronName(neuron))
        self._traffic.changed()
        return None

    # Names.

    def _neurons(self) -> list[NeuronView]:
        return list(self._traffic.view.neurons.values())

    def _id(self, name: str) -> ModelId:
        return resolve(self._traffic.catalogue, name)

    def _of(self, model: ModelId) -> list[ModelLine]:
        return [line for line in self.models() if line.model == model]

    def _unknown(self, model: str, neuron: str | None) -> NotDone | None:
        id = self._id(model)
        if not self._of(id):
            what = f"Neither the catalogue nor a neuron has the model {id}."
            return NotDone(what, _HINTS[Cause.UNKNOWN], 404)
        return None if neuron is None else self._unknown_neuron(neuron)

    def _unknown_neuron(self, neuron: str) -> NotDone | None:
        names = list(self._traffic.view.neurons)
        if neuron in names:
            return None
        return NotDone(f"No neuron is called {neuron}.", f"Name one of: {', '.join(names)}.", 404)

    # Lines.

    def _on(self, neuron: NeuronView) -> Iterator[ModelLine]:
        parts = self._traffic.parts
        loading = {
            load.loading.model: load for load in parts.loads if load.loading.neuron == neuron.name
        }
        for model in neuron.models.values():
            if model.id not in loading and model.status is not Status.UNLOADED:
                yield self._line(neuron, model)
        for id, load in loading.items():
            eta_ms = parts.loads.eta_ms(id, self._traffic.now_ms)
            yield ModelLine(
                id,
                neuron.name,
                "loading",
                load.loading.devices,
                load.loading.vram_mb,
                waiting=self._waiting(id),
                pinned=neuron.name in self._pins(id),
                eta_seconds=None if eta_ms is None else eta_ms / 1000,
            )

    def _line(self, neuron: NeuronView, model: ModelView) -> ModelLine:
        stay = self._traffic.parts.residents.get(neuron.name, model.id)
        status, note = model.status.value, ""
        if not neuron.healthy:
            status = "unavailable"
        elif stay is not None and stay.leaving:
            status = "unloading"
        elif not model.is_servable:
            status, note = "unavailable", "its neuron says that it cannot serve it"
        elif model.unaddressed:
            note = "its neuron does not say at which address it is"
        elif stay is not None and not stay.admits:
            note = "takes no more requests: it is to leave"
        is_idle = stay is not None and stay.in_flight == 0
        idle_ms = self._traffic.now_ms - stay.last_used_ms if stay is not None else 0
        entry = self._traffic.parts.planner.entry(model.id)
        return ModelLine(
            model.id,
            neuron.name,
            status,
            model.devices,
            model.vram_used_mb or (entry.vram_mb if entry is not None else None),
            in_flight=0 if stay is None else stay.in_flight,
            waiting=self._waiting(model.id),
            idle_seconds=idle_ms / 1000 if is_idle else None,
            pinned=neuron.name in self._pins(model.id),
            note=note,
        )

    def _cold(self, entry: CatalogueModel) -> ModelLine:
        id, parts = ModelId(entry.id), self._traffic.parts
        reasons = {
            neuron.name: why_infeasible(entry, neuron, parts.planner.pins)
            for neuron in self._neurons()
        }
        fits_on = [name for name, reason in reasons.items() if reason is None]
        known = [reason for reason in reasons.values() if reason is not None]
        if fits_on:
            note = self._where(fits_on)
        elif known:
            note = f"can run nowhere: {NOWHERE[max(known, key=list(Reason).index)]}"
        else:
            note = "can run nowhere: no neuron is configured"
        expected_ms = [parts.loads.expected_ms(id, name, entry.vram_mb) for name in fits_on]
        return ModelLine(
            id,
            "",
            "cold" if fits_on else "unavailable",
            vram_mb=entry.vram_mb,
            waiting=self._waiting(id),
            pinned=bool(self._pins(id)),
            eta_seconds=min(expected_ms) / 1000 if expected_ms else None,
            note=note,
        )

    def _where(self, fits_on: list[NeuronName]) -> str:
        """Where a cold model can run; a neuron that tells nothing of its cards may turn out to."""
        neurons = self._traffic.view.neurons
        told = [name for name in fits_on if not neurons[name].undiscovered]
        if told:
            return f"can run on {', '.join(told)}"
        return f"may run on {', '.join(fits_on)}, once it tells what cards it has"

    def _waiting(self, model: ModelId) -> int:
        return self._traffic.waiting.get(model, 0)

    def _pins(self, model: ModelId) -> frozenset[NeuronName]:
        planner = self._traffic.parts.planner
        entry = planner.entry(model)
        if entry is None:
            return planner.pins.get(model, frozenset())
        return pinned_to(entry, planner.pins)

    def _neuron(self, neuron: NeuronView) -> NeuronLine:
        parts = self._traffic.parts
        totals_mb = [each.vram_total_mb for each in neuron.devices if each.vram_total_mb]
        free_mb = [each.vram_free_mb for each in neuron.devices if each.vram_free_mb is not None]
        state = parts.replicas.breakers.state(neuron.name, self._traffic.now_ms)
        state = State.HALF_OPEN if state is State.PROBING else state
        return NeuronLine(
            neuron.name,
            neuron.healthy,
            draining=neuron.name in parts.residents.draining,
            in_flight=parts.residents.in_flight_on(neuron.name),
            breaker=state.value.replace("_", "-"),
            load_cycles=parts.cycles.count(neuron.name),
            restart_advised=parts.cycles.is_restart_advised(neuron.name),
            vram_total_mb=sum(totals_mb) if totals_mb else None,
            vram_free_mb=sum(free_mb) if free_mb else None,
            note=_note(neuron),
        )


def _note(neuron: NeuronView) -> str:
    if not neuron.healthy:
        return neuron.reason or "not heard of yet"
    return f"nothing can be loaded: {neuron.undiscovered}" if neuron.undiscovered else ""


def _not_loaded(errand: Errand) -> NotDone:
    failed = errand.failed
    if isinstance(failed, Unserved):
        why = failed.why or failed.cause.value
        status = 404 if failed.cause in (Cause.UNKNOWN, Cause.NOWHERE) else 409
        hint = _HINTS.get(failed.cause, _LOAD_HINT)
        if failed.retry_in_ms:
            hint += f" The next try can be in {-(-failed.retry_in_ms // 1000)} s."
        return NotDone(f"{errand.model} was not loaded: {why}.", hint, status)
    return NotDone(f"{errand.model} was not loaded: {failed}.", _LOAD_HINT, 502)
