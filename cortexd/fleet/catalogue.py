"""Names of models: what a client calls one, and what it is.

Owns aliases, which are flat. Refuses to know where a model runs, and what was written about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cortexd.fleet.reports import ModelId

if TYPE_CHECKING:
    from cortexd.config.schema import Catalogue

__all__ = ["ModelId", "resolve"]


def resolve(catalogue: Catalogue, name: str) -> ModelId:
    """The id behind a name. A name that is no alias is an id, known or not."""
    return ModelId(catalogue.aliases.get(name, name))
