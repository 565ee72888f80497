"""The set-up cell in a bare environment of Colab's versions, without the package.

Colab's own Python and torch are tried in .github/workflows/colab.yml; here torch is the
book's, because its wheel is at hand.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import form
import pytest
from conftest import sample

from iclrtut import ledger

TREE = form.TREE
CHAPTERS = sorted((TREE / "book" / "chapters").glob("*.md"))
COLAB = ["numpy==2.1.*", "ipywidgets==7.7.*", "ipython==7.34.*", "pip", "setuptools"]
COLAB += ["matplotlib", "scipy", "scikit-learn", "scikit-image", "sympy"]
COLAB += ["tqdm", "pooch", "pillow"]
OUTSIDE = ("PYTHONPATH", "VIRTUAL_ENV", "ICLRTUT_PROFILE", "ICLRTUT_RECORDS")
TELL = """
import json, sys, torch, numpy, iclrtut
from iclrtut import data, ledger, records, repository
print(json.dumps({
    "file": iclrtut.__file__, "torch": torch.__version__, "numpy": numpy.__version__,
    "commit": repository.commit(), "digits": len(data.load("digits")["images"]),
    "ledger": [str(row) for row in ledger.rows(*records.folders())],
}))
"""


def call(*words, **more):
    """Run a command; its output."""
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, **more
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """The Python of an environment that has what Colab has, and no iclrtut."""
    folder = tmp_path_factory.mktemp("bare")
    lock = (TREE / "requirements.txt").read_text(encoding="utf-8")
    torch = re.search(r"(?m)^torch==[^\s;]+", lock)[0]
    environment = os.environ.copy()
    # Wheels that pip has been told of serve uv too, as in tools/make.py.
    if "PIP_FIND_LINKS" in environment:
        environment.setdefault("UV_FIND_LINKS", environment["PIP_FIND_LINKS"])
    uv = [sys.executable, "-m", "uv"]
    call(*uv, "venv", "-q", "--python", sys.executable, folder / "venv")
    bin = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python = next(bin.glob("python*"))
    call(
        *uv, "pip", "install", "-q", "--python", python, torch, *COLAB, env=environment
    )
    return python


@pytest.fixture
def bare(colab):
    """The same; what a test installs is removed after it."""
    yield colab
    uv = [sys.executable, "-m", "uv", "pip", "uninstall", "-q", "--python"]
    call(*uv, colab, "iclrtut")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A git repository of the tree as it stands, and its commit."""
    folder = tmp_path_factory.mktemp("repository")
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in filter(None, call(*words, cwd=TREE).split("\0")):
        if (TREE / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(TREE / name, folder / name)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    call(*git, "init", "-q", cwd=folder)
    call(*git, "add", "-A", cwd=folder)
    call(*git, "commit", "-qm", "as it stands", cwd=folder)
    return folder, call(*git, "rev-parse", "HEAD", cwd=folder).strip()


def home(repository):
    """The environment of a reader to whom GitHub is the folder."""
    config = (TREE / "_config.yml").read_text(encoding="utf-8")
    url = re.search(r"url: (https://github\.com/\S+)", config)[1]
    kept = {k: v for k, v in os.environ.items() if k not in OUTSIDE}
    return url, kept | {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{repository.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": url,
        "OMP_NUM_THREADS": "1",
    }


def versions(python):
    """The versions of all that is installed."""
    code = (
        "import importlib.metadata as m, json; "
        "print(json.dumps({d.name: d.version for d in m.distributions()}))"
    )
    return json.loads(call(python, "-c", code, cwd=python.parent))


@pytest.mark.parametrize("slug", sample([file.stem for file in CHAPTERS]))
def test_the_set_up_cell_installs_the_package_and_nothing_else(
    slug, bare, repository, tmp_path
):
    """Then the chapter's set-up runs from that installation, and its verdicts are the
    book's."""
    folder, commit = repository
    url, environment = home(folder)
    before = versions(bare)
    judged = [str(row) for row in ledger.rows(TREE / "records")]
    assert judged
    assert "iclrtut" not in before
    assert before["numpy"].startswith("2.1.") and before["ipython"].startswith("7.34.")
    environment["ICLRTUT_CHECKPOINTS"] = str(tmp_path / "checkpoints")
    address = f"{url.removeprefix('https://github.com/')}@{commit}"
    cells = [
        cell.text.replace("OWNER/REPO@COMMIT", address)
        for cell in form.codes(form.load(TREE / "book" / "chapters" / f"{slug}.md"))
        if cell.section == "Set-up"
    ]
    script = tmp_path / "cells.ipy"
    script.write_text("\n".join([*cells, TELL]).replace('"quick"', '"smoke"'))
    words = [bare, "-m", "IPython", "--no-banner", "--colors=NoColor", script]
    said = call(*words, cwd=tmp_path, env=environment)
    told = json.loads(said.strip().split("\n")[-1])
    # IPython may write the terminal's title into the same line.
    assert f"{slug}: profile smoke, seed 0" in said, said
    assert Path(told["file"]).is_relative_to(bare.parent.parent)
    assert told["commit"] == commit
    assert told["digits"] == 1797
    assert told["ledger"] == judged
    assert told["torch"].split("+")[0] == before["torch"].split("+")[0]
    assert told["numpy"] == before["numpy"]
    after = versions(bare)
    assert after.pop("iclrtut") and after == before
    installed = Path(told["file"]).parent
    for file in (TREE / "iclrtut").rglob("*"):
        if file.is_file() and file.suffix != ".pyc":
            name = file.relative_to(TREE / "iclrtut")
            assert (installed / name).is_file(), f"{name} is not installed"


def test_installing_from_a_clone_leaves_nothing_in_it(bare, repository, tmp_path):
    folder, _ = repository
    words = [bare, "-m", "pip", "install", "-q", "--no-deps", "--target", tmp_path]
    call(*words, ".", cwd=folder)
    assert (tmp_path / "iclrtut" / "recorded").is_dir()
    assert call("git", "status", "--porcelain", "--ignored", cwd=folder) == ""


def test_the_set_up_cell_does_nothing_where_the_package_is():
    """Here it is installed: the cell must not call pip."""
    for file in CHAPTERS:
        first = form.codes(form.load(file))[0].text
        told = form.python(first).replace("pass", "raise SystemError('it installs')")
        exec(compile(told, "setup", "exec"), {})
