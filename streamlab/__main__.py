"""`python -m streamlab` and the script `streamlab` are the command line."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line; returns the exit code."""
    try:
        from streamlab.cli import main as run
    except KeyboardInterrupt:
        # Ctrl-C while the modules are loaded: nothing has begun yet.
        sys.stderr.write("Interrupted.\n")
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
