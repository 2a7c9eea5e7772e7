"""`python -m tgi_cli.runtime.engine`: what the supervisor starts, one process per shard."""

from __future__ import annotations

import sys

from tgi_cli.runtime.engine.process import main

sys.exit(main())
