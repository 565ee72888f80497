"""Hold what the tests ran against what the sources say: nothing may have been left out.

Run as `python tools/count.py _build/report.xml`, the report that pytest wrote; with
the word `nightly` behind it, the tests that only `make test-all` runs count too.
"""

import ast
import re
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import nbformat

TREE = Path(__file__).resolve().parents[1]


class Count(NamedTuple):
    """Something that has to be there, how often it is, and how often it should be."""

    what: str
    found: int
    wanted: int


def ran(report: Path) -> list[tuple[str, str]]:
    """File (dots for slashes) and name of each test that ran and was not skipped."""
    cases = ElementTree.parse(report).getroot().iter("testcase")
    return [
        (case.get("classname", ""), case.get("name", ""))
        for case in cases
        if case.find("skipped") is None
    ]


def counts(report: Path, tree: Path = TREE, nightly: bool = False) -> list[Count]:
    """Cells that nbval ran, tests of each file, of each chapter, and pages built."""
    tests = ran(report)
    found = [Count("tests", len(tests), 1)]
    for notebook in sorted((tree / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(notebook, as_version=4).cells
        wanted = sum(cell.cell_type == "code" for cell in cells)
        mine = sum(file.endswith(f".{notebook.name}") for file, _ in tests)
        found.append(Count(f"cells of {notebook.name}", mine, wanted))
    for chapter in sorted((tree / "book" / "chapters").glob("*.md")):
        there = (tree / "notebooks" / f"{chapter.stem}.ipynb").is_file()
        found.append(Count(f"notebooks of {chapter.stem}", there, 1))
        for file in ("test_form", "test_notebooks"):
            mine = sum(
                where.endswith(file) and chapter.stem in name for where, name in tests
            )
            found.append(Count(f"tests of {chapter.stem} in {file}", mine, 1))
    for file in sorted((tree / "tests").rglob("test_*.py")):
        where = ".".join(file.relative_to(tree).with_suffix("").parts)
        names = {re.split(r"\[", name)[0] for place, name in tests if place == where}
        written = functions(file, nightly)
        found.append(Count(f"tests in {where}", len(names & written), len(written)))
    for page in pages(tree):
        built = (tree / "_build" / "html" / f"{page}.html").is_file()
        found.append(Count(f"pages at {page}", built, 1))
    return found


def seconds(report: Path) -> Counter[str]:
    """Where the time went: seconds of work by file of tests, the chapters' as one."""
    spent: Counter[str] = Counter()
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        where = case.get("classname", "")
        part = where.removeprefix("tests.")
        if where.startswith("notebooks."):
            part = "notebooks, by nbval"
        elif part.startswith("chapters."):
            part = "tests of chapters"
        spent[part] += float(case.get("time", 0))
    return spent


def functions(file: Path, nightly: bool) -> set[str]:
    """The names of the test functions of a file, those decorated `NIGHTLY` or not."""
    return {
        node.name
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and (nightly or "NIGHTLY" not in map(ast.unparse, node.decorator_list))
    }


def pages(tree: Path) -> list[str]:
    """The pages of the table of contents, without endings."""
    contents = (tree / "_toc.yml").read_text(encoding="utf-8")
    return re.findall(r"(?m)^\s*(?:- )?(?:root|file): *(\S+)", contents)


def main() -> None:
    """Print how much ran; fail when it was less than there is."""
    report, *more = sys.argv[1:]
    found = counts(Path(report), nightly=more == ["nightly"])
    short = [each for each in found if each.found < each.wanted]
    if short:
        shortfall = "; ".join(f"{c.found} of {c.wanted} {c.what}" for c in short)
        sys.exit(f"count: fewer ran than there are: {shortfall}.")
    cells = sum(c.found for c in found if c.what.startswith("cells of"))
    built = sum(c.found for c in found if c.what.startswith("pages at"))
    print(
        f"count: {found[0].found} tests ran, {cells} cells and {built} pages in them."
    )
    for part, spent in seconds(Path(sys.argv[1])).most_common():
        if spent >= 1:
            print(f"{spent:7.0f} s  {part}")


if __name__ == "__main__":
    main()
