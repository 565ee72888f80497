"""Which commit a run is recorded under, and which one a page installs."""

import json
import subprocess
import types

import pytest

from iclrtut import repository
from iclrtut.commands import execute

URL = "https://github.com/some/book"
CONFIG = f"title: t\nrepository:\n  url: {URL}\n  branch: main\n"


def git(folder, *words):
    """Run git in a folder under a name of its own; what it prints."""
    me = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(
        ["git", *me, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def change(folder, name, text):
    """Commit a change of one file; the commit."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    git(folder, "add", name)
    git(folder, "commit", "-qm", f"{name}: {text[:10]}")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def clone(monkeypatch, tmp_path):
    """A clone of a small public repository, which a folder stands in for."""
    home, folder = tmp_path / "home.git", tmp_path / "clone"
    git(tmp_path, "init", "-q", "--bare", str(home))
    git(tmp_path, "init", "-q", "-b", "main", str(folder))
    git(folder, "config", f"url.{home.as_uri()}.insteadOf", URL)
    monkeypatch.setattr(repository, "TREE", folder)
    change(folder, "_config.yml", CONFIG)
    change(folder, "iclrtut/run.py", "1")
    return folder


def test_the_commit_says_when_files_were_changed(monkeypatch, tmp_path):
    package = tmp_path / "iclrtut"
    package.mkdir()
    monkeypatch.setattr(repository, "TREE", tmp_path)
    git(tmp_path, "init", "-q")
    (package / "run.py").write_text("1")
    assert repository.commit() == "unknown+"
    clean = change(tmp_path, "iclrtut/run.py", "1")
    assert repository.commit() == clean and len(clean) == 40
    (tmp_path / "notes.txt").write_text("2")
    assert repository.commit() == clean
    (package / "run.py").write_text("2")
    assert repository.commit() == clean + "+"
    monkeypatch.setenv("PATH", "")
    assert repository.commit() == "unknown"


def test_an_installed_package_knows_the_commit_it_was_installed_from(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(repository, "TREE", tmp_path)
    origin = json.dumps({"vcs_info": {"commit_id": "f" * 40}})
    fake = types.SimpleNamespace(read_text=lambda name: origin)
    metadata = repository.importlib.metadata
    monkeypatch.setattr(metadata, "distribution", lambda name: fake)
    assert repository.commit() == "f" * 40
    fake.read_text = lambda name: None
    assert repository.commit() == "unknown"


def test_a_page_installs_a_public_commit_that_has_the_same_package(clone):
    """The last release if nothing changed since, else the tip of the public branch."""
    git(clone, "remote", "add", "upstream", f"{URL}.git")
    git(clone, "config", "remote.upstream.pushurl", URL)
    git(clone, "push", "-q", "upstream", "main")
    first = git(clone, "rev-parse", "HEAD")
    assert execute.address() == f"some/book@{first}" and execute.unpinned() == ""
    change(clone, "book/page.md", "not pushed, not installed")
    assert repository.public_commit() == first
    git(clone, "push", "-q", "upstream", "main")
    assert repository.public_commit() == git(clone, "rev-parse", "HEAD")
    git(clone, "tag", "-a", "-m", "release", "v0.1", first)
    git(clone, "tag", "nightly")
    assert repository.public_commit() == first
    new = change(clone, "iclrtut/run.py", "2")
    git(clone, "tag", "v0.2")
    assert repository.public_commit() is None, "its commit is on this disk alone"
    git(clone, "push", "-q", "upstream", "main")
    assert repository.public_commit() == new


@pytest.mark.parametrize(
    "name", ["iclrtut/run.py", "iclrtut/new.py", "records/toy/quick-cpu-0.json"]
)
def test_without_a_public_commit_a_page_installs_the_branch_and_says_so(clone, name):
    """No remote, another remote, or a package that was changed here."""
    assert execute.address() == "some/book@main"
    git(clone, "remote", "add", "origin", "https://example.org/some/book")
    git(clone, "update-ref", "refs/remotes/origin/main", "HEAD")
    assert execute.address() == "some/book@main"
    git(clone, "remote", "set-url", "origin", URL)
    assert execute.address() != "some/book@main"
    (clone / name).parent.mkdir(parents=True, exist_ok=True)
    (clone / name).write_text("not committed")
    assert execute.address() == "some/book@main"
    remark = execute.unpinned()
    assert "branch main of some/book" in remark and remark.endswith(".")


def test_a_book_without_an_address_is_refused(clone):
    (clone / "_config.yml").write_text("title: t\n")
    with pytest.raises(execute.BadRequest, match=r"repository\.url"):
        execute.address()
