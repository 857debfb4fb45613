"""Names of models: what a client calls one, what it is, and what the operator wrote about it.

Owns aliases, which are flat. Refuses to know where a model runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cortexd.fleet.reports import ModelId

if TYPE_CHECKING:
    from cortexd.config.schema import Catalogue, CatalogueModel

__all__ = ["ModelId", "entry", "resolve"]


def resolve(catalogue: Catalogue, name: str) -> ModelId:
    """The id behind a name. A name that is no alias is an id, known or not."""
    return ModelId(catalogue.aliases.get(name, name))


def entry(catalogue: Catalogue, model: str) -> CatalogueModel | None:
    """What the catalogue says of a model id; None when it does not know it."""
    for each in catalogue.models:
        if each.id == model:
            return each
    return None
