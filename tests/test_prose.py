"""The words of the book are spelt as in Britain, and its citations resolve."""

import functools
import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from importlib.resources import files
from pathlib import Path

import form
import pytest
from pybtex.database import parse_file
from symspellpy import SymSpell

TREE = form.TREE
SOURCES = [
    *sorted((TREE / "book").rglob("*.md")),
    *sorted((TREE / "book" / "teach").rglob("*.yml")),
    TREE / "README.md",
    TREE / "CONTRIBUTING.md",
]
LIST = TREE / "tests" / "words.txt"
# Not ours to spell: the head of a file, a title as its authors wrote it.
NOT_OURS = re.compile(r"\A---\n.*?\n---\n|\[\*[^\]]*\*\]", re.DOTALL)
# Numbers to fill in, roles, addresses, paths.
NO_WORDS = re.compile(r"\{\{.*?\}\}|\{\w+\}|https?://\S+|\S*\w[/_.@]\w\S*")
WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
# Not words: a letter by itself, an abbreviation, the name of a program.
NAME = re.compile(r".|\w+[A-Z]\w*")
# A paper, wherever it is kept: the part of its address that names it.
PAPER = re.compile(
    r"(?:arxiv\.org/(?:abs|pdf)/|openreview\.net/(?:forum|pdf)\?id=|doi\.org/)"
    r"([^\s)>\]}]+)"
)
FOUND_AT = re.compile(rf"\]\(<?https?://(?:www\.)?{PAPER.pattern}>?\)")


def name(file: Path) -> str:
    """A file as a test's name: its path from the root."""
    return file.relative_to(TREE).as_posix()


by_source = pytest.mark.parametrize("file", SOURCES, ids=name)


@functools.cache
def words(file: Path) -> frozenset[str]:
    """The different words of a file's prose, without the `'s` of an owner."""
    text = file.read_text("utf-8").replace("’", "'")
    prose = NO_WORDS.sub(" ", form.prose(NOT_OURS.sub("", text)))
    found = (word.removesuffix("'s") for word in WORD.findall(prose))
    return frozenset(word for word in found if not NAME.fullmatch(word))


@functools.cache
def dictionary() -> frozenset[str]:
    """The words of SymSpell's list, in small letters, and of the bibliography."""
    english = SymSpell(max_dictionary_edit_distance=0)
    name = "frequency_dictionary_en_82_765.txt"
    assert english.load_dictionary(files("symspellpy") / name, 0, 1)
    cited = (TREE / "book" / "references.bib").read_text("utf-8")
    return frozenset(english.words) | frozenset(WORD.findall(cited))


@functools.cache
def unknown(file: Path) -> frozenset[str]:
    """The words of a file that no dictionary has."""
    return frozenset(w for w in words(file) if not {w, w.lower()} & dictionary())


@by_source
def test_every_word_is_known(file):
    allowed = set(LIST.read_text("utf-8").split())
    wrong = sorted(w for w in unknown(file) if not {w, w.lower()} & allowed)
    assert wrong == [], f"misspelt, or words for {name(LIST)}: {' '.join(wrong)}"


def test_the_word_list_is_sorted_and_holds_what_the_dictionaries_lack():
    listed = LIST.read_text("utf-8").split()
    assert listed == sorted(set(listed), key=lambda word: (word.lower(), word))
    met = {word for file in SOURCES for word in unknown(file)}
    assert sorted(set(listed) - met - {word.lower() for word in met}) == []


@by_source
def test_misspellings_are_named_in_every_paragraph(file, tmp_path):
    """What `make test` ignores is code and formulas, and no prose between them."""
    code = r"(?ms)(\A---\n.*?^---$|^```.*?^```$|\$\$.*?\$\$)"
    parts = re.split(code, file.read_text("utf-8"))
    slip, american = "rec" + "ieve", "col" + "or"
    for k in range(0, len(parts), 2):
        parts[k] = re.sub(r"(?m)(?<=\w\.)$", f" {slip} {american}.", parts[k])
    planted = sum(part.count(slip) for part in parts)
    (tmp_path / file.name).write_text("".join(parts), "utf-8")
    found = [typo["typo"] for typo in typos(tmp_path / file.name)]
    assert found == [slip, american] * planted and planted


def typos(file: Path) -> list[dict[str, str]]:
    """What the spelling checker says of a file, under the book's configuration."""
    tool = shutil.which("typos", path=str(Path(sys.executable).parent))
    done = subprocess.run(
        [tool, "--config", TREE / "pyproject.toml", "--format", "json", file],
        capture_output=True,
        text=True,
    )
    assert not done.stderr, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_is_vendored_for_the_tests_is_listed():
    vendor = TREE / "tests" / "vendor"
    listed = (vendor / "README.md").read_text(encoding="utf-8")
    for kept in vendor.iterdir():
        assert kept.name == "README.md" or kept.name in listed, kept.name


# Citations


@functools.cache
def entries() -> dict[str, dict[str, str]]:
    """The bibliography: key -> fields."""
    found = parse_file(TREE / "book" / "references.bib").entries
    return {key: dict(entry.fields) for key, entry in found.items()}


@functools.cache
def papers() -> dict[str, str]:
    """The name of each paper in the bibliography, by key."""
    named = {key: PAPER.search(fields["url"]) for key, fields in entries().items()}
    return {
        key: bare(found[1]) if found else entries()[key]["url"]
        for key, found in named.items()
    }


def bare(paper: str) -> str:
    """A paper's name without a version or an ending."""
    return re.sub(r"(v\d+)?(\.pdf)?$", "", paper)


@functools.cache
def cited() -> dict[str, set[str]]:
    """Each paper that some page links to, with these pages."""
    found = defaultdict(set)
    for file in SOURCES:
        for paper in FOUND_AT.findall(file.read_text(encoding="utf-8")):
            found[bare(paper)].add(name(file))
    return dict(found)


@by_source
def test_every_cited_paper_is_in_the_bibliography(file):
    mine = {paper for paper, files in cited().items() if name(file) in files}
    assert sorted(mine - set(papers().values())) == []


@by_source
def test_every_role_names_an_entry(file):
    keys = re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", file.read_text(encoding="utf-8"))
    named = {key.strip() for each in keys for key in each.split(",")}
    assert sorted(named - set(entries())) == []


def test_every_entry_is_cited():
    text = "\n".join(file.read_text(encoding="utf-8") for file in SOURCES)
    there = [
        key
        for key, paper in papers().items()
        if paper in cited() or paper in text or f"`{key}`" in text
    ]
    assert sorted(set(entries()) - set(there)) == []


def test_no_paper_stands_twice():
    assert len(set(papers().values())) == len(papers())


@pytest.mark.parametrize("key", entries())
def test_an_entry_says_who_what_where_and_when(key):
    entry = parse_file(TREE / "book" / "references.bib").entries[key]
    assert entry.persons["author"]
    assert entry.fields["title"].strip() and re.fullmatch(
        r"\d{4}", entry.fields["year"]
    )
    assert entry.fields["url"].startswith("https://")
