"""`python -m streamlab` is the command line."""

from __future__ import annotations

import sys

from streamlab.cli import main

if __name__ == "__main__":
    sys.exit(main())
