"""`cortexd ledger verify`: the report, its exit code, and one set of words with `serve`."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import trio

from cortexd.cli.main import main
from tests.cli.ledgers import Daemon, damage, ledger_with_a_past
from tests.ledger.test_other_formats import old_ledger as other_format_ledger
from tests.support.daemon_process import ANY_PORTS, configured, run_cortexd

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    directory = tmp_path / "ledger"
    ledger_with_a_past(directory)
    return directory


def verify(directory: Path, capsys: Capture) -> tuple[int, list[str]]:
    code = main(["ledger", "verify", "--directory", str(directory)])
    captured = capsys.readouterr()
    return code, captured.out.splitlines() + captured.err.splitlines()


def verify_json(directory: Path, capsys: Capture) -> tuple[int, Mapping[str, object]]:
    code = main(["ledger", "verify", "--directory", str(directory), "--json"])
    report: Mapping[str, object] = json.loads(capsys.readouterr().out)
    return code, report


def test_a_sound_ledger_says_what_was_checked(ledger: Path, capsys: Capture) -> None:
    code, lines = verify(ledger, capsys)
    size = sum(file.stat().st_size for file in ledger.glob("seg-*"))
    assert (code, lines) == (
        0,
        [
            f"ledger: {ledger}",
            f"segments: 1 to 3, {size} bytes",
            "entries: 17 (1 to 17)",
            "reservations: 6 made, 4 charged or released, 1 left behind by a process that died",
            "balances: 12 added up again and compared with a snapshot",
            "ok: sound",
        ],
    )


def test_json_has_the_same_as_numbers(ledger: Path, capsys: Capture) -> None:
    code, report = verify_json(ledger, capsys)
    assert code == 0
    assert report["ok"] is True
    assert report["segments"] == [1, 3]
    assert report["entries"] == [1, 17]
    assert (report["holds"], report["closes"], report["balances"]) == (6, 4, 12)
    assert report["findings"] == report["notices"] == []


def test_damage_is_named_with_file_line_and_offset_and_is_exit_code_1(
    ledger: Path, capsys: Capture
) -> None:
    for segment in (1, 3):
        file, line, offset = damage(ledger, segment)
        code, lines = verify(ledger, capsys)
        assert code == 1
        assert any(said.startswith(f"{file}: line {line} (byte {offset}): ") for said in lines)
    assert lines[-1] == "2 faults"
    code, report = verify_json(ledger, capsys)
    assert (code, report["ok"]) == (1, False)
    findings = report["findings"]
    assert isinstance(findings, list)
    assert [found["file"] for found in findings] == ["seg-00000001.jsonl", "seg-00000003.jsonl"]
    assert (findings[1]["line"], findings[1]["offset"]) == (line, offset)


def test_a_torn_tail_is_a_notice_and_no_fault(ledger: Path, capsys: Capture) -> None:
    newest = ledger / "seg-00000003.jsonl"
    newest.write_bytes(newest.read_bytes() + b"334b8b03a8ba77dd\t{")
    code, lines = verify(ledger, capsys)
    assert (code, lines[-1]) == (0, "ok: sound")
    assert lines[0].startswith(f"notice: {newest}: line ")
    assert "18 bytes of a torn tail" in lines[0]


def test_serve_refuses_with_the_words_that_verify_uses(tmp_path: Path, capsys: Capture) -> None:
    ledger = tmp_path / "ledger"
    ledger_with_a_past(ledger)
    file, line, offset = damage(ledger)
    before = {path.name: path.read_bytes() for path in ledger.glob("seg-*")}
    configuration = configured(tmp_path, {"sim": "http://127.0.0.1:9"})
    arguments: list[str | Path] = ["serve", "--config", configuration, *ANY_PORTS]
    done = trio.run(partial(run_cortexd, arguments))
    assert done.returncode == 2
    [refusal] = [said for said in done.stderr.splitlines() if "event=cannot_run" in said]
    refusal = refusal.partition("event=cannot_run ")[2]
    assert refusal.startswith(f"{file}: line {line} (byte {offset}): damage inside durable data")
    assert before == {path.name: path.read_bytes() for path in ledger.glob("seg-*")}
    assert main(["ledger", "verify", "--config", str(configuration)]) == 1
    assert refusal in capsys.readouterr().out.splitlines()
    assert main(["ledger", "show", "--config", str(configuration)]) == 1
    assert refusal in capsys.readouterr().err


# Which ledger


def test_it_works_beside_the_process_that_has_the_lock(ledger: Path, capsys: Capture) -> None:
    daemon = Daemon(ledger)
    daemon.reserve("now")
    assert verify(ledger, capsys)[0] == 0
    daemon.settle(daemon.reserve("later"))
    assert verify(ledger, capsys)[0] == 0
    daemon.end()


def test_nothing_is_written(ledger: Path, capsys: Capture) -> None:
    (ledger / "seg-00000009.jsonl.tmp").write_bytes(b"unfinished")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in ledger.iterdir()}
    ledger.chmod(0o500)
    for question in ("verify", "show", "export"):
        assert main(["ledger", question, "--directory", str(ledger)]) == 0
    ledger.chmod(0o700)
    assert before == {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in ledger.iterdir()
    }


def test_the_ledger_of_a_configuration_is_the_one_that_serve_would_use(
    ledger: Path, tmp_path: Path, capsys: Capture
) -> None:
    configuration = configured(tmp_path, {"sim": "http://127.0.0.1:9"})
    assert main(["ledger", "verify", "--config", str(configuration)]) == 0
    assert f"ledger: {ledger}" in capsys.readouterr().out


@pytest.mark.parametrize("question", ["verify", "show", "export"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ledgr: {directory: x}", "ledgr: unknown setting"),
        ("ledger: {directry: x}", "ledger.directry: unknown setting"),
        ("ledger: [", "not YAML"),
        (None, "the file does not exist"),
    ],
)
def test_a_configuration_that_does_not_say_where_its_ledger_is_is_exit_code_2(
    question: str, text: str | None, said: str, tmp_path: Path, capsys: Capture
) -> None:
    """A mistyped name would otherwise be answered from another ledger."""
    if text is not None:
        (tmp_path / "bad.yaml").write_text(text)
    assert main(["ledger", question, "--config", str(tmp_path / "bad.yaml")]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("question", ["verify", "show", "export"])
def test_nothing_but_the_ledger_of_a_configuration_has_to_be_right(
    question: str, ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secrets that systemd alone can read, settings of another version: whatever it is."""
    (tmp_path / "cortexd.yaml").write_text(
        "neurons: [{name: a, endpoint: nonsense, api_key: {file: /gone}}]\n"
        "entitlements: {keys: [{account_id: a, key: {file: /gone}, hard_hat: 1}]}\n"
        "ledger: {directory: ledger}\n"
    )
    monkeypatch.setenv("CORTEXD_GATEWAY__LISTNE", "x")
    assert main(["ledger", question, "--config", str(tmp_path / "cortexd.yaml")]) == 0


def test_the_environment_wins_over_the_configuration_as_for_serve(
    ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cortexd.yaml").write_text("ledger: {directory: elsewhere}\n")
    monkeypatch.setenv("CORTEXD_LEDGER__DIRECTORY", str(ledger))
    assert main(["ledger", "verify", "--config", str(tmp_path / "cortexd.yaml")]) == 0


def test_a_configuration_without_a_ledger_has_it_where_serve_would(
    ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cortexd.yaml").write_text("")
    monkeypatch.setenv("STATE_DIRECTORY", str(ledger.parent))
    assert main(["ledger", "verify", "--config", str(tmp_path / "cortexd.yaml")]) == 0


def test_without_a_flag_it_is_where_serve_has_it_without_a_setting(
    ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}:{tmp_path}/other")
    assert main(["ledger", "verify"]) == 0
    monkeypatch.setenv("CORTEXD_LEDGER__DIRECTORY", str(tmp_path / "nowhere"))
    assert main(["ledger", "verify"]) == 1
    monkeypatch.delenv("CORTEXD_LEDGER__DIRECTORY")
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.chdir(tmp_path)
    ledger.rename(tmp_path / "cortexd-ledger")
    capsys.readouterr()
    assert main(["ledger", "verify"]) == 0
    assert f"ledger: {tmp_path}/cortexd-ledger" in capsys.readouterr().out


@pytest.mark.parametrize("question", ["verify", "show", "export"])
def test_where_there_is_no_ledger_it_fails_and_says_so(
    question: str, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["ledger", question, "--directory", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert f"{tmp_path}: there is no ledger here" in captured.out + captured.err
    assert main(["ledger", question, "--directory", str(tmp_path / "nowhere")]) == 1
    assert f"{tmp_path}/nowhere: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("question", ["verify", "show", "export"])
def test_a_file_that_cannot_be_read_is_named(question: str, ledger: Path, capsys: Capture) -> None:
    newest = ledger / "seg-00000003.jsonl"
    newest.unlink()
    newest.mkdir()
    assert main(["ledger", question, "--directory", str(ledger)]) == 1
    captured = capsys.readouterr()
    assert f"{newest}: " in captured.out + captured.err
    assert "Is a directory" in captured.out + captured.err


@pytest.mark.parametrize("question", ["verify", "show", "export"])
def test_a_journal_of_another_format_is_told_in_one_line(
    question: str, ledger: Path, capsys: Capture
) -> None:
    newest = ledger / "seg-00000003.jsonl"
    for file in ledger.glob("seg-*"):
        file.write_bytes(other_format_ledger().read("seg-00000001.jsonl"))
    assert main(["ledger", question, "--directory", str(ledger)]) == 1
    captured = capsys.readouterr()
    [said] = captured.err.splitlines()
    assert said.startswith(f"cortexd ledger: {newest.parent}/seg-0000000")
    assert "cortexd/0.1.0 wrote it in journal format 1, this version reads format 2 only" in said
    assert "disk" not in said


def test_serve_does_not_start_on_a_journal_of_another_format_nor_try_again(
    ledger: Path, tmp_path: Path
) -> None:
    newest = ledger / "seg-00000003.jsonl"
    newest.write_bytes(other_format_ledger().read("seg-00000001.jsonl"))
    configuration = configured(tmp_path, {"sim": "http://127.0.0.1:9"})
    arguments: list[str | Path] = ["serve", "--config", configuration, *ANY_PORTS]
    done = trio.run(partial(run_cortexd, arguments))
    assert done.returncode == 2
    assert f"event=cannot_run {newest}: cortexd/0.1.0 wrote it in journal format 1" in done.stderr
    assert "backup" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [[], ["mend"], ["verify", "--directory", "a", "--config", "b"], ["verify", "--repair"]],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert main(["ledger", *arguments]) == 2
