"""Seconds of what every reader waits for: the import, and the build of the site."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from iclrtut.files import write_atomic

TREE = Path(__file__).resolve().parents[1]
COMMANDS = {
    "import iclrtut": ["-c", "import iclrtut"],
    "Python alone": ["-c", "pass"],
    "site, built anew": ["tools/site.py"],
}


def seconds(words: Sequence[str], times: int) -> float:
    """The least wall time of a command of this Python, of several tries."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, *words], cwd=TREE, check=True, capture_output=True
        )
        found.append(time.perf_counter() - began)
    return min(found)


if __name__ == "__main__":
    measured = {
        name: {"seconds": seconds(words, 1 if "site" in name else 5)}
        for name, words in COMMANDS.items()
    }
    told = {"device": "cpu", "python": sys.version.split()[0], "waiting for": measured}
    target = TREE / "records" / "book" / "bench-cpu.json"
    write_atomic(target, (json.dumps(told, indent=1) + "\n").encode())
    for name, row in measured.items():
        print(f"{name:20} {row['seconds']:6.2f} s")
