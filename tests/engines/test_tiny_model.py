"""The models that the real engine is tested with."""

from pathlib import Path

import pytest

from tests.engines.real_engine import write_models

pytestmark = pytest.mark.slow


def test_a_model_is_the_same_to_the_byte_every_time(tmp_path: Path) -> None:
    for attempt in ("first", "second"):
        write_models(tmp_path / attempt)
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert names == ["endless.gguf", "stops.gguf"]
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
