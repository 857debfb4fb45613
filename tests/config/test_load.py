"""Claims about loading as a whole: every problem at once, the example, what is filled in."""

import hashlib
import os
from pathlib import Path

import pytest
import trustme
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cortexd.config.load import ConfigProblems, load
from cortexd.config.schema import (
    BalanceWindow,
    CalendarWindow,
    Cost,
    FixedWindow,
    Limit,
    RequestCap,
    RollingWindow,
    TokenCap,
    Waiting,
)
from tests.config.loading import Folder

EXAMPLE = """
gateway:
  listen: 127.0.0.1:31313            # host:port, [v6]:port, or unix:/path
  metrics_listen: 127.0.0.1:31314
eviction:
  strategy: lru                      # lru | priority
  defrag_after_cycles: 0             # 0 = never
  min_residency_seconds: 60
  max_swap_wait_seconds: 30
neurons:
  - name: beast
    endpoint: http://beast.internal:13131
    kind: neuron
models_config: models.yaml
entitlements:
  require_auth: true
  accounts:
    - account_id: acct-cap
      hard_cap: 1000000
      window: {kind: balance}
  keys:
    - key: sk-cap
      account_id: acct-cap
      key_id: key-cap
      hard_cap: 100
      window: {kind: balance}
    - key: sk-rolling
      account_id: acct-cap
      window: {kind: rolling, seconds: 3600}
ledger:
  directory: ledger
"""

CATALOGUE = """
models:
  - id: Qwen/Qwen3-8B
    harness: candle                  # passed to the neuron on load
    quant: q6k
    vram_mb: 18000
    min_devices: 1
    min_device_vram_mb: 16000
    pinned_on: [beast]
    residency_priority: 100
    source: huggingface
    limit: {context: 32768, input: 28672, output: 4096}
    template_tokens: 0
    image_tokens_max: 4096
    cost: {input: 0.10, output: 0.40, cache_read: 0.01, cache_write: 0.12}
    capabilities: [text]
    idle_unload_seconds: 0
aliases:
  helexa/small: Qwen/Qwen3-8B
"""


def test_the_documented_example_loads_as_it_stands(folder: Folder) -> None:
    folder.write("models.yaml", CATALOGUE)
    loaded = folder.load(EXAMPLE)
    config, [model] = loaded.config, loaded.catalogue.models
    assert config.neurons[0].endpoint == "http://beast.internal:13131"
    assert config.ledger.directory == str(folder.path / "ledger")
    first, second = config.entitlements.keys
    assert (first.key_id, first.hard_cap, first.window) == ("key-cap", 100, BalanceWindow())
    assert (second.key_id, second.hard_cap) == ("acct-cap", None)
    assert second.window == RollingWindow(3600)
    assert model.limit == Limit(32768, 28672, 4096)
    assert model.cost == Cost(0.1, 0.4, 0.01, 0.12)
    assert loaded.catalogue.aliases == {"helexa/small": "Qwen/Qwen3-8B"}
    assert loaded.notices == ("key acct-cap has a window and no hard_cap: it is not capped",)


def test_all_problems_are_told_at_once_in_reading_order(folder: Folder) -> None:
    folder.write("models.yaml", "models:\n- {id: m, vram_mb: -1}\n- id: m\naliases: {x: y}\n")
    text = (
        EXAMPLE.replace("listen: 127.0.0.1:31313 ", "listne: 127.0.0.1:31313 ")
        .replace("endpoint: http://beast.internal:13131", "endpoint: beast")
        .replace("hard_cap: 100\n", "hard_cap: -100\n")
        .replace("key: sk-rolling", "key: sk-cap")
        .replace("directory: ledger", "directory: cortexd.yaml/ledger\n  directory: x")
    )
    problems = folder.problems(text, {"CORTEXD_POLLING__INTERVALL": "5"})
    yaml_path, models_path = str(folder.path / "cortexd.yaml"), str(folder.path / "models.yaml")
    assert [(one.source, one.line, one.where) for one in problems] == [
        ("CORTEXD_POLLING__INTERVALL", None, "polling.intervall"),
        (yaml_path, 3, "gateway.listne"),
        (yaml_path, 12, "neurons[0].endpoint"),
        (yaml_path, 25, "entitlements.keys[0].hard_cap"),
        (yaml_path, 27, "entitlements.keys[1].key"),
        (yaml_path, 31, "ledger.directory"),
        (yaml_path, 32, "ledger"),
        (models_path, 2, "models[0].vram_mb"),
        (models_path, 3, "models[1].id"),
        (models_path, 4, "aliases.x"),
    ]
    assert all(one.what for one in problems)


def test_an_empty_file_is_all_defaults(folder: Folder) -> None:
    loaded = folder.load("# nothing yet\n")
    assert loaded.config.entitlements.require_auth is False
    assert loaded.config.ledger.directory == str(folder.path / "state" / "ledger")
    assert loaded.notices == ("no neuron is configured: every request for a model will be refused",)


def test_without_a_state_directory_the_ledger_is_beside_the_caller(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.path)
    loaded = load(folder.write("x.yaml", ""), {}, {})
    assert loaded.config.ledger.directory == str(folder.path / "cortexd-ledger")
    assert sorted(os.listdir(folder.path)) == ["x.yaml"]


def test_the_first_of_several_state_directories_is_ours(folder: Folder) -> None:
    first = folder.path / "one"
    loaded = folder.load("", {"STATE_DIRECTORY": f"{first}:{folder.path / 'two'}"})
    assert loaded.config.ledger.directory == str(first / "ledger")


def test_authentication_is_required_as_soon_as_there_is_a_key(folder: Folder) -> None:
    keys = "keys: [{key: x, account_id: a}]"
    required = [
        folder.load(f"entitlements: {{{text}}}").config.entitlements.require_auth
        for text in ("", keys, f"require_auth: false, {keys}", "require_auth: true")
    ]
    assert required == [False, True, False, True]


def test_a_digest_stands_for_its_key_in_any_case(folder: Folder) -> None:
    digest = hashlib.sha256(b"sk-x").hexdigest()
    text = f"entitlements: {{keys: [{{key_sha256: {digest.upper()}, account_id: a}}]}}"
    assert folder.load(text).config.entitlements.keys[0].key_sha256 == digest


def test_secrets_come_from_the_credentials_directory_where_there_is_one(folder: Folder) -> None:
    (folder.path / "credentials").mkdir()
    folder.write("credentials/token", "sk-system\n")
    folder.write("token", "sk-beside\n")
    text = "neurons: [{name: a, endpoint: http://a, api_key: {file: token}}]"
    beside = folder.load(text).config.neurons[0].api_key
    system = folder.load(text, {"CREDENTIALS_DIRECTORY": str(folder.path / "credentials")})
    from_system = system.config.neurons[0].api_key
    assert beside is not None
    assert from_system is not None
    assert (beside.reveal(), from_system.reveal()) == ("sk-beside", "sk-system")


def test_an_empty_secret_file_is_told_with_its_path(folder: Folder) -> None:
    folder.write("token", "\n")
    text = "neurons: [{name: a, endpoint: http://a, api_key: {file: token}}]"
    assert folder.told(text) == ["neurons[0].api_key.file: the secret is empty"]


@pytest.mark.parametrize(
    ("name", "what"),
    [("gone.yaml", "the file does not exist"), ("", "a directory, not a file")],
)
def test_a_file_that_cannot_be_read_is_the_only_problem(
    folder: Folder, name: str, what: str
) -> None:
    with pytest.raises(ConfigProblems) as caught:
        load(folder.path / name, {}, {})
    assert [problem.what for problem in caught.value.problems] == [what]


def test_a_file_that_is_not_utf_8_tells_the_byte(folder: Folder) -> None:
    told = folder.told(b"gateway: {}\n# caf\xe9\n")
    assert told == [": the file is not UTF-8: on line 2 is a byte that fits nowhere"]


def test_a_missing_catalogue_is_an_empty_one_with_a_notice(folder: Folder) -> None:
    loaded = folder.load("models_config: gone.yaml")
    assert loaded.catalogue.models == ()
    path = folder.path / "gone.yaml"
    assert (
        loaded.notices[0]
        == f"models_config: {path} does not exist: the catalogue is empty until it does"
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"models: [", ": not YAML: its syntax is broken"),
        (b"models: [{}]", "models[0].id: missing"),
        (
            b"aliases: {'': m}",
            "aliases.: expected a text of 1 to 256 characters, got an empty text",
        ),
        (b"aliases: [a]", "aliases: expected a mapping, got a list"),
        (
            b"aliases: {a: 5}",
            "aliases.a: expected a text of 1 to 256 characters, got a whole number",
        ),
        (b"\xff", "models_config: the file is not UTF-8: on line 1 is a byte that fits nowhere"),
        (
            b"models: [{id: m, cost: {input: -1}}]",
            "models[0].cost.input: expected a number of USD per million tokens, from 0 to 1000000, "
            "got a negative number",
        ),
        (
            b"models: [{id: m, limit: {context: 0}}]",
            "models[0].limit.context: expected a whole number of tokens, from 1 to 2^53 - 1, "
            "got a number outside of that",
        ),
    ],
)
def test_a_broken_catalogue_is_a_problem(folder: Folder, content: bytes, told: str) -> None:
    folder.write("models.yaml", content)
    assert folder.told("models_config: models.yaml") == [told]


@pytest.mark.parametrize("content", [b"", b"models:\naliases:\n"])
def test_a_catalogue_may_be_empty(folder: Folder, content: bytes) -> None:
    folder.write("models.yaml", content)
    assert folder.load("models_config: models.yaml").catalogue.models == ()


def test_tls_files_are_tried_and_found_beside_the_file(folder: Folder) -> None:
    text = "gateway: {tls: {certificate: cert.pem, private_key: key.pem}}"
    assert folder.told(text) == [
        "gateway.tls.certificate: the file does not exist",
        "gateway.tls.private_key: the file does not exist",
    ]
    folder.write("cert.pem", "no certificate")
    folder.write("key.pem", "no key")
    told = ["gateway.tls: the certificate and the private key cannot be used"]
    assert folder.told(text) == told


def test_the_authority_for_neurons_is_tried_and_found_beside_the_file(folder: Folder) -> None:
    text = "gateway: {neuron_ca: ca.pem}"
    assert folder.told(text) == ["gateway.neuron_ca: the file does not exist"]
    folder.write("ca.pem", "no certificate")
    assert folder.told(text) == ["gateway.neuron_ca: it holds no certificate"]
    folder.write("ca.pem", trustme.CA().cert_pem.bytes().decode())
    assert folder.told(text) == []
    assert folder.load(text).config.gateway.neuron_ca == f"{folder.path}/ca.pem"


def test_half_a_pair_of_tls_files_is_told_once(folder: Folder) -> None:
    assert folder.told("gateway: {tls: {certificate: gone.pem}}") == [
        "gateway.tls.private_key: missing"
    ]


def test_a_ledger_that_cannot_be_written_is_told_and_nothing_is_left(folder: Folder) -> None:
    told = folder.told("ledger: {directory: cortexd.yaml/x}")
    assert [one.split(":")[0] for one in told] == ["ledger.directory"]
    assert os.listdir(folder.path) == ["cortexd.yaml"]


def test_only_a_report_of_what_may_pass_may_pass_itself(folder: Folder) -> None:
    (folder.path / "disk").symlink_to(folder.path / "not mounted")
    passing = {}
    for text in ("ledger: {directory: disk}", "ledger: {directory: disk}\nneuron: []"):
        with pytest.raises(ConfigProblems) as caught:
            folder.load(text)
        passing[len(caught.value.problems)] = caught.value.may_pass
    assert passing == {1: True, 2: False}


WORDS = """
gateway listen tls certificate neurons name endpoint kind api_key file entitlements keys key
accounts account_id key_id hard_cap window seconds ledger directory models_config polling x caps
max_requests count max_in_flight models period time_zone shadow over_cap min_output
"""
NAMES = st.sampled_from(WORDS.split())
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.dates(),
    st.text(max_size=5),
    st.sampled_from(["balance", "rolling", "http://h:1", "127.0.0.1:1", "unix:/x", "a" * 64, "."]),
    st.sampled_from(["fixed", "calendar", "day", "UTC", "Europe/Berlin", "Europe", "clamp"]),
)
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(document=st.dictionaries(NAMES, DOCUMENTS, max_size=4) | DOCUMENTS)
def test_no_document_crashes_the_loader(folder: Folder, document: object) -> None:
    text = yaml.safe_dump(document, allow_unicode=True)
    for one in folder.problems(text):
        assert one.what
        assert one.source


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(owner=st.dictionaries(NAMES, DOCUMENTS), kind=st.sampled_from(["keys", "accounts"]))
def test_nothing_that_is_said_of_a_key_or_an_account_crashes_the_loader(
    folder: Folder, owner: object, kind: str
) -> None:
    text = yaml.safe_dump({"entitlements": {kind: [owner]}}, allow_unicode=True)
    assert all(one.what and one.source for one in folder.problems(text))


SEVERAL = """
entitlements:
  accounts:
    - account_id: team
      caps:
        - {hard_cap: 2000000, window: {kind: calendar, period: month, time_zone: Europe/Berlin}}
        - {hard_cap: 9000000}
      max_requests: [{count: 100, window: {kind: fixed, seconds: 60}}]
      shadow: true
  keys:
    - key: x
      account_id: team
      caps: [{hard_cap: 5, window: {kind: calendar, period: week}}]
      max_in_flight: 4
      over_cap: clamp
      min_output: 16
      models: [m/a, small]
ledger: {retention_days: 0, retention_bytes: 0, when_unavailable: serve_uncapped}
"""


def test_several_caps_and_options_load_as_written(folder: Folder) -> None:
    config = folder.load(SEVERAL).config
    [account], [key] = config.entitlements.accounts, config.entitlements.keys
    assert account.caps == (
        TokenCap(2_000_000, CalendarWindow("month", "Europe/Berlin")),
        TokenCap(9_000_000, BalanceWindow()),
    )
    assert account.max_requests == (RequestCap(100, FixedWindow(60)),)
    assert account.shadow
    assert key.caps == (TokenCap(5, CalendarWindow("week", "UTC")),)
    assert (key.max_in_flight, key.over_cap, key.min_output) == (4, "clamp", 16)
    assert key.models == ("m/a", "small")
    ledger = config.ledger
    assert (ledger.retention_days, ledger.retention_bytes) == (0, 0)
    assert ledger.when_unavailable == "serve_uncapped"


def test_a_zone_that_does_not_exist_is_told_where_it_stands(folder: Folder) -> None:
    text = SEVERAL.replace("Europe/Berlin", "Europe/Berlim")
    [problem] = folder.problems(text)
    at = "entitlements.accounts[0].caps[0].window.time_zone"
    assert (problem.where, problem.line, problem.what) == (at, 6, "no such time zone")


def test_a_request_cap_without_a_window_is_told(folder: Folder) -> None:
    text = SEVERAL.replace("count: 100, window: {kind: fixed, seconds: 60}", "count: 100")
    assert folder.told(text) == ["entitlements.accounts[0].max_requests[0].window: missing"]


def test_a_list_of_models_that_was_left_empty_does_not_allow_all(folder: Folder) -> None:
    """Commenting its items out must not open what was closed."""
    assert folder.told(SEVERAL.replace("[m/a, small]", "")) == [
        "entitlements.keys[0].models: empty"
    ]
    told = ["entitlements.keys[0].models: empty: the key could use no model"]
    assert folder.told(SEVERAL.replace("[m/a, small]", "[]")) == told


def test_loading_changes_nothing_on_disk(folder: Folder) -> None:
    folder.write("models.yaml", CATALOGUE)
    folder.load(EXAMPLE)
    assert sorted(each.name for each in Path(folder.path).iterdir()) == [
        "cortexd.yaml",
        "models.yaml",
    ]


def test_the_admin_socket_is_in_systemds_directory_or_where_the_file_says(folder: Folder) -> None:
    system = {"RUNTIME_DIRECTORY": "/run/cortexd:/run/other"}
    variable = {"CORTEXD_GATEWAY__ADMIN_SOCKET": "../c.sock"}
    found = [
        folder.load(text, environment).config.gateway.admin_socket
        for text, environment in (
            ("", {}),
            ("", {"RUNTIME_DIRECTORY": ""}),
            ("", system),
            ("gateway: {admin_socket: /run/a.sock}", system),
            ("gateway: {admin_socket: b.sock}", {}),
            ("gateway: {admin_socket: b.sock}", variable),
        )
    ]
    beside, above = str(folder.path / "b.sock"), str(folder.path.parent / "c.sock")
    assert found == [None, None, "/run/cortexd/admin.sock", "/run/a.sock", beside, above]


@pytest.mark.parametrize(
    ("path", "got"), [("unix:/run/a.sock", "another text"), ("''", "an empty text")]
)
def test_the_admin_socket_is_a_path_and_not_an_address(folder: Folder, path: str, got: str) -> None:
    expected = "expected the path of a socket, without unix: in front"
    told = folder.told(f"gateway: {{admin_socket: {path}}}")
    assert told == [f"gateway.admin_socket: {expected}, got {got}"]


@pytest.mark.parametrize("mac", ["52:54:00:AB:cd:ef", "52-54-00-ab-CD-EF"])
def test_a_hardware_address_is_read_in_both_spellings(folder: Folder, mac: str) -> None:
    [neuron] = folder.load(f"neurons: [{{name: a, endpoint: http://a, mac: {mac}}}]").config.neurons
    assert neuron.mac == "52:54:00:ab:cd:ef"


@pytest.mark.parametrize(
    ("mac", "got", "hint"),
    [
        ("525400123456", "a whole number", "put it in quotes"),
        ("52:54:00:ab:cd", "another text", ""),
        ("52:54-00:ab:cd:ef", "another text", ""),
        ("52:54:00:ab:cd:ef:00", "another text", ""),
    ],
)
def test_what_is_no_hardware_address_is_told(folder: Folder, mac: str, got: str, hint: str) -> None:
    [problem] = folder.problems(f"neurons: [{{name: a, endpoint: http://a, mac: {mac}}}]")
    expected = 'a hardware address in quotes, as in "52:54:00:12:34:56"'
    assert (problem.where, problem.hint) == ("neurons[0].mac", hint)
    assert problem.what == f"expected {expected}, got {got}"


def test_a_hardware_address_that_yaml_takes_for_a_number_belongs_in_quotes(folder: Folder) -> None:
    [problem] = folder.problems("neurons: [{name: a, endpoint: http://a, mac: 52:54:00:12:34:56}]")
    assert problem.what == "a number with a colon, which YAML reads in base 60"
    assert problem.hint.endswith("put a text in quotes")


WAITING = """
neurons: [{name: a, endpoint: http://a, max_in_flight: 4, mac: "52:54:00:12:34:56"}]
waiting: {queue_seconds: 10, load_seconds: 600.5, requests_max: 8, quantum_tokens: 1000}
eviction: {drain_seconds: 0}
entitlements: {keys: [{key: x, account_id: a, weight: 0.5}, {key: y, account_id: b}]}
"""


def test_settings_of_waiting_and_loading_load_as_written_and_the_environment_wins(
    folder: Folder,
) -> None:
    variables = {
        "CORTEXD_WAITING__QUEUE_SECONDS": "0.5",
        "CORTEXD_WAITING__PLAIN_WAIT_SECONDS": "300",
        "CORTEXD_EVICTION__DRAIN_SECONDS": "7",
    }
    config = folder.load(WAITING, variables).config
    assert config.waiting == Waiting(0.5, 600.5, 300, 8, 1000)
    assert config.eviction.drain_seconds == 7
    [neuron] = config.neurons
    assert (neuron.max_in_flight, neuron.wake_broadcast) == (4, "255.255.255.255:9")
    assert [key.weight for key in config.entitlements.keys] == [0.5, 1]


@pytest.mark.parametrize(
    ("before", "after", "where"),
    [
        ("weight: 0.5", "weight: 0", "entitlements.keys[0].weight"),
        ("weight: 0.5", "weight: 1000.5", "entitlements.keys[0].weight"),
        ("max_in_flight: 4", "max_in_flight: 0", "neurons[0].max_in_flight"),
        ("queue_seconds: 10", "queue_seconds: 0", "waiting.queue_seconds"),
        ("requests_max: 8", "requests_max: 0", "waiting.requests_max"),
        ("quantum_tokens: 1000", "quantum_tokens: 0", "waiting.quantum_tokens"),
        ("drain_seconds: 0", "drain_seconds: -1", "eviction.drain_seconds"),
    ],
)
def test_waiting_and_loading_have_ranges(
    folder: Folder, before: str, after: str, where: str
) -> None:
    assert [one.split(":")[0] for one in folder.told(WAITING.replace(before, after))] == [where]
