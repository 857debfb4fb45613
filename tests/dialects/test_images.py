"""Images: bounded by pixels and steps, settled by the neuron's own units."""

import json

import pytest

from cortexd.dialects.images import STEPS_UNKNOWN, Images
from cortexd.dialects.refusals import Refusal, RefusalKind
from cortexd.dialects.surface import Document
from cortexd.dialects.upper_bound import ModelLimits
from cortexd.dialects.usage import Usage
from tests.dialects.surfaces import UNKNOWN, bound_of, refused, told, understood, written

IMAGES = Images()
TWENTY_STEPS = ModelLimits(None, None, None, image_steps=20)


def asked_with(**fields: object) -> dict[str, object]:
    return {"model": "m", "prompt": "a fox", "size": "1000x500", "num_steps": 10, **fields}


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, 5000),
        ({"n": 3}, 15_000),
        ({"negative_prompt": "blur"}, 10_000),
        ({"negative_prompt": ""}, 5000),
        ({"size": "1x1", "num_steps": 1}, 1),
        ({"size": None}, 10_486),
        ({"size": "auto"}, 10_486),
    ],
)
def test_a_picture_is_bounded_by_its_pixels_and_steps(
    fields: dict[str, object], tokens: int
) -> None:
    bound = bound_of(understood(IMAGES, asked_with(**fields)))
    assert (bound.prompt_tokens, bound.output_tokens, bound.choices) == (tokens, 0, 1)


def test_the_price_of_a_unit_is_the_operators() -> None:
    limits = ModelLimits(None, None, None, tokens_per_image_unit=7)
    assert bound_of(understood(IMAGES, asked_with()), limits).total == 35


def test_steps_that_nobody_names_are_the_operators_and_told_to_the_neuron() -> None:
    request = understood(IMAGES, asked_with(num_steps=None))
    assert bound_of(request, TWENTY_STEPS).total == 10_000
    assert written(request, TWENTY_STEPS)["num_steps"] == 20
    assert written(understood(IMAGES, asked_with()), TWENTY_STEPS)["num_steps"] == 10


def test_steps_that_nobody_knows_are_refused_for_a_cap_alone() -> None:
    request = understood(IMAGES, asked_with(num_steps=None))
    refusal = request.bound(UNKNOWN, capped=True)
    assert isinstance(refusal, Refusal)
    assert (refusal.kind, refusal.param) == (RefusalKind.UNSUPPORTED_PARAMETER, "num_steps")
    assert "image_steps" in refusal.message
    assert bound_of(request, capped=False).total == 500 * STEPS_UNKNOWN
    assert "num_steps" not in written(request)


def test_the_neuron_gets_what_was_reserved_and_no_private_field() -> None:
    body = asked_with(n=2, seed=7, guidance_scale=3.5, quality="hd", negative_prompt="blur")
    request = understood(IMAGES, body)
    assert written(request) == {
        "model": "there",
        "prompt": "a fox",
        "n": 2,
        "seed": 7,
        "guidance_scale": 3.5,
        "negative_prompt": "blur",
        "size": "1000x500",
        "response_format": "b64_json",
        "num_steps": 10,
    }
    assert request.asked.dropped == ("quality",)


@pytest.mark.parametrize(
    ("fields", "kind", "param"),
    [
        ({"prompt": ""}, RefusalKind.INVALID_PARAMETER, "prompt"),
        ({"n": 11}, RefusalKind.INVALID_PARAMETER, "n"),
        ({"size": "large"}, RefusalKind.INVALID_PARAMETER, "size"),
        ({"size": "0x9"}, RefusalKind.INVALID_PARAMETER, "size"),
        ({"size": "9x99999"}, RefusalKind.INVALID_PARAMETER, "size"),
        ({"num_steps": 0}, RefusalKind.INVALID_PARAMETER, "num_steps"),
        ({"negative_prompt": ["x"]}, RefusalKind.INVALID_PARAMETER, "negative_prompt"),
        ({"response_format": "url"}, RefusalKind.UNSUPPORTED_PARAMETER, "response_format"),
        ({"stream": True}, RefusalKind.UNSUPPORTED_PARAMETER, "stream"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    fields: dict[str, object], kind: RefusalKind, param: str
) -> None:
    refusal = refused(IMAGES, asked_with(**fields))
    assert (refusal.kind, refusal.param) == (kind, param)


@pytest.mark.parametrize(
    ("usage", "believed"),
    [
        ({"helexa_image_units": 4.2001}, Usage(4201, 0)),
        ({"helexa_image_units": 4}, Usage(4000, 0)),
        ({"helexa_image_units": 0}, None),
        ({"helexa_image_units": -1.0}, None),
        ({"helexa_image_units": True}, None),
        ({"helexa_image_units": "4"}, None),
        ({"helexa_image_units": 1e300}, None),
        ({"helexa_image_units": 1e306}, None),
        ({"total_tokens": 4}, None),
        (None, None),
    ],
)
def test_a_neurons_own_units_are_what_is_charged(usage: object, believed: Usage | None) -> None:
    body = json.dumps({"created": 1, "data": [{"b64_json": "AA=="}], "usage": usage}).encode()
    reply = told(understood(IMAGES, asked_with()).read(Document(body), UNKNOWN))
    assert (reply.body, reply.usage) == (body, believed)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"data":[]}', b'{"error":{}}'])
def test_what_has_no_pictures_is_no_answer(body: bytes) -> None:
    assert understood(IMAGES, asked_with()).read(Document(body), UNKNOWN) is None
