"""`python -m healthmw`: the same as the command `healthmw`."""

import sys

from healthmw.cli import main

if __name__ == "__main__":  # pragma: no branch - it is run, and never imported
    sys.exit(main())
