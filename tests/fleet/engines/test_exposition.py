"""Metrics as Prometheus text: what is read, and that there is an end to it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import generate_latest

from cortexd.fleet.engines.exposition import (
    LINE_CHARACTERS_MAX,
    LINES_MAX,
    SAMPLES_MAX,
    VALUE_LIMIT,
    Sample,
    read_samples,
    total,
)

LABELS = st.text(st.characters(codec="utf-8"), max_size=20)


@given(st.dictionaries(LABELS, st.integers(0, VALUE_LIMIT - 1), max_size=5))
def test_what_the_reference_library_writes_is_read_back(values: dict[str, int]) -> None:
    registry = CollectorRegistry()
    gauge = Gauge("busy", "requests", ["model_name"], registry=registry)
    for label, value in values.items():
        gauge.labels(label).set(value)
    samples = read_samples(generate_latest(registry), {"busy"})
    assert {sample.labels["model_name"]: sample.value for sample in samples} == values


@given(st.binary())
def test_any_bytes_can_be_read(body: bytes) -> None:
    for sample in read_samples(body + b"\na" + body, {"a"}):
        assert 0 <= sample.value < VALUE_LIMIT


def test_only_what_is_wanted_is_kept_and_nonsense_is_left_out() -> None:
    text = b'a{x="1"} 2\nb 3\na NaN\na -1\na +Inf\na 1e300\na two\n# a 9\na{x="2"} 4 1712000000\n'
    assert read_samples(text, {"a"}) == [Sample("a", 2, {"x": "1"}), Sample("a", 4, {"x": "2"})]


def test_a_label_may_hold_what_looks_like_the_end_of_the_labels() -> None:
    text = rb'a{x="} 7 \" \\ \n"} 5' + b"\n"
    assert read_samples(text, {"a"}) == [Sample("a", 5, {"x": '} 7 " \\ \n'})]


def test_labels_may_have_spaces_around_them_and_a_comma_behind_them() -> None:
    text = b'a{ x = "1" , y="2", } 5\n'
    assert read_samples(text, {"a"}) == [Sample("a", 5, {"x": "1", "y": "2"})]


def test_labels_are_read_up_to_the_first_fault() -> None:
    text = b'a{x="1",y z="2"} 5\na{?x="1"} 6\n'
    assert read_samples(text, {"a"}) == [Sample("a", 5, {"x": "1"}), Sample("a", 6)]


@pytest.mark.parametrize("fault", ["a", 'a="', "\\", 'a="\\', "{", "} ", " ", ","])
def test_a_line_with_a_fault_takes_no_longer_than_others(fault: str) -> None:
    """A search that began again at every character would take a thousand times as long."""

    def seconds(labels: str) -> float:
        line = "a{" + (labels * LINE_CHARACTERS_MAX)[: LINE_CHARACTERS_MAX - 5] + "} 1\n"
        began = time.process_time()
        assert len(read_samples(line.encode() * 20, {"a"})) == 20
        return time.process_time() - began

    assert seconds(fault) < 50 * max(seconds('x="1",'), 0.001)


def test_there_is_an_end_to_samples_lines_and_the_length_of_a_line() -> None:
    assert len(read_samples(b"a 1\n" * (2 * SAMPLES_MAX), {"a"})) == SAMPLES_MAX
    assert read_samples(b"\n" * LINES_MAX + b"a 1\n", {"a"}) == []
    assert read_samples(b'a{x="' + b"y" * LINE_CHARACTERS_MAX + b'"} 1\n', {"a"}) == []


def test_a_total_is_over_all_that_do_not_contradict_the_labels() -> None:
    samples = [Sample("a", 1.4, {"m": "x"}), Sample("a", 2, {"m": "y"}), Sample("a", 4)]
    assert total(samples, "a", m="x") == 5
    assert total(samples, "a") == 7
    assert total(samples, "b") is None
    huge = [Sample("a", VALUE_LIMIT - 1), Sample("a", VALUE_LIMIT - 1)]
    assert total(huge, "a") == VALUE_LIMIT - 1
