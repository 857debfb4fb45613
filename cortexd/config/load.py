"""File, environment and flags -> Config and Catalogue, or every problem at once.

Owns the order (file, environment, flags), which folder a relative path starts from, and what
loading fills in: key digests in place of keys, key ids, absolute paths. The catalogue can be loaded
again alone, by the same rules. Knows no rule: see convert.py and check.py.
"""

import os
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from msgspec import Struct

from cortexd.config.addresses import parse_endpoint
from cortexd.config.check import (
    add_all,
    catalogue_notices_of,
    fingerprint,
    notices_of,
    problems_of,
    windows_of,
)
from cortexd.config.convert import convert, fields_of
from cortexd.config.document import BROKEN, read_document
from cortexd.config.files import (
    FileFault,
    authority_fault,
    directory_fault,
    read_secret,
    read_text,
    readable_fault,
    tls_fault,
    zone_fault,
)
from cortexd.config.overrides import with_overrides
from cortexd.config.problems import Problem, Report, in_reading_order, join
from cortexd.config.problems import render as render
from cortexd.config.schema import CalendarWindow, Catalogue, Config, Entitlements, Key, Tls

LEDGER_DIRECTORY: Final = "cortexd-ledger"
LEDGER_VARIABLES: Final = "CORTEXD_LEDGER__"
ADMIN_SOCKET: Final = "admin.sock"


class Loaded(Struct, frozen=True):
    """A configuration that can be run: every path absolute, no plaintext key in it.

    `notices` are sentences about what is allowed and probably not meant.
    """

    config: Config
    catalogue: Catalogue
    notices: tuple[str, ...]


class LoadedCatalogue(Struct, frozen=True):
    """A catalogue that fits its configuration. `missing`: there is no file, so it is empty."""

    catalogue: Catalogue
    missing: bool
    notices: tuple[str, ...]


class ConfigProblems(Exception):
    """The configuration cannot be run; `problems` holds everything that is wrong with it.

    `may_pass`: the next try may go well, although nobody changes the configuration.
    """

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(render(problems))
        self.problems = problems
        self.may_pass = all(problem.may_pass for problem in problems)


def load(
    path: str | os.PathLike[str], environment: Mapping[str, str], flags: Mapping[str, str]
) -> Loaded:
    """Reads the configuration at `path` and the catalogue it names.

    `environment` is the process's (CORTEXD_... and systemd's directories); `flags` maps paths
    (`gateway.listen`) to what the command line says. Raises ConfigProblems.
    """
    file = os.path.abspath(path)
    report = Report(os.fspath(path))
    secrets_directory = environment.get("CREDENTIALS_DIRECTORY") or os.path.dirname(file)

    def secret_at(relative: str) -> str:
        return read_secret(os.path.join(secrets_directory, relative))

    raw = _read(file, report)
    if raw is BROKEN:
        raise ConfigProblems(report.problems)
    raw = with_overrides(raw, environment, flags, report)
    written = convert(Config, raw, report, secret_at)
    config = _with_paths(written, os.path.dirname(file), environment)
    catalogue, catalogue_report, missing = _catalogue(config, report, secret_at)
    add_all(problems_of(config, catalogue), report, catalogue_report)
    _try_files(config, report)
    problems = [*report.problems, *catalogue_report.problems]
    if problems:
        raise ConfigProblems(in_reading_order(problems, [report.source, catalogue_report.source]))
    config = _finished(config)
    notices = [*report.notices, *notices_of(config, catalogue)]
    if missing:
        where = f"models_config: {config.models_config}"
        notices.insert(0, f"{where} does not exist: the catalogue is empty until it does")
    return Loaded(config, catalogue, tuple(notices))


def load_catalogue(config: Config) -> LoadedCatalogue:
    """Reads the catalogue that a loaded configuration names; raises ConfigProblems."""
    report = Report(config.models_config or "")
    catalogue, catalogue_report, missing = _catalogue(config, report, read_secret)
    add_all(problems_of(config, catalogue), report, catalogue_report)
    problems = [*report.problems, *catalogue_report.problems]
    if problems:
        raise ConfigProblems(in_reading_order(problems, [report.source]))
    notices = catalogue_notices_of(config, catalogue)
    return LoadedCatalogue(catalogue, missing, tuple(notices))


def load_ledger_directory(path: str | os.PathLike[str], environment: Mapping[str, str]) -> str:
    """Where `serve` has its ledger by the configuration at `path`, which need not be fit to run.

    The section `ledger` counts, and names that are no section: one of them may be meant for it.
    Raises ConfigProblems.
    """
    file = os.path.abspath(path)
    report = Report(os.fspath(path))
    raw = _read(file, report)
    if isinstance(raw, dict):
        others = fields_of(Config).keys() - {"ledger"}
        raw = {name: value for name, value in raw.items() if name not in others}
    ours = {name: text for name, text in environment.items() if name.startswith(LEDGER_VARIABLES)}
    raw = with_overrides(raw, ours, {}, report)
    written = convert(Config, raw, report, read_secret)
    if report.problems:
        raise ConfigProblems(report.problems)
    config = _with_paths(written, os.path.dirname(file), environment)
    assert config.ledger.directory is not None, "loading fills in its default"
    return config.ledger.directory


def default_ledger_directory(environment: Mapping[str, str]) -> str:
    """Where the ledger is if nobody says it: in systemd's state directory, or else right here."""
    state = _first(environment.get("STATE_DIRECTORY"))
    return os.path.abspath(os.path.join(state, "ledger") if state else LEDGER_DIRECTORY)


def default_admin_socket(environment: Mapping[str, str]) -> str | None:
    """Where the admin socket is if nobody says it: in systemd's run-time directory, or nowhere."""
    directory = _first(environment.get("RUNTIME_DIRECTORY"))
    return os.path.abspath(os.path.join(directory, ADMIN_SOCKET)) if directory else None


def _first(directories: str | None) -> str:
    """systemd lists several directories of a kind with colons: the first one is ours."""
    return (directories or "").split(":")[0]


def _read(file: str, report: Report) -> object:
    try:
        return read_document(read_text(file), report)
    except FileFault as fault:
        report.add("", fault.what, fault.hint)
        return BROKEN


def _catalogue(
    config: Config, report: Report, secret_at: Callable[[str], str]
) -> tuple[Catalogue, Report, bool]:
    """The catalogue, empty where there is none or it is broken; its report; is the file missing?"""
    file = config.models_config
    if not file:
        return Catalogue(), Report(""), False
    found = Report(file)
    try:
        raw = read_document(read_text(file), found)
    except FileFault as fault:
        if not fault.missing:
            report.add("models_config", fault.what, fault.hint)
        return Catalogue(), found, fault.missing
    return convert(Catalogue, raw, found, secret_at), found, False


def _with_paths(config: Config, folder: str, environment: Mapping[str, str]) -> Config:
    """Every path absolute: as seen from the configuration's folder. Two have a default."""

    def absolute(path: str) -> str:
        return os.path.normpath(os.path.join(folder, path))

    tls = config.gateway.tls
    if tls is not None:
        pair = (path and absolute(path) for path in (tls.certificate, tls.private_key))
        tls = Tls(*pair)
    models = config.models_config
    directory, admin_socket = config.ledger.directory, config.gateway.admin_socket
    if directory is None:
        directory = default_ledger_directory(environment)
    if admin_socket is None:
        admin_socket = default_admin_socket(environment)
    neuron_ca = config.gateway.neuron_ca
    gateway = msgspec.structs.replace(
        config.gateway,
        tls=tls,
        admin_socket=admin_socket and absolute(admin_socket),
        neuron_ca=neuron_ca and absolute(neuron_ca),
    )
    return msgspec.structs.replace(
        config,
        gateway=gateway,
        models_config=models and absolute(models),
        ledger=msgspec.structs.replace(config.ledger, directory=absolute(directory)),
    )


def _try_files(config: Config, report: Report) -> None:
    """Whether the TLS files, the ledger's directory and the time zones can be used."""
    tls = config.gateway.tls
    if tls is not None and tls.certificate and tls.private_key:
        pair = {"certificate": tls.certificate, "private_key": tls.private_key}
        faults = {name: readable_fault(path) for name, path in pair.items()}
        for name, fault in faults.items():
            if fault is not None:
                report.add(f"gateway.tls.{name}", *fault)
        if not any(faults.values()) and (unusable := tls_fault(**pair)):
            report.add("gateway.tls", *unusable)
    if config.gateway.neuron_ca is not None:
        fault = authority_fault(config.gateway.neuron_ca)
        if fault is not None:
            report.add("gateway.neuron_ca", *fault)
    unwritable = directory_fault(config.ledger.directory or "")
    if unwritable is not None:
        what, hint, may_pass = unwritable
        report.add("ledger.directory", what, hint, may_pass=may_pass)
    told = {problem.where for problem in report.problems}
    for where, window in windows_of(config):
        at = join(where, "time_zone")
        if isinstance(window, CalendarWindow) and at not in told:
            unknown = zone_fault(window.time_zone)
            if unknown is not None:
                report.add(at, *unknown)


def _finished(config: Config) -> Config:
    """The checked configuration with its defaults filled in and its keys hashed."""
    entitlements = config.entitlements
    neurons = tuple(
        msgspec.structs.replace(
            neuron,
            endpoint=parse_endpoint(neuron.endpoint),
            mac=neuron.mac and neuron.mac.lower().replace("-", ":"),
        )
        for neuron in config.neurons
    )
    asked = entitlements.require_auth
    return msgspec.structs.replace(
        config,
        neurons=neurons,
        entitlements=Entitlements(
            require_auth=bool(entitlements.keys) if asked is None else asked,
            accounts=entitlements.accounts,
            keys=tuple(_finished_key(key) for key in entitlements.keys),
        ),
    )


def _finished_key(key: Key) -> Key:
    return msgspec.structs.replace(
        key, key=None, key_sha256=fingerprint(key), key_id=key.key_id or key.account_id
    )
