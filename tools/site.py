"""Build the site into _build/html; any warning is an error.

Run as `python tools/site.py`. The notebooks must have been made: nothing is executed.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from iclrtut.commands.progress import Progress

TREE = Path(__file__).resolve().parents[1]
JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"
# --all: an incremental build with -W succeeds the second time, whatever is wrong.
STRICT = ("--all", "-W", "-n", "--keep-going")
# What Sphinx says of each page, in colours.
STEP = re.compile(r"(reading|writing) \w+\.\.\. .*\[ *(\d+)%\] (?:\x1b\S+?m)?([\w/]+)")
SOURCES = ("_*.yml", "book/**/*", "notebooks/*.ipynb", "records/*/*.json")
CODE = ("tools/site.py", "iclrtut/*.py", "iclrtut/chapters/*/__init__.py")
CODE += ("iclrtut/commands/*.py", "tests/chapters/*/wrong_answers.py")


def contents(tree: Path = TREE) -> list[str]:
    """The pages of the table of contents, without endings, in reading order."""
    toc = yaml.safe_load((tree / "_toc.yml").read_text(encoding="utf-8"))

    def files(entries: list[dict[str, Any]]) -> Iterator[str]:
        for entry in entries:
            yield entry["file"]
            yield from files(entry.get("sections", []))

    parts = [file for part in toc["parts"] for file in files(part["chapters"])]
    return [toc["root"], *parts]


def digest(tree: Path = TREE) -> str:
    """A fingerprint of all that the site is built from."""
    found = hashlib.sha256()
    for file in sorted(f for glob in SOURCES + CODE for f in tree.glob(glob)):
        if file.is_file() and "__pycache__" not in file.parts:
            found.update(file.relative_to(tree).as_posix().encode())
            found.update(file.read_bytes())
    return found.hexdigest()


def fresh(tree: Path = TREE) -> bool:
    """Whether the site was built from what stands here now, without a warning."""
    stamp = tree / "_build" / "site.stamp"
    return stamp.is_file() and stamp.read_text() == digest(tree)


def build(tree: Path = TREE) -> Path:
    """Build the site of a tree.

    Returns:
        The folder of pages.

    Raises:
        SystemExit: a notebook is missing, or the build gave a warning or an error.
    """
    for page in contents(tree):
        if not any(
            (tree / f"{page}{ending}").is_file() for ending in (".md", ".ipynb")
        ):
            sys.exit(f"site: {page} is missing: run `python tools/make.py notebooks`.")
    made_from = digest(tree)
    stamp = tree / "_build" / "site.stamp"
    stamp.unlink(missing_ok=True)
    shutil.rmtree(tree / "_build" / "html", ignore_errors=True)
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", str(tree), *STRICT]
    with (
        Progress(1, "sites") as progress,
        subprocess.Popen(
            command,
            cwd=tree,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            encoding="utf-8",
        ) as process,
    ):
        progress.update("site", "starting")
        for line in process.stdout or ():
            if step := STEP.search(line):
                share = (int(step[2]) / 100 + (step[1] == "writing")) / 2
                progress.update("site", f"{step[1]} {step[3]}, {step[2]} %", share)
    if process.returncode:
        sys.exit("site: the build gave warnings: mend what is named above.")
    stamp.write_text(made_from)
    return tree / "_build" / "html"


if __name__ == "__main__":
    print(f"site: open {build() / 'index.html'}")
