"""The simulated words."""

from itertools import islice, pairwise

from cortexd.demo.words import embedding, natural_length, reply_tokens, thought_tokens


def test_the_same_seed_says_the_same_and_another_seed_something_else() -> None:
    first, again, other = (list(islice(reply_tokens(seed), 200)) for seed in ("a", "a", "b"))

    assert first == again
    assert first != other


def test_no_token_is_said_twice_in_a_row() -> None:
    for seed in map(str, range(50)):
        assert all(left != right for left, right in pairwise(islice(reply_tokens(seed), 500)))


def test_tokens_join_to_sentences() -> None:
    text = "".join(islice(reply_tokens("x"), 300))

    assert text[0].isupper()
    assert "  " not in text
    assert " ." not in text
    assert ". " in text


def test_a_long_reply_uses_many_different_words() -> None:
    assert len(set(islice(reply_tokens("x"), 500))) > 80


def test_natural_lengths_fill_their_range() -> None:
    lengths = {natural_length(str(seed), shortest=10, longest=60) for seed in range(2000)}

    assert (min(lengths), max(lengths)) == (10, 60)


def test_thoughts_are_short_and_depend_on_the_seed() -> None:
    lengths = {len(thought_tokens(str(seed))) for seed in range(200)}

    assert min(lengths) == 5
    assert max(lengths) == 17


def test_an_embedding_has_length_one_and_depends_on_the_text() -> None:
    vector = embedding("hello", 16)

    assert len(vector) == 16
    assert abs(sum(value * value for value in vector) - 1) < 1e-9
    assert vector != embedding("hullo", 16)


def test_a_seed_may_hold_what_utf8_cannot() -> None:
    assert next(reply_tokens("\ud800"))
