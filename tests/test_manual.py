"""The manual as a promise: what can be set, asked, refused or measured stands in it, and no other.

Tables of the manual are read and compared with the tables of the code, both ways, so that neither
can grow or shrink alone. Examples are run, links are followed, recorded messages are made again.
"""

import argparse
import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

import msgspec
import pytest
import yaml
from msgspec import inspect
from prometheus_client.parser import text_string_to_metric_families

from cortexd import __version__
from cortexd.cli import main as command_line
from cortexd.config import schema
from cortexd.config.load import load
from cortexd.daemon import request_log
from cortexd.daemon.metrics_listener import PATHS
from cortexd.demo.world import BALANCE_KEY
from cortexd.dialects import fields, refusals
from cortexd.dialects.upper_bound import OUTPUT_TOKENS_DEFAULT
from cortexd.dialects.usage import EndingKind, Usage
from cortexd.finished import Finished
from cortexd.fleet.breaker import State
from cortexd.fleet.lines import Clock
from cortexd.fleet.orders import Failure
from cortexd.fleet.orders import Why as Reason
from cortexd.fleet.reports import ModelId
from cortexd.fleet.serving import Cause, Unserved
from cortexd.fleet.view import DeviceView, FleetView, NeuronName
from cortexd.gateway import answers, no_work
from cortexd.gateway.auth import PRINCIPAL_HEADERS
from cortexd.gateway.budget import over_cap
from cortexd.gateway.endpoints import ENDPOINTS
from cortexd.gateway.learning import BESIDE_TOOLS_TOKENS_MAX, TEMPLATE_TOKENS_MAX
from cortexd.ledger.cap_windows import BALANCE, rolling
from cortexd.ledger.charging import IN_FLIGHT_TOKENS, Charge
from cortexd.ledger.entries import Refused, Standing, Why, key_scope
from cortexd.metrics.fleet import FleetInstruments
from cortexd.metrics.instruments import Metrics
from tests.cli.test_status import example_view

ROOT = Path(__file__).resolve().parents[1]
MANUAL = ROOT / "cortexd" / "manual"
DECISIONS = sorted((MANUAL / "decisions").glob("*.md"))
CLIENT_PAGES = sorted((MANUAL / "clients").glob("*.md"))
PAGES = [*sorted(MANUAL.glob("*.md")), *CLIENT_PAGES, *DECISIONS]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *PAGES]

STANDING = Standing(key_scope("k"), 100, rolling(60_000), 1, 2, 900)
CAPPED = (STANDING, msgspec.structs.replace(STANDING, unit="req"))
FINISHED = Finished(
    request_id="req_1",
    method="POST",
    path="/v1/chat/completions",
    status=200,
    duration_seconds=2,
    account_id="a",
    key_id="k",
    model="org/model",
    neuron="beast",
    stream=True,
    code="rate_limit_exceeded",
    refused=Refused(STANDING, asked=200, fits_in_ms=None, exact=False),
    would_refuse=Refused(STANDING, asked=200, fits_in_ms=None, exact=False),
    unjournalled=True,
    clamped_from=500,
    reserved=50,
    charge=Charge(60, 40, 20, "settle", overrun=10),
    usage=Usage(40, 20),
    ending=EndingKind.COMPLETED,
    failure="none really",
    waited_ms=1500,
    unserved=Unserved(Cause.LOADING),
    first_token_seconds=1,
    dropped=("n_predict",),
    notes=("bad_tool_arguments",),
    retry_count="1",
)
"""A request with every fact that there can be of one."""


# Reading Markdown.


def page(name: str) -> str:
    """One page of the manual."""
    return (MANUAL / name).read_text()


def without_blocks(text: str) -> str:
    """The text without its fenced blocks, in which a # is no heading."""
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks in one language, without the indentation of a list around them."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    return [re.sub(f"^{indent}", "", inside, flags=re.MULTILINE) for indent, inside in found]


def spans(text: str) -> list[str]:
    """What is set as code within a line."""
    return re.findall(r"`([^`\n]+)`", without_blocks(text))


def section(text: str, heading: str) -> str:
    """What stands between a heading and the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"no section {heading}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row that begins with code or a number; so no headings."""
    lines = [line.strip("|") for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]
    return [row for row in cells if spans(row[0]) or row[0].isdigit()]


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as forges make them."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# Settings.

SECTIONS: Mapping[type, str] = {
    schema.Config: "The file",
    schema.Gateway: "gateway",
    schema.Tls: "gateway.tls",
    schema.Neuron: "neurons",
    schema.Polling: "polling",
    schema.Waiting: "waiting",
    schema.Entitlements: "entitlements",
    schema.Account: "entitlements.accounts",
    schema.Key: "entitlements.keys",
    schema.RollingWindow: "Windows",
    schema.BalanceWindow: "Windows",
    schema.FixedWindow: "Windows",
    schema.CalendarWindow: "Windows",
    schema.TokenCap: "caps",
    schema.RequestCap: "max_requests",
    schema.Ledger: "ledger",
    schema.Eviction: "eviction",
    schema.Catalogue: "The catalogue",
    schema.CatalogueModel: "models",
    schema.Limit: "limit",
    schema.Cost: "cost",
}


def structs_below(struct: type) -> set[type]:
    """A struct and all that its settings are made of."""
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    inner = {one for field in info.fields for one in structs_in(field.type)}
    return {struct}.union(*(structs_below(one) for one in inner))


def structs_in(info: inspect.Type) -> Iterator[type]:
    """The structs that a type is made of."""
    match info:
        case inspect.StructType():
            yield info.cls
        case inspect.UnionType():
            for one in info.types:
                yield from structs_in(one)
        case inspect.VarTupleType():
            yield from structs_in(info.item_type)
        case inspect.Metadata():
            yield from structs_in(info.type)


def written_default(field: msgspec.structs.FieldInfo) -> str | None:
    """How the manual has to write a default; None where it is told in words."""
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value:
        return f"`{value}`"
    return "empty" if value in ((), {}) and value != "" else None


def test_every_struct_has_a_section() -> None:
    assert structs_below(schema.Config) | structs_below(schema.Catalogue) == set(SECTIONS)


@pytest.mark.parametrize("struct", SECTIONS)
def test_the_settings_of_a_struct_are_those_of_its_section_with_their_defaults(
    struct: type[msgspec.Struct],
) -> None:
    written = {
        row[0].strip("`"): row[1]
        for row in rows(section(page("configuration.md"), SECTIONS[struct]))
    }
    settings = {field.name: field for field in msgspec.structs.fields(struct)}
    if SECTIONS[struct] == "Windows":
        assert set(written) == {"kind", "seconds", "period", "time_zone"} >= set(settings)
    else:
        assert set(written) == set(settings)
    for name, field in settings.items():
        wanted = written_default(field)
        if wanted is not None:
            assert written[name] == wanted, name
        else:
            in_words = not re.fullmatch(r"[\d.]+|`[^`]*`|empty|required|", written[name])
            assert in_words, (name, written[name])


def test_every_path_of_a_setting_that_is_named_anywhere_exists() -> None:
    rooms = "|".join(schema.Config.__struct_fields__)
    named = {
        path
        for document in DOCUMENTS
        for span in spans(document.read_text())
        for path in re.findall(rf"(?<![\w./])((?:{rooms})(?:\.[a-z_]+)+)", span)
    }
    assert {"gateway.listen", "ledger.on_reboot"} <= named
    for path in named:
        struct: type | None = schema.Config
        for name in path.split("."):
            assert struct is not None, path
            found = {field.name: field for field in msgspec.structs.fields(struct)}
            assert name in found, path
            inner = list(structs_in(inspect.type_info(found[name].type)))
            struct = inner[0] if inner else None


def environment_variables() -> set[str]:
    """Every text in the code that is a variable of the environment by its looks.

    Without those of other programs, which their snippets set.
    """
    ours = [path for path in (ROOT / "cortexd").rglob("*.py") if path.parent.name != "clients"]
    sources = [*ours, ROOT / "packaging" / "bootstrap.py"]
    found = set[str]()
    for source in sources:
        tree = ast.parse(source.read_text())
        exported = {
            id(inner)
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            text = str(node.value) if isinstance(node, ast.Constant) else ""
            if id(node) not in exported and re.fullmatch(r"[A-Z]{2,}(_[A-Z]+)+", text):
                found.add(text)
    return found


def test_every_variable_of_the_environment_is_in_the_manual_and_no_other() -> None:
    table = rows(section(page("configuration.md"), "Variables of the environment"))
    written = {name for row in table for name in spans(row[0])}
    assert written == environment_variables() | {"CORTEXD_..."}


def test_a_variable_is_named_as_the_manual_says(tmp_path: Path) -> None:
    """`CORTEXD_` and the path in capitals, two underscores between levels, for single values."""
    file = tmp_path / "cortexd.yaml"
    file.write_text("{}")
    environment = {"CORTEXD_LEDGER__DIRECTORY": str(tmp_path / "ledger")}
    for room, struct in (
        ("gateway", schema.Gateway),
        ("polling", schema.Polling),
        ("waiting", schema.Waiting),
    ):
        for field in msgspec.structs.fields(struct):
            if isinstance(field.default, int | str):
                environment[f"CORTEXD_{room}__{field.name}".upper()] = str(field.default)
    assert len(environment) > 15
    config = load(file, environment, {}).config
    assert (config.gateway, config.waiting) == (schema.Gateway(), schema.Waiting())


@pytest.mark.parametrize(
    "example",
    sorted(
        {
            span
            for document in DOCUMENTS
            for span in spans(document.read_text())
            if re.fullmatch(r"CORTEXD_\w+=\S+", span)
        }
    ),
)
def test_every_example_of_a_variable_is_understood(example: str, tmp_path: Path) -> None:
    file = tmp_path / "cortexd.yaml"
    file.write_text(f"ledger: {{directory: {tmp_path / 'ledger'}}}")
    load(file, dict([example.split("=", 1)]), {})


# The command line.


def verbs() -> Mapping[str, argparse.ArgumentParser]:
    """Every verb with its parser, and every question of `ledger` likewise."""
    found = parsers_below(command_line._parser(tuple(command_line.VERBS)))
    questions = parsers_below(found["ledger"])
    return {**found, **{f"ledger {name}": parser for name, parser in questions.items()}}


def parsers_below(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of what can follow."""
    actions = parser._actions
    [found] = [action for action in actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found.choices)


def test_the_sections_are_the_verbs() -> None:
    headings = re.findall(r"^## (.*)$", without_blocks(page("command-line.md")), re.MULTILINE)
    assert headings == list(command_line.VERBS)


@pytest.mark.parametrize("verb", verbs())
def test_the_flags_of_a_verb_are_those_of_its_section(verb: str) -> None:
    table = rows(section(without_blocks(page("command-line.md")), verb))
    written = {flag for row in table for span in spans(row[0]) for flag in [span.split()[0]]}
    flags = {flag for action in verbs()[verb]._actions for flag in action.option_strings}
    assert written == flags - {"-h", "--help", "--version"}


def test_every_flag_that_is_named_anywhere_exists() -> None:
    known = {flag for verb in verbs().values() for a in verb._actions for flag in a.option_strings}
    code = "\n".join(document.read_text() for document in DOCUMENTS)
    used = re.findall(r"cortexd(?:\.pyz)? ([a-z-]+)((?: [^\n`]*)?)", code)
    named = {
        flag
        for verb, rest in used
        if verb in verbs()
        for flag in re.findall(r" (--\w[\w-]*)", rest)
    }
    assert {"--config", "--json"} & named
    assert named <= known


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    table = section(page("command-line.md"), "Command line")
    assert [row[0] for row in rows(table)] == ["0", "1", "2", str(command_line.INTERRUPTED)]


def test_the_recorded_report_is_what_check_config_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [recorded] = [
        each for each in blocks(page("command-line.md"), "console") if "check-config" in each
    ]
    (tmp_path / "fleet.yaml").write_text(
        "gateway:\n  lisen: 127.0.0.1:31313\n"
        "neurons:\n  - name: beast\n    endpoint: http://beast.internal:13131/v1\n"
        "entitlements:\n  keys:\n    - {key: sk-alice, account_id: alice, hard_cap: -5}\n"
        "    - {key: sk-alice, account_id: bob, window: {kind: rolling}}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CORTEXD_POLLING__INTERVAL", "2")
    assert command_line.main(["check-config", "fleet.yaml"]) == 2
    printed = capsys.readouterr().out.splitlines()
    assert recorded.splitlines()[1:-2] == printed


# Endpoints, headers, fields.


def test_the_endpoints_of_both_listeners_are_those_of_the_manual() -> None:
    text = page("endpoints.md")
    written = {
        span: row[1]
        for row in rows(section(text, "The gateway listener"))
        for span in spans(row[0])
        if "/" in span
    }
    assert written == {
        f"{method} {row.path.replace('*', '{id}')}": "no" if row.public else "yes"
        for row in ENDPOINTS
        for method in row.methods
    }
    read_only = {row[0] for row in rows(section(text, "The metrics listener"))}
    assert read_only == {f"`GET {path}`" for path in PATHS}


def test_every_header_that_cortexd_sends_is_in_the_manual() -> None:
    told = {
        span.split(":")[0] for name in ("endpoints.md", "errors.md") for span in spans(page(name))
    }
    sent = [
        *answers.plain_headers("r", "application/json"),
        *answers.stream_headers("r"),
        *(header for row in ENDPOINTS for header in row.limits(CAPPED, wall_ms=0)),
        *(
            header
            for kind in refusals.RefusalKind
            for header in refusals.render(
                refusals.Refusal(kind, "", retry_after_seconds=100, allowed_methods=("GET",)),
                request_id="r",
            ).headers
        ),
    ]
    assert {name.decode() for name, _ in sent} - {"content-type", "www-authenticate"} <= told


def test_every_header_that_a_neuron_gets_is_in_the_manual() -> None:
    assert {name.decode() for name in PRINCIPAL_HEADERS} <= set(spans(page("neurons.md")))


@pytest.mark.parametrize(
    ("beginning", "names"),
    [
        ("Forwarded, byte for byte, and counted", fields.RENDERED | {"messages"}),
        ("Forwarded, and never part of the prompt", fields.HARMLESS),
        ("Never forwarded", fields.NEVER_FORWARDED),
        (
            "Taken out of `chat_template_kwargs`",
            fields.TEMPLATE_KWARGS_REMOVED
            | {"chat_template_kwargs", *fields.TEMPLATE_MARK_ENDINGS},
        ),
    ],
)
def test_the_lists_of_fields_are_those_of_the_code(beginning: str, names: frozenset[str]) -> None:
    text = section(page("endpoints.md"), "Fields of the body")
    [paragraph] = [each for each in text.split("\n\n") if each.startswith(f"**{beginning}")]
    assert set(spans(paragraph)) == names


# Errors.

AGAIN = {refusals.Retry.NEVER: "no", refusals.Retry.MAYBE: "maybe", refusals.Retry.LATER: "later"}


def test_the_catalogue_of_errors_is_the_table_of_refusals() -> None:
    table = [row for row in rows(page("errors.md")) if row[0].isdigit()]
    written = {(int(row[0]), row[1].strip("`"), row[2].strip("`"), row[3]) for row in table}
    assert written == {
        (row.status, row.code, row.type, AGAIN[row.retry]) for row in refusals.TABLE.values()
    }
    assert all(row[4] and row[5] for row in table), "a cause and an advice for each"


def test_recorded_refusals_say_what_cortexd_says() -> None:
    found = re.findall(r'"(Token budget of key [^"]*)"', (ROOT / "README.md").read_text())
    assert found
    for message in found:
        cap, spent, reserved, left, asked = map(int, re.findall(r"\d+(?= )|\d+(?=\.)", message))
        assert spent + reserved + left == cap < spent + asked
        balance = Standing(key_scope("demo-balance"), cap, BALANCE, spent, reserved, None)
        again = over_cap(Refused(balance, asked, None, exact=False), wall_ms=0)
        assert message == again.message


# Budgets.


def test_every_reason_of_a_charge_is_told() -> None:
    table = rows(section(page("budgets.md"), "What each ending costs"))
    endings = {
        line.split("|")[2]
        for line in section(page("budgets.md"), "What each ending costs").splitlines()
        if line.startswith("| ")
    }
    told = {span for cell in endings for span in spans(cell)} - {"why"}
    assert told == set(get_args(Why)) - {"unknown"}, table


def test_the_statuses_that_cost_nothing_are_those_of_the_code() -> None:
    lines = section(page("budgets.md"), "What each ending costs").splitlines()
    [line] = [line for line in lines if "or a redirect" in line]
    assert {int(status) for status in re.findall(r"\d+", line)} == (
        no_work.ABOUT_A_PROMPT | no_work.BEFORE_ANY_PROMPT
    )


def test_the_numbers_of_the_rules_are_those_of_the_code() -> None:
    text = page("budgets.md")
    numbers = IN_FLIGHT_TOKENS, TEMPLATE_TOKENS_MAX, BESIDE_TOOLS_TOKENS_MAX, OUTPUT_TOKENS_DEFAULT
    for number in numbers:
        assert re.search(rf"\b{number}\b", text), number


# Metrics and the log.


def test_the_metrics_are_those_of_the_manual_with_their_types_and_labels() -> None:
    metrics = Metrics(lambda: 0.0)
    metrics.request(FINISHED)
    observe_everything(metrics.fleet)
    scraped = {}
    text = metrics.exposition(view_of_everything(), (STANDING,), "ok", clock_skew_ms=0).decode()
    for family in text_string_to_metric_families(text):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        if not family.name.endswith("_created"):
            scraped[name] = (family.type, labels)
    written = {
        name: (row[1], set(filter(None, row[2].split(", "))))
        for row in rows(page("metrics.md"))
        for name in spans(row[0])
    }
    assert written == scraped


def observe_everything(fleet: FleetInstruments) -> None:
    """A series of every instrument of the fleet: a label shows only where there is one."""
    model, neuron = ModelId("org/model"), NeuronName("beast")
    fleet.load_began(model, neuron, (), expected_ms=1)
    fleet.load_ended(model, neuron, took_ms=1)
    fleet.load_failed(model, neuron, Failure("no disk"), retry_in_ms=1)
    fleet.unloaded(model, neuron, Reason.MAKES_ROOM, cycles=1)
    fleet.unload_failed(model, neuron, Reason.IDLE, Failure("no answer"))
    fleet.breaker_changed(neuron, State.OPEN)
    fleet.waited(model, Clock.QUEUE, waited_ms=1)
    fleet.unserved(model, Cause.NO_ROOM, "")


def test_the_reasons_for_not_serving_are_those_of_the_manual_with_their_codes() -> None:
    lines = [line for line in page("metrics.md").splitlines() if re.match(r"\| [a-z_]+ \| `", line)]
    written = {line.split("|")[1].strip(): spans(line)[0] for line in lines}
    told = {
        cause.value: refusals.code_of(answers.unserved("m", Unserved(cause))) for cause in Cause
    }
    assert written == told


def view_of_everything() -> FleetView:
    """A fleet of which everything is known that there is a gauge for."""
    view = example_view()
    warm = DeviceView(0, vram_used_mb=1, vram_free_mb=2, utilization_pct=3.0, temp_c=4.0)
    neurons = {
        name: msgspec.structs.replace(neuron, devices=(warm,))
        for name, neuron in view.neurons.items()
    }
    return FleetView(neurons)


def test_the_queries_ask_for_metrics_that_exist() -> None:
    text = page("metrics.md")
    known = {name for row in rows(text) for name in spans(row[0])}
    asked = {name for block in blocks(text, "promql") for name in re.findall(r"cortex_\w+", block)}
    assert len(asked) > 5
    assert {name.removesuffix("_bucket") for name in asked} <= known


def test_the_queries_select_by_labels_that_exist() -> None:
    text = page("metrics.md")
    labels = {name: row[2].split(", ") for row in rows(text) for name in spans(row[0])}
    queries = "\n".join(blocks(text, "promql"))
    chosen = re.findall(r"(cortex_\w+)\{(\w+)[!=~]", queries)
    assert chosen
    known = {name.removesuffix("_bucket"): label for name, label in chosen}
    assert [name for name, label in known.items() if label not in labels[name]] == []


def test_the_fields_of_the_request_line_are_those_of_the_manual() -> None:
    log = section(page("operations.md"), "The log")
    table = {row[0]: row[1] for row in rows(log) if "event" not in row[0]}
    names = [name for cell in table for name in spans(cell)]
    events = set(names) & event_names()
    assert set(names) - events == set(re.findall(r" ([a-z_]+)=", request_log.message(FINISHED)))
    assert set(get_args(Why)) <= set(spans(table["`why`"]))
    assert {kind.value for kind in EndingKind} == set(spans(table["`ending`"]))


def event_names() -> set[str]:
    """The names of all events that are logged anywhere."""
    code = "\n".join(path.read_text() for path in (ROOT / "cortexd").rglob("*.py"))
    return set(re.findall(r"\bevent=([a-z_]+)", code)) | {"request"}


def test_the_events_of_the_log_are_those_of_the_manual() -> None:
    named = {
        name for row in rows(section(page("operations.md"), "The log")) for name in spans(row[0])
    }
    missing = event_names() - named - {"request"}
    assert not missing


# Examples and links.


@pytest.mark.parametrize(
    "document", [one for one in DOCUMENTS if one not in CLIENT_PAGES], ids=lambda path: path.name
)
def test_the_yaml_and_json_examples_of_a_document_are_understood(
    document: Path, tmp_path: Path
) -> None:
    text = document.read_text()
    for example in blocks(text, "json"):
        msgspec.json.decode(example)
    for example in blocks(text, "yaml"):
        file = tmp_path / "cortexd.yaml"
        data = yaml.safe_load(example)
        if {"models", "aliases"} & data.keys():
            (tmp_path / "models.yaml").write_text(example)
            file.write_text("models_config: models.yaml")
            assert load(file, {"STATE_DIRECTORY": str(tmp_path)}, {}).catalogue.models
        else:
            file.write_text(example)
            assert load(file, {"STATE_DIRECTORY": str(tmp_path)}, {}).config.neurons


def test_there_are_examples_to_be_understood() -> None:
    found = [(path.name, len(blocks(path.read_text(), "yaml"))) for path in DOCUMENTS]
    assert dict(found)["README.md"] >= 1
    assert dict(found)["configuration.md"] >= 2


LINKS = [
    pytest.param(document, target, id=f"{document.name}-{target}")
    for document in DOCUMENTS
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(document.read_text()))
    if "://" not in target
]


@pytest.mark.parametrize(("document", "target"), LINKS)
def test_every_link_leads_to_a_file_and_a_heading_in_it(document: Path, target: str) -> None:
    file, _, anchor = target.partition("#")
    there = document.parent / file if file else document
    assert there.exists()
    if anchor:
        assert anchor in anchors(there)


def test_every_page_can_be_reached_from_the_index() -> None:
    missing = [one.name for one in MANUAL.glob("*.md") if f"({one.name})" not in page("index.md")]
    assert missing == ["index.md"]
    assert "(cortexd/manual/index.md)" in (ROOT / "README.md").read_text()


def test_no_two_decisions_have_one_number() -> None:
    numbers = [decision.name[:4] for decision in DECISIONS]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda decision: decision.name)
def test_a_decision_says_what_it_was_and_when_it_was_wrong(decision: Path) -> None:
    number = int(decision.name.partition("-")[0])
    assert decision.name.startswith(f"{number:04d}-")
    text = decision.read_text()
    assert text.startswith(f"# {number}. ")
    parts = re.findall(r"^\*\*(.*?)\.\*\*", text, re.MULTILINE)
    assert parts == ["Situation", "Choice", "Price", "Sign that we were wrong"]


# The README and the changelog.


def make_targets(text: str) -> set[str]:
    """The targets that a document names, as in `make style types` and ARGS after them."""
    code = "\n".join([*spans(text), *blocks(text, "sh")])
    return {name for names in re.findall(r"\bmake((?: [a-z]+\b)+)", code) for name in names.split()}


def test_the_readme_names_exactly_the_targets_that_exist() -> None:
    rules = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert make_targets((ROOT / "README.md").read_text()) == set(rules)


def test_the_manual_names_only_targets_that_exist() -> None:
    rules = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {name for path in DOCUMENTS for name in make_targets(path.read_text())} <= set(rules)


def test_the_readme_asks_for_the_packages_that_the_makefile_needs() -> None:
    asked = [
        re.findall(r"apt install (.*)", (ROOT / name).read_text())
        for name in ("README.md", "Makefile")
    ]
    readme, makefile = (set(found[0].split()) for found in asked)
    assert readme == makefile


def test_the_readme_shows_the_key_of_the_demo() -> None:
    assert f"Bearer {BALANCE_KEY}" in (ROOT / "README.md").read_text()


def test_files_that_the_manual_installs_exist() -> None:
    install = "\n".join(blocks(section_with_blocks("operations.md", "Install"), "sh"))
    named: Sequence[str] = re.findall(r"(?<![\w/.])(packaging/[\w.-]+|cortexd\.service)", install)
    assert len(named) >= 6
    assert [name for name in named if not (ROOT / name).exists()] == []


def section_with_blocks(name: str, heading: str) -> str:
    """A section up to the next heading of the same level, comments in its blocks kept."""
    return page(name).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_the_changelog_knows_this_version_or_what_comes() -> None:
    headings = re.findall(r"^## (.*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert any(re.match(rf"Unreleased$|\[?{re.escape(__version__)}\b", each) for each in headings)
