"""What the benchmarks share: memory, and a device's record."""

import json
import platform
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch

from iclrtut.files import write_atomic

RECORDS = Path(__file__).resolve().parents[1] / "records"
Rows = dict[str, dict[str, float]]


def grown(call: Callable[[], object]) -> float:
    """MiB by which a call raises this process's memory, sampled all the while."""
    process, done = psutil.Process(), threading.Event()
    before = highest = process.memory_info().rss

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.001):
            highest = max(highest, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    call()
    done.set()
    watcher.join()
    return (highest - before) / 2**20


def record(slug: str, device: str, tables: Mapping[str, Rows], **facts: Any) -> None:
    """Print tables, and write them to records/<slug>/bench-<device>.json.

    Args:
        slug: the chapter.
        device: what was measured, "cpu" or "cuda".
        tables: title -> row -> column -> number.
        facts: sizes, by name.
    """
    for title, rows in tables.items():
        columns = list(dict.fromkeys(key for row in rows.values() for key in row))
        print(f"{title:48}" + "".join(f"{c.replace('_', ' '):>20}" for c in columns))
        for name, row in rows.items():
            cells = (f"{row[c]:20.3g}" if c in row else f"{'':20}" for c in columns)
            print(f"{name:48}" + "".join(cells))
    told = {
        "device": device,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **facts,
        **tables,
    }
    folder = RECORDS / slug
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(told, indent=2) + "\n"
    write_atomic(folder / f"bench-{device}.json", text.encode())
