"""`python -m reckon` is `reckon`."""

import sys

from reckon.cli import main

sys.exit(main())
