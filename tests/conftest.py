"""Settings for all tests."""

import signal

from hypothesis import settings

# What an example takes says more about the machine than about the code.
settings.register_profile("cortexd", deadline=None)
settings.register_profile("release", deadline=None, max_examples=100_000)
settings.load_profile("cortexd")

# A shell without job control starts what it puts in the background with Ctrl-C ignored, and so
# would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
