"""A JSON request body as fields that are checked when they are read.

Owns the decoding of bodies and the words of complaints about single values. Refuses to know what
any field means: the dialects ask for the types they need.
"""

from __future__ import annotations

from typing import NoReturn

import msgspec

from cortexd.dialects.refusals import Refusal, RefusalKind

NAME_CHARACTERS_MAX = 40
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OBJECTS = msgspec.json.Decoder(list[dict[str, object]])
_VALUE = msgspec.json.Decoder()
_NULL = msgspec.Raw(b"null")


class Unfit(Exception):
    """Carries a refusal from where a value is read to where a request is answered."""

    def __init__(self, kind: RefusalKind, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.refusal = Refusal(kind=kind, message=message, param=param)


class Body:
    """The top-level fields of a JSON object, of equal names the last; null counts as absent.

    Every method raises Unfit for a value that is not what it asks for, and RecursionError for one
    that is nested too deeply.
    """

    def __init__(self, text: bytes) -> None:
        try:
            fields = _FIELDS.decode(text)
        except msgspec.ValidationError:
            message = "The request body must be a JSON object."
            raise Unfit(RefusalKind.INVALID_JSON, message) from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            message = "The request body is not valid JSON."
            raise Unfit(RefusalKind.INVALID_JSON, message) from None
        if _NULL in fields.values():
            fields = {name: raw for name, raw in fields.items() if raw != _NULL}
        self.fields = fields

    def value(self, name: str) -> object:
        """Decode a field of any type; None when it is absent."""
        raw = self.fields.get(name)
        if raw is None:
            return None
        try:
            value: object = _VALUE.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            message = f"The value of '{printable(name)}' is not valid JSON."
            raise Unfit(RefusalKind.INVALID_JSON, message) from None
        return value

    def required(self, name: str) -> object:
        """Decode a field that must be there."""
        value = self.value(name)
        if value is None:
            missing(name)
        return value

    def model(self) -> str:
        """Decode the name of the model, which every request must have."""
        model = self.value("model")
        if model is None:
            missing("model")
        if not isinstance(model, str) or not model.strip():
            invalid("model", "must be a non-empty string")
        return model

    def integer(self, name: str, *, largest: int) -> int | None:
        """Decode a number that counts something: an integer from 1, no float, no boolean."""
        if name not in self.fields:
            return None
        number = as_count(self.value(name), largest=largest)
        if number is None:
            invalid(name, f"must be an integer from 1 to {largest}")
        return number

    def flag(self, name: str) -> bool:
        """Decode a boolean; absent means false."""
        return name in self.fields and as_flag(self.value(name), name)

    def text(self, name: str) -> str | None:
        """Decode a text; None when it is absent."""
        value = self.value(name)
        if value is not None and not isinstance(value, str):
            invalid(name, "must be a string")
        return value

    def mapping(self, name: str) -> dict[str, object] | None:
        """Decode an object; None when it is absent."""
        value = self.value(name)
        if value is not None and not isinstance(value, dict):
            invalid(name, "must be an object")
        return value

    def objects(self, name: str) -> list[dict[str, object]]:
        """Decode an array whose entries are objects; the field must be there."""
        if name not in self.fields:
            missing(name)
        try:
            return _OBJECTS.decode(self.fields[name])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return as_objects(self.value(name), name)


def as_count(value: object, *, largest: int) -> int | None:
    """Return `value` if it is an integer from 1 to `largest`."""
    if type(value) is int and 1 <= value <= largest:
        return value
    return None


def as_objects(value: object, param: str) -> list[dict[str, object]]:
    """Return an array of objects as it is; raises Unfit at the first place where it is none."""
    if not isinstance(value, list):
        invalid(param, "must be an array")
    for position, entry in enumerate(value):
        if not isinstance(entry, dict):
            invalid(f"{param}[{position}]", "must be an object")
    return value


def as_flag(value: object, param: str) -> bool:
    """Return a boolean as it is, and None as False; raises Unfit for anything else."""
    if value is None:
        return False
    if not isinstance(value, bool):
        invalid(param, "must be true or false")
    return value


def invalid(param: str, rule: str) -> NoReturn:
    """Complain that the value of `param` breaks a `rule` ("must be ...")."""
    raise Unfit(RefusalKind.INVALID_PARAMETER, f"Invalid value for '{param}': it {rule}.", param)


def unsupported(param: str, why: str) -> NoReturn:
    """Complain that a field asks for what is not served, and say why."""
    message = f"Unsupported parameter: '{param}': {why}."
    raise Unfit(RefusalKind.UNSUPPORTED_PARAMETER, message, param)


def missing(param: str) -> NoReturn:
    """Complain that a field is not there."""
    message = f"Missing required parameter: '{param}'."
    raise Unfit(RefusalKind.MISSING_REQUIRED_PARAMETER, message, param)


def printable(name: str) -> str:
    """Make a client's word fit for a log line."""
    return "".join(c if c in _NAME_CHARACTERS else "?" for c in name[:NAME_CHARACTERS_MAX])
