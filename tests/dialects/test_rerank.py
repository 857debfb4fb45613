"""Rerank: the query is paid for with every document, and results come back as they are."""

import json

import pytest

from cortexd.dialects.refusals import RefusalKind
from cortexd.dialects.rerank import Rerank
from cortexd.dialects.surface import Document
from cortexd.dialects.upper_bound import ModelLimits
from cortexd.dialects.usage import Usage
from tests.dialects.surfaces import UNKNOWN, asked_of, bound_of, refused, told, understood, written

RERANK = Rerank()
QUERY, DOCUMENTS = "which one?", ["this", "that one", "neither"]


def asked_with(**fields: object) -> dict[str, object]:
    return {"model": "m", "query": QUERY, "documents": DOCUMENTS, **fields}


def test_the_query_is_read_again_with_every_document() -> None:
    request = understood(RERANK, asked_with())
    least = len(DOCUMENTS) * len(QUERY) + sum(map(len, DOCUMENTS))
    bare = bound_of(request).prompt_tokens
    assert least < bare <= least + 8 * len(DOCUMENTS)
    limits = ModelLimits(None, None, None, template_tokens=60)
    assert bound_of(request, limits).prompt_tokens == bare + 60 * len(DOCUMENTS)
    assert bound_of(request).output_tokens == 0


def test_a_document_may_be_an_object_with_a_text() -> None:
    objects = [{"text": text} for text in DOCUMENTS]
    assert (
        asked_of(RERANK, asked_with(documents=objects)).prompt
        == asked_of(RERANK, asked_with()).prompt
    )


def test_the_neuron_gets_query_documents_and_how_many_to_return() -> None:
    body = asked_with(top_n=2, return_documents=True, max_tokens_per_doc=9)
    request = understood(RERANK, body)
    assert written(request) == {
        "model": "there",
        "query": QUERY,
        "documents": DOCUMENTS,
        "top_n": 2,
        "return_documents": True,
    }
    assert request.asked.dropped == ("max_tokens_per_doc",)


def test_a_document_that_says_two_texts_is_forwarded_as_it_was_counted() -> None:
    raw = b'{"model":"m","query":"q","documents":[{"text":"long","text":"b"}]}'
    assert written(understood(RERANK, raw))["documents"] == [{"text": "b"}]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"query": 7}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": "a"}, "documents"),
        ({"documents": ["a", 7]}, "documents[1]"),
        ({"documents": [{"text": "a", "image": "b"}]}, "documents[0]"),
        ({"documents": [{"text": ["a"]}]}, "documents[0]"),
        ({"top_n": 0}, "top_n"),
        ({"return_documents": "no"}, "return_documents"),
    ],
)
def test_what_is_no_query_or_no_document_is_refused(fields: dict[str, object], param: str) -> None:
    refusal = refused(RERANK, asked_with(**fields))
    assert (refusal.kind, refusal.param) == (RefusalKind.INVALID_PARAMETER, param)


@pytest.mark.parametrize("name", ["model", "query", "documents"])
def test_what_is_missing_is_named(name: str) -> None:
    body = asked_with()
    del body[name]
    refusal = refused(RERANK, body)
    assert (refusal.kind, refusal.param) == (RefusalKind.MISSING_REQUIRED_PARAMETER, name)


RESULTS = [{"index": 1, "relevance_score": 0.9}]


@pytest.mark.parametrize(
    ("usage", "believed"),
    [
        ({"total_tokens": 40}, Usage(40, 0)),
        ({"prompt_tokens": 30, "total_tokens": 40}, Usage(40, 0)),
        ({"prompt_tokens": 40, "total_tokens": 0}, Usage(40, 0)),
        ({"total_tokens": 0}, None),
        ({"prompt_tokens": 30, "total_tokens": -1}, None),
        ({"total_tokens": 4.5}, None),
        ({"total_tokens": True}, None),
        ({}, None),
        (None, None),
    ],
)
def test_results_are_read_with_the_usage_that_can_be_believed(
    usage: object, believed: Usage | None
) -> None:
    body = json.dumps({"model": "there", "results": RESULTS, "usage": usage}).encode()
    reply = told(understood(RERANK, asked_with()).read(Document(body), UNKNOWN))
    assert reply.usage == believed
    assert json.loads(reply.body) == {"model": "m", "results": RESULTS, "usage": usage}


@pytest.mark.parametrize("body", [b"", b"[]", b'{"results":7}', b'{"error":"x"}'])
def test_what_has_no_results_is_no_answer(body: bytes) -> None:
    assert understood(RERANK, asked_with()).read(Document(body), UNKNOWN) is None
