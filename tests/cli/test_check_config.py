"""Claims about `cortexd check-config`."""

import argparse
import json

import pytest

from cortexd.cli import check_config
from tests.config.loading import Folder

GOOD = """
neurons: [{name: a, endpoint: http://a}]
entitlements: {keys: [{key: sk-1, account_id: x}, {key: sk-2, account_id: y}]}
ledger: {directory: ledger}
"""


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tmp_path_factory.mktemp("config"))


def check(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    check_config.add_parser(parser.add_subparsers())
    options = parser.parse_args(["check-config", *arguments])
    return int(options.run(options))


def test_a_good_file_is_ok_with_a_summary(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder.write("c.yaml", GOOD)
    assert check(str(file)) == 0
    out = capsys.readouterr().out
    assert out == f"ok: 1 neuron, 2 keys, 0 models\nledger: {folder.path / 'ledger'}\n"


def test_notices_follow_the_summary(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder.write("c.yaml", "ledger: {directory: ledger}\n")
    assert check(str(file)) == 0
    [_, _, notice] = capsys.readouterr().out.splitlines()
    assert notice.startswith("notice: no neuron is configured")


def test_a_field_that_is_never_forwarded_is_noticed(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = "gateway: {forward_fields: [session_id, best_of]}\n"
    file = folder.write("c.yaml", GOOD + fields)
    assert check(str(file)) == 0
    [_, _, notice] = capsys.readouterr().out.splitlines()
    assert notice.startswith("notice: gateway.forward_fields has best_of, which is never forwarded")
    assert check(str(file), "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["notices"]) == 1


def test_a_catalogue_that_is_not_there_yet_is_a_notice(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder.write("c.yaml", GOOD + "models_config: models.yaml\n")
    assert check(str(file)) == 0
    [_, _, notice] = capsys.readouterr().out.splitlines()
    where = f"models_config: {folder.path / 'models.yaml'}"
    assert notice == f"notice: {where} does not exist: the catalogue is empty until it does"


def test_a_bad_file_is_exit_code_2_and_every_problem(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder.write("c.yaml", GOOD.replace("sk-2", "sk-1").replace("http://a", "a"))
    assert check(str(file)) == 2
    out = capsys.readouterr().out
    assert out == (
        f"{file}:2: neurons[0].endpoint: the URL does not start with http:// or https://\n"
        "    hint: write http://host:port\n"
        f"{file}:3: entitlements.keys[1].key: the same secret is also at "
        "entitlements.keys[0].key\n"
        "    hint: two entries cannot share a secret: a request could not tell whose it is\n"
        "2 problems in the configuration\n"
    )


def test_json_says_the_same_to_programs(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = folder.write("good.yaml", GOOD), folder.write("bad.yaml", "gatway: 1")
    assert check(str(good), "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "ok": True,
        "problems": [],
        "notices": [],
        "neurons": 1,
        "keys": 2,
        "models": 0,
    }
    assert check(str(bad), "--json") == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert answer["problems"] == [
        {
            "where": "gatway",
            "what": "unknown setting",
            "hint": "did you mean gateway?",
            "source": str(bad),
            "line": 1,
            "may_pass": False,
        }
    ]


def test_the_environment_counts_as_it_would_for_serve(
    folder: Folder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORTEXD_GATEWAY__LISTEN", "nonsense")
    assert check(str(folder.write("c.yaml", GOOD))) == 2
    assert capsys.readouterr().out.startswith("CORTEXD_GATEWAY__LISTEN: gateway.listen: not a")
