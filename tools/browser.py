"""Find a headless Chromium: Playwright's own, else the system's."""

import shutil
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def chromium() -> str | None:
    """The path of a Chromium, or None."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        bundled = playwright.chromium.executable_path
    if Path(bundled).is_file():
        return bundled
    return next(filter(None, map(shutil.which, NAMES)), None)


if __name__ == "__main__":
    path = chromium()
    print(path or "none")
    sys.exit(0 if path else 1)
