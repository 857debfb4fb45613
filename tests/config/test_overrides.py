"""Claims about what the environment and the flags say over the file."""

import re
from pathlib import Path

import pytest

import cortexd
from cortexd.config.load import ConfigProblems
from cortexd.config.overrides import OTHERS
from tests.config.loading import Folder


def test_flags_win_over_the_environment_and_the_environment_over_the_file(folder: Folder) -> None:
    text = "gateway: {listen: 'h:1', metrics_listen: 'h:2', idle_seconds: 5, head_seconds: 6}"
    environment = {"CORTEXD_GATEWAY__METRICS_LISTEN": "h:3", "CORTEXD_GATEWAY__IDLE_SECONDS": "7.5"}
    gateway = folder.load(
        text, environment | {"CORTEXD_GATEWAY__LISTEN": "h:9"}, {"gateway.listen": "h:4"}
    )
    got = gateway.config.gateway
    assert (got.listen, got.metrics_listen) == ("h:4", "h:3")
    assert (got.idle_seconds, got.head_seconds) == (7.5, 6)


def test_a_variable_reaches_into_what_the_file_does_not_have(folder: Folder) -> None:
    environment = {
        "CORTEXD_EVICTION__STRATEGY": "priority",
        "CORTEXD_ENTITLEMENTS__REQUIRE_AUTH": "true",
        "CORTEXD_MODELS_CONFIG": "7",
    }
    loaded = folder.load("eviction:\n", environment)
    assert loaded.config.eviction.strategy == "priority"
    assert loaded.config.entitlements.require_auth is True
    assert loaded.config.models_config == str(folder.path / "7")


def test_a_text_is_taken_as_it_is_brackets_and_all(folder: Folder) -> None:
    loaded = folder.load("", {"CORTEXD_GATEWAY__LISTEN": "[::1]:31313"})
    assert loaded.config.gateway.listen == "[::1]:31313"


@pytest.mark.parametrize(
    ("variable", "value", "told", "hint"),
    [
        ("GATEWAY__LISTN", "x", "gateway.listn: there is no such setting", "did you mean listen?"),
        (
            "GATEWAY__LISTEN__X",
            "x",
            "gateway.listen: nothing inside this can be set by a variable",
            "write",
        ),
        ("NEURONS__0__NAME", "x", "neurons: nothing inside this can be set by a variable", "write"),
        ("GATEWAY__TLS", "x", "gateway.tls: not a single value", "add __"),
        ("GATEWAY__FORWARD_FIELDS", "x", "gateway.forward_fields: not a single value", "write it"),
        (
            "GATEWAY__CONNECTIONS_MAX",
            "",
            "gateway.connections_max: expected a whole number from 1 to 1000000, got nothing",
            "write a value",
        ),
        ("WHAT__EVER", "x", "what: there is no such setting", "known here"),
        ("__", "x", ": there is no such setting", "known here"),
        (
            "GATEWAY__LISTEN",
            "",
            "gateway.listen: expected a text that is not empty, got nothing",
            "write a value, or take it out",
        ),
        ("GATEWAY__LISTEN", "x", "gateway.listen: not a listen address", "write host:port"),
    ],
)
def test_a_variable_that_sets_nothing_good_is_a_problem(
    folder: Folder, variable: str, value: str, told: str, hint: str
) -> None:
    [problem] = folder.problems("", {f"CORTEXD_{variable}": value})
    assert f"{problem.where}: {problem.what}" == told
    assert problem.hint.startswith(hint)
    assert problem.source == f"CORTEXD_{variable}"
    assert problem.line is None


def test_a_variable_with_control_characters_is_not_shown(folder: Folder) -> None:
    environment = {"CORTEXD_GATEWAY__LISTEN": "\udcff\n"}
    assert folder.told("", environment) == [
        "gateway.listen: a value with control characters, or one that YAML cannot read"
    ]


def test_a_variable_is_no_number_of_another_base_either(folder: Folder) -> None:
    [problem] = folder.problems("", {"CORTEXD_GATEWAY__CONNECTIONS_MAX": "0100"})
    assert problem.what == "a number that starts with 0, which YAML reads in base 8"
    assert problem.source == "CORTEXD_GATEWAY__CONNECTIONS_MAX"


def test_variables_of_others_are_left_alone(folder: Folder) -> None:
    others = {"CORTEXD_NATIVE_DIR": "/", "CORTEXD_API_KEY": "x", "CORTEXD_ADMIN_SOCKET": "/s"}
    others |= {"GATEWAY__LISTEN": "x", "X": "__"}
    assert folder.load("neurons: [{name: a, endpoint: 'http://a'}]", others).notices == ()


def test_our_other_variables_are_those_of_the_manual() -> None:
    page = Path(cortexd.__file__).with_name("manual") / "configuration.md"
    assert set(re.findall(r"(?m)^\| `(CORTEXD_[A-Z_]+)`", page.read_text())) == OTHERS


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("CORTEXD_LEDGER_ON_REBOOT", "CORTEXD_LEDGER__ON_REBOOT"),
        ("CORTEXD_GATEWAY_LISTEN", "CORTEXD_GATEWAY__LISTEN"),
        ("CORTEXD_GATEWAY_TLS_CERTIFICATE", "CORTEXD_GATEWAY__TLS__CERTIFICATE"),
    ],
)
def test_an_underscore_that_is_missing_is_a_problem(
    folder: Folder, variable: str, meant: str
) -> None:
    [problem] = folder.problems("", {variable: "x"})
    assert (problem.source, problem.what) == (variable, "there is no such setting")
    assert problem.hint == f"did you mean {meant}?"


@pytest.mark.parametrize("section", ["gateway", "neurons", "entitlements"])
def test_a_section_is_not_set_as_a_whole(folder: Folder, section: str) -> None:
    told = folder.told("", {f"CORTEXD_{section.upper()}": "1"})
    assert told == [f"{section}: not a single value"]


@pytest.mark.parametrize(
    ("variable", "meaning"),
    [
        ("CORTEXD_MODEL_CONFIG", "; did you mean CORTEXD_MODELS_CONFIG?"),
        ("CORTEXD_LEDGER_ON_REBOOTS", "; did you mean CORTEXD_LEDGER__ON_REBOOT?"),
        ("CORTEXD_SERVICE_HOST", ""),  # from Kubernetes
        ("CORTEXD_PORT_31313_TCP_ADDR", ""),
        ("CORTEXD_PORT", ""),
    ],
)
def test_a_variable_of_ours_that_nobody_reads_is_noticed(
    folder: Folder, variable: str, meaning: str
) -> None:
    loaded = folder.load("", {variable: "x"})
    assert loaded.notices[0] == f"{variable} names no setting, and is not read{meaning}"


def test_where_the_file_has_no_mapping_its_own_problem_is_enough(folder: Folder) -> None:
    told = ["gateway: expected a mapping of settings, got a list"]
    assert folder.told("gateway: [1]", {"CORTEXD_GATEWAY__TLS__CERTIFICATE": "x"}) == told
    assert folder.told("gateway: [1]", {"CORTEXD_GATEWAY__LISTEN": "h:1"}) == told


def test_a_bad_flag_is_a_problem_of_the_flag(folder: Folder) -> None:
    with pytest.raises(ConfigProblems) as caught:
        folder.load("", flags={"gateway.metrics_listen": "x"})
    assert str(caught.value).startswith("--metrics-listen: gateway.metrics_listen: not a listen")
