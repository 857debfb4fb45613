"""Builds ``dist/cortexd_VERSION_amd64.deb`` around a built ``cortexd.pyz``.

A .deb is two archives in a third: what is installed, and what dpkg has to know of it. Both are
written here with the standard library, owner, dates, order and modes fixed, so that two builds of
one commit compare equal, and no Debian is needed to build. The manual page and the completions come
from the command line itself, the licences from the libraries that are inside the zip.

Refuses to know what is in the maintainer scripts (packaging/debian) and how the zip is built.
"""

import argparse
import gzip
import hashlib
import io
import os
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from email.utils import formatdate
from pathlib import Path, PurePosixPath
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))
import command_line
import completions
import man_page

from cortexd import __version__

ROOT = Path(__file__).resolve().parent.parent
PACKAGING = ROOT / "packaging"
MANUAL = ROOT / "cortexd" / "manual"
DOCUMENTS = "usr/share/doc/cortexd"

#: The date of everything inside, where the environment does not say another (2026-01-01).
DATE = int(os.environ.get("SOURCE_DATE_EPOCH", "1767225600"))

#: Who answers for a package that everybody can build.
MAINTAINER = "The cortexd authors <cortexd@localhost>"
#: C code of these Pythons is inside (build_zipapp.py). systemd makes the user and the folder.
DEPENDS = "python3 (>= 3.11), python3 (<< 3.15~), systemd (>= 252), init-system-helpers (>= 1.54)"
DESCRIPTION = """\
gateway for language models with hard token budgets
 One OpenAI-compatible address in front of the machines that run your language
 models. It sends each request to the least busy machine that has the model,
 and no API key ever spends more tokens than its cap: not when an agent fans
 out, not when a client hangs up, not after a power cut.
 .
 One program file with its libraries inside, a hardened systemd service, a
 manual page and completions for bash, zsh and fish. After the installation
 nothing runs until you have named your machines and keys and enabled it."""

SCRIPTS = ("postinst", "prerm", "postrm")
APACHE = "On Debian the text of the Apache License 2.0 is in /usr/share/common-licenses/Apache-2.0."


class Installed(NamedTuple):
    """A file of the package; a `kept` one is the administrator's after the installation."""

    content: bytes
    mode: int = 0o644
    kept: bool = False


def debian_version(version: str) -> str:
    """Python's version, such that development versions sort before their release for dpkg too."""
    return re.sub(r"\.?(dev|a|b|rc)(?=\d)", r"~\1", version)


def files_of(pyz: Path, version: str) -> dict[str, Installed]:
    """Path without its first slash -> what is installed there."""
    files = {
        "usr/bin/cortexd": Installed(pyz.read_bytes(), 0o755),
        "usr/lib/systemd/system/cortexd.service": text(ROOT / "cortexd.service"),
        "usr/lib/systemd/system/cortexd.socket": text(PACKAGING / "cortexd.socket"),
        "usr/lib/sysusers.d/cortexd.conf": text(PACKAGING / "sysusers.conf"),
        "usr/lib/tmpfiles.d/cortexd.conf": text(PACKAGING / "tmpfiles.conf"),
        "etc/cortexd/cortexd.yaml": text(PACKAGING / "debian" / "cortexd.yaml")._replace(kept=True),
    }
    for name in ("cortexd.yaml", "models.yaml", "credentials.conf"):
        files[f"{DOCUMENTS}/examples/{name}"] = text(PACKAGING / name)
    for page in sorted(MANUAL.rglob("*.md")):
        files[f"{DOCUMENTS}/manual/{page.relative_to(MANUAL).as_posix()}"] = text(page)
    with zipfile.ZipFile(pyz) as opened:
        files[f"{DOCUMENTS}/copyright"] = Installed(copyright_of(opened).encode())
    files[f"{DOCUMENTS}/CHANGELOG.md.gz"] = zipped((ROOT / "CHANGELOG.md").read_text())
    files[f"{DOCUMENTS}/changelog.gz"] = zipped(changelog(version))
    return {**files, **written()}


def written() -> dict[str, Installed]:
    """What is made from the command line."""
    command = command_line.cortexd()
    places = {
        "bash": "usr/share/bash-completion/completions/cortexd",
        "zsh": "usr/share/zsh/vendor-completions/_cortexd",
        "fish": "usr/share/fish/vendor_completions.d/cortexd.fish",
    }
    files = {
        place: Installed(completions.SHELLS[shell](command).encode())
        for shell, place in places.items()
    }
    files["usr/share/man/man1/cortexd.1.gz"] = zipped(man_page.man_page(command))
    return files


def text(path: Path) -> Installed:
    """A file as it is in the checkout."""
    return Installed(path.read_bytes())


def zipped(content: str) -> Installed:
    """A text as Debian wants pages and changelogs: compressed, and without a date."""
    return Installed(gzip.compress(content.encode(), compresslevel=9, mtime=0))


def changelog(version: str) -> str:
    """The changelog that Debian's tools read; the one for people is beside it."""
    date = formatdate(DATE, usegmt=True).replace("GMT", "+0000")
    entry = f"cortexd ({version}) unstable; urgency=medium\n\n  * See CHANGELOG.md.gz.\n\n"
    return f"{entry} -- {MAINTAINER}  {date}\n"


def copyright_of(pyz: zipfile.ZipFile) -> str:
    """Whose work it is: ours, and that of every library inside, with its own words."""
    parts = [
        "cortexd. Licensed under the Apache License, Version 2.0.\n" + APACHE,
        "The program file holds the following libraries. Their licences, as they come with them:",
    ]
    for name in sorted(pyz.namelist()):
        folder, _, file = name.partition(".dist-info/")
        if file and file != "METADATA":
            words = pyz.read(name).decode().strip("\n")
            if "Apache License" in words[:200] and len(words) > 10_000:
                words = f"The Apache License, Version 2.0. {APACHE}"
            heading = f"{folder} ({file.removeprefix('licenses/')})"
            parts.append(f"{heading}\n{'-' * len(heading)}\n{words}")
    return "\n\n".join(parts) + "\n"


def control_of(files: Mapping[str, Installed], version: str) -> dict[str, Installed]:
    """What dpkg has to know: the package, which files are the administrator's, and the scripts."""
    kilobytes = sum(-(-len(file.content) // 1024) for file in files.values())
    fields = {
        "Package": "cortexd",
        "Version": version,
        "Section": "net",
        "Priority": "optional",
        "Architecture": "amd64",
        "Maintainer": MAINTAINER,
        "Depends": DEPENDS,
        "Suggests": "ca-certificates",
        "Installed-Size": str(kilobytes),
        "Description": DESCRIPTION,
    }
    control = "".join(f"{name}: {value}\n" for name, value in fields.items())
    kept = "".join(f"/{path}\n" for path, file in sorted(files.items()) if file.kept)
    sums = "".join(
        f"{hashlib.md5(file.content, usedforsecurity=False).hexdigest()}  {path}\n"
        for path, file in sorted(files.items())
        if not file.kept
    )
    texts = {"control": control, "conffiles": kept, "md5sums": sums}
    scripts = {
        name: Installed((PACKAGING / "debian" / name).read_bytes(), 0o755) for name in SCRIPTS
    }
    return {**{name: Installed(words.encode()) for name, words in texts.items()}, **scripts}


def folders_of(paths: Iterable[str]) -> Iterator[str]:
    """Every folder above the paths, an outer one before what is in it."""
    yield from sorted(
        {
            parent.as_posix()
            for path in paths
            for parent in PurePosixPath(path).parents
            if parent.name
        }
    )


def archive(files: Mapping[str, Installed]) -> bytes:
    """A compressed tar of the files, all of them root's.

    Most of it is the program, which is compressed already: trying harder gains nothing.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz", preset=0, format=tarfile.GNU_FORMAT) as opened:
        for folder in ("", *folders_of(files)):
            info = entry(f"./{folder}", 0o755)
            info.type = tarfile.DIRTYPE
            opened.addfile(info)
        for path, file in sorted(files.items()):
            info = entry(f"./{path}", file.mode)
            info.size = len(file.content)
            opened.addfile(info, io.BytesIO(file.content))
    return packed.getvalue()


def entry(name: str, mode: int) -> tarfile.TarInfo:
    """Name, owner, mode and date of one entry."""
    info = tarfile.TarInfo(name)
    info.mode, info.mtime, info.uname, info.gname = mode, DATE, "root", "root"
    return info


def package(members: Mapping[str, bytes]) -> bytes:
    """An archive of the old Unix kind (ar(5)), which is what dpkg opens (deb(5))."""
    packed = [b"!<arch>\n"]
    for name, content in members.items():
        packed.append(
            f"{name:<16}{DATE:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        )
        packed.append(content + b"\n" * (len(content) % 2))
    return b"".join(packed)


def build(pyz: Path, folder: Path, version: str) -> Path:
    """Write the package into ``folder``; gives its path."""
    files = files_of(pyz, version)
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": archive(control_of(files, version)),
        "data.tar.xz": archive(files),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"cortexd_{version}_amd64.deb"
    path.write_bytes(package(members))
    return path


def main() -> int:
    """Command line of the build."""
    parser = argparse.ArgumentParser(description="Build cortexd's Debian package.")
    parser.add_argument("--pyz", type=Path, default=ROOT / "dist" / "cortexd.pyz")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="the folder to write into")
    parser.add_argument("--version", default=debian_version(__version__))
    options = parser.parse_args()
    if not options.pyz.exists():
        print(f"build_deb: {options.pyz} is not there: make build", file=sys.stderr)
        return 1
    path = build(options.pyz, options.out, options.version)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    print(f"{path} {path.stat().st_size} bytes sha256 {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
