"""The files that a configuration names: read, bounded, or why not.

Owns the reading of text and secrets, and the trial of TLS files, of the ledger's directory and of
time zones, whose database lies in files too.
Changes nothing on disk: what it tries leaves no trace, even when it is killed.
"""

import errno
import os
import ssl
from typing import Final, NamedTuple

from cortexd.config.convert import SecretFault

FILE_BYTES_MAX: Final = 4 * 1024 * 1024
SECRET_FILE_BYTES_MAX: Final = 64 * 1024

_NO_RIGHT: Final = "give cortexd's user the right to write there"
# In the unit's sandbox everything is read-only that is not named: ProtectSystem=strict.
_READ_ONLY: Final = "mount it for writing; under systemd name it in the unit's ReadWritePaths= too"


class FileFault(Exception):
    """A file cannot be used: `what` is wrong, and a `hint`; `missing` when nothing is there."""

    def __init__(self, what: str, hint: str, *, missing: bool = False) -> None:
        super().__init__(what)
        self.what, self.hint, self.missing = what, hint, missing


def read_text(path: str, *, bytes_max: int = FILE_BYTES_MAX) -> str:
    """The file's UTF-8 text (a byte order mark is dropped); raises FileFault."""
    try:
        with open(path, "rb") as file:
            data = file.read(bytes_max + 1)
    except (OSError, ValueError) as error:
        raise _file_fault(error) from None
    if len(data) > bytes_max:
        raise FileFault(
            f"the file is larger than {bytes_max} bytes", "this cannot be the right file"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        what = f"the file is not UTF-8: on line {line} is a byte that fits nowhere"
        raise FileFault(what, "save it as UTF-8") from None


def read_secret(path: str) -> str:
    """The text of a secret's file without its trailing newline; raises SecretFault."""
    try:
        return read_text(path, bytes_max=SECRET_FILE_BYTES_MAX).rstrip("\r\n")
    except FileFault as fault:
        raise SecretFault(fault.what, fault.hint) from None


def tls_fault(certificate: str, private_key: str) -> tuple[str, str] | None:
    """Why this pair of readable PEM files cannot serve TLS: (what, hint); None when it can."""
    try:
        # The empty password keeps OpenSSL from asking at the terminal for that of an encrypted key.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, private_key, password="")
    except (ssl.SSLError, OSError, ValueError):
        hint = "both in PEM format, belonging together, the key not encrypted"
        return "the certificate and the private key cannot be used", hint
    return None


def authority_fault(path: str) -> tuple[str, str] | None:
    """Why nobody can be trusted by this file of certificates: (what, hint); None: they can."""
    fault = readable_fault(path)
    if fault is not None:
        return fault
    try:
        ssl.create_default_context(cafile=path)
    except (ssl.SSLError, OSError):
        return "it holds no certificate", "the authority's own certificate, in PEM format"
    return None


def readable_fault(path: str) -> tuple[str, str] | None:
    """Why this file cannot be read: (what, hint); None when it can."""
    try:
        with open(path, "rb") as file:
            file.read(1)
    except (OSError, ValueError) as error:
        fault = _file_fault(error)
        return fault.what, fault.hint
    return None


class DirectoryFault(NamedTuple):
    """Why files cannot be made in a directory. `may_pass`: not for ever, as it is not the path."""

    what: str
    hint: str
    may_pass: bool


def directory_fault(path: str) -> DirectoryFault | None:
    """Why files cannot be made in this directory, which may not exist yet; None when they can.

    Where it does not exist, the nearest parent that does has to be writable.
    """
    nearest = path
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return DirectoryFault("the path is too long", "choose a shorter one", may_pass=False)
    while not os.path.lexists(nearest) and os.path.dirname(nearest) != nearest:
        nearest = os.path.dirname(nearest)
    shown = "it" if nearest == path else f"its nearest existing parent, {nearest},"
    if not os.path.isdir(nearest):
        # A link to nothing may lead to what is not mounted yet.
        leads_nowhere = not os.path.exists(nearest)
        what = f"{shown} is not a directory"
        return DirectoryFault(what, "choose another place", may_pass=leads_nowhere)
    try:
        # An unnamed file: proves the right to write (also to root), and is gone once closed.
        os.close(os.open(nearest, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        unsupported = error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT)
        if not unsupported or not os.access(nearest, os.W_OK | os.X_OK):
            why = os.strerror(error.errno or errno.EIO).lower()
            hint = _READ_ONLY if error.errno == errno.EROFS else _NO_RIGHT
            return DirectoryFault(f"{shown} cannot be written: {why}", hint, may_pass=True)
    return None


def zone_fault(name: str) -> tuple[str, str] | None:
    """Why this is no time zone of this host: (what, hint); None when it is one. UTC always is."""
    if name == "UTC":
        return None
    import zoneinfo  # half a megabyte, which most configurations have no use for

    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        if not zoneinfo.available_timezones():
            what = "this host has no time zone database"
            return what, "install it (on Debian: apt install tzdata), or use UTC"
        return (
            "no such time zone",
            "a name like Europe/Berlin, as `timedatectl list-timezones` does",
        )
    return None


def _file_fault(error: OSError | ValueError) -> FileFault:
    match error:
        case FileNotFoundError():
            return FileFault("the file does not exist", "check the path", missing=True)
        case IsADirectoryError():
            return FileFault("a directory, not a file", "name the file in it")
        case PermissionError():
            return FileFault("the file may not be read", "give cortexd's user the right to read it")
        case OSError():
            why = os.strerror(error.errno or errno.EIO).lower()
            return FileFault(f"the file cannot be read: {why}", "check the path")
        case _:
            return FileFault("not a path", "check the path")
