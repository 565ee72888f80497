"""`python -m iclrtut`."""

import sys

from iclrtut.cli import main

sys.exit(main())
