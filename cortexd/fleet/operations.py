"""What an operator can see of the fleet and ask of it, by name and as data.

Owns the shapes that the admin socket carries, and the list of operations behind it. Refuses to know
how they are done (fleet/traffic.py), and how they are asked for (daemon/admin_listener.py).
"""

from typing import Protocol

import msgspec


class NotDone(msgspec.Struct, frozen=True):
    """Why something was not done, and what the operator can do about it.

    `status` is HTTP's: 404 for a model or neuron that nobody knows, 409 for what cannot be done
    now, 502 for a neuron that failed at it.
    """

    what: str
    hint: str
    status: int = 409


class ModelLine(msgspec.Struct, frozen=True):
    """A model on a neuron; or a model of the catalogue that is nowhere, with `neuron` empty.

    `status`: loaded, loading, recovering, unloading, cold or unavailable. `vram_mb` None: not
    known. `in_flight` and `waiting` count requests; the latter wait for the model, not the neuron.
    `idle_seconds`: since its last request ended; None while it has one, or where nothing is loaded.
    `eta_seconds`: until it can serve; of a cold model, what a load is expected to take; None: not
    known, or no question. `note` is for people: where a cold model fits, or why nowhere. `aliases`:
    what else it is called.
    """

    model: str
    neuron: str
    status: str
    devices: tuple[int, ...] = ()
    vram_mb: int | None = None
    in_flight: int = 0
    waiting: int = 0
    idle_seconds: float | None = None
    pinned: bool = False
    eta_seconds: float | None = None
    note: str = ""
    aliases: tuple[str, ...] = ()

    def is_called(self, name: str) -> bool:
        """Whether a name, an id or an alias, means this model."""
        return name == self.model or name in self.aliases


class NeuronLine(msgspec.Struct, frozen=True):
    """A neuron as far as loading, draining and failing are concerned.

    `in_flight`: requests that it has from us. `breaker`: closed, open or half-open. `load_cycles`:
    models that left it since it started. Memory None: it does not say.
    """

    neuron: str
    healthy: bool
    draining: bool = False
    in_flight: int = 0
    breaker: str = "closed"
    load_cycles: int = 0
    restart_advised: bool = False
    vram_total_mb: int | None = None
    vram_free_mb: int | None = None
    note: str = ""


class Lines(msgspec.Struct, frozen=True):
    """What the admin socket answers: lines of models, of neurons, or of both.

    Example: `{"neurons":[{"neuron":"beast","healthy":true,...}]}`.
    """

    models: list[ModelLine] | msgspec.UnsetType = msgspec.UNSET
    neurons: list[NeuronLine] | msgspec.UnsetType = msgspec.UNSET


class Operations(Protocol):
    """The fleet, as its operator reaches it. Names that nobody knows are a NotDone with 404.

    To cancel `load` or `unload` is to wait no longer: what was begun goes on.
    """

    def models(self) -> list[ModelLine]:
        """Every model on every neuron, then those of the catalogue that are nowhere."""

    def neurons(self) -> list[NeuronLine]:
        """Every neuron, as configured."""

    async def load(self, model: str, neuron: str | None) -> list[ModelLine] | NotDone:
        """Load a model, on this neuron or on the best one; returns when it can serve.

        The lines are those of the model then. Loaded there already: done.
        """

    async def unload(self, model: str, neuron: str | None) -> list[ModelLine] | NotDone:
        """Unload a model, from this neuron or from all; its requests may end first, within bounds.

        Returns when it is gone, with the lines of the model then.
        """

    def pin(self, model: str, neurons: tuple[str, ...] | None) -> list[ModelLine] | NotDone:
        """Pin a model to these neurons (none: nowhere); None: as the catalogue says again.

        The lines are those of the model then.
        """

    def drain(self, neuron: str) -> NotDone | None:
        """Give a neuron no further requests and no loads; those it has go on."""

    def undrain(self, neuron: str) -> NotDone | None:
        """Let a neuron take part again."""
