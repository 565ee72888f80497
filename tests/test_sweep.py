"""Sweeps on real workers: each run once, one record a run, whatever dies meanwhile."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial

import dask
import psutil
import pytest
import sweep_toys
import toy
from conftest import NIGHTLY
from distributed import LocalCluster

from iclrtut import records
from iclrtut.commands import execute, progress, sweep
from iclrtut.errors import BadRequest, RunFailed

TREE = execute.TREE
SLUG = "differentiable_dsp"  # declares the claims of the small book below


def until(condition, seconds=900):
    """Wait until something is true, and return it."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)
    return value


def begun(folder, seed):
    """The processes that began a job, one for each time."""
    return [int(f.name.split("-")[2]) for f in folder.glob(f"begun-{seed}-*")]


# Two workers of this machine, and work that takes no time


@pytest.fixture(scope="module")
def client():
    settings = {
        "distributed.scheduler.allowed-failures": 1,
        "distributed.deploy.lost-worker-timeout": "15 minutes",  # to restart one
    }
    with dask.config.set(settings), sweep.connect(None, 2) as made:
        yield made


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """Where the work notes what it does; records and notebooks go there too."""
    toy.install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "measure", partial(sweep_toys.measure, tmp_path))
    monkeypatch.setattr(sweep, "check_workers", lambda client: {"cpu"})
    monkeypatch.setattr(sweep, "commit", lambda: "abc")
    return tmp_path


def jobs(*seeds):
    return [sweep.Job("toy", "quick", seed) for seed in seeds]


def record(client, folder, *seeds, again=False):
    sweep.record(client, jobs(*seeds), folder / "records", again)


def kept(folder):
    """Seed -> when its record was written."""
    files = folder.glob("records/toy/*.json")
    return {records.read(file)["seed"]: file.stat().st_mtime_ns for file in files}


def test_both_workers_work_and_report_and_each_run_comes_back_once(
    monkeypatch, client, folder, capfd
):
    monkeypatch.setattr(progress, "SILENCE", 0.05)
    held, log = [folder / "hold-0", folder / "hold-1"], []
    for file in held:
        file.touch()
    sweeping = threading.Thread(target=record, args=(client, folder, 0, 1, 2, 3))
    sweeping.start()
    try:
        workers = until(lambda: (w := begun(folder, 0) + begun(folder, 1))[1:] and w)
        until(lambda: log.append(capfd.readouterr().err) or "cell 2 of 9" in str(log))
    finally:
        for file in held:
            file.unlink()
        sweeping.join()
    assert len(set(workers)) == 2 and os.getpid() not in workers
    assert [len(begun(folder, seed)) for seed in range(4)] == [1, 1, 1, 1]
    for seed in range(4):
        file = folder / f"records/toy/quick-cpu-{seed}.json"
        assert records.read(file) == toy.record(seed=seed)
        notebook = folder / f"_build/runs/toy-quick-{seed}.ipynb"
        assert notebook.read_bytes() == b"a notebook"


def test_a_second_call_skips_what_is_recorded_and_says_so(client, folder, capsys):
    record(client, folder, 0, 1)
    before = kept(folder)
    assert "seed 1: done" in capsys.readouterr().out
    record(client, folder, 0, 1, 2)
    out = capsys.readouterr().out
    assert "2 of 3 are recorded already" in out and "--again" in out
    assert "seed 2: done" in out and "seed 1: done" not in out
    assert kept(folder) | before == kept(folder)
    record(client, folder, 0, 1, 2, again=True)
    assert [len(begun(folder, seed)) for seed in range(3)] == [2, 2, 2]


@pytest.mark.parametrize(
    ("changes", "commit"),
    [
        ({"commit": "older"}, "abc"),
        ({"commit": "abc+"}, "abc+"),  # changed files may have changed again
        ({"device": "cuda"}, "abc"),
        ({"claims": {"faster": {}}}, "abc"),
    ],
)
def test_what_does_not_count_as_recorded(folder, changes, commit):
    present = toy.record(**changes)
    file = records.path(folder, present)
    file.parent.mkdir()
    file.write_text(json.dumps(present))
    assert not sweep.is_recorded(*jobs(0), folder, {"cpu"}, commit)
    records.write(folder, toy.record())
    assert sweep.is_recorded(*jobs(0), folder, {"cpu"}, "abc")


def test_a_failing_run_is_named_and_the_others_go_on(client, folder):
    (folder / "fail-1").touch()
    words = "1 of 3 runs failed.\ntoy, profile quick, seed 1: cell 7 raised ValueError"
    with pytest.raises(RunFailed, match=words):
        record(client, folder, 0, 1, 2)
    assert len(begun(folder, 1)) == 1  # no second try
    assert sorted(kept(folder)) == [0, 2]
    assert sweep._sentence("a run", KeyError(0)) == "a run: KeyError: 0"


def test_only_workers_with_the_code_of_the_caller_are_accepted(client, monkeypatch):
    assert sweep.check_workers(client) == {sweep.version()[1]}
    monkeypatch.setattr(sweep, "commit", lambda: "another")
    with pytest.raises(BadRequest, match=r"other code .* than this \(commit another,"):
        sweep.check_workers(client)
    monkeypatch.setattr(sweep, "version", partial(sweep_toys.older, os.getpid()))
    with pytest.raises(BadRequest, match=r"other code \(No module .* \(commit abc\)"):
        sweep.check_workers(client)


def test_a_worker_of_another_commit_that_came_late_is_not_believed(client, folder):
    sweep.commit = lambda: "another"  # put back by the fixture
    with pytest.raises(RunFailed, match="at commit abc, not at another"):
        record(client, folder, 0)
    assert kept(folder) == {}


def test_a_run_that_kills_its_workers_is_given_up(client, folder):
    (folder / "die-1").touch()
    with pytest.raises(RunFailed, match="seed 1: 2 workers died during it"):
        record(client, folder, 1)
    assert len(begun(folder, 1)) == 2


def test_a_scheduler_that_does_not_serve_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(sweep, "TIMEOUT", 1)
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        silent = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        reasons = {silent: "Timed out", "": "missing port", "http://a:1": "scheme"}
        for address, reason in reasons.items():
            words = f"no scheduler answers at '{address}' .*{reason}.*'dask scheduler'"
            with pytest.raises(BadRequest, match=words), sweep.connect(address, 1):
                pass
    with (
        LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as alone,
        sweep.connect(alone.scheduler_address, 1) as client,
        pytest.raises(BadRequest, match=r"no worker is connected.*'dask worker tcp"),
    ):
        sweep.check_workers(client)


# Real kernels: a small book in a clone of its own

CHAPTER = """---
kernelspec: {{name: python3, display_name: Python 3, language: python}}
---

```{{code-cell}} ipython3
:tags: [parameters]

profile = "quick"
seed = 0
```

```{{code-cell}} ipython3
import os, time, iclrtut, torch
from pathlib import Path

run = iclrtut.start("{slug}", profile, seed)
notes = Path({notes!r})
(notes / f"begun-{{seed}}-{{os.getpid()}}").touch()
while (notes / f"hold-{{seed}}").exists():
    time.sleep(0.02)
assert not (notes / f"fail-{{seed}}").exists(), "as asked"
for claim in run.chapter.claims:
    numbers = torch.randn(10**6, generator=run.generator(claim.id))
    value = (numbers @ numbers).item()
    run.claim(claim.id, value, successes=1, trials=2, low=0, high=2 * value)
run.card()
```
"""


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A clone whose chapter takes no time; its notes go to a folder of it."""
    tree = tmp_path_factory.mktemp("book")
    (tree / "book" / "chapters").mkdir(parents=True)
    shutil.copytree(TREE / "iclrtut", tree / "iclrtut")
    shutil.copy(TREE / "_config.yml", tree)
    chapter = CHAPTER.format(slug=SLUG, notes=str(tree / "notes"))
    (tree / "book" / "chapters" / f"{SLUG}.md").write_text(chapter)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "book"], ["commit", "-qm", "A book"]):
        subprocess.run([*git, *words], cwd=tree, check=True)
    (tree / ".git" / "info" / "exclude").write_text("*\n")
    return tree


@pytest.fixture
def start(book):
    """Start a module of Python in the book; all is killed after the test."""
    started = []
    for folder in ("notes", "records"):
        shutil.rmtree(book / folder, ignore_errors=True)
    (book / "notes").mkdir()

    def begin(*words, stderr=subprocess.DEVNULL):
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", *words],
                cwd=book,
                env=os.environ | {"PYTHONPATH": str(book), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                text=True,
                start_new_session=True,
                # Where tests run in the background, Ctrl+C may be ignored from birth.
                preexec_fn=None if os.name == "nt" else heed,
            )
        )
        return started[-1]

    yield begin
    for each in started:
        if psutil.pid_exists(each.pid):
            for child in psutil.Process(each.pid).children(recursive=True):
                child.kill()
        each.kill()
        each.communicate()


def heed():
    """Let Ctrl+C end this process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def run(start):
    """Start `python -m iclrtut run`."""
    words = ("iclrtut", "run", SLUG, "--profile", "smoke", "--records", "records")
    return lambda *more: start(*words, *more, stderr=subprocess.PIPE)


def ending(command):
    """Exit code of a command, and what it says after its lines of progress."""
    _, err = command.communicate(timeout=900)
    return command.returncode, "".join(err.partition("iclrtut: ")[1:])


def chain(pid):
    """A kernel, the process that executes its chapter, and their worker."""
    kernel = psutil.Process(pid)
    return [kernel, *kernel.parents()[:2]]


def ended(*processes):
    return lambda: not any(process.is_running() for process in processes)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups")
def test_ctrl_c_is_one_sentence_and_leaves_no_kernel(book, run):
    (book / "notes" / "hold-0").touch()
    command = run()
    (pid,) = until(lambda: begun(book / "notes", 0))
    processes = chain(pid)
    os.killpg(command.pid, signal.SIGINT)  # a terminal sends it to all of them
    code, err = ending(command)
    assert code == 1 and err.startswith("iclrtut: interrupted: ")
    assert err.count("\n") == 1
    until(ended(*processes))


@NIGHTLY
def test_whatever_dies_on_a_cluster_no_kernel_is_left_and_the_sweep_goes_on(
    book, start, run
):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address, notes = f"tcp://127.0.0.1:{port}", book / "notes"
    scheduler = start("dask", "scheduler", "--host", "127.0.0.1", "--port", port)
    start("dask", "worker", address, "--nworkers", "2", "--nthreads", "1")
    (notes / "hold-0").touch()
    (notes / "fail-1").touch()
    until(lambda: socket.socket().connect_ex(("127.0.0.1", int(port))) == 0)

    # The calling process is killed: the scheduler cancels the job.
    command = run("--scheduler", address)
    (pid,) = until(lambda: begun(notes, 0))
    kernel, executing, worker = chain(pid)
    command.kill()
    until(ended(kernel, executing))
    assert worker.is_running()
    (notes / f"begun-0-{pid}").unlink()

    # A worker is killed: its kernel ends, and its run goes to the other worker. What
    # it had done before is not repeated, nor is a run that failed.
    command = run("--seeds", "1,2,0", "--scheduler", address)
    (pid,) = until(lambda: begun(notes, 0))
    until((book / "records" / SLUG / "smoke-cpu-2.json").exists)
    kernel, executing, worker = chain(pid)
    worker.kill()
    until(ended(kernel, executing))
    until(lambda: len(begun(notes, 0)) == 2)
    (notes / "hold-0").unlink()
    code, err = ending(command)
    words = f"1 of 3 runs failed.\n{SLUG}, profile smoke, seed 1: cell 3 raised"
    assert code == 1 and err.startswith(f"iclrtut: {words}") and "Trace" not in err
    files = [file.name for file in (book / "records" / SLUG).iterdir()]
    assert sorted(files) == ["smoke-cpu-0.json", "smoke-cpu-2.json"]
    assert [len(begun(notes, seed)) for seed in range(3)] == [2, 1, 1]

    # The scheduler is killed.
    (notes / "hold-3").touch()
    command = run("--seeds", "3", "--scheduler", address)
    until(lambda: begun(notes, 3))
    scheduler.kill()
    code, err = ending(command)
    assert code == 1 and err.startswith("iclrtut: 1 of 1 runs failed.\n")
    assert err.endswith("seed 3: the scheduler is gone: start it and run this again.\n")


@NIGHTLY
def test_a_sweep_measures_what_a_run_without_dask_measures(book, run, start):
    assert ending(run("--seeds", "3")) == (0, "")
    alone = (book / "alone.py", book / "records" / SLUG / "smoke-cpu-3.json")
    alone[0].write_text(
        "import os; os.environ['ICLRTUT_RECORDS'] = 'alone'\n"
        "from pathlib import Path; from iclrtut.commands.execute import execute\n"
        f"execute({SLUG!r}, 'smoke', 3, Path('alone.ipynb'))"
    )
    assert start("alone").wait() == 0
    swept = records.read(alone[1])
    serial = records.read(book / "alone" / SLUG / "smoke-cpu-3.json")
    spent = {"seconds": 0, "peak_memory_bytes": 0}
    assert swept["claims"] and swept | spent == serial | spent
