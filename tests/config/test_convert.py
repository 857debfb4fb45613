"""Claims about what a file may say in place of each setting, one per kind of misfit."""

import hashlib

import pytest

from cortexd.config.schema import Key
from tests.config.loading import Folder

SHA = "a" * 64
NUMBER = "write digits alone, without quotes, letters or a unit, as in 3600"
NAME = "1 to 64 printable ASCII characters without spaces"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("gatway: {}", "gatway: unknown setting"),
        ("gateway: {listne: x}", "gateway.listne: unknown setting"),
        ("- a", ": expected a mapping of settings, got a list"),
        ("just text", ": expected a mapping of settings, got a text"),
        ("gateway: 5", "gateway: expected a mapping of settings, got a whole number"),
        (
            "gateway: {listen: 5}",
            "gateway.listen: expected a text that is not empty, got a whole number",
        ),
        ("gateway: {listen: }", "gateway.listen: expected a text that is not empty, got nothing"),
        (
            "gateway: {listen: ''}",
            "gateway.listen: expected a text that is not empty, got an empty text",
        ),
        ("gateway: {tls: {certificate: c}}", "gateway.tls.private_key: missing"),
        ("gateway: {forward_fields: x}", "gateway.forward_fields: expected a list, got a text"),
        (
            "gateway: {forward_fields: [a b]}",
            "gateway.forward_fields[0]: expected the name of a field of the body, got another text",
        ),
        (
            "gateway: {cors_origins: ['https://example.org/page']}",
            "gateway.cors_origins[0]: expected the origin of a web page, as in "
            "https://chat.example.org, or * for all, got another text",
        ),
        (
            "gateway: {connections_max: yes}",
            "gateway.connections_max: expected a whole number from 1 to 1000000, got true or false",
        ),
        (
            "gateway: {head_seconds: 0}",
            "gateway.head_seconds: expected a number of seconds above 0, up to 86400 (a day), "
            "got a number outside of that",
        ),
        (
            "polling: {interval_seconds: .nan}",
            "polling.interval_seconds: expected a number of seconds above 0, up to 86400 (a day), "
            "got a number outside of that",
        ),
        (
            "polling: {interval_seconds: -.inf}",
            "polling.interval_seconds: expected a number of seconds above 0, up to 86400 (a day), "
            "got a negative number",
        ),
        (
            "ledger: {grace_seconds: 1e9}",  # YAML 1.1 takes this for a text
            "ledger.grace_seconds: expected a number of seconds from 0 (off) to 86400 (a day), "
            "got a text",
        ),
        (
            "eviction: {strategy: lruu}",
            "eviction.strategy: expected lru or priority, got another text",
        ),
        (
            "eviction: {strategy: 1}",
            "eviction.strategy: expected lru or priority, got a whole number",
        ),
        (
            "entitlements: {require_auth: 'no'}",
            "entitlements.require_auth: expected true or false, got a text",
        ),
        ("neurons: beast", "neurons: expected a list, got a text"),
        ("neurons: [beast]", "neurons[0]: expected a mapping of settings, got a text"),
        ("neurons: [{name: a}]", "neurons[0].endpoint: missing"),
    ],
)
def test_a_value_that_does_not_fit_is_told_with_what_would(
    folder: Folder, text: str, told: str
) -> None:
    assert folder.told(text) == [told]


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (f"key_sha256: {SHA}", ".account_id: missing"),
        (f"account_id: a, key: x, key_sha256: {SHA}", ".key_sha256: both key and key_sha256"),
        ("account_id: a", ": neither key nor key_sha256"),
        (
            "account_id: a, key_sha256: zz",
            ".key_sha256: expected 64 hexadecimal digits, as `printf %s THE-KEY | sha256sum` "
            "prints them, got another text",
        ),
        ("account_id: a, key: ''", ".key: the secret is empty"),
        (
            "account_id: a, key: sk hush",
            ".key: the secret holds a space, a control character or a non-ASCII character",
        ),
        (
            "account_id: a, key: sk-hüsh",
            ".key: the secret holds a space, a control character or a non-ASCII character",
        ),
        (f"account_id: a, key: {'x' * 5000}", ".key: the secret is longer than 4096 characters"),
        ("account_id: a, key: 123", ".key: expected a text or {file: PATH}, got a whole number"),
        ("account_id: a, key: {fiel: x}", ".key: expected a text or {file: PATH}, got a mapping"),
        ("account_id: a, key: {file: 5}", ".key: expected a text or {file: PATH}, got a mapping"),
        ("account_id: a, key: {file: gone}", ".key.file: the file does not exist"),
        ("account_id: a, key: {file: ../}", ".key.file: a directory, not a file"),
        (
            "account_id: ä, key: x",
            f".account_id: expected {NAME}, got another text",
        ),
        (
            f"account_id: {'a' * 65}, key: x",
            f".account_id: expected {NAME}, got another text",
        ),
        (
            "account_id: 2020-01-01, key: x",
            f".account_id: expected {NAME}, got a date",
        ),
        (
            "account_id: a, key: x, key_id: ''",
            f".key_id: expected {NAME}, got an empty text",
        ),
    ],
)
def test_a_key_needs_an_account_and_one_good_secret(folder: Folder, key: str, told: str) -> None:
    assert folder.told(f"entitlements: {{keys: [{{{key}}}]}}") == [f"entitlements.keys[0]{told}"]


TOKENS = "a whole number of tokens, from 0 to 2^53 - 1"


@pytest.mark.parametrize(
    ("cap", "got"),
    [
        ("-1", "a negative number"),
        ("1.5", "a decimal number"),
        ("true", "true or false"),
        ("'100'", "a text"),
        ("[1]", "a list"),
        (str(2**53), "a number outside of that"),
    ],
)
def test_a_hard_cap_is_a_whole_number_below_two_to_the_53(
    folder: Folder, cap: str, got: str
) -> None:
    text = f"entitlements: {{keys: [{{key: x, account_id: a, hard_cap: {cap}}}]}}"
    assert folder.told(text) == [f"entitlements.keys[0].hard_cap: expected {TOKENS}, got {got}"]


@pytest.mark.parametrize("cap", ["0", str(2**53 - 1), "1_000_000"])
def test_a_hard_cap_may_be_anything_up_to_that(folder: Folder, cap: str) -> None:
    text = f"entitlements: {{keys: [{{key: x, account_id: a, hard_cap: {cap}}}]}}"
    assert folder.told(text) == []


@pytest.mark.parametrize("nothing", ["", "~", "null"])
@pytest.mark.parametrize("limit", ["hard_cap", "caps", "max_requests", "max_in_flight", "models"])
def test_an_empty_limit_does_not_lift_it(folder: Folder, limit: str, nothing: str) -> None:
    """A template whose variable is not set leaves it empty."""
    text = f"entitlements:\n  keys:\n    - key: x\n      account_id: a\n      {limit}: {nothing}\n"
    [problem] = folder.problems(text)
    assert (problem.where, problem.line) == (f"entitlements.keys[0].{limit}", 5)
    assert problem.what == "empty"
    assert problem.hint == "write a value, or take the line out if there shall be no such limit"


def test_an_account_has_no_empty_limit_either(folder: Folder) -> None:
    text = "entitlements: {accounts: [{account_id: a, hard_cap: , caps: }]}"
    where = "entitlements.accounts[0]"
    assert folder.told(text) == [f"{where}.hard_cap: empty", f"{where}.caps: empty"]


@pytest.mark.parametrize("cap", ["0100", "-0100", "0_1", "00"])
def test_a_number_that_yaml_reads_in_base_8_is_no_cap(folder: Folder, cap: str) -> None:
    text = f"entitlements: {{keys: [{{key: x, account_id: a, hard_cap: {cap}}}]}}"
    [problem] = folder.problems(text)
    assert problem.where == "entitlements.keys[0].hard_cap"
    assert problem.what == "a number that starts with 0, which YAML reads in base 8"
    assert problem.hint == "write a number without that 0, and put a text in quotes"


KINDS = "kind: balance, rolling, fixed or calendar"
WINDOW_SECONDS = "a number of seconds above 0, up to 316224000 (ten years)"


def test_a_missing_window_is_shown_as_the_mapping_that_it_is(folder: Folder) -> None:
    text = "entitlements: {accounts: [{account_id: a, max_requests: [{count: 5}]}]}"
    [problem] = folder.problems(text)
    assert problem.where == "entitlements.accounts[0].max_requests[0].window"
    assert problem.what == "missing"
    assert problem.hint == "add window: a mapping, as in {kind: rolling, seconds: 60}"


@pytest.mark.parametrize(
    ("window", "told"),
    [
        ("{kind: rolling}", ".seconds: missing"),
        (
            "{kind: rolling, seconds: 0}",
            f".seconds: expected {WINDOW_SECONDS}, got a number outside of that",
        ),
        (
            "{kind: rolling, seconds: -5}",
            f".seconds: expected {WINDOW_SECONDS}, got a negative number",
        ),
        ("{kind: balance, seconds: 5}", ".seconds: unknown setting"),
        ("{kind: fixed}", ".seconds: missing"),
        ("{kind: fixed, seconds: 60, time_zone: UTC}", ".time_zone: unknown setting"),
        ("{kind: calendar}", ".period: missing"),
        (
            "{kind: calendar, period: year}",
            ".period: expected day or week or month, got another text",
        ),
        (
            "{kind: calendar, period: day, time_zone: Europe Berlin}",
            ".time_zone: expected the name of a time zone, as in Europe/Berlin, got another text",
        ),
        ("{kind: weekly}", ".kind: unknown kind"),
        ("{kind: [rolling]}", ".kind: unknown kind"),
        ('{kind: "a\\tb"}', ".kind: a value with control characters, or one that YAML cannot read"),
        ("{seconds: 5}", ".kind: missing"),
        ("rolling", f": expected a mapping with {KINDS}, got a text"),
        ("", f": expected a mapping with {KINDS}, got nothing"),
    ],
)
def test_a_window_is_one_of_four_kinds_with_what_its_kind_needs(
    folder: Folder, window: str, told: str
) -> None:
    text = f"entitlements:\n  accounts:\n    - account_id: a\n      window: {window}\n"
    assert folder.told(text) == [f"entitlements.accounts[0].window{told}"]


def test_sections_that_hold_only_comments_mean_their_defaults(folder: Folder) -> None:
    loaded = folder.load("gateway:\n  # listen: x\nneurons:\nentitlements:\n  keys:\nledger:\n")
    assert loaded.config.neurons == ()
    assert loaded.config.entitlements.keys == ()


def test_an_item_that_yaml_cannot_read_is_told_once_whatever_kind_it_should_be(
    folder: Folder,
) -> None:
    broken = '"\\e"'
    text = f"""
neurons: [{broken}]
entitlements:
  accounts: [{broken}]
  keys:
    - {{key: x, account_id: a, caps: [{broken}], max_requests: [{broken}], models: [{broken}]}}
"""
    what = "a value with control characters, or one that YAML cannot read"
    key = "entitlements.keys[0]"
    assert sorted(folder.told(text)) == [
        f"entitlements.accounts[0]: {what}",
        f"{key}.caps[0]: {what}",
        f"{key}.max_requests[0]: {what}",
        f"{key}.models[0]: {what}",
        f"neurons[0]: {what}",
    ]


def test_a_broken_item_does_not_hide_what_is_wrong_with_its_neighbours(folder: Folder) -> None:
    text = "neurons: [5, {name: a, endpoint: x}, {name: a, endpoint: http://h}, null]"
    assert folder.told(text) == [
        "neurons[0]: expected a mapping of settings, got a whole number",
        "neurons[3].name: missing",
        "neurons[3].endpoint: missing",
        "neurons[2].name: a is also at neurons[1].name",
        "neurons[1].endpoint: the URL does not start with http:// or https://",
    ]


def test_a_misspelt_choice_gets_a_suggestion_and_a_number_in_quotes_a_hint(folder: Folder) -> None:
    text = "eviction: {strategy: prioritty}\nledger: {grace_seconds: '5'}\nmodels_config: 5\n"
    hints = [problem.hint for problem in folder.problems(text)]
    assert hints == ["did you mean priority?", NUMBER, "put it in quotes"]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("ledger: {grace_seconds: 1e6}", NUMBER),  # a text, in YAML 1.1
        ("ledger: {grace_seconds: 1h}", NUMBER),
        ("entitlements: {require_auth: 'no'}", "write true or false, without quotes"),
        ("entitlements: {keys: [{account_id: a, key: {fil: x}}]}", "write {file: PATH}"),
        (
            "entitlements: {keys: [{account_id: a, key: 5}]}",
            "put a secret that looks like a number in quotes",
        ),
        ("gateway: {listen: }", "write a value, or take it out"),
    ],
)
def test_a_hint_is_about_what_was_written(folder: Folder, text: str, hint: str) -> None:
    assert [problem.hint for problem in folder.problems(text)] == [hint]


def test_no_secret_is_repeated_wherever_it_was_put(folder: Folder) -> None:
    text = """
neurons:
  - {name: sk hush-1, endpoint: "http://u:sk-hush@h", api_key: sk hush}
  - {sk-hush1: x, kind: sk-hush, name: a, endpoint: http://h/sk-hush}
entitlements:
  require_auth: sk-hush
  keys:
    - sk-hush
    - {key: sk hush, account_id: a, key_sha256: sk-hush, hard_cap: sk-hush, window: sk-hush}
    - {key: sk-hush, account_id: b}
    - {key: sk-hush, account_id: c}
    - {key: {file: sk-hush}, account_id: d}
"""
    problems = folder.problems(text)
    assert len(problems) >= 12
    assert "hush" not in repr(problems).replace("hush-1", "")


def test_a_loaded_key_has_only_its_digest(folder: Folder) -> None:
    folder.write("key.txt", "sk-hush\r\n")
    text = "entitlements: {keys: [{key: {file: key.txt}, account_id: a}]}"
    loaded = folder.load(text)
    [key] = loaded.config.entitlements.keys
    assert key == Key("a", "a", None, hashlib.sha256(b"sk-hush").hexdigest())
    assert "hush" not in repr(loaded)
