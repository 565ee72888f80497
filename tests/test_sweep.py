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
from distributed import LocalCluster

from iclrtut import records
from iclrtut.commands import cli, execute, progress, sweep
from iclrtut.errors import BadRequest, RunFailed

TREE = execute.TREE
SLUG = "differentiable_dsp"  # its declaration serves the small book below


def until(condition, seconds=900):
    """Wait until something is true, and return it."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)
    return value


def jobs(*seeds):
    return [sweep.Job("toy", "quick", seed) for seed in seeds]


def begun(folder, seed):
    """The processes that began a job, one for each time."""
    return [int(f.name.split("-")[2]) for f in folder.glob(f"begun-{seed}-*")]


# Two workers of this machine, and work that takes no time


@pytest.fixture(scope="module")
def client():
    settings = {
        "distributed.scheduler.allowed-failures": 1,
        "distributed.deploy.lost-worker-timeout": "5 minutes",  # to restart one
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


def record(client, folder, *seeds, again=False):
    sweep.record(client, jobs(*seeds), folder / "records", again)


def kept(folder):
    """Seed -> bytes and time of its record."""
    return {
        int(file.stem.split("-")[-1]): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in folder.glob("records/toy/*.json")
    }


@pytest.fixture
def background(client, folder):
    """Start a sweep in a thread; it ends with the test."""
    threads = []

    def start(*seeds):
        work = threading.Thread(target=record, args=(client, folder, *seeds))
        threads.append(work)
        work.start()
        return work

    yield start
    for file in folder.glob("hold-*"):
        file.unlink()
    for thread in threads:
        thread.join()


def test_both_workers_work_and_each_run_comes_back_once(
    monkeypatch, folder, background, capfd
):
    monkeypatch.setattr(progress, "SILENCE", 0.05)
    for seed in (0, 1):
        (folder / f"hold-{seed}").touch()
    sweeping = background(0, 1, 2, 3)
    workers = until(lambda: (w := begun(folder, 0) + begun(folder, 1))[1:] and w)
    log = []
    until(lambda: log.append(capfd.readouterr().err) or "cell 2 of 9" in "".join(log))
    for seed in (0, 1):
        (folder / f"hold-{seed}").unlink()
    sweeping.join()
    assert len(set(workers)) == 2 and os.getpid() not in workers
    assert [len(begun(folder, seed)) for seed in range(4)] == [1, 1, 1, 1]
    for seed in range(4):
        file = folder / f"records/toy/quick-cpu-{seed}.json"
        assert records.read(file) == toy.record(seed=seed)
        notebook = folder / f"_build/runs/toy-quick-{seed}.ipynb"
        assert notebook.read_bytes() == b"a notebook"


def test_a_killed_worker_repeats_its_own_run_and_no_other(folder, background):
    (folder / "hold-2").touch()
    sweeping = background(0, 1, 2, 3, 4)
    until(lambda: len(kept(folder)) == 4)
    before = kept(folder)
    (worker,) = begun(folder, 2)
    psutil.Process(worker).kill()
    until(lambda: len(begun(folder, 2)) == 2)
    (folder / "hold-2").unlink()
    sweeping.join()
    after = kept(folder)
    assert sorted(after) == [0, 1, 2, 3, 4] and sorted(before) == [0, 1, 3, 4]
    assert {seed: after[seed] for seed in before} == before
    assert [len(begun(folder, seed)) for seed in range(5)] == [1, 1, 2, 1, 1]


def test_a_second_call_skips_what_is_recorded_and_says_so(client, folder, capsys):
    record(client, folder, 0, 1)
    before = kept(folder)
    assert "seed 1: done" in capsys.readouterr().out
    record(client, folder, 0, 1, 2)
    out = capsys.readouterr().out
    assert "2 of 3 are recorded already" in out and "--again" in out
    assert "seed 2: done" in out and "seed 1: done" not in out
    assert {seed: kept(folder)[seed] for seed in before} == before
    record(client, folder, 0, 1, 2, again=True)
    assert [len(begun(folder, seed)) for seed in range(3)] == [2, 2, 2]


@pytest.mark.parametrize(
    ("present", "commit"),
    [
        (toy.record(commit="older"), "abc"),
        (toy.record(commit="abc+"), "abc+"),  # changed files may have changed again
        (toy.record(device="cuda"), "abc"),
        (toy.record(profile="full"), "abc"),
        (toy.record(claims={"faster": {}}), "abc"),
        (None, "abc"),
    ],
)
def test_what_does_not_count_as_recorded(folder, present, commit):
    if present:
        file = records.path(folder, present)
        file.parent.mkdir()
        file.write_text(json.dumps(present))
    assert not sweep.is_recorded(*jobs(0), folder, {"cpu"}, commit)
    records.write(folder, toy.record())
    assert sweep.is_recorded(*jobs(0), folder, {"cpu"}, "abc")


def test_a_failing_run_is_named_and_the_others_go_on(client, folder):
    (folder / "fail-1").touch()
    with pytest.raises(RunFailed) as caught:
        record(client, folder, 0, 1, 2)
    words = "1 of 3 runs failed.\ntoy, profile quick, seed 1: cell 7 raised ValueError"
    assert str(caught.value).startswith(words)
    assert len(begun(folder, 1)) == 1  # no second try
    assert sorted(kept(folder)) == [0, 2]


def test_a_run_that_kills_its_workers_is_given_up(client, folder):
    (folder / "die-1").touch()
    with pytest.raises(RunFailed, match="seed 1: 2 workers died during it"):
        record(client, folder, 1)
    assert len(begun(folder, 1)) == 2


def test_an_unexpected_error_is_one_sentence(client):
    failures = sweep.run(client, jobs(0), sweep_toys.stumble, lambda job, result: None)
    assert failures == ["toy, profile quick, seed 0: KeyError: 0"]


def test_a_worker_of_another_commit_that_came_late_is_not_believed(client, folder):
    sweep.commit = lambda: "another"  # put back by the fixture
    with pytest.raises(RunFailed, match="at commit abc, not at another"):
        record(client, folder, 0)
    assert kept(folder) == {}


# Bad requests


def refusal(*words):
    """What `run` says when it refuses."""
    with pytest.raises(BadRequest) as caught:
        arguments = cli.parser().parse_args(["run", SLUG, *words])
        arguments.command(arguments)
    said = str(caught.value)
    assert "\n" not in said and said.endswith(".")
    return said


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("", "missing port"),
        ("here", "missing port"),
        ("host:port", "invalid literal"),
        ("http://127.0.0.1:8787", "unknown address scheme"),
    ],
)
def test_a_malformed_address_is_refused(address, reason):
    said = refusal("--scheduler", address)
    assert said.startswith(f"{address!r} is no address of a scheduler ({reason}")
    assert "tcp://192.168.0.7:8786" in said


def test_an_address_without_a_scheduler_is_refused(monkeypatch):
    monkeypatch.setattr(sweep, "TIMEOUT", 1)
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        said = refusal("--scheduler", address)
    assert f"no scheduler answers at {address}" in said and "dask scheduler" in said


def start_dask(*words, path):
    """A scheduler or a worker as users start it, with a Python path of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "dask", *words, "--no-dashboard"],
        cwd=path,
        env=os.environ | {"PYTHONPATH": str(path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_a_scheduler_is_refused_without_workers_and_with_a_wrong_one(
    monkeypatch, tmp_path
):
    (tmp_path / "iclrtut").mkdir()
    for name in ("__init__", "commands"):  # an older package had no sweeps
        (tmp_path / "iclrtut" / f"{name}.py").touch()
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as alone:
        address = alone.scheduler_address
        monkeypatch.setattr(sweep, "TIMEOUT", 1)
        said = refusal("--scheduler", address)
        assert f"no worker is connected to {address}" in said
        assert f"dask worker {address} --nthreads 1" in said

        monkeypatch.setattr(sweep, "TIMEOUT", 300)
        worker = start_dask("worker", address, "--no-nanny", path=tmp_path)
        try:
            said = refusal("--scheduler", address)
        finally:
            worker.kill()
            worker.wait()
    assert "cannot run this version of iclrtut (ModuleNotFoundError(" in said
    assert sweep.version().commit in said


def test_only_workers_of_this_version_are_accepted(client, monkeypatch):
    here = sweep.version()
    assert sweep.check_workers(client) == {here.device}
    monkeypatch.setattr(sweep, "commit", lambda: "another")
    with pytest.raises(BadRequest, match=f"commit {here.commit[:40]}.*this is another"):
        sweep.check_workers(client)


# Real kernels: a small book in a clone of its own

CHAPTER = """---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A chapter that waits or fails when it is asked to

```{{code-cell}} ipython3
:tags: [parameters]

profile = "quick"
seed = 0
```

```{{code-cell}} ipython3
import os, time
from pathlib import Path
import iclrtut, torch

run = iclrtut.start("{slug}", profile, seed)
```

```{{code-cell}} ipython3
notes = Path({notes!r})
(notes / f"begun-{{seed}}-{{os.getpid()}}").touch()
while (notes / f"hold-{{seed}}").exists():
    time.sleep(0.02)
assert not (notes / f"fail-{{seed}}").exists(), "as asked"
```

```{{code-cell}} ipython3
for claim in run.chapter.claims:
    numbers = torch.randn(10**6, generator=run.generator(claim.id))
    run.claim(claim.id, (numbers @ numbers).item(), successes=1, trials=2)
run.card()
```
"""


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A clone whose chapter takes no time; its notes go to a folder of it."""
    tree = tmp_path_factory.mktemp("book")
    notes = tree / "notes"
    (tree / "book" / "chapters").mkdir(parents=True)
    notes.mkdir()
    shutil.copytree(TREE / "iclrtut", tree / "iclrtut")
    shutil.copy(TREE / "_config.yml", tree)
    chapter = CHAPTER.format(slug=SLUG, notes=str(notes))
    (tree / "book" / "chapters" / f"{SLUG}.md").write_text(chapter)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "book"], ["commit", "-qm", "A book"]):
        subprocess.run([*git, *words], cwd=tree, check=True)
    (tree / ".git" / "info" / "exclude").write_text("*\n")
    return tree


@pytest.fixture
def start(book):
    """Start `python -m iclrtut run` in the book; it is killed after the test."""
    commands = []
    for file in (book / "notes").iterdir():
        file.unlink()
    shutil.rmtree(book / "records", ignore_errors=True)

    def begin(*words):
        command = subprocess.Popen(
            [sys.executable, "-m", "iclrtut", "run", SLUG, "--profile=smoke", *words],
            cwd=book,
            env=os.environ | {"PYTHONPATH": str(book)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Where tests run in the background, Ctrl+C may be ignored from birth.
            preexec_fn=None
            if os.name == "nt"
            else lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        commands.append(command)
        return command

    yield begin
    for command in commands:
        command.kill()
        command.communicate()


@pytest.fixture
def cluster(book):
    """A scheduler and two workers in processes of their own: address, scheduler."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address, host = f"tcp://127.0.0.1:{port}", ("--host", "127.0.0.1")
    scheduler = start_dask("scheduler", *host, "--port", port, path=book)
    each = ("--nworkers", "2", "--nthreads", "1")
    workers = start_dask("worker", address, *host, *each, path=book)
    yield address, scheduler
    family = [p for part in (scheduler, workers) for p in family_of(part.pid)]
    for process in family:
        process.kill()
    scheduler.wait()
    workers.wait()


def family_of(pid):
    """A process with all that it started."""
    if not psutil.pid_exists(pid):
        return []
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


def chain(pid):
    """A kernel, the process that executes its chapter, and their worker."""
    kernel = psutil.Process(pid)
    return [kernel, *kernel.parents()[:2]]


def ended(*processes):
    return lambda: not any(process.is_running() for process in processes)


def ending(command):
    """Exit code of a command, and what it says after its lines of progress."""
    _, err = command.communicate(timeout=600)
    return command.returncode, "".join(err.partition("iclrtut: ")[1:])


@pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups")
def test_ctrl_c_is_one_sentence_and_leaves_no_kernel(book, start):
    (book / "notes" / "hold-0").touch()
    command = start()
    (pid,) = until(lambda: begun(book / "notes", 0))
    processes = chain(pid)
    os.killpg(command.pid, signal.SIGINT)  # a terminal sends it to all of them
    code, err = ending(command)
    assert code == 1 and err.startswith("iclrtut: interrupted: ")
    assert err.count("\n") == 1
    until(ended(*processes))


def test_on_a_cluster_whatever_dies_no_kernel_is_left_and_the_sweep_goes_on(
    book, start, cluster
):
    notes, (address, scheduler) = book / "notes", cluster
    (notes / "hold-0").touch()
    (notes / "fail-1").touch()

    # The calling process is killed: the scheduler cancels the job.
    command = start("--scheduler", address)
    (pid,) = until(lambda: begun(notes, 0))
    kernel, executing, worker = chain(pid)
    command.kill()
    until(ended(kernel, executing))
    assert worker.is_running()
    (notes / f"begun-0-{pid}").unlink()

    # A worker is killed: its kernel ends, and its job goes to the other.
    command = start("--seeds", "0,1", "--scheduler", address)
    (pid,) = until(lambda: begun(notes, 0))
    kernel, executing, worker = chain(pid)
    worker.kill()
    until(ended(kernel, executing))
    until(lambda: len(begun(notes, 0)) == 2)
    (notes / "hold-0").unlink()
    code, err = ending(command)
    assert code == 1 and err.startswith(
        f"iclrtut: 1 of 2 runs failed.\n{SLUG}, profile smoke, seed 1: cell 4 "
        "raised AssertionError: as asked"
    )
    assert "Traceback" not in err
    files = [file.name for file in (book / "records" / SLUG).iterdir()]
    assert files == ["smoke-cpu-0.json"]

    # The scheduler is killed.
    (notes / "hold-2").touch()
    command = start("--seeds", "2", "--scheduler", address)
    until(lambda: begun(notes, 2))
    scheduler.kill()
    code, err = ending(command)
    assert code == 1 and err.endswith(
        "seed 2: the scheduler is gone: start it and run this again.\n"
    )


def test_a_sweep_measures_what_a_run_without_dask_measures(book, start):
    code, err = ending(start("--seeds", "3", "--records", "swept"))
    assert (code, err) == (0, "")
    alone = {
        "ICLRTUT_RECORDS": str(book / "alone"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(book),
    }
    words = "from pathlib import Path; from iclrtut.commands.execute import execute; "
    words += f"execute({SLUG!r}, 'smoke', 3, Path('alone.ipynb'))"
    subprocess.run(
        [sys.executable, "-c", words], cwd=book, env=os.environ | alone, check=True
    )
    one, other = (
        records.read(book / f"{folder}/{SLUG}/smoke-cpu-3.json")
        for folder in ("swept", "alone")
    )
    spent = {"seconds": 0, "peak_memory_bytes": 0}
    assert one["claims"] and one | spent == other | spent
