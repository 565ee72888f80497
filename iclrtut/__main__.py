"""`python -m iclrtut`."""

import sys

from iclrtut.commands.cli import main

for stream in (sys.stdout, sys.stderr):
    stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
sys.exit(main())
