"""cortexd as a service of a real systemd: killed, hung, restarted under load, misconfigured."""

import json
import re

import pytest

from tests.installed import knocking
from tests.installed.machine import ROOT
from tests.installed.site import CONFIG, CONFIG_FILE, GATEWAY, KEY, MODEL, Site

pytestmark = pytest.mark.slow

RESTARTS = 3
CATALOGUE = f"curl -s -H 'Authorization: Bearer {KEY}' {GATEWAY}/v1/models"


def test_starting_returns_once_requests_are_answered(site: Site) -> None:
    site.machine.run("systemctl", "restart", "cortexd")
    assert site.ask() > 0
    assert site.machine.shows("cortexd", "StatusText") == "serving 1 neurons"


def test_what_was_spent_is_still_spent_after_kill_9(site: Site) -> None:
    site.ask()
    before, restarts = site.spent(), restarts_of(site)
    site.machine.run("systemctl", "kill", "--signal=KILL", "cortexd")
    site.machine.wait_until("cortexd", "NRestarts", str(restarts + 1))
    site.machine.wait_until("cortexd", "ActiveState", "active")
    assert site.spent() == before > 0
    assert site.ask() == site.spent() - before


def restarts_of(site: Site) -> int:
    """How often systemd has restarted it by itself since it was last told to."""
    return int(site.machine.shows("cortexd", "NRestarts"))


def test_a_daemon_that_hangs_is_killed_and_restarted(site: Site) -> None:
    site.drop_in("hurry", "[Service]\nWatchdogSec=2\n")
    site.machine.run("systemctl", "restart", "cortexd")
    before = site.spent()
    site.machine.run("systemctl", "kill", "--signal=STOP", "cortexd")
    site.machine.wait_until("cortexd", "NRestarts", "1")
    site.machine.wait_until("cortexd", "ActiveState", "active")
    assert "Watchdog timeout" in site.machine.journal("cortexd")
    assert site.spent() == before
    site.without_drop_ins()


def test_a_broken_configuration_ends_it_once_and_says_what_is_wrong(site: Site) -> None:
    site.configure(CONFIG.replace("hard_cap", "hard_hat"))
    assert site.machine.try_to("systemctl", "restart", "cortexd").returncode == 1
    assert site.machine.shows("cortexd", "ActiveState") == "failed"
    assert site.machine.shows("cortexd", "ExecMainStatus") == "2"
    assert site.machine.shows("cortexd", "NRestarts") == "0"
    assert f"{CONFIG_FILE}:5: entitlements.keys[0].hard_hat" in site.machine.journal("cortexd")
    site.configure()
    site.machine.run("systemctl", "start", "cortexd")
    assert site.ask() > 0


def test_a_ledger_whose_disk_is_not_mounted_yet_is_tried_until_it_is(site: Site) -> None:
    """The mount point belongs to root, as mount points do."""
    machine, place = site.machine, "/srv/disk"
    machine.run("mkdir", place)
    site.configure(CONFIG.replace("/var/lib/cortexd", place))
    site.drop_in("disk", f"[Service]\nReadWritePaths={place}\n")
    assert machine.try_to("systemctl", "restart", "cortexd").returncode == 1
    machine.wait_until("cortexd", "NRestarts", "1")
    said = machine.journal("cortexd")
    assert f"ledger.directory: its nearest existing parent, {place}, cannot be written" in said
    machine.run("mount", "-t", "tmpfs", "-o", "mode=755,uid=cortexd", "disk", place)
    machine.wait_until("cortexd", "ActiveState", "active")
    assert site.ask() == site.spent()
    site.configure()
    site.without_drop_ins()
    machine.run("umount", place)


def test_the_commands_of_the_manual_answer_for_the_ledger_of_the_unit(site: Site) -> None:
    """As the user whose files they are, wherever they are typed."""
    site.ask()
    text = (ROOT / "cortexd/manual/ledger.md").read_text()
    commands = re.findall(r"cortexd ledger (?:verify|show|export)[^`|\n]*", text)
    assert len(commands) >= 5
    for command in commands:
        as_cortexd = ("runuser", "-u", "cortexd", "--", *command.split())
        assert site.machine.run(*as_cortexd) != "", command


def test_a_ledger_outside_the_sandbox_is_told_with_the_setting_that_lets_it_in(
    site: Site,
) -> None:
    site.configure(CONFIG.replace("/var/lib/cortexd", "/srv"))
    assert site.machine.try_to("systemctl", "restart", "cortexd").returncode == 1
    site.machine.wait_until("cortexd", "ExecMainStatus", "1")
    assert "ReadWritePaths=" in site.machine.journal("cortexd")
    site.configure()
    site.machine.run("systemctl", "restart", "cortexd")


def test_no_connection_is_refused_while_it_restarts_under_load(site: Site) -> None:
    """systemd holds the ports: whoever comes in between waits in the queue.

    What may happen is that a drain sends somebody away unheard, once per client and restart at
    most; that costs nothing. What such a client sees depends on how much it had sent.
    """
    site.machine.run("systemctl", "stop", "cortexd")
    site.machine.run("systemctl", "enable", "--now", "cortexd.socket", "cortexd.service")
    before, own = site.spent(), 0
    script = str(ROOT / "tests/installed/knocking.py")
    with site.machine.start("python3", script, "127.0.0.1", "31313", KEY, MODEL) as clients:
        assert clients.stdout is not None
        assert clients.stdout.readline() == "knocking\n"
        pids = {site.pid}
        for _ in range(RESTARTS):
            site.machine.run("systemctl", "restart", "cortexd")
            pids.add(site.pid)
            own += site.ask()
        told, _ = clients.communicate("")
    seen = json.loads(told)
    assert len(pids) == 1 + RESTARTS
    unheard = {"RemoteDisconnected", "BrokenPipeError", "ConnectionResetError"}
    assert seen.keys() <= {"answered", "tokens", *unheard}, seen
    assert sum(seen.get(name, 0) for name in unheard) <= knocking.THREADS * RESTARTS
    assert seen["answered"] > 50
    assert site.spent() == before + own + seen["tokens"]
    site.machine.run("systemctl", "disable", "--now", "cortexd.socket")
    site.machine.run("systemctl", "restart", "cortexd")


def test_a_connection_starts_it_when_systemd_holds_the_ports(site: Site) -> None:
    site.machine.run("systemctl", "stop", "cortexd")
    site.machine.run("systemctl", "start", "cortexd.socket")
    assert site.machine.shows("cortexd", "ActiveState") == "inactive"
    assert site.ask() > 0
    site.machine.run("systemctl", "stop", "cortexd.socket", "cortexd.service")
    site.machine.run("systemctl", "start", "cortexd")


def keep_secrets_apart(site: Site) -> None:
    """The example of a drop-in, as it is installed, and cortexd running by it.

    Two secrets are in files that root alone can read: the neuron's, and that of alice's key.
    """
    machine = site.machine
    for name, secret in (("beast.key", "sk-neuron"), ("alice.key", "sk-kept")):
        machine.write(f"/etc/cortexd/{name}", f"{secret}\n")
        machine.run("chmod", "600", f"/etc/cortexd/{name}")
    keyed = CONFIG.replace(KEY, "{file: alice.key}")
    site.configure(keyed.replace('13131"', '13131", api_key: {file: beast.key}'))
    example = "/usr/share/doc/cortexd/examples/credentials.conf"
    machine.run("install", "-D", "-t", "/run/systemd/system/cortexd.service.d", example)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "cortexd")


def test_secrets_reach_the_daemon_that_it_cannot_read_itself(site: Site) -> None:
    """check-config finds them as well."""
    keep_secrets_apart(site)
    site.machine.run("cortexd", "check-config", CONFIG_FILE)
    assert site.ask("sk-kept") > 0
    command = ("runuser", "-u", "cortexd", "--", "cat", "/etc/cortexd/alice.key")
    assert "Permission denied" in site.machine.try_to(*command).stderr
    site.configure()
    site.without_drop_ins()


def test_a_reload_can_read_the_secrets_too(site: Site) -> None:
    """Or it would refuse every catalogue, as its check of the configuration fails."""
    keep_secrets_apart(site)
    site.machine.run("systemctl", "reload", "cortexd")
    assert site.ask("sk-kept") > 0
    site.configure()
    site.without_drop_ins()


def test_a_reload_takes_a_new_catalogue_and_refuses_a_broken_one(site: Site) -> None:
    machine, catalogue = site.machine, "/etc/cortexd/models.yaml"
    site.configure(CONFIG + "models_config: models.yaml\n")
    good = "models: [{id: sim/small, limit: {context: 4096, output: 64}}]\n"
    machine.write(catalogue, good)
    machine.run("chown", "root:cortexd", catalogue)
    machine.run("systemctl", "restart", "cortexd")
    pid = site.pid
    machine.write(catalogue, good.replace("limit", "limits"))
    refused = machine.try_to("systemctl", "reload", "cortexd")
    assert refused.returncode == 1
    assert f"{catalogue}:1: models[0].limits: unknown setting" in machine.journal("cortexd")
    assert site.ask() > 0
    machine.write(catalogue, f"{good}aliases: {{small: sim/small}}\n")
    machine.run("systemctl", "reload", "cortexd")
    asked = f"until {CATALOGUE} | grep -q '\"small\"'; do :; done"
    machine.run("timeout", "30", "bash", "-c", asked)
    assert site.pid == pid
    site.configure()
    machine.run("rm", catalogue)
    machine.run("systemctl", "restart", "cortexd")


def test_root_gets_an_answer_over_the_admin_socket_and_others_are_told_why_not(
    site: Site,
) -> None:
    assert MODEL in site.machine.run("cortexd", "models")
    refused = site.machine.try_to("runuser", "-u", "nobody", "--", "cortexd", "models")
    assert refused.returncode == 1
    assert "/run/cortexd/admin.sock" in refused.stderr


def test_clients_of_every_user_may_connect_to_a_path(site: Site) -> None:
    path = "/run/cortexd/gateway.sock"
    site.configure(f"{CONFIG}gateway: {{listen: 'unix:{path}'}}\n")
    site.machine.run("systemctl", "restart", "cortexd")
    asked = ("curl", "-sS", "--fail", "--unix-socket", path, "http://cortexd/health")
    assert "healthy" in site.machine.run("runuser", "-u", "nobody", "--", *asked)
    site.configure()
    site.machine.run("systemctl", "restart", "cortexd")


def test_the_running_daemon_has_no_privilege_left(site: Site) -> None:
    status = dict(
        line.split(":\t", 1)
        for line in site.machine.run("cat", f"/proc/{site.pid}/status").splitlines()
        if ":\t" in line
    )
    assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    number = site.machine.run("id", "-u", "cortexd").strip()
    assert status["Uid"].split() == [number] * 4


def test_systemd_finds_no_fault_with_the_installed_units(site: Site) -> None:
    units = ("cortexd.service", "cortexd.socket")
    verified = site.machine.try_to("systemd-analyze", "verify", "--man=no", *units)
    assert (verified.returncode, verified.stderr) == (0, "")
    site.machine.run("systemd-analyze", "security", "--threshold=15", "cortexd.service")


def test_others_can_neither_read_state_and_configuration_nor_write_anywhere(site: Site) -> None:
    asked = ("stat", "--format=%a %U %G", "/var/lib/cortexd", "/run/cortexd", "/etc/cortexd")
    assert site.machine.run(*asked).splitlines() == [
        "700 cortexd cortexd",
        "755 cortexd cortexd",
        "750 root cortexd",
    ]


def test_the_sandbox_allows_what_the_daemon_needs_and_nothing_else(site: Site) -> None:
    """A script in the daemon's place, under the same directives."""
    machine = site.machine
    machine.write("/etc/cortexd/roots.key", "sk-secret")
    machine.run("chmod", "600", "/etc/cortexd/roots.key")
    machine.run("systemctl", "stop", "cortexd")
    script = (ROOT / "tests/installed/sandboxed.py").read_text()
    machine.write("/usr/local/lib/sandboxed.py", script)
    command = "/usr/bin/python3 -I /usr/local/lib/sandboxed.py"
    site.drop_in("try", f"[Service]\nType=oneshot\nRestart=no\nExecStart=\nExecStart={command}\n")
    machine.run("systemctl", "start", "cortexd")
    said = next(line for line in machine.journal("cortexd").splitlines() if line.startswith("{"))
    site.without_drop_ins()
    allowed = {what for what, possible in json.loads(said).items() if possible}
    assert allowed == {
        "broadcast",
        "connect over IPv4",
        "connect over IPv6",
        "write state",
        "write the admin socket's folder",
    }
