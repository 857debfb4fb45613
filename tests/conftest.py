"""Settings for all tests."""

from hypothesis import settings

# What an example takes says more about the machine than about the code.
settings.register_profile("cortexd", deadline=None)
settings.register_profile("release", deadline=None, max_examples=100_000)
settings.load_profile("cortexd")
