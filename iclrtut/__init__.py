"""Helpers of the executable book on ICLR 2020 papers.

`iclrtut.start` opens a chapter's run; `iclrtut.chapters.<slug>` holds a paper's
method at working speed. Importing this package loads no torch.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["start"]


def __getattr__(name: str) -> Any:
    if name == "start":
        from iclrtut.run import start

        return start
    raise AttributeError(f"module 'iclrtut' has no attribute {name!r}")
