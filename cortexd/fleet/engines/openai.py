"""Kind `openai`: any server with the OpenAI API. Its model list tells all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cortexd.fleet.engines.engine import Engine
from cortexd.fleet.reports import read_openai_models

if TYPE_CHECKING:
    from cortexd.fleet.view import Answered


class OpenAi(Engine):
    """Every model that it lists counts as loaded."""

    kind = "openai"

    async def look(self) -> Answered:
        """See `Engine`."""
        return self.answered(await self.listed("/v1/models", read_openai_models))
