"""`python -m tgi_cli` is `tgi`."""

from __future__ import annotations

from tgi_cli.app import main

main()
