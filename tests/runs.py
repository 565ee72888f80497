"""What the tests of the chapters' experiments share: runs of small settings.

A test file takes them by name: `folder, start = runs.folder, runs.of(SLUG)`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import iclrtut


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints of each test in a folder of its own, and no profile from outside."""
    monkeypatch.setenv("ICLRTUT_CHECKPOINTS", str(tmp_path))
    monkeypatch.delenv("ICLRTUT_PROFILE", raising=False)


def of(slug: str) -> Callable[..., Any]:
    """The function (profile, seed, changes of its settings) to a run of a chapter."""

    def start(profile: str = "smoke", seed: int = 0, **changes: Any) -> Any:
        run = iclrtut.start(slug, profile, seed)
        run.settings = run.settings._replace(**changes)
        return run

    return start
