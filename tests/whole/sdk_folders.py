"""Where the SDKs of clients are, each in a folder of its own under .sdk (see Makefile)."""

from pathlib import Path

import pytest

from tests.support.daemon_process import ROOT


def sdk_folder(name: str) -> Path:
    """The folder of one SDK; without it the test is skipped, and says what was not tested."""
    folder = ROOT / ".sdk" / name
    if not (folder / ".ready").exists():
        pytest.skip(f"THE CLIENT {name} WAS NOT TESTED; fetch it with: make .sdk/{name}/.ready")
    return folder
