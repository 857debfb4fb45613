"""What an engine of each kind can be told to do, as plans have to know it.

Owns one table. Refuses to know how anything is told (the adapters), and what a request to an
engine has to look like (dialects/engine_traits.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from cortexd.config.schema import NeuronKind


class Abilities(msgspec.Struct, frozen=True):
    """`loads`: it can be told to load a model and to unload it.

    `places_itself`: it lists all that it could load, loads nothing else, and decides itself on
    which cards that is and who makes room; so there are no books of its memory.
    """

    loads: bool
    places_itself: bool


_LEFT_TO_ITSELF = Abilities(loads=True, places_itself=True)
_FIXED = Abilities(loads=False, places_itself=True)

ABILITIES: Mapping[NeuronKind, Abilities] = MappingProxyType(
    {
        "neuron": Abilities(loads=True, places_itself=False),
        "llama-server": _FIXED,
        "llama-router": _LEFT_TO_ITSELF,
        "llama-swap": _LEFT_TO_ITSELF,
        "vllm": _LEFT_TO_ITSELF,
        "sglang": _FIXED,
        "ollama": _LEFT_TO_ITSELF,
        "lmstudio": _LEFT_TO_ITSELF,
        "mistralrs": _LEFT_TO_ITSELF,
        "tabby": _LEFT_TO_ITSELF,
        "openai": _FIXED,
    }
)
"""By kind. vLLM is woken and put to sleep; SGLang does not tell whether it sleeps, so it is not."""


def loads(kind: NeuronKind) -> bool:
    """Whether an engine of this kind can be told to load and unload."""
    return ABILITIES[kind].loads


def places_itself(kind: NeuronKind) -> bool:
    """Whether an engine of this kind decides on its memory itself."""
    return ABILITIES[kind].places_itself
