"""A pytest plugin for mutants: Hypothesis keeps nothing between runs and does not shrink."""

import hypothesis
import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Called when the settings of all tests stand, and before any test is read."""
    hypothesis.settings.register_profile(
        "mutants",
        deadline=None,
        database=None,
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
    )
    hypothesis.settings.load_profile("mutants")
