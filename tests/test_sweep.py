"""Sweeps, with a real scheduler and two real workers: lost, called off, refused."""

import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from types import SimpleNamespace

import pages
import psutil
import pytest
import sweep_toys
import toy
from distributed import Client, LocalCluster

from iclrtut import claims, records
from iclrtut.commands import cli, execute, sweep
from iclrtut.errors import BadRequest, RunFailed

TREE = execute.TREE
SLUG = "differentiable_dsp"  # its smoke run is the shortest
STARTED = []  # commands in the small book


def until(true, seconds=300):
    """Wait until something is true, and give it back."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)
    return found


def jobs(*seeds):
    return [sweep.Job("toy", "quick", seed) for seed in seeds]


def dask(*words, path):
    """A scheduler or a worker as users start it, with a Python path of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "dask", *words, "--no-dashboard"],
        cwd=path[0],
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


class Cluster:
    """A scheduler and two workers in processes of their own."""

    def __init__(self, *path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{port}"
        where = ("--host", "127.0.0.1")
        self.parts = [
            dask("scheduler", *where, "--port", str(port), path=path),
            dask(
                *("worker", self.address, *where, "--nworkers", "2", "--nthreads", "1"),
                path=path,
            ),
        ]

    def close(self):
        every = [psutil.Process(part.pid) for part in self.parts if not part.poll()]
        every += [child for each in every for child in each.children(recursive=True)]
        for process in every:
            process.kill()
        for part in self.parts:
            part.wait()


@pytest.fixture(scope="module")
def cluster():
    made = Cluster(TREE, TREE / "tests")
    yield made
    made.close()


@pytest.fixture
def client(cluster):
    with Client(cluster.address, timeout=30) as made:
        made.wait_for_workers(2, timeout=60)
        yield made


# What comes back, with a toy's work


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """Where toys note what they do; `sweep.record` hands out their work."""
    toy.install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "measured", partial(sweep_toys.measure, tmp_path))
    monkeypatch.setattr(sweep, "devices", lambda client: {"cpu"})
    monkeypatch.setattr(sweep, "commit", lambda: "abc")
    return tmp_path


def begun(folder, seed):
    """The processes that began a job."""
    found = folder.glob(f"begun-{seed}-*")
    return [int(file.name.split("-")[2]) for file in found]


def kept(folder):
    """Seed -> bytes and time of its record."""
    return {
        int(file.stem.split("-")[-1]): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in folder.glob("records/toy/*.json")
    }


def record(client, folder, *seeds, again=False):
    sweep.record(client, jobs(*seeds), folder / "records", again)


def test_every_job_comes_back_once_to_the_folder_of_the_caller(client, folder, capsys):
    for seed in (0, 1):  # held, so that both workers are needed
        (folder / f"hold-{seed}").touch()
    done = threading.Thread(target=record, args=(client, folder, 0, 1, 2, 3))
    done.start()
    workers = until(lambda: (w := begun(folder, 0) + begun(folder, 1))[1:] and w)
    for seed in (0, 1):
        (folder / f"hold-{seed}").unlink()
    done.join()
    assert len(set(workers)) == 2 and os.getpid() not in workers
    assert [len(begun(folder, seed)) for seed in range(4)] == [1, 1, 1, 1]
    assert sorted(kept(folder)) == [0, 1, 2, 3]
    for seed in range(4):
        file = folder / f"records/toy/quick-cpu-{seed}.json"
        assert records.read(file) == toy.record(seed=seed)
        notebook = folder / f"_build/runs/toy-quick-{seed}.ipynb"
        assert notebook.read_bytes() == b"a notebook"
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines) == [f"{job}: done" for job in jobs(0, 1, 2, 3)]


def test_a_killed_worker_repeats_its_own_job_and_no_other(client, folder):
    (folder / "hold-2").touch()
    done = threading.Thread(target=record, args=(client, folder, 0, 1, 2, 3, 4))
    done.start()
    until(lambda: len(kept(folder)) == 4)
    before = kept(folder)
    (worker,) = begun(folder, 2)
    psutil.Process(worker).kill()
    until(lambda: len(begun(folder, 2)) == 2)
    (folder / "hold-2").unlink()
    done.join()
    after = kept(folder)
    assert sorted(after) == [0, 1, 2, 3, 4] and sorted(before) == [0, 1, 3, 4]
    assert {seed: after[seed] for seed in before} == before
    assert [len(begun(folder, seed)) for seed in range(5)] == [1, 1, 2, 1, 1]


def test_a_second_call_skips_what_is_recorded_and_says_so(client, folder, capsys):
    record(client, folder, 0, 1)
    before = kept(folder)
    capsys.readouterr()
    record(client, folder, 0, 1, 2)
    said = capsys.readouterr().out
    assert "2 of 3 are recorded already" in said and "--again" in said
    assert "seed 2: done" in said and "seed 1: done" not in said
    assert {seed: kept(folder)[seed] for seed in before} == before
    record(client, folder, 0, 1, 2, again=True)
    assert [len(begun(folder, seed)) for seed in range(3)] == [2, 2, 2]


@pytest.mark.parametrize(
    ("stands", "commit"),
    [
        (toy.record(commit="older"), "abc"),
        (toy.record(commit="abc+"), "abc+"),
        (toy.record(device="cuda"), "abc"),
        (toy.record(profile="full"), "abc"),
        (toy.record(claims={"faster": {}}), "abc"),
        ("{", "abc"),
        (None, "abc"),
    ],
    ids=[
        "another commit",
        "changed files",
        "another device",
        "another profile",
        "not valid",
        "cut short",
        "nothing",
    ],
)
def test_what_does_not_count_as_recorded(folder, stands, commit):
    if stands:
        named = stands if isinstance(stands, dict) else toy.record()
        file = records.path(folder, named)
        file.parent.mkdir()
        file.write_text(stands if stands == "{" else json.dumps(stands))
    assert not sweep.recorded(*jobs(0), folder, {"cpu"}, commit)
    records.write(folder, toy.record())
    assert sweep.recorded(*jobs(0), folder, {"cpu"}, "abc")


def test_a_failing_job_is_named_and_the_others_go_on(client, folder):
    (folder / "fail-1").touch()
    with pytest.raises(RunFailed) as got:
        record(client, folder, 0, 1, 2)
    told = "1 of 3 runs failed.\ntoy, profile quick, seed 1: cell 7 raised ValueError"
    assert str(got.value).startswith(told)
    assert len(begun(folder, 1)) == 1  # no second try
    assert sorted(kept(folder)) == [0, 2]


def test_a_job_that_kills_its_workers_is_given_up_and_no_other(client, folder):
    """The scheduler here allows one lost worker a job; the second trial is alone."""
    (folder / "die-1").touch()
    with pytest.raises(RunFailed, match=r"seed 1: 2 workers died over it"):
        record(client, folder, 0, 1, 2)
    assert len(begun(folder, 1)) == 4
    assert sorted(kept(folder)) == [0, 2]


def test_what_no_work_should_raise_is_told_without_a_trace(client):
    told = sweep.run(client, jobs(0, 1), sweep_toys.stumble, lambda job, result: None)
    assert sorted(told) == [f"{job}: KeyError: {job.seed}" for job in jobs(0, 1)]


def test_a_full_disk_is_told_once_a_job(client, folder, monkeypatch):
    def full(root, made):
        raise RunFailed(f"seed {made['seed']} does not fit: free some space.")

    monkeypatch.setattr(records, "write", full)
    with pytest.raises(RunFailed, match=r"2 of 2 runs failed.\n.*free some space"):
        record(client, folder, 0, 1)


def test_a_worker_of_another_commit_that_came_late_is_not_believed(client, folder):
    sweep.commit = lambda: "another"  # put back by the fixture
    with pytest.raises(RunFailed, match="at commit abc, not at another"):
        record(client, folder, 0)
    assert kept(folder) == {}


def test_a_scheduler_that_dies_is_told(folder):
    own = Cluster(TREE, TREE / "tests")
    (folder / "hold-1").touch()
    try:
        with Client(own.address, timeout=30) as client:
            got = []

            def go():
                with pytest.raises(RunFailed) as raised:
                    record(client, folder, 0, 1)
                got.append(str(raised.value))

            done = threading.Thread(target=go)
            done.start()
            until(lambda: kept(folder) and begun(folder, 1))
            own.parts[0].kill()
            done.join(60)
            assert not done.is_alive()
        assert "1 of 2 runs failed" in got[0] and "the scheduler is gone" in got[0]
        assert list(kept(folder)) == [0]
    finally:
        own.close()


# Bad requests


def refused(*words):
    """What `run` says when it refuses."""
    with pytest.raises(BadRequest) as got:
        arguments = cli.parser().parse_args(["run", SLUG, *words])
        arguments.command(arguments)
    said = str(got.value)
    assert "\n" not in said and said.endswith(".")
    return said


@pytest.mark.parametrize("address", ["", "here", "tcp://", "host:port", "ftp://a:1"])
def test_a_malformed_address_is_refused(address):
    said = refused("--scheduler", address)
    assert repr(address) in said and "tcp://192.168.0.7:8786" in said


@pytest.mark.parametrize("what", ["nobody", "a web server"])
def test_an_address_without_a_scheduler_is_refused(monkeypatch, what):
    monkeypatch.setattr(sweep, "PATIENCE", 1)
    handler = http.server.SimpleHTTPRequestHandler
    server = http.server.HTTPServer(("127.0.0.1", 0), handler)
    address = f"tcp://127.0.0.1:{server.server_port}"
    if what == "nobody":
        server.server_close()
    else:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    said = refused("--scheduler", address)
    assert f"no scheduler answers at {address}" in said and "dask scheduler" in said
    if what != "nobody":
        server.shutdown()
        server.server_close()


@pytest.fixture
def alone():
    """The address of a scheduler without workers."""
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as made:
        yield made.scheduler_address


def test_a_scheduler_without_workers_is_refused(monkeypatch, alone):
    monkeypatch.setattr(sweep, "PATIENCE", 1)
    said = refused("--scheduler", alone)
    assert f"no worker is connected to {alone}" in said
    assert f"dask worker {alone} --nthreads 1" in said


@pytest.mark.parametrize("other", ["an older package", "another commit"])
def test_a_worker_with_other_code_is_refused(monkeypatch, alone, tmp_path, other):
    monkeypatch.setattr(sweep, "PATIENCE", 60)
    package = tmp_path / "iclrtut"
    if other == "another commit":
        shutil.copytree(TREE / "iclrtut", package)
    else:
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "commands.py").touch()
    worker = dask("worker", alone, "--no-nanny", path=[tmp_path])
    try:
        said = refused("--scheduler", alone)
    finally:
        worker.kill()
        worker.wait()
    here = sweep.code()
    assert here.commit in said
    if other == "another commit":
        assert "has iclrtut at commit unknown (files" in said and here.files in said
    else:
        assert "No module named 'iclrtut.commands" in said


def test_without_dask_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "pip install distributed" in refused()


def test_workers_of_this_tree_are_accepted(client):
    assert sweep.devices(client) == {sweep.code().device}


# Real notebooks: a small book in a clone of its own

CHAPTER = """---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A chapter that waits and fails when told

```{{code-cell}} ipython3
:tags: [parameters]

profile = "quick"
seed = 0
```

```{{code-cell}} ipython3
import os, time
from pathlib import Path
import iclrtut

run = iclrtut.start("{slug}", profile, seed)
```

```{{code-cell}} ipython3
notes = Path({notes!r})
(notes / f"begun-{{seed}}-{{os.getpid()}}").touch()
while (notes / f"hold-{{seed}}").exists():
    time.sleep(0.02)
assert not (notes / f"fail-{{seed}}").exists(), "told to"
```

```{{code-cell}} ipython3
for claim in run.chapter.claims:
    value = run.rng(claim.id).random()
    run.claim(claim.id, value, successes=1, trials=2)
run.card()
```
"""


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A clone whose chapter takes no time; its notes stand beside it."""
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
def clean(book):
    for file in (book / "notes").iterdir():
        file.unlink()
    shutil.rmtree(book / "records", ignore_errors=True)
    yield book / "notes"
    for command in STARTED:
        command.kill()
        command.communicate()
    STARTED.clear()


def heed():
    """Let Ctrl+C end what is about to start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(tree, *words, where=None):
    """`python -m iclrtut run` of a book's clone."""
    command = subprocess.Popen(
        [sys.executable, "-m", "iclrtut", "run", SLUG, "--profile", "smoke", *words],
        cwd=where or tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where tests run in the background, Ctrl+C may be ignored from birth.
        preexec_fn=None if os.name == "nt" else heed,
    )
    STARTED.append(command)
    return command


def chain(pid):
    """A kernel, the process that executes its chapter, and their worker."""
    kernel = psutil.Process(pid)
    return [kernel, *kernel.parents()[:2]]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups")
def test_ctrl_c_leaves_no_kernel(book, clean):
    (clean / "hold-0").touch()
    command = start(book)
    (pid,) = until(lambda: begun(clean, 0))
    processes = chain(pid)
    os.killpg(command.pid, signal.SIGINT)  # a terminal tells every process of it
    _, err = command.communicate(timeout=300)
    assert command.returncode == 1
    assert err.startswith("iclrtut: interrupted: ") and err.endswith("from there.\n")
    assert err.count("\n") == 1
    until(lambda: not any(process.is_running() for process in processes), 60)


def test_on_a_cluster_kernels_end_with_their_sweep_and_with_their_worker(book, clean):
    cluster = Cluster(book)
    try:
        # the caller is killed: the scheduler calls the job off
        (clean / "hold-0").touch()
        command = start(book, "--scheduler", cluster.address)
        (pid,) = until(lambda: begun(clean, 0))
        kernel, executing, worker = chain(pid)
        command.kill()
        command.communicate()
        until(lambda: not (kernel.is_running() or executing.is_running()), 60)
        assert worker.is_running()
        (clean / f"begun-0-{pid}").unlink()

        # the worker is killed: its kernel ends, and the job goes to another
        (clean / "fail-1").touch()
        command = start(book, "--seeds", "0,1", "--scheduler", cluster.address)
        (pid,) = until(lambda: begun(clean, 0))
        kernel, executing, worker = chain(pid)
        worker.kill()
        until(lambda: not (kernel.is_running() or executing.is_running()), 60)
        until(lambda: len(begun(clean, 0)) == 2)
        (clean / "hold-0").unlink()
        out, err = command.communicate(timeout=300)
        assert command.returncode == 1 and "seed 0: done" in out
        assert err.startswith(
            f"iclrtut: 1 of 2 runs failed.\n{SLUG}, profile smoke, seed 1: cell 4 "
            "raised AssertionError: told to"
        )
        assert "Traceback" not in err
        assert [f.name for f in (book / "records" / SLUG).iterdir()] == [
            "smoke-cpu-0.json"
        ]
    finally:
        cluster.close()


def test_a_real_chapter_measures_what_a_serial_run_measures(tmp_path):
    command = start(TREE, "--records", "swept", where=tmp_path)
    out, err = command.communicate(timeout=300)
    assert (command.returncode, err) == (0, "")
    assert out == f"{SLUG}, profile smoke, seed 0: done\n"
    assert (tmp_path / f"_build/runs/{SLUG}-smoke-0.ipynb").is_file()

    serial = "from pathlib import Path; from iclrtut.commands.execute import execute; "
    serial += f"execute({SLUG!r}, 'smoke', 0, Path('alone.ipynb'))"
    alone = {
        "ICLRTUT_RECORDS": str(tmp_path / "serial"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(TREE),
    }
    subprocess.run(
        [sys.executable, "-c", serial],
        cwd=tmp_path,
        env=os.environ | alone,
        check=True,
        capture_output=True,
    )
    swept, serial = (
        records.read(tmp_path / f"{folder}/{SLUG}/smoke-cpu-0.json")
        for folder in ("swept", "serial")
    )
    spent = {"seconds": 0, "timings": 0, "peak_memory_bytes": 0}
    assert json.dumps(swept | spent) == json.dumps(serial | spent)
    declared = [claim.id for claim in claims.chapter(SLUG).claims]
    assert sorted(swept["claims"]) == sorted(declared)


def test_the_page_shows_what_was_measured(tmp_path):
    rows = {
        "none": {"seconds": 44.0},
        "1": {"seconds": 40.0, "times_as_fast": 1.0, "share_of_ideal": 1.0},
        "2": {"seconds": 25.0, "times_as_fast": 1.6, "share_of_ideal": 0.8},
    }
    facts = {"runs": 4, "chapter": "toy", "profile": "smoke", "cores": 2}
    file = tmp_path / "records" / "sweep" / "bench-cpu.json"
    page = SimpleNamespace(tree=tmp_path, chapters=lambda: {"toy": toy.CHAPTER})
    page.row = partial(pages.Sweep.row, page)
    assert pages.Sweep.html(page) == pages.NO_RECORDS
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({**facts, "load_before": 0.5, "workers": rows}))
    html = pages.Sweep.html(page)
    assert "4 runs of <i>A toy</i> (smoke) on one machine with 2 cores" in html
    cells = [re.sub("<.*?>", "", cell) for cell in re.findall("<td>(.*?)</td>", html)]
    assert cells[10:15] == ["2", "25\u00a0s", "1.6", "0.8", ""]
    ends = [float(x) for x in re.findall(r'cx="(.*?)"', html)]
    ideal = [float(x) for x in re.findall(r'class="bound" d="M(.*?) ', html)]
    assert ends == sorted(ends, reverse=True)
    assert ideal[0] == ends[1] and (ideal[1] - 4) * 2 == pytest.approx(
        ends[1] - 4, 0.01
    )
