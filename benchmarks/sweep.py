"""Wall time of one sweep by the number of workers, beside runs without a scheduler.

Each worker is a process with one thread, and so is each run. The workers are started
before the clock is.

    python benchmarks/sweep.py
"""

import os
import subprocess
import sys
import tempfile

import _benchmark
import psutil

from iclrtut import timing
from iclrtut.commands import sweep

SLUG, RUNS = "differentiable_dsp", 4
WORKERS = (1, 2, 4)
JOBS = [sweep.Job(SLUG, "smoke", seed) for seed in range(RUNS)]


def one_by_one() -> None:
    """The same runs without a scheduler, each started when the last has ended."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "ICLRTUT_RECORDS": folder}
        for job in JOBS:
            words = ["-m", "iclrtut.commands.execute", *map(str, job), f"{folder}/done"]
            run = [sys.executable, *words]
            subprocess.run(run, env=environment, stdout=subprocess.DEVNULL, check=True)


def swept(workers: int) -> float:
    """Seconds of the sweep on so many workers of this machine."""
    with sweep.connect(None, workers) as client:
        client.wait_for_workers(workers)
        sweep.check_workers(client)  # every worker imports what it needs

        def go() -> None:
            failures = sweep.run(client, JOBS, sweep.measure, lambda job, result: None)
            assert not failures, failures

        return timing.seconds(go)


if __name__ == "__main__":
    load = round(psutil.getloadavg()[0], 1)
    alone = timing.seconds(one_by_one)
    took = {workers: swept(workers) for workers in WORKERS}
    rows = {"none": {"seconds": alone}} | {
        f"{workers}": {
            "seconds": seconds,
            "times_as_fast": took[1] / seconds,
            "share_of_ideal": took[1] / seconds / workers,
        }
        for workers, seconds in took.items()
    }
    facts = {"runs": RUNS, "chapter": SLUG, "profile": "smoke"}
    cores = {"cores": psutil.cpu_count(), "load_before": load}
    _benchmark.record("sweep", "cpu", {"workers": rows}, **facts, **cores)
