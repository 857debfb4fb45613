"""Prompts that cannot fit: told beforehand, and never of one that would have fitted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.dialects.asked import Asked, PromptSize
from cortexd.dialects.context_fit import (
    CHARACTERS_PER_NORMAL,
    TOKEN_BYTES_MAX,
    least_chat_tokens,
    least_text_tokens,
    over_context,
)
from cortexd.dialects.refusals import RefusalKind, render
from cortexd.dialects.upper_bound import ModelLimits


def test_a_text_is_at_least_its_bytes_by_the_longest_token() -> None:
    assert least_text_tokens("x" * TOKEN_BYTES_MAX * 10) == 10
    assert least_text_tokens("x" * (TOKEN_BYTES_MAX - 1)) == 0


@pytest.mark.parametrize("text", [" " * 10_000, "\n\t" * 5_000, "\u200b" * 10_000, "\x00" * 9_999])
def test_what_a_tokenizer_may_drop_counts_nothing(text: str) -> None:
    assert least_text_tokens(text) == 0


@given(st.text(max_size=2000))
def test_the_least_is_never_more_than_a_token_for_every_longest_run(text: str) -> None:
    assert least_text_tokens(text) <= len(text.encode()) / TOKEN_BYTES_MAX
    composed = len(text) / 4
    assert least_text_tokens(text + "é") <= composed / TOKEN_BYTES_MAX + 1


@given(st.text(st.characters() | st.sampled_from("aé中 .²½ⅷ_\u0301"), min_size=520, max_size=900))
def test_of_text_in_any_script_letters_and_digits_are_counted(text: str) -> None:
    text = text * 20 + "é"
    seen = sum(map(str.isalnum, text))
    assert least_text_tokens(text) == seen // CHARACTERS_PER_NORMAL // TOKEN_BYTES_MAX


def test_only_what_every_template_writes_out_is_counted() -> None:
    long = "x" * TOKEN_BYTES_MAX * 10
    part = {"type": "text", "text": long}
    image = {"type": "image_url", "image_url": {"url": "data:" + long}}
    said: list[dict[str, object]] = [
        {"role": "user", "content": long},
        {"role": "user", "content": [part, image, "odd"]},
        {"role": "user", "content": None},
        {"role": "assistant", "content": long},
        {"role": "system", "content": long},
        {"role": "tool", "content": long},
        {"content": long},
    ]
    assert least_chat_tokens(said) == 20


def asked(least_tokens: int) -> Asked:
    return Asked(
        model="m",
        stream=False,
        include_usage=False,
        choices=1,
        output_requested=None,
        fields={},
        dropped=(),
        prompt=PromptSize(0),
        least_tokens=least_tokens,
    )


@pytest.mark.parametrize(("least", "context"), [(100, 100), (5, 100), (10**9, None)])
def test_what_may_fit_somewhere_is_not_refused(least: int, context: int | None) -> None:
    assert over_context(asked(least), ModelLimits(10, context, None)) is None


def test_a_refusal_has_the_words_by_which_clients_know_it() -> None:
    refusal = over_context(asked(101), ModelLimits(50, 100, None))
    assert refusal is not None
    assert refusal.kind is RefusalKind.CONTEXT_LENGTH_EXCEEDED
    assert refusal.message.startswith(
        "This model's maximum context length is 100 tokens. However, your messages resulted in "
        "101 tokens"
    )
    assert render(refusal, request_id="r").status == 400
