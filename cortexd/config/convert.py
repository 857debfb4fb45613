"""Plain data -> the structs of schema.py, with every misfit reported instead of the first one.

msgspec stops at the first error, so structs, lists and maps are walked here and msgspec converts
the leaves: types stay in schema.py and ranges in ranges.py alone. Owns no rule between settings
(check.py). What is broken becomes its default, or a blank ("", 1, an empty Secret, a struct of
these) where it has none, so that the walk and the checks after it can go on; a report with problems
never leads to a running daemon.
"""

import contextlib
import functools
import types
from collections.abc import Callable
from typing import Annotated, Final, Literal, TypeVar, Union, cast, get_args, get_origin

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import FieldInfo

from cortexd.config.document import BROKEN
from cortexd.config.problems import Report, join
from cortexd.config.schema import Limited, Secret

StructT = TypeVar("StructT", bound=Struct)

SECRET_CHARACTERS_MAX: Final = 4_096


class SecretFault(Exception):
    """The file of a secret cannot be had: `what` is wrong, and a `hint`."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what, self.hint = what, hint


_QUOTES: Final = "put a secret that looks like a number in quotes"

ReadSecret = Callable[[str], str]
"""Path of a secret's file -> its text; raises SecretFault."""


def convert(kind: type[StructT], raw: object, report: Report, read_secret: ReadSecret) -> StructT:
    """The struct that `raw` (dicts, lists, scalars, BROKEN) describes; misfits go to the report."""
    return cast("StructT", _Conversion(report, read_secret).struct(kind, raw, ""))


@functools.cache
def fields_of(kind: type[Struct]) -> dict[str, FieldInfo]:
    """The settings of a struct by name (msgspec works them out anew at every call)."""
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


@functools.cache
def variants(wanted: object) -> tuple[object, ...]:
    """The members of a union without Annotated, or the type alone."""
    if get_origin(wanted) is Annotated:
        return variants(get_args(wanted)[0])
    if get_origin(wanted) in (Union, types.UnionType):
        return tuple(one for member in get_args(wanted) for one in variants(member))
    return (wanted,)


def structs_of(wanted: object) -> list[type[Struct]]:
    """The structs among the members of a union."""
    return [one for one in variants(wanted) if isinstance(one, type) and issubclass(one, Struct)]


class _Conversion:
    """One walk over one document."""

    def __init__(self, report: Report, read_secret: ReadSecret) -> None:
        self.report = report
        self.read_secret = read_secret

    def struct(self, kind: type[Struct], raw: object, where: str) -> Struct:
        raw = {} if raw is None else raw
        named = raw if isinstance(raw, dict) else {}
        if raw is not named and raw is not BROKEN:
            what = f"expected a mapping of settings, got {_described(raw)}"
            self.report.add(where, what, f"known here: {', '.join(_names(kind))}")
        fields = fields_of(kind)
        for name in named:
            if name not in fields and name != kind.__struct_config__.tag_field:
                self.report.add_unknown(where, name, _names(kind))
        values: dict[str, object] = {}
        for field in fields.values():
            limits = issubclass(kind, Limited)
            value = self.field(field, named, where, limits=limits) if raw is named else BROKEN
            if value is not BROKEN:
                values[field.name] = value
            elif field.required or (raw is not named and Secret in variants(field.type)):
                values[field.name] = _blank(field.type)
        return kind(**values)

    def field(
        self, field: FieldInfo, named: dict[str, object], where: str, *, limits: bool
    ) -> object:
        """What is said of a setting; an empty one must not lift the limits of a key or an account
        (where a template's variable is not set).
        """
        if field.encode_name in named:
            raw, path = named[field.encode_name], join(where, field.encode_name)
            if raw is None and limits and _is_optional_limit(field.type):
                hint = "write a value, or take the line out if there shall be no such limit"
                self.report.add(path, "empty", hint)
                return BROKEN
            return self.value(field.type, raw, path)
        if field.required:
            hint = f"add {field.encode_name}: {_expected(field.type)}"
            self.report.add(join(where, field.encode_name), "missing", hint)
        return BROKEN

    def value(self, wanted: object, raw: object, where: str) -> object:
        """A value of the wanted type, or BROKEN once its problem is reported."""
        members = variants(wanted)
        lists = [one for one in members if get_origin(one) is tuple]
        # A list with nothing in it is an empty list, also where leaving it out means more.
        if raw is BROKEN or (raw is None and type(None) in members and not lists):
            return raw
        if Secret in members:
            return self.secret(raw, where)
        if lists:
            return self.items(get_args(lists[0])[0], raw, where)
        if get_origin(wanted) is dict:
            return self.mapping(get_args(wanted), raw, where)
        structs = structs_of(wanted)
        if len(structs) == 1:
            return self.struct(structs[0], raw, where)
        if structs:
            return self.tagged(structs, raw, where)
        return self.leaf(wanted, raw, where)

    def items(self, wanted: object, raw: object, where: str) -> object:
        if not isinstance(raw, list | None):
            self.report.add(where, f"expected a list, got {_described(raw)}", "start items with -")
            return BROKEN
        found = (self.value(wanted, each, f"{where}[{i}]") for i, each in enumerate(raw or ()))
        return tuple(_blank(wanted) if each is BROKEN else each for each in found)

    def mapping(self, wanted: tuple[object, ...], raw: object, where: str) -> object:
        if not isinstance(raw, dict | None):
            self.report.add(
                where, f"expected a mapping, got {_described(raw)}", "write name: value"
            )
            return BROKEN
        found: dict[str, object] = {}
        for name, each in (raw or {}).items():
            path = join(where, name)
            value = self.value(wanted[1], each, path)
            if self.leaf(wanted[0], name, path) is not BROKEN:
                found[name] = _blank(wanted[1]) if value is BROKEN else value
        return found

    def tagged(self, structs: list[type[Struct]], raw: object, where: str) -> object:
        """One of several structs, told apart by its tag (a window by its `kind`)."""
        configs = [kind.__struct_config__ for kind in structs]
        tag_field = str(configs[0].tag_field)
        tags = {str(one.tag): kind for one, kind in zip(configs, structs, strict=True)}
        *others, last = tags
        usage = f"{tag_field}: {', '.join(others)} or {last}"
        if not isinstance(raw, dict):
            what = f"expected a mapping with {usage}, got {_described(raw)}"
            self.report.add(where, what, f"write {{{tag_field}: {next(iter(tags))}}}")
            return BROKEN
        path = join(where, tag_field)
        if tag_field not in raw:
            self.report.add(path, "missing", f"add {usage}")
            return BROKEN
        tag = raw[tag_field]
        if isinstance(tag, str) and tag in tags:
            return self.struct(tags[tag], raw, where)
        if tag is not BROKEN:
            self.report.add(path, f"unknown {tag_field}", f"write {usage}")
        return BROKEN

    def secret(self, raw: object, where: str) -> object:
        """A Secret from a text or from {file: PATH}; the text is never repeated."""
        text, at = raw, where
        if isinstance(raw, dict) and list(raw) == ["file"] and isinstance(raw["file"], str):
            at = join(where, "file")
            try:
                text = self.read_secret(raw["file"])
            except SecretFault as fault:
                self.report.add(at, fault.what, fault.hint)
                return Secret("")
        if not isinstance(text, str):
            got = f"expected a text or {{file: PATH}}, got {_described(raw)}"
            hint = "write {file: PATH}" if isinstance(raw, dict) else _QUOTES
            self.report.add(where, got, hint)
            return Secret("")
        what = _secret_fault(text)
        if what:
            self.report.add(at, what, "use printable ASCII characters without spaces")
            return Secret("")
        return Secret(text)

    def leaf(self, wanted: object, raw: object, where: str) -> object:
        """The value, or BROKEN; a text that only breaks its pattern stays, for the later checks."""
        if get_origin(wanted) is Literal:
            # Not by msgspec: it keeps notes on a Literal, which is shared with every other module
            # that spells the same one, and was seen to stumble over them.
            if raw in get_args(wanted):
                return raw
        else:
            with contextlib.suppress(msgspec.ValidationError):
                return cast("object", msgspec.convert(raw, cast("type", wanted)))
        what, hint = self.misfit(wanted, raw)
        self.report.add(where, what, hint)
        return raw if raw and isinstance(raw, str) and str in variants(wanted) else BROKEN

    def misfit(self, wanted: object, raw: object) -> tuple[str, str]:
        """What does not fit, and a hint."""
        members = variants(wanted)
        choices = [str(one) for one in get_args(members[0])]
        got, hint = _described(raw), ""
        if raw is None:
            hint = "write a value, or take it out"
        elif isinstance(raw, str) and choices:
            meant = self.report.closest(raw, choices)
            got, hint = "another text", f"did you mean {meant}?" if meant else ""
        elif str in members:
            got = "another text" if raw and isinstance(raw, str) else got
            hint = "" if isinstance(raw, str) else "put it in quotes"
        elif isinstance(raw, str):
            hint = "write digits alone, without quotes, letters or a unit, as in 3600"
            if bool in members:
                hint = "write true or false, without quotes"
        elif type(raw) in members and got != "a negative number":
            got = "a number outside of that"
        return f"expected {_expected(wanted)}, got {got}", hint


def _is_optional_limit(wanted: object) -> bool:
    """Whether this is one of several things, or none: a list, or a value that can be missing."""
    members = variants(wanted)
    is_list = any(get_origin(one) is tuple for one in members)
    return (is_list or type(None) in members) and Secret not in members


def _names(kind: type[Struct]) -> list[str]:
    tag_field = kind.__struct_config__.tag_field
    return [*([tag_field] if tag_field else []), *kind.__struct_encode_fields__]


def _blank(wanted: object) -> object:
    """What stands for a broken value that has no default: the checks pass over it."""
    if Secret in variants(wanted):
        return Secret("")
    for kind in structs_of(wanted):
        needed = [one for one in fields_of(kind).values() if one.required]
        return kind(**{field.name: _blank(field.type) for field in needed})
    return "" if str in variants(wanted) else 1


def _expected(wanted: object) -> str:
    """The type in words: its description in ranges.py, or what it is."""
    if get_origin(wanted) in (Union, types.UnionType):
        return _expected(get_args(wanted)[0])
    if get_origin(wanted) is Annotated:
        meta = next(one for one in get_args(wanted) if isinstance(one, Meta))
        return str(meta.description)
    if get_origin(wanted) is Literal:
        return " or ".join(str(one) for one in get_args(wanted))
    if structs_of(wanted):
        return "a mapping"
    return "true or false" if wanted is bool else "a text"


def _described(raw: object) -> str:
    """What a value is, without repeating it."""
    match raw:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int():
            return "a negative number" if raw < 0 else "a whole number"
        case float():
            return "a negative number" if raw < 0 else "a decimal number"
        case str():
            return "a text" if raw else "an empty text"
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return "a date"


def _secret_fault(text: str) -> str:
    """What is wrong with a secret; empty when nothing is."""
    if not text:
        return "the secret is empty"
    if len(text) > SECRET_CHARACTERS_MAX:
        return f"the secret is longer than {SECRET_CHARACTERS_MAX} characters"
    if not all("!" <= character <= "~" for character in text):
        return "the secret holds a space, a control character or a non-ASCII character"
    return ""
