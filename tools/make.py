"""What the Makefile's one-line recipes call: `python3 tools/make.py VERB`.

Needs nothing but Python 3.11 or newer; it makes the environment itself.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]
VENV = TREE / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
SILENCE = 25  # seconds after which a log gets a line
PATIENCE = 3600  # seconds after which a cell of a test is given up
# The C library gives freed memory back to the system and asks for it anew, which was a
# quarter of the time of a chapter. Other systems do not read this.
KEEP = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30)}


def main() -> None:
    """Do what the verb says, or say which verbs there are."""
    verb = sys.argv[1] if len(sys.argv) == 2 else ""
    if verb not in VERBS:
        sys.exit(f"make: {verb!r} is no verb: use one of {', '.join(VERBS)}.")
    os.chdir(TREE)
    os.environ.update(KEEP)
    try:
        VERBS[verb]()
    except KeyboardInterrupt:
        sys.exit(f"make: interrupted: `make {verb}` goes on with what is not done yet.")


def env() -> None:
    """Make .venv from requirements.txt, unless it stands already."""
    if sys.version_info < (3, 11):  # noqa: UP036
        sys.exit(
            f"make: Python {sys.version.split()[0]} is too old: use 3.11 or newer."
        )
    lock = (TREE / "requirements.txt").read_text(encoding="utf-8")
    project = (TREE / "pyproject.toml").read_text(encoding="utf-8")
    digest = hashlib.sha256((lock + project).encode()).hexdigest()
    stamp = VENV / "made-from"
    if stamp.is_file() and stamp.read_text() == digest:
        return
    say("making the environment in .venv")
    uv = re.search(r"^uv==\S+", lock, re.MULTILINE)
    call(sys.executable, "-m", "venv", str(VENV), remedy="install Python's venv module")
    network = "look whether the package registry can be reached, then run it again"
    pip = [PYTHON, "-m", "pip", "install", "-q"]
    call(*pip, uv[0] if uv else "uv", remedy=network, silent=True)
    # Wheels that pip has been told of serve uv too.
    if "PIP_FIND_LINKS" in os.environ:
        os.environ.setdefault("UV_FIND_LINKS", os.environ["PIP_FIND_LINKS"])
    install = [PYTHON, "-m", "uv", "pip", "install", "--python", PYTHON]
    call(*install, "-r", "requirements.txt", remedy=network, silent=True)
    call(*install, "-q", "--no-deps", "-e", ".", remedy=network)
    stamp.write_text(digest)


def lock() -> None:
    """Resolve requirements.in anew into requirements.txt."""
    env()
    # Torch pins its own CUDA libraries; listed here they would burden the CPU build.
    nvidia = "cublas cuda-cupti cuda-nvrtc cuda-runtime cudnn-cu13 cufft cufile curand "
    nvidia += "cusolver cusparse cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx"
    others = ["cuda-bindings", "cuda-pathfinder", "cuda-toolkit", "triton"]
    left_out = [*(f"nvidia-{name}" for name in nvidia.split()), *others]
    skip = [f"--no-emit-package={name}" for name in left_out]
    scope = ["--universal", "--python-version=3.11"]
    form = ["--no-annotate", "--no-header"]
    out = ["-o", "requirements.txt", "requirements.in"]
    call(PYTHON, "-m", "uv", "pip", "compile", "-q", *scope, *form, *skip, *out)


def notebooks() -> None:
    """Execute the chapters whose source, package or environment changed."""
    env()
    run("tools/notebooks.py", remedy="mend the cell named above, then run it again")


def book() -> None:
    """Make the notebooks, then the site."""
    notebooks()
    run("tools/site.py", remedy="mend the page named above, then run it again")


def pdf() -> None:
    """Make the notebooks and the site, then print the whole book as one PDF."""
    notebooks()
    browser()
    run("tools/pdf.py", remedy="mend the page named above, then run it again")


def slides() -> None:
    """Make a deck of slides a chapter, from its executed notebook."""
    env()
    run("tools/slides.py", remedy="make the notebooks, then run it again")


def test() -> None:
    """Run what every change has to pass: each kind of check, and every chapter."""
    check(["-m", "not nightly"])


def test_all() -> None:
    """Run every check that the book has; it takes hours on a laptop."""
    check([], "nightly")
    mutants()


def check(selection: list[str], *counted: str) -> None:
    """Look at the code, build the site, run tests, and count what ran."""
    env()
    browser()
    report = TREE / "_build" / "report.xml"
    report.parent.mkdir(exist_ok=True)
    call(PYTHON, "-m", "ruff", "check", ".", remedy="mend what ruff names above")
    call(PYTHON, "-m", "ruff", "format", "--check", "-q", ".", remedy="run ruff format")
    call(PYTHON, "-m", "mypy", remedy="mend what mypy names above")
    spell = "mend what it names above, or allow the word in pyproject.toml"
    call(BIN / "typos", "--format", "brief", remedy=spell)
    run("tools/site.py", remedy="mend the page named above")
    one_thread = {"ICLRTUT_PROFILE": "smoke", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [
            *(PYTHON, "-m", "pytest", "-n2", "--dist=loadfile"),
            *("--no-loadscope-reorder", f"--junitxml={report}"),
            *("--nbval-lax", f"--nbval-cell-timeout={PATIENCE}"),
            *(*selection, "tests", "notebooks"),
        ],
        env=os.environ | one_thread,
    )
    if done.returncode:
        sys.exit("make: tests failed: read the first failure above and mend it.")
    short = "find out why fewer ran than there are"
    run("tools/count.py", str(report), *counted, remedy=short)
    run("tools/page_weights.py")


def browser() -> None:
    """See that there is a headless Chromium for the tests."""
    ask = [PYTHON, "tools/browser.py"]
    if subprocess.run(ask, capture_output=True).returncode == 0:
        return
    say("fetching a headless Chromium")
    apt = [] if not hasattr(os, "geteuid") or os.geteuid() == 0 else ["sudo", "-n"]
    tries = [[[PYTHON, "-m", "playwright", "install", "chromium"]]]
    if shutil.which("apt-get"):
        get = [*apt, "apt-get", "-q", "-y"]
        tries.append([[*get, "update"], [*get, "install", "chromium"]])
    for commands in tries:
        for command in commands:
            subprocess.run(command, capture_output=True)
        if subprocess.run(ask, capture_output=True).returncode == 0:
            return
    sys.exit("make: no Chromium was found or could be fetched: install Chromium.")


def lab() -> None:
    """Open JupyterLab on the notebooks."""
    env()
    # Jupyter refuses root, who is the only user of many a container.
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    call(PYTHON, "-m", "jupyterlab", *(["--allow-root"] if root else []), "notebooks")


def bench() -> None:
    """Measure speed and write it to the records."""
    env()
    for file in sorted(Path("benchmarks").glob("[!_]*.py")):
        run(str(file))


def mutants() -> None:
    """Apply deliberate faults one at a time and count how many the tests catch."""
    env()
    run("tests/check_mutants.py", remedy="mend the checks named above")
    run("tests/mutants.py", remedy="write a test that catches what survived")


def clean() -> None:
    """Remove what was built; the environment too."""
    for folder in ("_build", ".venv"):
        shutil.rmtree(folder, ignore_errors=True)


def run(script: str, *words: str, remedy: str = "read the lines above") -> None:
    """Run one of the book's own scripts in its environment."""
    call(PYTHON, script, *words, remedy=remedy)


def call(
    *words: str | Path, remedy: str = "read the lines above", silent: bool = False
) -> None:
    """Run a command; when it fails, stop with one sentence.

    In a log, a command that may be silent for long gets a line from here meanwhile.
    """
    name, began = " ".join(Path(str(word)).name for word in words[:4]), time.monotonic()
    wait = SILENCE if silent and not sys.stderr.isatty() else None
    with subprocess.Popen([str(word) for word in words]) as process:
        while process.returncode is None:
            try:
                process.wait(wait)
            except subprocess.TimeoutExpired:
                say(f"'{name} …', {time.monotonic() - began:.0f} s")
    if process.returncode:
        sys.exit(f"make: '{name} …' failed: {remedy}.")


def say(text: str) -> None:
    """Print what is being done."""
    print(f"make: {text}", flush=True)


VERBS = {
    made.__name__.replace("_", "-"): made
    for made in (
        *(book, slides, pdf, test, test_all, notebooks, lab, bench, mutants),
        *(env, lock, clean),
    )
}

if __name__ == "__main__":
    main()
