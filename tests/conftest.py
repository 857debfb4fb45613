"""Settings for all tests."""

from hypothesis import settings

# What an example takes says more about the machine than about the code.
settings.register_profile("cortexd", deadline=None)
settings.load_profile("cortexd")
