"""What a long command is doing: a bar on a terminal, a line every 30 s in a log."""

import sys
import threading
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

SILENCE = 25.0  # seconds after which a log gets a line
SHOWN = 4  # items named in one line; the others are counted


class Progress:
    """How many items are finished, and which are under way.

    On a terminal a bar moves once a second. Where standard error is a file or a pipe,
    a line on it says the same whenever nothing was written for a while. Used in a
    `with` statement; every method may be called from any thread.

    Args:
        total: how many items there are.
        unit: what they are, in the plural; not shown where there is only one.
    """

    def __init__(self, total: int, unit: str):
        self._total, self._unit = total, unit
        self._finished = 0
        self._under_way: dict[str, tuple[str, float]] = {}
        self._began = self._written = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)
        form = "{percentage:3.0f}%|{bar:20}| {elapsed} {postfix}"
        self._bar = tqdm(
            total=total, bar_format=form, dynamic_ncols=True, leave=False, disable=None
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._bar.close()

    def update(self, item: str, step: str = "", share: float = 0) -> None:
        """Note that an item is under way.

        Args:
            item: its name.
            step: what is being done, such as "cell 41 of 74".
            share: the part of it that is done, from 0 to 1, where known.
        """
        self._under_way[item] = step, share

    def finish(self, item: str, message: str = "") -> None:
        """Note that an item is finished, and write a message to standard output."""
        self._under_way.pop(item, None)
        self._finished += 1
        if message:
            tqdm.write(message)
            sys.stdout.flush()
            self._written = time.monotonic()

    def __str__(self) -> str:
        """The state in one line, without the time."""
        items = [
            f"{item}: {step}" if step else item
            for item, (step, _) in list(self._under_way.items())
        ]
        more = [f"{len(items) - SHOWN} more"] if len(items) > SHOWN else []
        count = f"{self._finished} of {self._total} {self._unit}"
        return "; ".join([*[count] * (self._total > 1), *items[:SHOWN], *more])

    def _show(self) -> None:
        while not self._ended.wait(min(1.0, SILENCE)):
            now = time.monotonic()
            if not self._bar.disable:
                shares = [share for _, share in list(self._under_way.values())]
                self._bar.n = self._finished + sum(shares)
                self._bar.set_postfix_str(str(self))
            elif now - self._written >= SILENCE:
                self._written = now
                print(f"{self}; {now - self._began:.0f} s", file=sys.stderr, flush=True)
