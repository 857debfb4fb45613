"""The manual as a promise: what can be set, asked, refused or measured stands in it."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import yaml
from msgspec import inspect

from cortexd import __version__
from cortexd.cli.main import VERBS, _parser
from cortexd.config import schema
from cortexd.config.convert import convert
from cortexd.config.load import load
from cortexd.config.problems import Report
from cortexd.daemon.metrics_listener import PATHS
from cortexd.dialects.refusals import TABLE
from cortexd.gateway.endpoints import ENDPOINTS
from cortexd.ledger.entries import Standing, key_scope
from cortexd.metrics import Metrics
from tests.cli.test_status import example_view

ROOT = Path(__file__).resolve().parents[1]
MANUAL = ROOT / "cortexd" / "manual"
PAGES = sorted(MANUAL.rglob("*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *PAGES]


def page(name: str) -> str:
    """One page of the manual."""
    return (MANUAL / name).read_text()


def said_in(text: str, word: str) -> bool:
    """Whether the word stands in the text as code, alone or with others."""
    return any(re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", span) for span in code_in(text))


def code_in(text: str) -> list[str]:
    """Everything that is set as code: blocks and spans."""
    return re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)


def settings_of(struct: type, seen: set[type]) -> Iterator[str]:
    """The names of all settings below a struct."""
    if struct in seen:
        return
    seen.add(struct)
    for field in msgspec.structs.fields(struct):
        yield field.name
        for inner in structs_in(inspect.type_info(field.type)):
            yield from settings_of(inner, seen)


def structs_in(info: inspect.Type) -> Iterator[type]:
    """The structs that a type is made of."""
    if isinstance(info, inspect.StructType):
        yield info.cls
    elif isinstance(info, inspect.UnionType):
        for one in info.types:
            yield from structs_in(one)
    elif isinstance(info, inspect.VarTupleType):
        yield from structs_in(info.item_type)
    elif isinstance(info, inspect.Metadata):
        yield from structs_in(info.type)


SETTINGS = sorted({*settings_of(schema.Config, set()), *settings_of(schema.Catalogue, set())})


def test_the_walk_over_the_settings_finds_nested_ones() -> None:
    assert {"listen", "certificate", "hard_cap", "seconds", "image_tokens_max"} <= set(SETTINGS)


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_is_in_the_manual(setting: str) -> None:
    text = page("configuration.md")
    assert said_in(text, setting) or f"\n## {setting}\n" in text


def flags() -> list[tuple[str, str]]:
    """Every verb with each of its flags."""
    parser = _parser(tuple(VERBS))
    [verbs] = [
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    ]
    return [
        (verb, flag)
        for verb, its in verbs.choices.items()
        for action in its._actions
        for flag in action.option_strings
        if flag not in ("-h", "--help")
    ]


def test_every_verb_has_a_section() -> None:
    headings = re.findall(r"^## (\S+)", page("command-line.md"), re.MULTILINE)
    assert set(VERBS) <= set(headings)


@pytest.mark.parametrize(("verb", "flag"), flags())
def test_every_flag_is_in_the_section_of_its_verb(verb: str, flag: str) -> None:
    section = page("command-line.md").partition(f"\n## {verb}")[2].partition("\n## ")[0]
    assert said_in(section, flag)


def test_every_refusal_is_in_the_catalogue_of_errors_with_its_status_and_no_other() -> None:
    lines = [line.split("|") for line in page("errors.md").splitlines() if line.startswith("| ")]
    written = {
        (status, code)
        for line in lines
        for status in re.findall(r"\d+", line[1])
        for code in re.findall(r"`(\w+)`", line[2])
    }
    assert written == {(str(row.status), row.code) for row in TABLE.values()}


def test_every_endpoint_is_in_the_manual() -> None:
    text = page("endpoints.md")
    for endpoint in ENDPOINTS:
        assert said_in(text, endpoint.path.replace("*", "{id}")), endpoint.path
    for path in PATHS:
        assert said_in(text, f"GET {path}"), path


def test_every_metric_is_in_the_manual_and_no_other() -> None:
    standing = Standing(key_scope("k"), 100, None, 1, 2, None)
    exposed = Metrics().exposition(example_view(), (standing,)).decode()
    names = set(re.findall(r"^# TYPE (\S+)", exposed, re.MULTILINE))
    names = {name for name in names if not name.endswith("_created")}
    written = set(re.findall(r"`(cortex_\w+)`", page("metrics.md")))
    assert names == written


def blocks() -> list[tuple[str, str]]:
    """Every YAML block of every document, with the name of its file."""
    found = []
    for document in DOCUMENTS:
        for block in re.findall(r"^( *)```yaml\n(.*?)^ *```", document.read_text(), re.M | re.S):
            indent, text = block
            lines = [line.removeprefix(indent) for line in text.splitlines()]
            found.append((document.name, "\n".join(lines)))
    return found


def test_there_are_examples() -> None:
    assert len(blocks()) >= 3


@pytest.mark.parametrize(("document", "text"), blocks())
def test_every_yaml_example_loads(document: str, text: str, tmp_path: Path) -> None:
    data = yaml.safe_load(text)
    if "models" in data:
        report = Report(document)
        convert(schema.Catalogue, data, report, lambda path: path)
        assert report.problems == []
    else:
        file = tmp_path / "cortexd.yaml"
        file.write_text(text)
        load(file, {}, {})


LINKS = [
    (document, target)
    for document in DOCUMENTS
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text())
    if "://" not in target
]


@pytest.mark.parametrize(("document", "target"), LINKS, ids=lambda value: str(value)[-40:])
def test_every_link_leads_somewhere(document: Path, target: str) -> None:
    assert (document.parent / target.partition("#")[0]).exists()


def test_every_page_can_be_reached_from_the_index() -> None:
    index = page("index.md")
    missing = [one.name for one in MANUAL.glob("*.md") if f"({one.name})" not in index]
    assert missing == ["index.md"]


def test_the_readme_names_only_commands_that_exist() -> None:
    rules = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    code = "\n".join(code_in((ROOT / "README.md").read_text()))
    named = set(re.findall(r"make ([a-z]+)\b", code))
    assert {"demo", "test"} <= named <= set(rules)


def test_the_changelog_knows_this_version_or_what_comes() -> None:
    headings = re.findall(r"^## (.*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert any(heading.startswith(("Unreleased", __version__)) for heading in headings)
