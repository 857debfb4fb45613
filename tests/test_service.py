"""The systemd units: systemd has nothing to say against them, and they fit the daemon."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cortexd.config.load import (
    default_admin_socket,
    default_ledger_directory,
    load,
    load_ledger_directory,
)
from cortexd.config.schema import Gateway
from tests.test_manual import DOCUMENTS, blocks, page

ROOT = Path(__file__).resolve().parent.parent
SERVICE = ROOT / "cortexd.service"
SOCKET = ROOT / "packaging" / "cortexd.socket"
CREDENTIALS = ROOT / "packaging" / "credentials.conf"
EXAMPLE = ROOT / "packaging" / "cortexd.yaml"
BINARY = "/usr/bin/cortexd"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze here: apt install systemd"
)


def directives(path: Path) -> list[tuple[str, str]]:
    """Every ``Name=value`` of a unit, in order; systemd allows a name more than once."""
    lines = [line for line in path.read_text().splitlines() if "=" in line and line[0] not in "#["]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


@needs_systemd
def test_systemd_finds_no_fault_with_the_units(tmp_path: Path) -> None:
    """systemd-analyze ends with 0 even for an unknown key, so it also has to be silent."""
    runnable = SERVICE.read_text().replace(BINARY, "/bin/true")
    (tmp_path / SERVICE.name).write_text(runnable)
    shutil.copy(SOCKET, tmp_path)
    drop_ins = tmp_path / f"{SERVICE.name}.d"
    drop_ins.mkdir()
    shutil.copy(CREDENTIALS, drop_ins)
    units = [str(tmp_path / path.name) for path in (SERVICE, SOCKET)]
    command = ["systemd-analyze", "verify", "--man=no", *units]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_the_service_is_hardened() -> None:
    """Exposure at most 1.5 of 10, by systemd's own count."""
    command = ["systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=15"]
    done = subprocess.run([*command, str(SERVICE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_service_starts_what_the_package_installs() -> None:
    unit = dict(directives(SERVICE))
    assert unit["ExecStart"] == f"{BINARY} serve --config /etc/cortexd/cortexd.yaml"
    assert unit["Type"] == "notify"
    assert int(unit["WatchdogSec"]) > 0


def test_the_service_does_not_restart_on_a_bad_configuration() -> None:
    unit = dict(directives(SERVICE))
    assert (unit["Restart"], unit["RestartPreventExitStatus"]) == ("on-failure", "2")


def test_systemd_waits_longer_than_requests_get_to_end() -> None:
    assert int(dict(directives(SERVICE))["TimeoutStopSec"]) > 2 * Gateway().grace_seconds


def test_who_reads_of_the_grace_reads_how_long_systemd_waits_for_it() -> None:
    row = re.search(r"(?m)^\| `grace_seconds` .*SIGTERM.*$", page("configuration.md"))
    assert row is not None
    limit = f"`TimeoutStopSec=`, {dict(directives(SERVICE))['TimeoutStopSec']} in the unit"
    assert limit in row[0]


def test_the_way_without_the_package_ends_with_a_service_that_runs() -> None:
    """The example has other people's keys in it: it is edited and checked before."""
    [way] = [each for each in blocks(page("operations.md"), "sh") if "cortexd.pyz /usr/bin" in each]
    ends = [line.split("#")[0].strip() for line in way.splitlines()[-3:]]
    assert ends == [
        "sudoedit /etc/cortexd/cortexd.yaml",
        "sudo cortexd check-config /etc/cortexd/cortexd.yaml",
        "sudo systemctl enable --now cortexd",
    ]


def test_the_ledger_keeps_its_owner_and_its_clock() -> None:
    """A dynamic user's number changes; ProcSubset=pid hides the boot id from the ledger's clock."""
    unit = dict(directives(SERVICE))
    assert (unit["User"], unit["StateDirectory"], unit["StateDirectoryMode"]) == (
        "cortexd",
        "cortexd",
        "0700",
    )
    assert "DynamicUser" not in unit
    assert "ProcSubset" not in unit


def test_the_admin_socket_is_where_the_manual_says() -> None:
    directory = f"/run/{dict(directives(SERVICE))['RuntimeDirectory']}"
    socket = default_admin_socket({"RUNTIME_DIRECTORY": directory})
    assert socket == "/run/cortexd/admin.sock"


def test_the_network_is_open_in_both_directions() -> None:
    """Clients, neurons, and the broadcasts that wake one: nothing of it may be denied."""
    unit = directives(SERVICE)
    assert ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX") in unit
    denied = {"IPAddressDeny", "PrivateNetwork", "RestrictNetworkInterfaces", "SocketBindDeny"}
    assert not denied & dict(unit).keys()


def test_the_socket_unit_has_the_default_addresses_in_the_order_that_tells_them_apart() -> None:
    """Nameless sockets are the gateway, then the metrics listener; a unit has one name for all."""
    unit = directives(SOCKET)
    addresses = [value for name, value in unit if name == "ListenStream"]
    assert addresses == [Gateway().listen, Gateway().metrics_listen]
    assert "FileDescriptorName" not in dict(unit)


def test_a_credential_has_the_name_of_its_file() -> None:
    """So that `{file: NAME}` means the same to the daemon and to `sudo cortexd check-config`."""
    passed = [value.partition(":") for name, value in directives(CREDENTIALS)]
    assert len(passed) == 2
    assert [path for name, _, path in passed] == [f"/etc/cortexd/{name}" for name, *_ in passed]


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="no systemd-sysusers here")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes users")
def test_the_user_is_made(tmp_path: Path) -> None:
    command = ["systemd-sysusers", f"--root={tmp_path}", str(ROOT / "packaging/sysusers.conf")]
    (tmp_path / "etc").mkdir()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "/var/lib/cortexd:/usr/sbin/nologin" in (tmp_path / "etc/passwd").read_text()


def test_the_example_configuration_has_the_ledger_where_the_unit_has_it() -> None:
    """Also to whoever checks it from another folder, and without systemd's variables."""
    state = f"/var/lib/{dict(directives(SERVICE))['StateDirectory']}"
    assert load_ledger_directory(EXAMPLE, {}) == default_ledger_directory(
        {"STATE_DIRECTORY": state}
    )


def test_the_example_configuration_loads_with_its_catalogue(tmp_path: Path) -> None:
    writable = {"CORTEXD_LEDGER__DIRECTORY": str(tmp_path)}
    loaded = load(EXAMPLE, writable, {})
    assert [neuron.kind for neuron in loaded.config.neurons] == ["neuron", "llama-server"]
    assert [key.key_id for key in loaded.config.entitlements.keys] == ["alice", "batch"]
    assert loaded.config.entitlements.require_auth is True
    assert "small" in loaded.catalogue.aliases
    assert not loaded.notices


def test_no_example_takes_an_engine_for_any_other_server() -> None:
    """As `openai` it would lose what its own kind knows: exact counts, slots, loads."""
    texts = [path.read_text() for path in (EXAMPLE, ROOT / "packaging/debian/cortexd.yaml")]
    texts += [each for document in DOCUMENTS for each in blocks(document.read_text(), "yaml")]
    assert not [text for text in texts if "kind: openai" in text]
