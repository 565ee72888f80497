"""`python -m iclrtut`."""

import sys

from iclrtut.commands.cli import main

sys.exit(main())
