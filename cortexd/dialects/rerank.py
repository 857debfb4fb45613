"""Rerank, as Jina, Cohere and vLLM have it: a query, documents, and how well each one answers.

Owns `POST /v1/rerank` and its other paths. Refuses to know keys, budgets and neurons. Source:
https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html (Re-rank API).

A model reads the query again with every document, so that is what is bounded. Nothing is
generated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cortexd.dialects.asked import Asked, PromptSize
from cortexd.dialects.body import Body, invalid
from cortexd.dialects.forwarding import Lists, take
from cortexd.dialects.json_text import said_once, with_model
from cortexd.dialects.prompt_size import rendered_bytes
from cortexd.dialects.reading_size import read_bytes
from cortexd.dialects.refusals import Refusal, Rendered, render
from cortexd.dialects.surface import Document, PlainReply, Watcher, understood
from cortexd.dialects.upper_bound import bound
from cortexd.dialects.usage import read_input_usage

if TYPE_CHECKING:
    from cortexd.dialects.surface import Target
    from cortexd.dialects.upper_bound import Bound, ModelLimits

DOCUMENTS_MAX = 10_000

HARMLESS = frozenset({"top_n", "return_documents", "user"})
"""Forwarded beside `query` and `documents`."""

_LISTS = Lists(
    read_here=frozenset({"model", "query", "documents"}), rendered=frozenset(), harmless=HARMLESS
)
_VALUE = msgspec.json.Decoder()
_ENCODE = msgspec.json.Encoder().encode


class RerankRequest(msgspec.Struct, frozen=True):
    """A request for an order of documents that was understood."""

    asked: Asked

    def bound(self, limits: ModelLimits, *, capped: bool) -> Bound | Refusal:
        """The query with each document."""
        return bound(self.asked, limits, capped=capped)

    def write(self, limits: ModelLimits, target: Target) -> Document:
        """Query and documents as they came."""
        return Document(_ENCODE({"model": target.model, **self.asked.fields}))

    def read(self, answer: Document, limits: ModelLimits) -> PlainReply | None:
        """Results under the name that the client used for the model."""
        try:
            reply = _VALUE.decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if not isinstance(reply, dict) or not isinstance(reply.get("results"), list):
            return None
        body = with_model(answer.body, reply, self.asked.model)
        return PlainReply(body=body, usage=read_input_usage(reply.get("usage")))

    def watch(self, *, output_tokens: int) -> Watcher:
        """Never called: an order is not streamed."""
        raise AssertionError("an order of documents is not streamed")

    def forget(self) -> None:
        """Never called, as nothing is streamed."""
        raise AssertionError("an order of documents is not streamed")

    def gather(self, *, output_tokens: int) -> None:
        """An order comes as a whole."""


class Rerank(msgspec.Struct, frozen=True):
    """`POST /v1/rerank`, `/rerank` and `/v2/rerank`."""

    neuron_path: str = "/v1/rerank"
    answer_noun: str = "list of ranked documents"
    token_per_chunk: bool = False

    def understand(
        self, posted: Document, *, forward_fields: frozenset[str]
    ) -> RerankRequest | Refusal:
        """Read a query and the documents that it is held against."""
        return understood(_understood, posted.body, forward_fields)

    def render(self, refusal: Refusal, *, request_id: str, model: str = "") -> Rendered:
        """OpenAI's envelope."""
        return render(refusal, request_id=request_id)


def _understood(body: Body, forward_fields: frozenset[str]) -> RerankRequest:
    model = body.model()
    body.required("query")
    query = body.text("query") or ""
    given = body.required("documents")
    if not isinstance(given, list) or not 1 <= len(given) <= DOCUMENTS_MAX:
        invalid("documents", f"must be an array of 1 to {DOCUMENTS_MAX} documents")
    documents = [_text(each, f"documents[{place}]") for place, each in enumerate(given)]
    body.integer("top_n", largest=DOCUMENTS_MAX)
    body.flag("return_documents")
    raw_documents, _ = said_once(body.fields["documents"], given)
    forwarded = {"query": body.fields["query"], "documents": raw_documents}
    taken = take(body, _LISTS, forward_fields, forwarded=forwarded)
    beside = sum(map(rendered_bytes, taken.rendered))
    asked = Asked(
        model=model,
        stream=False,
        include_usage=False,
        choices=1,
        output_requested=None,
        fields=taken.fields,
        dropped=taken.dropped,
        prompt=PromptSize(
            text_bytes=len(documents) * read_bytes(query) + sum(map(read_bytes, documents)),
            tools_bytes=len(documents) * beside,
        ),
        prompts=len(documents),
        generates=False,
    )
    return RerankRequest(asked)


def _text(document: object, param: str) -> str:
    """A document's text: bare, or under the one name that engines read."""
    if isinstance(document, dict) and document.keys() == {"text"}:
        document = document["text"]
    if not isinstance(document, str):
        invalid(param, "must be a string, or an object with nothing but a string as its text")
    return document
