"""What long commands show: lines in a log, a bar on a terminal."""

import os
import subprocess
import sys
import threading

import pytest

from iclrtut.commands import progress

COMMAND = """
import sys, time
from iclrtut.commands.progress import Progress
with Progress(4, "runs") as shown:
    shown.update("a", "cell 1 of 2", 0.5)
    sys.stdin.readline()
    shown.finish("a", "a: done")
"""


class Log:
    """A file that tells when a line with certain words was written to it."""

    def __init__(self, words):
        self.words, self.text, self.seen = words, "", threading.Event()

    def write(self, text):
        self.text += text
        if all(word in self.text for word in self.words):
            self.seen.set()

    def flush(self):
        """A log may ask for it."""

    def isatty(self):
        return False


@pytest.mark.parametrize(
    ("items", "total", "line"),
    [
        (1, 1, "item 0: cell 1 of 9; "),
        (2, 3, "1 of 3 runs; item 0: cell 1 of 9; item 1: cell 1 of 9; "),
        (6, 9, "item 3: cell 1 of 9; 2 more; "),
    ],
)
def test_a_log_gets_a_line_while_nothing_ends(monkeypatch, items, total, line):
    log = Log([line])
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(progress, "SILENCE", 0.05)
    with progress.Progress(total, "runs") as shown:
        if total > 1:
            shown.finish("before")
        for item in range(items):
            shown.update(f"item {item}", "cell 1 of 9")
        assert log.seen.wait(60)
    assert log.text.splitlines()[-1].endswith(" s")


def test_a_log_is_left_alone_while_it_is_written_to(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SILENCE", 1e6)
    with progress.Progress(1, "runs") as shown:
        shown.finish("a", "a: done")
    assert capsys.readouterr() == ("a: done\n", "")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such terminals")
def test_on_a_terminal_a_bar_moves():
    import pty
    import termios

    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    words = [sys.executable, "-c", COMMAND]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        text = ""
        while "12%" not in text or "a: cell 1 of 2" not in text:
            text += os.read(ours, 4096).decode()
        out, _ = process.communicate(b"\n")
    assert out == b"a: done\n"
    os.close(ours)
