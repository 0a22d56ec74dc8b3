# SPDX-License-Identifier: MIT
"""`python -m ustack.cli`: the command line where its script is not installed."""

import sys

from ustack.cli import main

sys.exit(main())
