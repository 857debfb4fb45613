"""The rules between settings, and those that a type cannot say: Config, Catalogue -> problems.

Owns what must hold before a daemon may start with a configuration; touches no file (load.py does).
Works on what was written and on what load.py made of it alike. Blanks (convert.py) are passed over:
their problem has been told.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from cortexd.config.addresses import (
    AddressFault,
    TcpAddress,
    UnixAddress,
    is_loopback,
    parse_destination,
    parse_endpoint,
    parse_listen,
    socket_path_fault,
)
from cortexd.config.problems import Problem as Problem
from cortexd.config.problems import Report, join
from cortexd.config.ranges import TOKENS_LIMIT
from cortexd.config.schema import (
    Account,
    BalanceWindow,
    CalendarWindow,
    Catalogue,
    Config,
    Key,
    Neuron,
    Window,
)

_Item = TypeVar("_Item")


def problems_of(config: Config, catalogue: Catalogue) -> list[Problem]:
    """Every broken rule, paths relative to the file that `where` starts in (models and aliases are
    the catalogue's); no source and no line yet.
    """
    return [
        *_listeners(config),
        *_admin_socket(config),
        *_bodies(config),
        *_neurons(config),
        *_accounts(config),
        *_keys(config),
        *_caps(config),
        *_models(config, catalogue),
        *_aliases(catalogue),
    ]


def notices_of(config: Config, catalogue: Catalogue) -> list[str]:
    """What a config without problems probably does not mean, one sentence each."""
    return [
        *_fleet_notices(config),
        *_entitlement_notices(config),
        *_cap_notices(config),
        *catalogue_notices_of(config, catalogue),
        *_listener_notices(config),
    ]


def catalogue_notices_of(config: Config, catalogue: Catalogue) -> list[str]:
    """Those notices that another catalogue could be without."""
    return [*_model_notices(config, catalogue)]


def windows_of(config: Config) -> Iterator[tuple[str, Window]]:
    """Every window of every cap, with its path."""
    for where, owner in _owners(config):
        yield join(where, "window"), owner.window
        for path, cap in _items(where, "caps", owner.caps):
            yield join(path, "window"), cap.window
        for path, limit in _items(where, "max_requests", owner.max_requests):
            yield join(path, "window"), limit.window


def fingerprint(key: Key) -> str:
    """The lower-case SHA-256 of a key, given or computed; empty when there is none."""
    if key.key is None:
        return key.key_sha256.lower()
    return key.key.sha256() if key.key.reveal() else ""


def _listeners(config: Config) -> Iterator[Problem]:
    found: dict[str, TcpAddress | UnixAddress] = {}
    gateway = config.gateway
    for where, text in (
        ("gateway.listen", gateway.listen),
        ("gateway.metrics_listen", gateway.metrics_listen),
    ):
        try:
            found[where] = parse_listen(text)
        except AddressFault as fault:
            yield Problem(where, fault.what, fault.hint)
    match list(found.values()):
        case [TcpAddress() as first, TcpAddress() as second]:
            clash = first.clashes_with(second)
        case [first, second]:
            clash = first == second
        case _:
            clash = False
    if clash:
        what = "the same address as gateway.listen"
        yield Problem("gateway.metrics_listen", what, "give it a port of its own")


def _admin_socket(config: Config) -> Iterator[Problem]:
    gateway, path = config.gateway, config.gateway.admin_socket
    if path is None:
        return
    fault = socket_path_fault(path)
    if fault is not None:
        yield Problem("gateway.admin_socket", fault.what, fault.hint)
    for name, text in (("listen", gateway.listen), ("metrics_listen", gateway.metrics_listen)):
        if text == f"unix:{path}":
            hint = "give it a path of its own: who can open it needs no key"
            yield Problem("gateway.admin_socket", f"the same socket as gateway.{name}", hint)


def _bodies(config: Config) -> Iterator[Problem]:
    if config.gateway.body_bytes_max > config.gateway.bodies_bytes_max:
        what = "smaller than gateway.body_bytes_max, so that the largest body could never come in"
        yield Problem("gateway.bodies_bytes_max", what, "raise it, or lower gateway.body_bytes_max")


def _neurons(config: Config) -> Iterator[Problem]:
    names = {f"neurons[{i}].name": each.name for i, each in enumerate(config.neurons)}
    yield from _twice(names, "give each neuron a name of its own")
    for i, neuron in enumerate(config.neurons):
        try:
            parse_endpoint(neuron.endpoint or "http://blank")
        except AddressFault as fault:
            yield Problem(f"neurons[{i}].endpoint", fault.what, fault.hint)
        try:
            parse_destination(neuron.wake_broadcast)
        except AddressFault as fault:
            yield Problem(f"neurons[{i}].wake_broadcast", fault.what, fault.hint)


def _accounts(config: Config) -> Iterator[Problem]:
    accounts = config.entitlements.accounts
    ids = {
        f"entitlements.accounts[{i}].account_id": one.account_id for i, one in enumerate(accounts)
    }
    yield from _twice(ids, "write each account once; its keys share its cap")


def _keys(config: Config) -> Iterator[Problem]:
    ids: dict[str, str] = {}
    secrets: dict[str, str] = {}
    for i, key in enumerate(config.entitlements.keys):
        where = f"entitlements.keys[{i}]"
        ids[join(where, "key_id")] = key.key_id or key.account_id
        if key.key is not None and key.key_sha256:
            hint = "keep key_sha256 and remove key, so that the file holds no secret"
            yield Problem(join(where, "key_sha256"), "both key and key_sha256", hint)
        elif key.key is None and not key.key_sha256:
            yield Problem(where, "neither key nor key_sha256", "add one of them")
        secrets[join(where, "key" if key.key is not None else "key_sha256")] = fingerprint(key)
    hint = "give each key a key_id of its own (without one it is the account_id)"
    yield from _twice(ids, hint)
    hint = "two entries cannot share a secret: a request could not tell whose it is"
    yield from _twice(secrets, hint, what="the same secret")


def _owners(config: Config) -> Iterator[tuple[str, Account | Key]]:
    for i, account in enumerate(config.entitlements.accounts):
        yield f"entitlements.accounts[{i}]", account
    for i, key in enumerate(config.entitlements.keys):
        yield f"entitlements.keys[{i}]", key


def _items(where: str, name: str, items: tuple[_Item, ...]) -> Iterator[tuple[str, _Item]]:
    return ((f"{where}.{name}[{i}]", item) for i, item in enumerate(items))


def _caps(config: Config) -> Iterator[Problem]:
    for where, owner in _owners(config):
        beside = "hard_cap" if owner.hard_cap is not None else "window"
        if owner.caps and (owner.hard_cap is not None or owner.window != BalanceWindow()):
            hint = "move hard_cap and window into caps, as one more item of it"
            yield Problem(join(where, "caps"), f"both caps and {beside}", hint)
        tokens = {path: cap.window for path, cap in _items(where, "caps", owner.caps)}
        requests = {
            path: cap.window for path, cap in _items(where, "max_requests", owner.max_requests)
        }
        for windows in (tokens, requests):
            words = {path: _window_words(window) for path, window in windows.items()}
            hint = "only the smaller one could ever bite: keep that one"
            yield from _twice(words, hint, what="the same window")
        if isinstance(owner, Key) and owner.models == ():
            hint = "leave models out to allow all of them"
            yield Problem(join(where, "models"), "empty: the key could use no model", hint)


def _window_words(window: Window) -> str:
    """A window by what the ledger tells it apart by."""
    match window:
        case BalanceWindow():
            return "balance"
        case CalendarWindow():
            return f"{window.period} {window.time_zone}"
        case _:
            return f"{type(window).__name__} {window.window_ms}"


def _models(config: Config, catalogue: Catalogue) -> Iterator[Problem]:
    ids = {f"models[{i}].id": model.id for i, model in enumerate(catalogue.models)}
    yield from _twice(ids, "describe each model once")
    neurons = {neuron.name for neuron in config.neurons}
    for i, model in enumerate(catalogue.models):
        for j, name in enumerate(model.pinned_on):
            if name and name not in neurons and "" not in neurons:
                hint = f"neurons of the configuration: {_listed(neurons)}"
                yield Problem(f"models[{i}].pinned_on[{j}]", f"no neuron is called {name}", hint)
        context = model.limit.context
        for part, tokens in (("input", model.limit.input), ("output", model.limit.output)):
            if context is not None and tokens is not None and tokens > context:
                hint = "the context holds both the prompt and the answer"
                yield Problem(f"models[{i}].limit.{part}", "more than limit.context", hint)


def _aliases(catalogue: Catalogue) -> Iterator[Problem]:
    ids = {model.id for model in catalogue.models}
    for alias, target in catalogue.aliases.items():
        where = f"aliases.{alias}"
        if alias in ids:
            hint = "a request for it would be ambiguous; rename the alias"
            yield Problem(where, "an alias with the name of a model", hint)
        elif target in catalogue.aliases:
            yield Problem(where, "leads to another alias", "name the model itself")
        elif target and target not in ids and "" not in ids:
            yield Problem(where, "leads to a model that is not in models", f"known: {_listed(ids)}")


def _twice(values: Mapping[str, str], hint: str, what: str = "") -> Iterator[Problem]:
    """A problem for each path whose value an earlier path has."""
    first: dict[str, str] = {}
    for where, value in values.items():
        if value and value in first:
            yield Problem(where, f"{what or value} is also at {first[value]}", hint)
        first.setdefault(value, where)


def _listed(names: Iterable[str]) -> str:
    known = sorted(names)
    return (", ".join(known[:10]) + (", ..." if len(known) > 10 else "")) or "none"


def _fleet_notices(config: Config) -> Iterator[str]:
    if not config.neurons:
        yield "no neuron is configured: every request for a model will be refused"
    seen: dict[str, str] = {}
    for neuron in config.neurons:
        endpoint = parse_endpoint(neuron.endpoint)
        if endpoint in seen:
            yield f"neurons {seen[endpoint]} and {neuron.name} have the same endpoint"
        seen.setdefault(endpoint, neuron.name)
        if neuron.mac is None and neuron.wake_broadcast != Neuron("", "").wake_broadcast:
            yield f"neuron {neuron.name} has wake_broadcast without mac: it is never woken"


def _entitlement_notices(config: Config) -> Iterator[str]:
    entitlements = config.entitlements
    if entitlements.require_auth and not entitlements.keys:
        yield "require_auth is true and there is no key: nobody can use this gateway"
    if entitlements.require_auth is False and entitlements.keys:
        yield "require_auth is false: requests without a key are served without a cap"
    used = {key.account_id for key in entitlements.keys}
    for account in entitlements.accounts:
        if account.account_id not in used:
            yield f"account {account.account_id} has no key"


def _cap_notices(config: Config) -> Iterator[str]:
    accounts = {one.account_id: one for one in config.entitlements.accounts}
    default = Key("")
    for _, owner in _owners(config):
        name = _name(owner)
        if owner.hard_cap is None and owner.window != BalanceWindow():
            yield f"{name} has a window and no hard_cap: it is not capped"
        if owner.shadow and not (owner.token_caps or owner.max_requests or owner.max_in_flight):
            yield f"{name} is a shadow and has no cap to count"
        if not isinstance(owner, Key):
            continue
        clamps = owner.over_cap == "clamp"
        if clamps:
            yield from _clamp_notices(owner, accounts.get(owner.account_id))
        if owner.min_output != default.min_output and not clamps:
            yield f"{name} has min_output without over_cap: clamp: it does nothing"


def _clamp_notices(key: Key, account: Account | None) -> Iterator[str]:
    owners: list[Account | Key] = [key] if account is None else [key, account]
    if not any(one.token_caps for one in owners):
        yield f"{_name(key)} has over_cap: clamp and no cap on tokens: nothing is ever lowered"
    caps = [cap.hard_cap for one in owners if not one.shadow for cap in one.token_caps]
    smallest = min(caps, default=TOKENS_LIMIT)
    if smallest <= key.min_output:
        yield (
            f"{_name(key)} has over_cap: clamp and a cap of {smallest} tokens, with no room for "
            f"its min_output of {key.min_output} and a prompt: nothing is ever lowered"
        )


def _model_notices(config: Config, catalogue: Catalogue) -> Iterator[str]:
    known = {model.id for model in catalogue.models} | set(catalogue.aliases)
    if not known:
        return  # then only the neurons know
    for key in config.entitlements.keys:
        for model in key.models or ():
            if model not in known:
                yield f"{_name(key)} may use {model}, which is not in the catalogue"


def _name(owner: Account | Key) -> str:
    if isinstance(owner, Key):
        return f"key {owner.key_id or owner.account_id}"
    return f"account {owner.account_id}"


def _listener_notices(config: Config) -> Iterator[str]:
    gateway = parse_listen(config.gateway.listen)
    metrics = parse_listen(config.gateway.metrics_listen)
    if isinstance(metrics, TcpAddress) and not is_loopback(metrics.host):
        yield "gateway.metrics_listen is open to other machines: keep that network private"
    if isinstance(gateway, TcpAddress) and not is_loopback(gateway.host):
        open_to_all = not (config.entitlements.require_auth or config.entitlements.keys)
        if open_to_all:
            yield "gateway.listen is open to other machines, and no key is required"
        elif config.gateway.tls is None:
            yield "gateway.listen is open to other machines without TLS: keys travel in the clear"


def add_all(problems: Iterable[Problem], config: Report, catalogue: Report) -> None:
    """Notes each problem in the report of the file that it belongs to."""
    for one in problems:
        of_catalogue = one.where.startswith(("models[", "aliases"))
        (catalogue if of_catalogue else config).add(one.where, one.what, one.hint)
