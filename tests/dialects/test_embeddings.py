"""Embeddings: inputs counted, vectors in the form that the client asked for."""

import base64
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.dialects.embeddings import INPUTS_MAX, Embeddings
from cortexd.dialects.refusals import RefusalKind
from cortexd.dialects.surface import Document
from cortexd.dialects.upper_bound import ModelLimits
from cortexd.dialects.usage import Usage
from tests.dialects.surfaces import UNKNOWN, asked_of, bound_of, refused, told, understood, written

EMBEDDINGS = Embeddings()
VECTOR = [0.25, -1.5, 3.0]
PACKED = base64.b64encode(struct.pack("<3f", *VECTOR)).decode()


def asked_with(**fields: object) -> dict[str, object]:
    return {"model": "m", "input": "hello", **fields}


def reply(embedding: object, **fields: object) -> Document:
    rows = [{"object": "embedding", "index": 0, "embedding": embedding}]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    whole = {"object": "list", "model": "there", "data": rows, "usage": usage, **fields}
    return Document(json.dumps(whole).encode())


def test_an_input_is_bounded_by_its_bytes_and_nothing_is_generated() -> None:
    bound = bound_of(understood(EMBEDDINGS, asked_with()))
    assert len("hello") < bound.prompt_tokens <= len("hello") + 8
    assert (bound.output_tokens, bound.total) == (0, bound.prompt_tokens)


@pytest.mark.parametrize(
    ("inputs", "count", "tokens"),
    [(["ab", "c"], 2, 3), ([1, 2, 3], 1, 3), ([[1, 2], [3]], 2, 3)],
)
def test_every_input_pays_for_itself_and_for_the_template(
    inputs: object, count: int, tokens: int
) -> None:
    request = understood(EMBEDDINGS, asked_with(input=inputs))
    bare = bound_of(request).prompt_tokens
    assert request.asked.prompts == count
    assert bare >= tokens + 2 * count
    limits = ModelLimits(None, None, None, template_tokens=10)
    assert bound_of(request, limits).prompt_tokens == bare + 10 * count


def test_the_neuron_gets_the_inputs_and_no_private_field() -> None:
    body = asked_with(encoding_format="base64", dimensions=3, user="u", truncate_prompt_tokens=5)
    request = understood(EMBEDDINGS, body)
    assert written(request) == {
        "model": "there",
        "input": "hello",
        "encoding_format": "base64",
        "dimensions": 3,
        "user": "u",
    }
    assert request.asked.dropped == ("truncate_prompt_tokens",)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, None),
        ({"input": []}, "input"),
        ({"input": ["a"] * (INPUTS_MAX + 1)}, "input"),
        ({"input": {"text": "a"}}, "input"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
    ],
)
def test_what_is_no_input_is_refused(fields: dict[str, object], param: str | None) -> None:
    if param is None:
        assert asked_of(EMBEDDINGS, asked_with(**fields)).prompts == 1
        return
    refusal = refused(EMBEDDINGS, asked_with(**fields))
    assert (refusal.kind, refusal.param) == (RefusalKind.INVALID_PARAMETER, param)


@pytest.mark.parametrize(
    ("wanted", "sent", "received"),
    [
        ("base64", PACKED, PACKED),
        ("base64", VECTOR, PACKED),
        ("float", VECTOR, VECTOR),
        ("float", PACKED, VECTOR),
        (None, PACKED, VECTOR),
    ],
)
def test_a_vector_comes_in_the_form_that_was_asked_for(
    wanted: str | None, sent: object, received: object
) -> None:
    request = understood(EMBEDDINGS, asked_with(encoding_format=wanted))
    read = told(request.read(reply(sent), UNKNOWN))
    decoded = json.loads(read.body)
    assert decoded["data"] == [{"object": "embedding", "index": 0, "embedding": received}]
    assert (decoded["model"], read.usage) == ("m", Usage(3, 0))


def test_numbers_that_stay_numbers_keep_their_digits() -> None:
    body = b'{"model":"m","data":[{"embedding":[0.10000000000000001,-0]}]}'
    read = told(understood(EMBEDDINGS, asked_with()).read(Document(body), UNKNOWN))
    assert b"[0.10000000000000001,-0]" in read.body
    assert read.usage is None


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_what_is_packed_is_what_the_engine_said(vector: list[float]) -> None:
    request = understood(EMBEDDINGS, asked_with(encoding_format="base64"))
    [row] = json.loads(told(request.read(reply(vector), UNKNOWN)).body)["data"]
    packed = base64.b64decode(row["embedding"])
    assert list(struct.unpack(f"<{len(vector)}f", packed)) == vector


@pytest.mark.parametrize(
    ("wanted", "embedding"),
    [
        *(("base64", each) for each in (None, 7, ["a"], [[0.5]], [1e300], {"a": 1})),
        *(("float", each) for each in (None, 7, ["a"], [[0.5]], "not base64!", "AAA=", "é===")),
    ],
)
def test_what_is_no_vector_is_no_answer(wanted: str, embedding: object) -> None:
    request = understood(EMBEDDINGS, asked_with(encoding_format=wanted))
    assert request.read(reply(embedding), UNKNOWN) is None


@pytest.mark.parametrize("body", [b"", b"[]", b'{"data":[]}', b'{"data":[{}]}', b'{"data":7}'])
def test_what_is_no_list_of_vectors_is_no_answer(body: bytes) -> None:
    assert understood(EMBEDDINGS, asked_with()).read(Document(body), UNKNOWN) is None
