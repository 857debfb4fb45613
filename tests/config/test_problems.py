"""Claims about the report that an operator reads."""

import pytest

from cortexd.config.problems import (
    SHOWN_PROBLEMS_MAX,
    Place,
    Problem,
    Report,
    in_reading_order,
    render,
)


def test_a_report_names_place_path_cause_and_hint() -> None:
    problems = [
        Problem("a.b", "missing", "add b", source="x.yaml", line=3),
        Problem("", "not YAML", source="x.yaml"),
    ]
    assert render(problems) == (
        "x.yaml:3: a.b: missing\n    hint: add b\nx.yaml: not YAML\n2 problems in the configuration"
    )


def test_a_long_report_counts_what_it_leaves_out() -> None:
    text = render([Problem("a", "bad")] * (SHOWN_PROBLEMS_MAX + 7))
    assert text.count("a: bad\n") == SHOWN_PROBLEMS_MAX
    assert "... and 7 more\n" in text
    assert render([Problem("a", "bad")]).endswith("1 problem in the configuration")


def test_a_path_that_was_not_written_has_the_line_of_what_is_around_it() -> None:
    report = Report("x.yaml")
    report.places |= {"a": Place("x.yaml", 1), "a[2].b": Place("x.yaml", 5)}
    wheres = ("a[2].b.c", "a[2].x", "a[7]", "z")
    assert [report.place_of(where).line for where in wheres] == [5, 1, 1, None]


@pytest.mark.parametrize(
    ("name", "where", "hint"),
    [
        ("listne", "gateway.listne", "did you mean listen?"),
        ("LISTEN", "gateway.LISTEN", "did you mean listen?"),
        ("colour", "gateway.colour", "known here: listen, tls"),
        ("sk-12345", "gateway", "known here: listen, tls"),
        ("x" * 99, "gateway", "known here: listen, tls"),
    ],
)
def test_an_unknown_name_is_shown_only_when_it_looks_like_a_setting(
    name: str, where: str, hint: str
) -> None:
    report = Report("x.yaml")
    report.add_unknown("gateway", name, ["listen", "tls"])
    [problem] = report.problems
    assert (problem.where, problem.hint) == (where, hint)
    assert "sk-" not in str(problem)


def test_suggestions_end_where_nobody_reads_on() -> None:
    report = Report("x.yaml")
    report.problems += [Problem("a", "bad")] * SHOWN_PROBLEMS_MAX
    assert report.closest("listne", ["listen"]) is None


def test_problems_are_read_by_source_and_line() -> None:
    a9, a2 = Problem("", "", source="a", line=9), Problem("", "", source="a", line=2)
    b, variable = Problem("", "", source="b"), Problem("", "", source="CORTEXD_X")
    assert in_reading_order([b, a9, a2, variable], ["a", "b"]) == [variable, a2, a9, b]
