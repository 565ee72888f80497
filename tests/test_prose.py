"""The words of the book are spelt as in Britain, and its citations resolve."""

import functools
import re
from collections import defaultdict
from pathlib import Path

import form
import pytest
from pybtex.database import parse_file
from spylls.hunspell import Dictionary

TREE = form.TREE
SOURCES = [
    *sorted((TREE / "book").rglob("*.md")),
    TREE / "README.md",
    TREE / "CONTRIBUTING.md",
]
LIST = TREE / "tests" / "words.txt"
# Not ours to spell: the head of a file, a title as its authors wrote it.
NOT_OURS = re.compile(r"\A---\n.*?\n---\n|\[\*[^\]]*\*\]", re.DOTALL)
# Numbers to fill in, roles, addresses, paths.
NO_WORDS = re.compile(r"\{\{.*?\}\}|\{\w+\}|https?://\S+|\S*\w[/_.@]\w\S*")
WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
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
    """The different words of a file's prose."""
    text = file.read_text(encoding="utf-8").replace("’", "'")
    prose = form.prose(NOT_OURS.sub("", text))
    return frozenset(WORD.findall(NO_WORDS.sub(" ", prose)))


@functools.cache
def known(word: str) -> bool:
    """Whether the British dictionary has a word."""
    return dictionary().lookup(word)


@functools.cache
def dictionary() -> Dictionary:
    """The British dictionary, read once."""
    return Dictionary.from_files(str(TREE / "tests" / "vendor" / "en-gb" / "index"))


@functools.cache
def own() -> list[str]:
    """The words that the book uses beyond the dictionary's."""
    return LIST.read_text(encoding="utf-8").split()


def spelt(word: str) -> bool:
    """Whether a word, or its owner's name, is in the dictionary or in the list."""
    bare = word.removesuffix("'s")
    return known(word) or known(bare) or bool({bare, bare.lower()} & set(own()))


@by_source
def test_every_word_is_spelt(file):
    wrong = sorted(word for word in words(file) if not spelt(word))
    assert wrong == [], f"misspelt, or words for {name(LIST)}: {' '.join(wrong)}"


def test_the_word_list_is_sorted_and_says_nothing_twice():
    assert own() == sorted(set(own()), key=lambda word: (word.lower(), word))


def test_the_word_list_has_no_word_that_the_dictionary_knows():
    assert [word for word in own() if known(word)] == []


def test_the_word_list_has_no_word_that_nobody_uses():
    used = {word for file in SOURCES for word in words(file) if not known(word)}
    used |= {word.removesuffix("'s") for word in used}
    used |= {word.lower() for word in used}
    assert sorted(set(own()) - used) == []


@pytest.mark.parametrize("word", ["color", "optimize", "neighbor", "teh", "recieve"])
def test_a_misspelling_is_found(word):
    assert not spelt(word)


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
