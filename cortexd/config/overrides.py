"""What the environment and the flags say over the file: CORTEXD_GATEWAY__LISTEN=..., --listen ...

Owns the names (upper case, a double underscore between levels) and the order: file, environment,
flags. Only settings inside mappings can be overridden; lists (neurons, keys) belong to the file. A
variable that names no setting is a problem where somebody must have meant one: it has a double
underscore, is the name of a section, or is a setting but for its double underscore. Any other is a
notice: Kubernetes sets CORTEXD_PORT and the like beside a service that is called cortexd.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Final, get_origin

from msgspec import Struct

from cortexd.config.convert import fields_of, structs_of, variants
from cortexd.config.document import BROKEN, ScalarFault, read_scalar
from cortexd.config.problems import Place, Report
from cortexd.config.schema import Config

PREFIX: Final = "CORTEXD_"

OTHERS: Final = frozenset({"CORTEXD_ADMIN_SOCKET", "CORTEXD_API_KEY", "CORTEXD_NATIVE_DIR"})
"""Variables of ours that are no settings: the command line and the program file read them."""


def with_overrides(
    raw: object, environment: Mapping[str, str], flags: Mapping[str, str], report: Report
) -> object:
    """`raw` (the file's data, changed in place) with the overrides applied.

    `flags` maps paths (`gateway.metrics_listen`, from --metrics-listen) to what was given.
    Values are understood as YAML scalars, except where the setting is a text.
    """
    raw = {} if raw is None else raw
    for variable in sorted(environment):
        if not variable.startswith(PREFIX) or variable in OTHERS:
            continue
        levels = variable.removeprefix(PREFIX).lower().split("__")
        if len(levels) == 1 and levels[0] not in fields_of(Config):
            _tell_stray(variable, report)
        else:
            wanted = _wanted(variable, levels, report)
            if wanted is not None:
                value = _value(environment[variable], wanted, report, variable, ".".join(levels))
                _put(raw, levels, value, Place(variable), report)
    for path, text in flags.items():
        levels = path.split(".")
        _put(raw, levels, text, Place(f"--{levels[-1].replace('_', '-')}"), report)
    return raw


def _tell_stray(variable: str, report: Report) -> None:
    """Says of a variable without a double underscore that nobody reads it."""
    known, name = _variables(), variable.removeprefix(PREFIX).lower()
    meant = known.get(name)
    if meant is not None:
        report.places[variable] = Place(variable)
        report.add("", "there is no such setting", f"did you mean {meant}?", at=variable)
        return
    near = report.closest(name, known)
    meaning = f"; did you mean {known[near]}?" if near else ""
    report.notices.append(f"{variable} names no setting, and is not read{meaning}")


@functools.cache
def _variables() -> Mapping[str, str]:
    """Every variable of a single setting, by its name in small letters with single underscores
    and without the prefix.
    """
    return {name.replace("__", "_").lower(): f"{PREFIX}{name}" for name in _named(Config, "")}


def _named(kind: type[Struct], prefix: str) -> Iterator[str]:
    for name, field in fields_of(kind).items():
        structs = structs_of(field.type)
        if _is_leaf(kind, name):
            yield f"{prefix}{name.upper()}"
        elif len(structs) == 1:
            yield from _named(structs[0], f"{prefix}{name.upper()}__")


def _value(text: str, wanted: object, report: Report, variable: str, path: str) -> object:
    """What a variable says; BROKEN once its problem is reported."""
    if text and text.isprintable() and str in variants(wanted):
        return text
    try:
        return read_scalar(text)
    except ScalarFault as fault:
        report.add(path, fault.what, fault.hint, at=variable)
        return BROKEN


def _wanted(variable: str, levels: list[str], report: Report) -> object:
    """The type of the setting that a variable names; None once its problem is reported."""
    kind: type[Struct] = Config
    for depth, level in enumerate(levels):
        types = {name: field.type for name, field in fields_of(kind).items()}
        path = ".".join(levels[: depth + 1])
        report.places[variable] = Place(variable)
        if level not in types:
            meant = report.closest(level, types)
            hint = f"did you mean {meant}?" if meant else f"known here: {', '.join(types)}"
            report.add(path, "there is no such setting", hint, at=variable)
            return None
        if depth + 1 == len(levels):
            if _is_leaf(kind, level):
                return types[level]
            hint = "write it into the file"
            if structs_of(types[level]):
                hint = f"add __ and the name of a setting in it, or {hint}"
            report.add(path, "not a single value", hint, at=variable)
            return None
        structs = structs_of(types[level])
        if len(structs) != 1:
            hint = "write it into the file"
            report.add(path, "nothing inside this can be set by a variable", hint, at=variable)
            return None
        kind = structs[0]
    return None  # pragma: no cover  # the last level has returned


def _is_leaf(kind: type[Struct], name: str) -> bool:
    """Whether a setting is a single value: not a struct, not a list."""
    field = fields_of(kind).get(name)
    if field is None:
        return False
    return not structs_of(field.type) and get_origin(field.type) not in (tuple, dict)


def _put(raw: object, levels: list[str], value: object, place: Place, report: Report) -> None:
    """Writes one value into nested dicts; where the file has no dict, its own problem is enough."""
    for level in levels[:-1]:
        if not isinstance(raw, dict):
            return
        if raw.get(level) is None:
            raw[level] = {}
        raw = raw[level]
    if isinstance(raw, dict):
        raw[levels[-1]] = value
        report.places[".".join(levels)] = place
