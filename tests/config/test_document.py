"""Claims about YAML: what is read, what is refused, and that no document is expensive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.config.document import (
    BROKEN,
    DEPTH_MAX,
    NODES_MAX,
    FastLoader,
    PlainLoader,
    ScalarFault,
    read_document,
    read_scalar,
)
from cortexd.config.problems import Report

Loader = type[PlainLoader] | type[FastLoader]

both = pytest.mark.parametrize("loader", [PlainLoader, FastLoader])


def read(text: str, loader: Loader = FastLoader) -> tuple[object, Report]:
    report = Report("f.yaml")
    return read_document(text, report, loader), report


@both
def test_values_come_with_the_line_they_stand_on(loader: Loader) -> None:
    data, report = read("a: 1\nb:\n  - x\n  - c: yes\n    d: 1.5\n", loader)
    assert data == {"a": 1, "b": ["x", {"c": True, "d": 1.5}]}
    lines = {path: place.line for path, place in report.places.items()}
    assert lines == {"a": 1, "b": 2, "b[0]": 3, "b[1]": 4, "b[1].c": 4, "b[1].d": 5}
    assert report.problems == []


@both
@pytest.mark.parametrize("text", ["", "# only words\n", "---\n", "\ufeff"])
def test_an_empty_document_is_none(loader: Loader, text: str) -> None:
    data, report = read(text, loader)
    assert data is None
    assert report.problems == []


def test_names_stay_as_they_were_written() -> None:
    data, _ = read("yes: 1\n1.50: 2\nnull: 3\n")
    assert data == {"yes": 1, "1.50": 2, "null": 3}


def test_aliases_and_merges_are_followed_and_what_is_written_wins() -> None:
    data, report = read("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\nc: {<<: [{x: 9}, *a]}\nd: *a\n")
    assert data == {
        "a": {"x": 1, "y": 2},
        "b": {"y": 3, "x": 1},
        "c": {"x": 9, "y": 2},
        "d": {"x": 1, "y": 2},
    }
    assert report.place_of("b.y").line == 4
    assert report.problems == []


@both
def test_a_name_that_is_there_twice_is_a_problem_on_its_second_line(loader: Loader) -> None:
    _, report = read("a:\n  b: 1\n  c: 2\n  b: 3\n", loader)
    [problem] = report.problems
    assert (problem.where, problem.line) == ("a", 4)
    assert problem.what == "b is here twice (first on line 2)"


def test_a_double_name_that_may_be_a_secret_is_not_shown() -> None:
    _, report = read("sk-12: 1\nsk-12: 2\n")
    assert [problem.what for problem in report.problems] == [
        "a name is here twice (first on line 1)"
    ]


@both
@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: [1", "not YAML: a bracket that is never closed"),
        ("a: b: c", "not YAML: a colon where none can be"),
        ("a: 'x", "not YAML: a quote that is never closed"),
        ("a: 1\n  b: 2\n", "not YAML: a colon where none can be"),
        ("\ta: 1", "not YAML: a tab where spaces must be, or a sign that no value starts with"),
        ("a: @x", "not YAML: a tab where spaces must be, or a sign that no value starts with"),
        ("a:\n   b: 1\n  c: 2\n", "not YAML: the indentation does not fit the lines above"),
        ("a:\n  b\nc\n", "not YAML: a name without a colon after it"),
        ("%YAML 9.9\n---\na: 1\n", "not YAML: its syntax is broken"),
        ("a: *sk-x", "not YAML: a value starts with * (an alias), and nothing has that anchor"),
        ("a: 1\n---\nb: 2\n", "not YAML: a second document starts here"),
        ("a: !sk-x y", "a YAML tag (!name)"),
        ("a: !!python/object/apply:os.system [x]", "a YAML tag (!name)"),
        ("a: \0", "a character that YAML does not allow"),
        ("? [a]\n: b", "a name that is not plain text"),
        ('x: {"a\\tb": 1}', "a name that is not plain text in x"),
        ("a: {<<: 1}", "<< is not followed by a mapping"),
        ("a: &a [*a]", "aliases (*name) that unfold to too much"),
        ("a: &a {<<: *a}", "aliases (*name) that unfold to too much"),
    ],
)
def test_what_cannot_be_read_is_one_problem_that_repeats_nothing(
    loader: Loader, text: str, what: str
) -> None:
    data, report = read(text, loader)
    assert data is BROKEN
    [problem] = report.problems
    assert problem.what == what
    assert problem.hint
    assert "sk-x" not in str(problem)


@pytest.mark.parametrize(
    "value",
    ["0b_", "2020-13-45", "=", '"a\\tb"', "|\n  x\n  y", "9" * 5000, "0100", "1:30", "1:30.5"],
)
def test_a_value_that_cannot_be_one_spoils_only_itself(value: str) -> None:
    data, report = read(f"a: {value}\nb: 2\n")
    assert data == {"a": BROKEN, "b": 2}
    assert [(problem.where, problem.line) for problem in report.problems] == [("a", 1)]


@both
def test_a_character_that_yaml_does_not_allow_is_told_with_its_line(loader: Loader) -> None:
    _, report = read("a: 1\nb: \0\n", loader)
    assert [problem.line for problem in report.problems] == [2]


LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i + 1}: &a{i + 1} [{','.join([f'*a{i}'] * 9)}]\n" for i in range(9)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i + 1}: &a{i + 1} {{<<: [{','.join([f'*a{i}'] * 9)}]}}\n" for i in range(9)
)


@pytest.mark.slow
@pytest.mark.parametrize("bomb", [LAUGHS, MERGES])
def test_a_bomb_of_aliases_is_defused(bomb: str) -> None:
    data, report = read(bomb)
    assert data is BROKEN
    assert [each.what for each in report.problems] == ["aliases (*name) that unfold to too much"]


@both
@pytest.mark.parametrize("piece", ["[", "{a: ", "- ", "? "])
def test_nesting_ends_long_before_the_stack_does(loader: Loader, piece: str) -> None:
    data, report = read(piece * 10_000, loader)
    assert data is BROKEN
    assert [each.what for each in report.problems] == [f"nested deeper than {DEPTH_MAX} levels"]


@pytest.mark.slow
def test_a_document_of_too_many_values_is_refused() -> None:
    data, report = read("- 1\n" * (NODES_MAX + 1))
    assert data is BROKEN
    assert [each.what for each in report.problems] == [f"more than {NODES_MAX} values"]


@both
@given(text=st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"#%@`,?<= \n\t0x1._~\\u\ufeff\x85")))
def test_no_text_crashes_the_reader(loader: Loader, text: str) -> None:
    data, report = read(text, loader)
    assert data is not BROKEN or report.problems


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("0", 0), ("02.5", 2.5), ("0x10", 16), ("yes", True), ("", None), ("lru", "lru")],
)
def test_a_lone_scalar_is_read_as_without_quotes(text: str, value: object) -> None:
    assert read_scalar(text) == value


@pytest.mark.parametrize("text", ["a\tb", "0100", "1:30"])
def test_a_lone_scalar_that_is_not_what_it_looks_like_is_a_fault(text: str) -> None:
    with pytest.raises(ScalarFault):
        read_scalar(text)


@pytest.mark.parametrize("text", ["'0100'", "'1:30'", "1:30:x", "h:1", "08"])
def test_a_text_with_zeros_and_colons_is_a_text(text: str) -> None:
    data, report = read(f"a: {text}")
    assert (data, report.problems) == ({"a": text.strip("'")}, [])
