"""Collecting garbage seldom: what that means for a process, tried in one of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import gc, weakref
from cortexd.daemon.garbage import collect_seldom

class Knot:
    def __init__(self):
        self.itself = self

old = Knot()
collect_seldom()
frozen = gc.get_freeze_count()
looked, new = [], []
gc.callbacks.append(lambda phase, info: looked.append(info["generation"]))
for _ in range(100_000):
    new.append(weakref.ref(Knot()))
left = sum(each() is not None for each in new)
print(frozen > 1000, 0 < len(looked) < 50, 0 < left < 25_000)
"""


@pytest.mark.slow
def test_what_refers_to_itself_is_still_found_though_seldom_and_never_what_was_there_before() -> (
    None
):
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["True", "True", "True"]
