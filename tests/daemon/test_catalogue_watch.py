"""The catalogue's file changes, breaks, vanishes and comes back under a running daemon.

Real files; a look happens when the test says so.
"""

import logging
import os
from pathlib import Path

import pytest
import trio
import trio.testing

from cortexd.config.load import load
from cortexd.config.schema import Catalogue
from cortexd.daemon.catalogue_watch import CatalogueWatch

ONE = "models: [{id: org/one}]\n"
TWO = "models: [{id: org/one, vram_mb: 5}, {id: org/two}]\naliases: {small: org/two}\n"
BROKEN = "models: [{id: org/one, vram_mb: -1}, {id: org/one}]\naliases: {x: org/nowhere}\n"


class World:
    """A configuration, its catalogue's file, and the watch over it."""

    def __init__(self, folder: Path, catalogue: str | None, more: str = "") -> None:
        self.folder = folder
        self.file = folder / "models.yaml"
        if catalogue is not None:
            self.file.write_text(catalogue)
        config = folder / "cortexd.yaml"
        config.write_text(
            "neurons: [{name: beast, endpoint: 'http://beast:1'}]\n"
            f"models_config: models.yaml\nledger: {{directory: ledger}}\n{more}"
        )
        loaded = load(config, {}, {})
        self.catalogues: list[Catalogue] = []
        self.came = trio.Event()
        self.watch = CatalogueWatch(loaded.config, loaded.catalogue, self.take)

    def take(self, catalogue: Catalogue) -> None:
        self.catalogues.append(catalogue)
        self.came.set()

    @property
    def models(self) -> list[list[str]]:
        """The ids in each catalogue that came, in order."""
        return [[model.id for model in each.models] for each in self.catalogues]

    async def looks(self, times: int = 2) -> None:
        for _ in range(times):
            await self.watch.look()

    def replace(self, text: str) -> None:
        """As careful programs write: another file takes the name."""
        new = self.folder / "models.yaml.new"
        new.write_text(text)
        os.replace(new, self.file)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Level and message of all that was logged since the last time."""
    lines = [f"{each.levelname} {each.getMessage()}" for each in caplog.records]
    caplog.clear()
    return lines


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


async def test_a_file_that_stays_as_it_was_at_start_is_nothing_new(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path, ONE)
    await world.looks(5)
    os.utime(world.file)
    await world.looks(3)
    assert (world.models, told(caplog)) == ([], [])


async def test_a_change_is_handed_on_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path, ONE)
    await world.looks()
    world.file.write_text(TWO)
    await world.looks(4)
    assert world.models == [["org/one", "org/two"]]
    assert world.catalogues[0].aliases == {"small": "org/two"}
    assert told(caplog) == [
        "INFO event=catalogue_reloaded models=2 added=org/two removed=none changed=org/one "
        "aliases_changed=small"
    ]
    world.replace(ONE)
    await world.looks()
    assert world.models[1:] == [["org/one"]]
    assert "removed=org/two" in told(caplog)[0]


async def test_a_change_between_the_start_and_the_first_look_is_not_lost(tmp_path: Path) -> None:
    world = World(tmp_path, ONE)
    world.file.write_text(TWO)
    await world.looks()
    assert world.models == [["org/one", "org/two"]]


async def test_a_file_that_is_still_being_written_is_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every part of it is a valid catalogue, and the first one is empty."""
    world = World(tmp_path, ONE)
    await world.looks()
    whole = "models:\n- {id: org/two}\n- {id: org/three}\n"
    for part in whole.splitlines(keepends=True):
        with world.file.open("w" if part.startswith("models") else "a") as file:
            file.write(part)
        await world.looks(1)
    assert (world.models, told(caplog)) == ([], [])
    await world.looks(1)
    assert world.models == [["org/two", "org/three"]]


async def test_a_broken_file_changes_nothing_and_every_mistake_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path, ONE)
    world.file.write_text(BROKEN)
    await world.looks(6)
    assert world.models == []
    [line] = told(caplog)
    assert line.startswith(f"ERROR event=catalogue_broken file={world.file} problems=3 ")
    assert "models_kept=1" in line
    for part in ("line 1: models[0].vram_mb:", "line 1: models[1].id:", "line 2: aliases.x:"):
        assert part in line
    assert ' do="correct the file and save it' in line

    world.file.write_text("models: [")
    await world.looks(4)
    assert [each.split()[:2] for each in told(caplog)] == [["ERROR", "event=catalogue_broken"]]

    world.file.write_text(ONE + "# as it was\n")
    await world.looks(4)
    assert world.models == []
    assert told(caplog) == [
        "INFO event=catalogue_reloaded models=1 added=none removed=none changed=none "
        "aliases_changed=none"
    ]


async def test_a_catalogue_has_to_fit_the_configuration_as_at_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path, ONE)
    world.file.write_text("models: [{id: org/one, pinned_on: [beast, scout]}]\n")
    await world.looks()
    assert world.models == []
    [line] = told(caplog)
    assert "models[0].pinned_on[1]: no neuron is called scout" in line


async def test_a_notice_about_a_new_catalogue_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = "entitlements: {keys: [{key: x, account_id: a, models: [org/one]}]}\n"
    world = World(tmp_path, ONE, keys)
    world.file.write_text("models: [{id: org/other}]\n")
    await world.looks()
    reloaded, notice = told(caplog)
    assert "added=org/other removed=org/one" in reloaded
    assert notice.startswith("WARNING event=catalogue_notice notice=")
    assert "key a may use org/one, which is not in the catalogue" in notice


async def test_a_file_that_is_being_replaced_is_not_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path, ONE)
    await world.looks()
    world.file.unlink()
    await world.watch.look()
    world.file.write_text(TWO)
    await world.looks()
    assert world.models == [["org/one", "org/two"]]
    assert "WARNING" not in "".join(told(caplog))


@pytest.mark.parametrize("by_signal", [False, True])
async def test_a_file_that_stays_away_is_an_empty_catalogue_until_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, by_signal: bool
) -> None:
    world = World(tmp_path, ONE)
    await world.looks()
    world.file.unlink()
    await world.watch.look(told=by_signal)
    assert world.models == []
    await world.looks(4)
    assert world.models == [[]]
    [line] = told(caplog)
    assert line.startswith(f"WARNING event=catalogue_missing file={world.file} models_lost=1 do=")
    world.file.write_text(ONE)
    await world.looks()
    assert world.models == [[], ["org/one"]]
    assert "added=org/one" in told(caplog)[0]


async def test_a_file_that_is_missing_at_start_is_told_and_picked_up_when_it_appears(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path, None)
    await world.looks(4)
    assert [line.split()[:2] for line in told(caplog)] == [["WARNING", "event=catalogue_missing"]]
    world.file.write_text(ONE)
    await world.looks()
    assert world.models == [["org/one"]]


async def test_what_is_no_file_is_broken_and_not_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path, ONE)
    world.file.unlink()
    world.file.mkdir()
    await world.looks(4)
    [line] = told(caplog)
    assert "event=catalogue_broken" in line
    assert "a directory, not a file" in line
    world.file.rmdir()
    world.file.symlink_to(world.file)
    await world.looks(4)
    [line] = told(caplog)
    assert "symbolic links" in line
    assert world.models == []


async def test_who_tells_it_to_look_gets_an_answer_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path, ONE)
    await world.looks()
    world.file.write_text(TWO)
    await world.watch.look(told=True)
    assert world.models == [["org/one", "org/two"]]
    await world.watch.look(told=True)
    assert [line.split()[1] for line in told(caplog)] == [
        "event=catalogue_reloaded",
        "event=catalogue_unchanged",
    ]
    world.file.write_text(BROKEN)
    await world.watch.look(told=True)
    await world.watch.look(told=True)
    assert [line.split()[1] for line in told(caplog)] == 2 * ["event=catalogue_broken"]
    world.file.unlink()
    await world.looks()
    await world.watch.look(told=True)
    assert [line.split()[1] for line in told(caplog)] == 2 * ["event=catalogue_missing"]


async def test_the_task_looks_when_it_is_told(tmp_path: Path) -> None:
    world = World(tmp_path, ONE)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(world.watch.run)
            world.file.write_text(TWO)
            world.watch.reload()
            await world.came.wait()
            nursery.cancel_scope.cancel()
    assert world.models == [["org/one", "org/two"]]


async def test_the_task_looks_by_itself(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    mock_clock.rate = 200
    world = World(tmp_path, ONE)
    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            await nursery.start(world.watch.run)
            world.replace(TWO)
            await world.came.wait()
            nursery.cancel_scope.cancel()
    assert world.models == [["org/one", "org/two"]]


async def test_without_a_file_to_watch_the_task_has_nothing_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who sends SIGHUP for a changed configuration is told that it takes more."""
    config = tmp_path / "cortexd.yaml"
    config.write_text("ledger: {directory: ledger}\n")
    loaded = load(config, {}, {})
    read: list[object] = []
    watch = CatalogueWatch(loaded.config, loaded.catalogue, read.append)
    watch.reload()
    with trio.fail_after(5):
        await watch.run()
    assert read == []
    [line] = told(caplog)
    assert line.startswith("INFO event=reload catalogue=none note=")
    assert "a changed configuration takes a restart" in line


async def test_long_lists_of_names_and_mistakes_are_cut(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path, ONE)
    many = "".join(f"- {{id: 'a \"b\" {i:02}'}}\n" for i in range(12))
    world.file.write_text(f"models:\n{many}")
    await world.looks()
    [line] = told(caplog)
    assert r'added="a \"b\" 00, ' in line
    assert r'a \"b\" 09, and 2 more" removed=org/one' in line
    world.file.write_text("models:\n" + 30 * "- {id: x}\n")
    await world.looks()
    [line] = told(caplog)
    assert "problems=29" in line
    assert "and 9 more, see check-config" in line
