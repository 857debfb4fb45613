"""``python -m cortexd``: hands the command line to `cortexd.cli.main`, and knows nothing else."""

import sys

from cortexd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
