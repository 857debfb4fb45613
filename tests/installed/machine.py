"""A machine to install things on: a real systemd, booted in namespaces over the host's own files.

Nothing that happens in it reaches the host: its files are an overlay that goes with it, its
processes, mounts, host name and network are its own. It takes a second to boot and needs root, a
systemd and a kernel that lets root make namespaces; `why_not` says what is missing.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("machine.sh")
SYSTEMD = Path("/lib/systemd/systemd")
#: What the package depends on: the machine has no network to get it from.
DEPENDED_ON = ("python3", "systemd", "init-system-helpers")
PATIENCE_SECONDS = 60
#: How everything that this process makes on the host for a machine begins.
PREFIX = f"machine-{os.getpid()}-"
NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")
ENVIRONMENT = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/")
#: SIGRTMIN+4 is systemd's word for poweroff.target.
POWER_OFF = signal.SIGRTMIN + 4


def why_not() -> str | None:
    """What this host lacks to boot a machine and install a package on it; None: nothing."""
    if os.geteuid() != 0:
        return "only root can boot a machine"
    for program in ("unshare", "nsenter", "apt-get", "dpkg-deb", "curl"):
        if shutil.which(program) is None:
            return f"there is no {program}"
    if not SYSTEMD.exists():
        return "there is no systemd: apt install systemd"
    for package in DEPENDED_ON:
        asked = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
        if subprocess.run(asked, capture_output=True, text=True).stdout != "installed":
            return f"Debian's {package} is not installed"
    hierarchy = cgroups()
    if hierarchy is None or os.statvfs(hierarchy).f_flag & os.ST_RDONLY:
        return "no cgroup2 is mounted, or only for reading"
    with tempfile.TemporaryDirectory() as folder:
        command = ["unshare", *NAMESPACES, "--fork", str(SCRIPT), "try", folder]
        tried = subprocess.run(command, capture_output=True, text=True)
    return None if tried.returncode == 0 else f"no namespaces for us: {tried.stderr.strip()}"


def cgroups() -> Path | None:
    """Where the kernel's cgroup2 hierarchy is."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return next((Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"), None)


class Machine:
    """A machine that runs. Everything is done as its root, from outside."""

    def __init__(self, leader: int) -> None:
        """`leader`: the process id of its process 1, as the host counts."""
        root = f"/proc/{leader}/root"
        spaces = ("-m", "-u", "-i", "-n", "-p", "-C", f"--root={root}", f"--wd={root}")
        self._enter = ("nsenter", "-t", str(leader), *spaces, "env", "-i", *ENVIRONMENT)
        self._started: list[subprocess.Popen[str]] = []

    def try_to(
        self, *command: str, seconds: float = PATIENCE_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever that is."""
        return subprocess.run(
            [*self._enter, *command], capture_output=True, text=True, timeout=seconds
        )

    def run(self, *command: str) -> str:
        """Run a command that has to succeed; what it printed."""
        done = self.try_to(*command)
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{said(done)}"
        return done.stdout

    def shell(self, line: str) -> str:
        """Run a line of bash as somebody at its terminal would; what was to be seen, errors too."""
        return said(self.try_to("bash", "-c", f"exec 2>&1; {line}"))

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command that goes on, its standard input and output in our hands."""
        pipe = subprocess.PIPE
        started = subprocess.Popen([*self._enter, *command], stdin=pipe, stdout=pipe, text=True)
        self._started.append(started)
        return started

    def let_go(self) -> None:
        """End our side of what was started and still runs; the machine ends the other side.

        A machine that is switched off first stops all it has, which stops our side too, and then
        waits for an end of theirs that nobody sees.
        """
        for started in self._started:
            started.kill()
            started.wait()

    def write(self, path: str, text: str) -> None:
        """Put a file there, with the folders above it."""
        script = 'mkdir -p "$(dirname "$1")" && cat > "$1"'
        command = [*self._enter, "sh", "-c", script, "sh", path]
        subprocess.run(command, input=text, text=True, check=True)

    def shows(self, unit: str, name: str) -> str:
        """One property of a unit, as systemd has it now."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def journal(self, unit: str) -> str:
        """All that a unit has said since the machine was booted."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")

    def wait_until(self, unit: str, name: str, *wanted: str) -> str:
        """Ask until a property has one of the values; which."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (found := self.shows(unit, name)) not in wanted:
            assert time.monotonic() < deadline, f"{unit}: {name}={found}, not {wanted}"
        return found


def said(done: subprocess.CompletedProcess[str]) -> str:
    """All that a command wrote."""
    return done.stdout + done.stderr


@contextlib.contextmanager
def booted(*shared: Path) -> Iterator[Machine]:
    """A machine, up and running; off and gone when left.

    It sees the checkout, the Python that runs this and the `shared` folders, all read-only.
    """
    hierarchy = cgroups()
    assert hierarchy is not None, "ask why_not first"
    group = Path(tempfile.mkdtemp(prefix=PREFIX, dir=hierarchy))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    pythons = (Path(sys.prefix), Path(sys.base_prefix))
    inside = [path for path in (ROOT, *pythons, *shared) if not path.is_relative_to("/usr")]
    script = [str(SCRIPT), "boot", str(folder), *map(str, inside)]
    # The shell goes into the group first, so that this is all the cgroups that the machine sees.
    join = 'echo $$ > "$0/cgroup.procs" && exec unshare "$@"'
    command = ["sh", "-c", join, str(group), *NAMESPACES, "--fork", "--kill-child", *script]
    with (folder.with_suffix(".log")).open("w+") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            leader = leader_of(process, log.name)
            machine = Machine(leader)
            wait_for_boot(machine, log.name)
            yield machine
            machine.let_go()
            os.kill(leader, POWER_OFF)
            process.wait(PATIENCE_SECONDS)
        finally:
            process.kill()
            process.wait()
            clean_up(group, folder)


def leader_of(process: subprocess.Popen[bytes], log: str) -> int:
    """The machine's process 1: the only child of `unshare`, once it has become systemd."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for child in children.read_text().split():
            if Path(f"/proc/{child}/cmdline").read_bytes().startswith(bytes(SYSTEMD)):
                return int(child)
    raise AssertionError(f"the machine did not boot: {Path(log).read_text()}")


def wait_for_boot(machine: Machine, log: str) -> None:
    """Ask systemd until it can be asked, and then for the end of its start."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        state = machine.try_to("systemctl", "is-system-running", "--wait").stdout.strip()
        if state in ("running", "degraded"):
            return
    raise AssertionError(f"the machine came no further than {state}: {Path(log).read_text()}")


def clean_up(group: Path, folder: Path) -> None:
    """Remove what a machine that is off has left: its cgroups, and an empty folder.

    Those of a machine that was killed are busy until the kernel has buried its processes.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    inner = (path for path in sorted(group.rglob("*"), reverse=True) if path.is_dir())
    for path in (*inner, group):
        while path.exists():
            with contextlib.suppress(OSError):
                path.rmdir()
            assert time.monotonic() < deadline, f"{path} is still busy"
    folder.rmdir()
    folder.with_suffix(".log").unlink()
