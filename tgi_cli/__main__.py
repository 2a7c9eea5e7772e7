"""The entry point of `tgi` and of `python -m tgi_cli`.

A health probe leaves before the command line is imported: it runs every few seconds for months.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run `tgi` with the arguments of this process."""
    if sys.argv[1:2] == ["health"]:
        from tgi_cli import runtime

        sys.exit(runtime.health(sys.argv[2:]))
    from tgi_cli.app import main as command_line

    command_line()


if __name__ == "__main__":
    main()
