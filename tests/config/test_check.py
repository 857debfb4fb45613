"""Claims about the rules between settings."""

import pytest

from cortexd.config.check import fingerprint, notices_of, problems_of
from cortexd.config.schema import (
    Account,
    BalanceWindow,
    CalendarWindow,
    Catalogue,
    CatalogueModel,
    Config,
    Entitlements,
    FixedWindow,
    Gateway,
    Key,
    Limit,
    Neuron,
    RequestCap,
    RollingWindow,
    Secret,
    Tls,
    TokenCap,
    Window,
)

SHA = "a" * 64


def told(config: Config, catalogue: Catalogue | None = None) -> list[str]:
    problems = problems_of(config, catalogue or Catalogue())
    return [f"{problem.where}: {problem.what}" for problem in problems]


def keys(*keys: Key) -> Config:
    return Config(entitlements=Entitlements(keys=keys))


def test_a_bad_listen_address_is_a_problem_of_its_own_setting() -> None:
    config = Config(gateway=Gateway(listen="x", metrics_listen="y"))
    assert told(config) == [
        "gateway.listen: not a listen address",
        "gateway.metrics_listen: not a listen address",
    ]


@pytest.mark.parametrize(
    ("listen", "metrics", "clash"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
        ("unix:/a", "127.0.0.1:80", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
    ],
)
def test_the_two_listeners_need_an_address_each(listen: str, metrics: str, clash: bool) -> None:
    config = Config(gateway=Gateway(listen=listen, metrics_listen=metrics))
    expected = ["gateway.metrics_listen: the same address as gateway.listen"] if clash else []
    assert told(config) == expected


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/run/cortexd/admin.sock", None),
        ("/" + 106 * "x", None),
        ("/" + 107 * "x", "the path of the socket is longer than 107 bytes"),
        ("/run/public", "the same socket as gateway.listen"),
        ("/run/metrics", "the same socket as gateway.metrics_listen"),
    ],
)
def test_the_admin_socket_needs_a_path_of_its_own_that_the_kernel_takes(
    path: str, what: str | None
) -> None:
    gateway = Gateway("unix:/run/public", "unix:/run/metrics", admin_socket=path)
    assert told(Config(gateway)) == ([f"gateway.admin_socket: {what}"] if what else [])


def test_what_wakes_a_neuron_is_an_address() -> None:
    config = Config(neurons=(Neuron("a", "http://a", wake_broadcast="192.168.7.255"),))
    assert told(config) == ["neurons[0].wake_broadcast: not an address with a port"]


def test_the_largest_body_must_fit_into_the_memory_for_all() -> None:
    config = Config(gateway=Gateway(body_bytes_max=2000, bodies_bytes_max=1999))
    assert [each.split(":")[0] for each in told(config)] == ["gateway.bodies_bytes_max"]


def test_two_neurons_of_one_name_are_a_problem() -> None:
    config = Config(neurons=(Neuron("a", "http://a"), Neuron("b", "b"), Neuron("a", "http://c")))
    assert told(config) == [
        "neurons[2].name: a is also at neurons[0].name",
        "neurons[1].endpoint: the URL does not start with http:// or https://",
    ]


def test_an_account_that_is_there_twice_is_a_problem() -> None:
    config = Config(entitlements=Entitlements(accounts=(Account("a"), Account("a"))))
    assert told(config) == [
        "entitlements.accounts[1].account_id: a is also at entitlements.accounts[0].account_id"
    ]


def test_two_keys_of_one_account_need_key_ids() -> None:
    config = keys(
        Key("a", key=Secret("1")),
        Key("a", key=Secret("2")),
        Key("b", "a", key=Secret("3")),
        Key("a", "c", key=Secret("4")),
    )
    assert told(config) == [
        "entitlements.keys[1].key_id: a is also at entitlements.keys[0].key_id",
        "entitlements.keys[2].key_id: a is also at entitlements.keys[0].key_id",
    ]


def test_one_secret_cannot_be_two_keys_however_it_is_written() -> None:
    secret = Secret("sk-hush")
    config = keys(
        Key("a", key=secret), Key("b", key=secret), Key("c", key_sha256=secret.sha256().upper())
    )
    assert told(config) == [
        "entitlements.keys[1].key: the same secret is also at entitlements.keys[0].key",
        "entitlements.keys[2].key_sha256: the same secret is also at entitlements.keys[0].key",
    ]


def test_a_blank_secret_has_been_told_of_and_equals_no_other() -> None:
    assert told(keys(Key("a", key=Secret("")), Key("b", key=Secret("")))) == []
    assert fingerprint(Key("a", key=Secret(""))) == ""


def test_a_key_is_written_in_one_way() -> None:
    config = keys(Key("a", key=Secret("x"), key_sha256=SHA), Key("b"))
    assert told(config) == [
        "entitlements.keys[0].key_sha256: both key and key_sha256",
        "entitlements.keys[1]: neither key nor key_sha256",
    ]


def test_a_key_whose_account_is_not_listed_is_fine() -> None:
    assert told(keys(Key("nowhere", key_sha256=SHA))) == []


MODELS = (CatalogueModel("m/a"), CatalogueModel("m/b"))


def test_two_models_of_one_id_are_a_problem() -> None:
    catalogue = Catalogue(models=(*MODELS, CatalogueModel("m/a")))
    assert told(Config(), catalogue) == ["models[2].id: m/a is also at models[0].id"]


def test_a_model_is_pinned_only_on_neurons_that_exist() -> None:
    catalogue = Catalogue(models=(CatalogueModel("m", pinned_on=("a", "z")),))
    config = Config(neurons=(Neuron("a", "http://a"),))
    assert told(config, catalogue) == ["models[0].pinned_on[1]: no neuron is called z"]
    unnamed = Config(neurons=(Neuron("", "http://a"),))
    assert told(unnamed, catalogue) == []


def test_a_limit_fits_into_its_context() -> None:
    limit = Limit(context=100, input=101, output=102)
    catalogue = Catalogue(models=(CatalogueModel("m", limit=limit),))
    assert told(Config(), catalogue) == [
        "models[0].limit.input: more than limit.context",
        "models[0].limit.output: more than limit.context",
    ]
    fitting = Catalogue(models=(CatalogueModel("m", limit=Limit(100, 100, 100)),))
    assert told(Config(), fitting) == []
    assert told(Config(), Catalogue(models=(CatalogueModel("m", limit=Limit(output=5)),))) == []


@pytest.mark.parametrize(
    ("aliases", "what"),
    [
        ({"x": "m/a"}, None),
        ({"x": "m/z"}, "aliases.x: leads to a model that is not in models"),
        ({"y": "m/a", "x": "y"}, "aliases.x: leads to another alias"),
        ({"x": "x"}, "aliases.x: leads to another alias"),
        ({"m/a": "m/b"}, "aliases.m/a: an alias with the name of a model"),
        ({"x": ""}, None),
    ],
)
def test_an_alias_leads_straight_to_a_model(aliases: dict[str, str], what: str | None) -> None:
    assert told(Config(), Catalogue(MODELS, aliases)) == ([what] if what else [])


def test_long_lists_of_known_names_are_cut() -> None:
    models = tuple(CatalogueModel(f"m{i}") for i in range(12))
    [problem] = problems_of(Config(), Catalogue(models, {"x": "y"}))
    assert problem.hint.endswith("m7, ...")


NEURON = (Neuron("a", "http://a"),)
LOCAL = Gateway()
OPEN = Gateway(listen="0.0.0.0:80")
CAPPED = Key("a", key_sha256=SHA)


@pytest.mark.parametrize(
    ("config", "notice"),
    [
        (Config(), "no neuron is configured"),
        (Config(neurons=(*NEURON, Neuron("b", "http://a/"))), "neurons a and b have the same"),
        (
            Config(neurons=(Neuron("a", "http://a", wake_broadcast="10.0.0.255:9"),)),
            "neuron a has wake_broadcast without mac",
        ),
        (Config(neurons=NEURON, entitlements=Entitlements(True)), "require_auth is true and there"),
        (
            Config(neurons=NEURON, entitlements=Entitlements(False, (), (CAPPED,))),
            "require_auth is",
        ),
        (
            Config(
                neurons=NEURON,
                entitlements=Entitlements(None, (Account("a", None, RollingWindow(5)),), (CAPPED,)),
            ),
            "account a has a window and no hard_cap",
        ),
        (
            Config(neurons=NEURON, entitlements=Entitlements(None, (Account("b", 5),))),
            "account b has no",
        ),
        (
            Config(Gateway(metrics_listen="[::]:80"), neurons=NEURON),
            "gateway.metrics_listen is open",
        ),
        (Config(OPEN, neurons=NEURON), "gateway.listen is open to other machines, and no key"),
        (
            Config(OPEN, neurons=NEURON, entitlements=Entitlements(None, (), (CAPPED,))),
            "gateway.listen is open to other machines without TLS",
        ),
    ],
)
def test_what_is_probably_not_meant_is_a_notice(config: Config, notice: str) -> None:
    [found] = notices_of(config, Catalogue())
    assert found.startswith(notice)


def test_an_open_gateway_with_tls_and_keys_needs_no_notice() -> None:
    gateway = Gateway(listen="0.0.0.0:80", tls=Tls("c", "k"))
    entitlements = Entitlements(True, (), (CAPPED,))
    assert notices_of(Config(gateway, neurons=NEURON, entitlements=entitlements), Catalogue()) == []
    local = Gateway(listen="unix:/a", metrics_listen="unix:/b")
    assert notices_of(Config(local, neurons=NEURON), Catalogue()) == []


ONE_CAP = (TokenCap(5),)
HOURLY = RollingWindow(3600)


def owned(owner: Account | Key) -> Config:
    """A configuration that is about one account or key, and has a neuron."""
    if isinstance(owner, Account):
        entitlements = Entitlements(None, (owner,), (Key(owner.account_id, key_sha256=SHA),))
    else:
        entitlements = Entitlements(None, (), (owner,))
    return Config(neurons=NEURON, entitlements=entitlements)


@pytest.mark.parametrize(
    ("hard_cap", "window", "what"),
    [
        (None, BalanceWindow(), None),
        (5, BalanceWindow(), "both caps and hard_cap"),
        (5, HOURLY, "both caps and hard_cap"),
        (None, HOURLY, "both caps and window"),
    ],
)
def test_caps_stand_in_place_of_hard_cap_and_window(
    hard_cap: int | None, window: BalanceWindow | RollingWindow, what: str | None
) -> None:
    of_key = Key("a", key_sha256=SHA, hard_cap=hard_cap, window=window, caps=ONE_CAP)
    assert told(owned(of_key)) == ([f"entitlements.keys[0].caps: {what}"] if what else [])
    of_account = Account("a", hard_cap, window, ONE_CAP)
    assert told(owned(of_account)) == ([f"entitlements.accounts[0].caps: {what}"] if what else [])


def test_several_caps_need_a_window_each() -> None:
    month = CalendarWindow("month", "Europe/Berlin")
    windows: tuple[Window, ...] = (
        *(BalanceWindow(), HOURLY, FixedWindow(3600), RollingWindow(60), month),
        *(CalendarWindow("month"), CalendarWindow("day"), RollingWindow(3600.0), month),
    )
    key = Key(
        "a",
        key_sha256=SHA,
        caps=tuple(TokenCap(number, window) for number, window in enumerate(windows)),
        max_requests=(RequestCap(1, HOURLY), RequestCap(2, FixedWindow(3600))),
    )
    assert told(owned(key)) == [
        "entitlements.keys[0].caps[7]: the same window is also at entitlements.keys[0].caps[1]",
        "entitlements.keys[0].caps[8]: the same window is also at entitlements.keys[0].caps[4]",
    ]
    requests = Account("a", max_requests=(RequestCap(1, HOURLY), RequestCap(2, HOURLY)))
    path = "entitlements.accounts[0].max_requests"
    assert told(owned(requests)) == [f"{path}[1]: the same window is also at {path}[0]"]


def test_a_list_of_models_that_allows_none_is_a_problem() -> None:
    key = Key("a", key_sha256=SHA, models=())
    assert told(owned(key)) == ["entitlements.keys[0].models: empty: the key could use no model"]
    assert told(owned(Key("a", key_sha256=SHA, models=("m",)))) == []


@pytest.mark.parametrize(
    ("owner", "notice"),
    [
        (Key("a", key_sha256=SHA, shadow=True), "key a is a shadow and has no cap to count"),
        (Account("a", shadow=True), "account a is a shadow and has no cap to count"),
        (Account("a", max_in_flight=1, shadow=True), None),
        (Account("a", max_requests=(RequestCap(1, HOURLY),), shadow=True), None),
        (Account("a", caps=ONE_CAP, shadow=True), None),
        (
            Key("a", key_sha256=SHA, over_cap="clamp", max_in_flight=3),
            "key a has over_cap: clamp and no cap on tokens: nothing is ever lowered",
        ),
        (Key("a", key_sha256=SHA, over_cap="clamp", caps=(TokenCap(5_000),)), None),
        (
            Key("a", key_sha256=SHA, hard_cap=5, min_output=10),
            "key a has min_output without over_cap: clamp: it does nothing",
        ),
        (Key("a", key_sha256=SHA, hard_cap=11, min_output=10, over_cap="clamp"), None),
        (
            Key("a", key_sha256=SHA, hard_cap=10, min_output=10, over_cap="clamp"),
            "key a has over_cap: clamp and a cap of 10 tokens, with no room for its min_output of "
            "10 and a prompt: nothing is ever lowered",
        ),
        (Key("a", key_sha256=SHA, hard_cap=9, over_cap="clamp", shadow=True), None),
    ],
)
def test_an_option_that_does_nothing_is_a_notice(owner: Account | Key, notice: str | None) -> None:
    assert notices_of(owned(owner), Catalogue()) == ([notice] if notice else [])


def test_a_key_that_clamps_under_its_accounts_cap_is_no_notice() -> None:
    key = Key("a", key_sha256=SHA, over_cap="clamp")
    entitlements = Entitlements(None, (Account("a", 1_000),), (key,))
    assert notices_of(Config(neurons=NEURON, entitlements=entitlements), Catalogue()) == []


@pytest.mark.parametrize(
    ("caps", "shadow", "smallest"),
    [((257,), False, None), ((300, 256), False, 256), ((1,), True, None)],
)
def test_a_key_that_can_never_clamp_under_a_cap_of_its_account_is_a_notice(
    caps: tuple[int, ...], shadow: bool, smallest: int | None
) -> None:
    key = Key("a", key_sha256=SHA, hard_cap=10_000, over_cap="clamp")
    of_account = tuple(TokenCap(cap) for cap in caps)
    account = Account("a", caps=of_account, shadow=shadow)
    entitlements = Entitlements(
        None, (account, Account("b", 1)), (key, Key("b", "b", key_sha256="b" * 64))
    )
    found = notices_of(Config(neurons=NEURON, entitlements=entitlements), Catalogue())
    assert [f"cap of {smallest} tokens" in one for one in found] == [True] * (smallest is not None)


def test_an_allowed_model_that_the_catalogue_does_not_know_is_a_notice() -> None:
    key = Key("a", key_sha256=SHA, models=("m/a", "small", "m/z"))
    catalogue = Catalogue(MODELS, {"small": "m/a"})
    assert notices_of(owned(key), catalogue) == ["key a may use m/z, which is not in the catalogue"]
    assert notices_of(owned(key), Catalogue()) == [], "then only the neurons know"
