"""Executing a chapter: from its source through papermill to a notebook."""

import base64
import os
import re
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from statistics import median
from typing import Any

from iclrtut import claims, ledger, records, run
from iclrtut.errors import BadRequest, RunFailed
from iclrtut.files import write_atomic

TREE = Path(__file__).resolve().parents[2]


def source(slug: str) -> Any:
    """A chapter's source as a notebook without outputs, its blanks filled in.

    `OWNER/REPO@COMMIT` becomes this tree's address, `{{claim}}` and `{{claim.verdict}}`
    what the records say, `{{seconds}}` the measured times, `{{difficulty}}` and
    `{{prerequisites}}` what the chapter declares. Pictures are laid into the text, so
    that the notebook stands alone.

    Raises:
        BadRequest: the source is not there (the package alone does not bring it), or
            it names a claim or a picture that does not exist.
    """
    import jupytext

    file = TREE / "book" / "chapters" / f"{slug}.md"
    if not file.is_file():
        raise BadRequest(f"{file} is missing: run this in a clone of the book.")
    text = file.read_text(encoding="utf-8").replace("OWNER/REPO@COMMIT", address())
    facts = _facts(slug)

    def fill(match: re.Match[str]) -> str:
        if match[1] not in facts:
            raise BadRequest(f"{file.name} says {match[0]}, which no record answers.")
        return facts[match[1]]

    def lay_in(match: re.Match[str]) -> str:
        picture = (file.parent / match[1]).read_bytes()
        return f"(data:image/svg+xml;base64,{base64.b64encode(picture).decode()})"

    text = re.sub(r"\{\{([a-z0-9_.]+)\}\}", fill, text)
    return jupytext.reads(re.sub(r"\((\S+\.svg)\)", lay_in, text), fmt="md:myst")


def _facts(slug: str) -> dict[str, str]:
    """What a chapter's prose may say, from the records of the quick profile."""
    root = TREE / "records"
    chapter = claims.chapter(slug)
    facts = {"seconds": running_times(slug), "difficulty": chapter.difficulty}
    facts["prerequisites"] = chapter.prerequisites
    for claim in chapter.claims:
        facts |= {claim.id: "not yet measured", f"{claim.id}.verdict": "is undecided"}
    for row in ledger.rows(root):
        if (row["chapter"], row["profile"], row["device"]) == (slug, "quick", "cpu"):
            be = "is " if row["verdict"] == claims.UNDECIDED else ""
            facts[row["claim"]] = ledger.measured(row)
            facts[row["claim"] + ".verdict"] = be + row["verdict"]
    return facts


def running_times(slug: str) -> str:
    """The median seconds of a chapter's notebook, by profile and device."""
    found: dict[str, list[float]] = {}
    for record in records.read_all(TREE / "records"):
        if record["chapter"] == slug:
            kind = f"{record['profile']} ({record['device'].upper()})"
            found.setdefault(kind, []).append(record["seconds"])
    said = [f"{kind} {median(s):.0f} s" for kind, s in sorted(found.items())]
    return ", ".join(said) or "not yet measured"


def address() -> str:
    """Owner, repository and commit from which a page installs the package."""
    config = (TREE / "_config.yml").read_text(encoding="utf-8")
    found = re.search(r"url:\s*https://github\.com/(\S+?)/?\s", config)
    if not found:
        raise BadRequest("_config.yml names no repository: set repository.url in it.")
    commit = run.commit().rstrip("+")
    return f"{found[1]}@{'main' if commit == 'unknown' else commit}"


def execute(slug: str, profile: str, seed: int, target: Path) -> None:
    """Execute a chapter with papermill and write the notebook to `target`.

    Checkpoints are kept beside the target until it is finished.

    Raises:
        RunFailed: a cell failed; the sentence names chapter, seed and cell.
    """
    import jupytext
    import papermill

    target = target.resolve()  # the kernel runs elsewhere
    target.parent.mkdir(parents=True, exist_ok=True)
    checkpoints = target.with_suffix(".checkpoints")
    os.environ |= {"ICLRTUT_PROFILE": profile, "ICLRTUT_CHECKPOINTS": str(checkpoints)}
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / f"{slug}.ipynb"
        jupytext.write(source(slug), draft)
        done = Path(scratch) / "done.ipynb"
        try:
            papermill.execute_notebook(
                draft,
                done,
                parameters={"profile": profile, "seed": seed},
                kernel_name="python3",
                cwd=target.parent,
                progress_bar=bool(sys.stderr.isatty()),
                extra_arguments=["--log-level=CRITICAL"],
            )
        except papermill.PapermillExecutionError as error:
            raise RunFailed(
                f"{slug}, profile {profile}, seed {seed}: cell {error.exec_count} "
                f"raised {error.ename}: {error.evalue}\nThe cell reads:\n{error.source}"
            ) from None
        write_atomic(target, done.read_bytes())
    shutil.rmtree(checkpoints, ignore_errors=True)


def end_with_input() -> None:
    """End this process and its kernel when its input is closed, and not before."""
    import psutil

    os.read(0, 1)
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_input, daemon=True).start()
    slug, profile, seed, target = sys.argv[1:]
    try:
        execute(slug, profile, int(seed), Path(target))
    except (BadRequest, RunFailed) as error:
        sys.exit(str(error))
