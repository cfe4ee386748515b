"""``python -m saepd.cli``."""

import sys

from saepd.cli import main

sys.exit(main())
