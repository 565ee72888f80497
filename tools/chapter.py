"""Begin a chapter from the template: `python tools/chapter.py SLUG`."""

import re
import sys
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]
PLACES = {
    "chapter.md": "book/chapters/SLUG.md",
    "card.svg": "book/_static/cards/SLUG.svg",
    "teach.yml": "book/teach/chapters/SLUG.yml",
    "__init__.py": "iclrtut/chapters/SLUG/__init__.py",
    "method.py": "iclrtut/chapters/SLUG/method.py",
    "experiments.py": "iclrtut/chapters/SLUG/experiments.py",
    "tests_init.py": "tests/chapters/SLUG/__init__.py",
    "test_method.py": "tests/chapters/SLUG/test_method.py",
    "faults.py": "tests/chapters/SLUG/faults.py",
    "wrong_answers.py": "tests/chapters/SLUG/wrong_answers.py",
}


def begin(slug: str, tree: Path = TREE) -> list[Path]:
    """Copy each part of the template to its place in a tree.

    Returns:
        The files that were made.

    Raises:
        SystemExit: the name is no slug, or is taken.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)+", slug):
        sys.exit(f"chapter: {slug!r} is no name: use two or more small words, as_such.")
    files = {name: tree / to.replace("SLUG", slug) for name, to in PLACES.items()}
    for file in files.values():
        if file.exists():
            sys.exit(f"chapter: {file} is there already: move it away first.")
    for name, file in files.items():
        text = (TREE / "tools" / "template" / name).read_text(encoding="utf-8")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("SLUG", slug), encoding="utf-8")
    return list(files.values())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("chapter: give one name, such as `tools/chapter.py warped_gradients`.")
    for file in begin(sys.argv[1]):
        print(file.relative_to(TREE))
