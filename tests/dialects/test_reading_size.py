"""Texts for models that only read: bounded whatever their normaliser makes of them."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.dialects.reading_size import ENDS, read_bytes


def test_plain_text_costs_its_bytes_and_the_marks_at_its_ends() -> None:
    assert read_bytes("hello") == 5 + ENDS


@pytest.mark.parametrize("character", ["\ufdfa", "\U0001d1c0", "İ", "각", "ﬃ"])
def test_a_character_that_grows_is_paid_for_at_its_longest(character: str) -> None:
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        normal = unicodedata.normalize(form, character * 300)
        assert read_bytes(character * 300) >= max(
            len(normal.encode()), len(normal.lower().encode())
        )


@given(st.text(max_size=400))
def test_no_normaliser_makes_more_bytes_than_are_reserved(text: str) -> None:
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert len(unicodedata.normalize(form, text).encode()) <= read_bytes(text)
