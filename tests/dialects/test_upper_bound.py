"""The bound: never too small, never absurd."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.dialects.asked import Asked, PromptSize
from cortexd.dialects.openai import understand_chat
from cortexd.dialects.refusals import Refusal, RefusalKind
from cortexd.dialects.upper_bound import OUTPUT_TOKENS_DEFAULT, Bound, ModelLimits, bound

UNKNOWN = ModelLimits(context_min=None, context_max=None, output=None)


def asked(
    *,
    text_bytes: int = 10,
    output_requested: int | None = None,
    choices: int = 1,
    prompt: PromptSize | None = None,
) -> Asked:
    return Asked(
        model="m",
        stream=False,
        include_usage=False,
        choices=choices,
        output_requested=output_requested,
        fields={},
        dropped=(),
        prompt=prompt or PromptSize(text_bytes=text_bytes),
    )


def bound_of(request: Asked, limits: ModelLimits = UNKNOWN, *, capped: bool = True) -> Bound:
    result = bound(request, limits, capped=capped)
    assert isinstance(result, Bound)
    return result


def test_a_short_request_fits_four_times_into_a_cap_of_a_hundred() -> None:
    body = b'{"model":"m","max_tokens":20,"messages":[{"role":"user","content":"hi"}]}'
    request = understand_chat(body)
    assert isinstance(request, Asked)
    assert bound_of(request).total <= 55


@pytest.mark.parametrize(
    ("limits", "requested", "output_tokens"),
    [
        (UNKNOWN, 20, 20),
        (UNKNOWN, None, OUTPUT_TOKENS_DEFAULT),
        (ModelLimits(None, None, 512), None, 512),
        (ModelLimits(None, None, 512), 900, 512),
        (ModelLimits(None, None, 512), 100, 100),
        (ModelLimits(100, 200, None), 900, 99),
        (ModelLimits(100, 200, None), None, 90),
        (ModelLimits(8192, 8192, 8000), None, 8000),
        (ModelLimits(8192, 8192, 9000), None, 8182),
        (ModelLimits(1, 1, None), None, 1),
        (ModelLimits(None, None, 0), 5, 1),
    ],
)
def test_the_output_is_the_smallest_limit_that_anyone_names(
    limits: ModelLimits, requested: int | None, output_tokens: int
) -> None:
    assert bound_of(asked(output_requested=requested), limits).output_tokens == output_tokens


def test_a_long_prompt_still_leaves_a_quarter_of_the_context_for_the_answer() -> None:
    """Bytes over-count tokens several times, so a prompt of 8000 bytes may leave much room."""
    limits = ModelLimits(context_min=8192, context_max=8192, output=None)
    assert bound_of(asked(text_bytes=8000), limits) == Bound(8000, 2048, 1)
    assert bound_of(asked(text_bytes=90_000), limits) == Bound(8192, 2048, 1)
    assert bound_of(asked(text_bytes=8000, output_requested=4000), limits).output_tokens == 4000


def test_every_choice_is_paid_for_and_the_prompt_once() -> None:
    assert bound_of(asked(output_requested=20, choices=5)) == Bound(10, 20, 5)
    assert Bound(10, 20, 5).total == 110


def test_tools_and_the_template_are_part_of_the_prompt() -> None:
    limits = ModelLimits(None, None, None, template_tokens=100)
    prompt = PromptSize(text_bytes=10, tools_bytes=1000)
    assert bound_of(asked(prompt=prompt), limits).prompt_tokens == 1110


def test_media_costs_its_ceiling_per_item() -> None:
    limits = ModelLimits(
        None, None, None, image_tokens_max=1000, audio_tokens_max=200, file_tokens_max=30
    )
    prompt = PromptSize(text_bytes=4, images=2, audios=3, files=4, media_bytes=10**6)
    assert bound_of(asked(prompt=prompt), limits).prompt_tokens == 2724


def test_a_prompt_may_meet_the_neuron_with_the_largest_context() -> None:
    """Which neuron serves it is not known yet, so the smallest context bounds no prompt."""
    limits = ModelLimits(context_min=100, context_max=1000, output=None)
    assert bound_of(asked(text_bytes=5000), limits).prompt_tokens == 1000
    assert bound_of(asked(text_bytes=500), limits).prompt_tokens == 500


def test_media_without_a_ceiling_costs_the_whole_context() -> None:
    limits = ModelLimits(8000, 9000, None, image_tokens_max=10)
    prompt = PromptSize(text_bytes=4, images=1, audios=1)
    assert bound_of(asked(prompt=prompt), limits).prompt_tokens == 9000


@pytest.mark.parametrize("medium", ["image", "audio", "file"])
def test_media_of_unknown_size_is_refused_on_a_capped_key_and_says_what_to_configure(
    medium: str,
) -> None:
    prompt = PromptSize(
        text_bytes=4,
        images=int(medium == "image"),
        audios=int(medium == "audio"),
        files=int(medium == "file"),
        media_bytes=500,
    )
    refusal = bound(asked(prompt=prompt), UNKNOWN, capped=True)
    assert isinstance(refusal, Refusal)
    assert refusal.kind is RefusalKind.UNSUPPORTED_PARAMETER
    assert f"{medium}_tokens_max" in refusal.message
    assert "limit.context" in refusal.message
    assert bound_of(asked(prompt=prompt), UNKNOWN, capped=False).prompt_tokens == 504


SIZES = st.integers(0, 10**6)
KNOWN = st.none() | st.integers(1, 200_000)


@given(SIZES, SIZES, KNOWN, KNOWN, st.none() | st.integers(1, 2**31 - 1), st.integers(1, 128))
def test_the_bound_grows_with_the_prompt_and_stays_within_the_context(
    smaller: int,
    more: int,
    context: int | None,
    output: int | None,
    requested: int | None,
    choices: int,
) -> None:
    limits = ModelLimits(context, context, output)
    small, large = (
        bound_of(asked(text_bytes=size, output_requested=requested, choices=choices), limits)
        for size in (smaller, smaller + more)
    )
    assert small.prompt_tokens <= large.prompt_tokens
    assert 1 <= large.output_tokens <= small.output_tokens
    if requested is not None or choices == 1:
        assert small.total <= large.total
    if context is not None:
        assert large.prompt_tokens <= context
        assert large.output_tokens <= max(1, context - 1)
