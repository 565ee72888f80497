"""The git repository that this package is part of, where there is one."""

import importlib.metadata
import json
import re
import subprocess
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]
CONFIG = "_config.yml"  # names the public repository
PACKAGE = ("iclrtut", "records", "pyproject.toml")  # what an installation holds


def git(*words: str) -> str | None:
    """What git prints in this tree; None when it fails or is not installed."""
    try:
        done = subprocess.run(
            ["git", *words], cwd=TREE, capture_output=True, encoding="utf-8"
        )
    except OSError:
        return None
    return None if done.returncode else done.stdout.strip()


def commit() -> str:
    """The commit of this package's code, with "+" behind it if files were changed.

    An installed package knows the commit it was installed from, if pip recorded one.
    """
    if (TREE / ".git").exists():
        head = git("rev-parse", "-q", "--verify", "HEAD") or "unknown"
        changed = git("status", "--porcelain", "--", "iclrtut", "book/chapters")
        return head + ("+" if changed else "")
    try:
        origin = importlib.metadata.distribution("iclrtut").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
    source = json.loads(origin or "{}").get("vcs_info", {})
    return str(source.get("commit_id", "unknown"))


def public_address() -> tuple[str, str]:
    """Owner and name of the public repository, as in `OWNER/REPO`, and its branch."""
    config = (TREE / CONFIG).read_text(encoding="utf-8")
    url = re.search(r"(?m)^ +url:\s*https://github\.com/([\w.-]+/[\w.-]+?)/?$", config)
    branch = re.search(r"(?m)^ +branch:\s*(\S+)$", config)
    return (url[1] if url else ""), (branch[1] if branch else "main")


def public_commit() -> str | None:
    """The public commit that installs this package as it is here.

    It is the last release (a tag `v*`) if the package has not changed since, else the
    tip of the public branch as this clone last fetched it.

    Returns:
        A full commit hash; None when no public commit is known to hold this package.
    """
    repository, branch = public_address()
    address = re.compile(rf"github\.com[:/]{re.escape(repository)}(\.git)?/?$")
    for line in (git("config", "--get-regexp", r"^remote\..*\.url$") or "").split("\n"):
        key, _, url = line.partition(" ")
        if not address.search(url):
            continue
        tip = f"refs/remotes/{key.split('.', 1)[1].removesuffix('.url')}/{branch}"
        release = git("describe", "--tags", "--abbrev=0", "--match", "v*", tip)
        for name in filter(None, (release, tip)):
            if _same_package(name):
                return git("rev-parse", "-q", "--verify", f"{name}^{{commit}}")
    return None


def _same_package(name: str) -> bool:
    new = git("ls-files", "--others", "--exclude-standard", "--", *PACKAGE)
    return new == "" and git("diff", "--quiet", name, "--", *PACKAGE) is not None
