"""Build the site into _build/html; any warning is an error.

Run as `python tools/site.py`. The notebooks must have been made: nothing is executed.
"""

import subprocess
import sys
from pathlib import Path

import yaml

TREE = Path(__file__).resolve().parents[1]
JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"
# --all: an incremental build with -W succeeds the second time, whatever is wrong.
STRICT = ("--all", "-W", "-n", "--keep-going", "-q")


def contents(tree: Path = TREE) -> list[str]:
    """The pages of the table of contents, without endings, in reading order."""
    toc = yaml.safe_load((tree / "_toc.yml").read_text(encoding="utf-8"))
    parts = [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    return [toc["root"], *parts]


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
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", str(tree), *STRICT]
    done = subprocess.run(command, cwd=tree)
    if done.returncode:
        sys.exit("site: the build gave warnings: mend what is named above.")
    return tree / "_build" / "html"


if __name__ == "__main__":
    print(f"site: open {build() / 'index.html'}")
