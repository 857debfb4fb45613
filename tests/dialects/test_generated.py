"""What counts as generated, under whichever name an engine says it."""

import pytest

from cortexd.dialects.generated import generated_bytes, seen_in
from cortexd.dialects.usage import Seen

CALL = {"id": "c", "function": {"name": "get", "arguments": '{"a":1}'}}


@pytest.mark.parametrize(
    ("said", "size"),
    [
        ({"content": "abc"}, 3),
        ({"content": "中"}, 3),
        ({"content": ""}, 0),
        ({"content": None, "role": "assistant"}, 0),
        ({"content": [{"text": "x"}]}, len('[{"text":"x"}]')),
        ({"content": "abc", "role": "assistant", "refusal": None, "annotations": []}, 3),
        ({"content": "abc", "refusal": "no"}, 5),
        ({"content": "abc", "reasoning_content": "hmm", "reasoning": "hmm"}, 6),
        ({"content": "abc", "thinking": "é"}, 5),
        ({"content": None, "tool_calls": [CALL, "odd", {"function": "odd"}]}, 10),
        ({"tool_calls": "odd", "function_call": {"name": "f", "arguments": {"a": 1}}}, 8),
    ],
)
def test_everything_that_was_generated_counts(said: dict[str, object], size: int) -> None:
    assert generated_bytes({"delta": said}) == size
    assert generated_bytes({"message": said, "text": None}) == size
    assert generated_bytes({"delta": {}, "message": said}) == size


def test_text_of_older_engines_counts_beside_a_message_or_without_one() -> None:
    assert generated_bytes({"text": "ab"}) == 2
    assert generated_bytes({"text": "ab", "delta": "odd"}) == 2
    assert generated_bytes({"text": "ab", "message": {"role": "assistant", "content": "c"}}) == 3


def test_of_a_whole_answer_each_choice_that_holds_something_is_a_piece() -> None:
    choices: list[object] = [{"text": "ab"}, {"text": ""}, {"message": {"content": "c"}}, "odd", 3]
    assert seen_in(choices) == Seen(chunks=2, text_bytes=3)
