"""The manual's word on fields, held against the lists of every endpoint but chat's."""

import pytest

from cortexd.dialects import (
    anthropic_native,
    completions,
    embeddings,
    images,
    rerank,
    responses,
    speech,
    transcriptions,
)
from tests.test_manual import page, section, spans


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/v1/completions", completions.RENDERED | {"prompt", "n"}),
        ("/v1/responses", responses.RENDERED | {"input", "include", *responses.OUTPUT_LIMITS[:2]}),
        ("/v1/responses", {*responses.KEPT_ELSEWHERE, *responses.TOOL_TYPES}),
        ("/v1/embeddings", embeddings.HARMLESS | {"input"}),
        ("/v1/rerank", rerank.HARMLESS | {"query", "documents"}),
        ("/v1/images/generations", images.HARMLESS | {"prompt", "n", "size", "num_steps"}),
        ("/v1/audio/transcriptions", transcriptions.FORWARDED | {"model"}),
        ("/v1/messages", anthropic_native.PASSED | {"messages", "system", "tools"}),
        ("/v1/audio/speech", speech.HARMLESS | {"input"}),
    ],
)
def test_every_field_that_another_endpoint_forwards_is_in_its_section(
    path: str, names: frozenset[str]
) -> None:
    told = set(spans(section(page("endpoints.md"), f"POST {path}")))
    assert names <= told, names - told
