"""Which usage objects are believed."""

import pytest

from cortexd.dialects.usage import TOKENS_LIMIT, Usage, read_usage


def test_an_ordinary_usage_object_is_read() -> None:
    reported = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
    assert read_usage(reported) == Usage(prompt_tokens=12, completion_tokens=3)
    assert Usage(prompt_tokens=12, completion_tokens=3).total == 15


def test_zero_completion_tokens_are_believed_because_an_answer_can_be_empty() -> None:
    assert read_usage({"prompt_tokens": 5, "completion_tokens": 0}) == Usage(5, 0)


@pytest.mark.parametrize(
    ("details", "cached"),
    [
        ({"cached_tokens": 4}, 4),
        ({"cached_tokens": 99}, 12),
        ({"cached_tokens": -4}, 0),
        ({"cached_tokens": True}, 0),
        ({}, 0),
        (None, 0),
        ("many", 0),
    ],
)
def test_cached_tokens_are_part_of_the_prompt_or_ignored(details: object, cached: int) -> None:
    reported = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": details}
    assert read_usage(reported) == Usage(12, 3, cached)


@pytest.mark.parametrize(
    "reported",
    [
        None,
        [],
        "usage",
        7,
        {},
        {"prompt_tokens": 12},
        {"completion_tokens": 3},
        {"prompt_tokens": 0, "completion_tokens": 3},
        {"prompt_tokens": -1, "completion_tokens": 3},
        {"prompt_tokens": 12, "completion_tokens": -3},
        {"prompt_tokens": 12.0, "completion_tokens": 3},
        {"prompt_tokens": 12, "completion_tokens": 3.5},
        {"prompt_tokens": "12", "completion_tokens": 3},
        {"prompt_tokens": True, "completion_tokens": 3},
        {"prompt_tokens": 12, "completion_tokens": False},
        {"prompt_tokens": 12, "completion_tokens": None},
        {"prompt_tokens": TOKENS_LIMIT, "completion_tokens": 3},
        {"prompt_tokens": 12, "completion_tokens": 10**40},
    ],
)
def test_an_unbelievable_usage_object_is_no_usage(reported: object) -> None:
    assert read_usage(reported) is None
