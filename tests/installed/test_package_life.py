"""The package's own life on a machine: upgraded, removed, installed again, purged."""

import pytest

from tests.installed.conftest import NEXT_VERSION, Packages
from tests.installed.site import CONFIG, CONFIG_FILE, Site

pytestmark = pytest.mark.slow

LEDGER = "/var/lib/cortexd/ledger"


def test_an_upgrade_restarts_it_and_keeps_what_was_spent(site: Site, packages: Packages) -> None:
    site.ask()
    before, pid = site.spent(), site.pid
    site.machine.run("dpkg", "--install", str(packages.next))
    assert site.machine.run("cortexd", "--version") == f"cortexd {NEXT_VERSION}\n"
    assert site.pid not in (0, pid)
    assert f"event=ready version={NEXT_VERSION}" in site.machine.journal("cortexd")
    assert site.machine.run("cat", CONFIG_FILE) == CONFIG
    assert site.spent() == before > 0


def test_an_upgrade_does_not_stop_what_it_could_not_start_again(
    site: Site, packages: Packages
) -> None:
    """The old daemon goes on, although its file is another one now; nobody may notice."""
    pid = site.pid
    site.configure(CONFIG.replace("hard_cap", "hard_hat"))
    said = site.machine.shell(f"dpkg --install {packages.this}")
    assert "NOT restarted" in said
    assert f"{CONFIG_FILE}:5: entitlements.keys[0].hard_hat: unknown setting" in said
    assert site.pid == pid
    assert site.ask() > 0
    site.configure()
    site.machine.run("systemctl", "restart", "cortexd")
    assert site.pid not in (0, pid)


def test_an_upgrade_starts_nothing_that_was_stopped(site: Site, packages: Packages) -> None:
    site.machine.run("systemctl", "stop", "cortexd")
    site.machine.run("dpkg", "--install", str(packages.next))
    assert site.machine.shows("cortexd", "ActiveState") == "inactive"
    site.machine.run("systemctl", "start", "cortexd")


def test_an_upgrade_looks_at_the_overrides_too(site: Site, packages: Packages) -> None:
    """What stands in /etc/default/cortexd is part of what the new version has to run."""
    pid = site.pid
    site.machine.write("/etc/default/cortexd", "CORTEXD_GATEWAY__LISTNE=127.0.0.1:1\n")
    said = site.machine.shell(f"dpkg --install {packages.this}")
    assert "CORTEXD_GATEWAY__LISTNE: gateway.listne: there is no such setting" in said
    assert site.pid == pid
    site.machine.run("rm", "/etc/default/cortexd")


def test_removing_stops_it_and_keeps_configuration_and_ledger(site: Site) -> None:
    site.machine.run("dpkg", "--remove", "cortexd")
    assert site.machine.shows("cortexd", "LoadState") == "not-found"
    assert site.machine.try_to("pgrep", "-u", "cortexd").stdout == ""
    site.machine.run("test", "-e", f"{LEDGER}/seg-00000001.jsonl")
    assert site.machine.run("cat", CONFIG_FILE) == CONFIG


def test_installed_again_it_goes_on_where_it_was(site: Site, packages: Packages) -> None:
    site.machine.run("dpkg", "--install", str(packages.this))
    assert site.machine.run("systemctl", "is-enabled", "cortexd") == "enabled\n"
    site.machine.run("systemctl", "start", "cortexd")
    assert site.spent() > 0
    assert site.ask() > 0


def test_purging_leaves_nothing_but_the_user(site: Site) -> None:
    site.machine.run("systemctl", "enable", "cortexd.socket")
    site.drop_in("any", "[Service]\nNice=1\n")
    site.machine.run("cp", "-r", "/run/systemd/system/cortexd.service.d", "/etc/systemd/system/")
    site.machine.run("dpkg", "--purge", "cortexd")
    assert site.traces() == site.traces_before
    site.machine.run("id", "cortexd")
    assert site.machine.shows("cortexd", "LoadState") == "not-found"
