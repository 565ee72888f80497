"""A chapter's run: device, seeds, settings, claims and the card at its end."""

import hashlib
import importlib.metadata
import os
import platform
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iclrtut import checks, claims, data, ledger, records
from iclrtut.claims import Claim, Measurements
from iclrtut.errors import BadRequest
from iclrtut.repository import commit


class Table:
    """Rows of text, shown as a table in a notebook and as lines elsewhere."""

    def __init__(self, head: list[str], rows: list[list[str]], caption: str = ""):
        self.head, self.rows, self.caption = head, rows, caption

    def _repr_markdown_(self) -> str:
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        cells = ([cell.replace("|", r"\|") for cell in line] for line in lines)
        table = "\n".join("| " + " | ".join(line) + " |" for line in cells)
        return f"{self.caption}\n\n{table}"

    def __repr__(self) -> str:
        return "\n".join(" · ".join(line) for line in [self.head, *self.rows])


class Run:
    """One run of a chapter. Made by `start`.

    Attributes:
        slug, profile, seed: of the chapter and of this run.
        device: CUDA when there is one, else the CPU.
        settings: the chapter's settings of this profile.
        folder: where checkpoints go.
        measured: claim id -> the numbers measured in this run.
        timings: name of a block -> its seconds, see `timer`.
    """

    def __init__(self, chapter: claims.Chapter, profile: str, seed: int):
        self.chapter, self.profile, self.seed = chapter, profile, seed
        self.slug = chapter.slug
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.settings: Any = chapter.settings[profile]
        self.folder = _cache() / self.slug / f"{profile}-{self.device.type}-{seed}"
        self.measured: dict[str, dict[str, float]] = {}
        self.timings: dict[str, float] = {}
        self._start = time.perf_counter()

    def _seed_of(self, name: str) -> int:
        text = f"{self.slug}/{self.seed}/{name}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")

    def generator(self, name: str, device: str | None = None) -> torch.Generator:
        """A random generator for each name, the same in every run with this seed.

        Args:
            name: what the random numbers are for.
            device: where they are generated; by default the run's device.
        """
        generator = torch.Generator(device or self.device)
        return generator.manual_seed(self._seed_of(name))

    def rng(self, name: str) -> np.random.Generator:
        """As `generator`, but NumPy's."""
        return np.random.default_rng(self._seed_of(name))

    @contextmanager
    def timer(self, name: str) -> Iterator[None]:
        """Record under `name` how many seconds a block takes."""
        start = time.perf_counter()
        yield
        self.timings[name] = time.perf_counter() - start

    def claim(self, id: str, value: float, **numbers: float) -> Table:
        """Record what this run measured of a declared claim, and show its row.

        Args:
            id: the claim's id.
            value: the declared statistic.
            numbers: what it was computed from; some kinds of claims need more of them,
                see `iclrtut.claims.Claim.needed`.

        Raises:
            BadRequest: the claim is not declared, or a number is missing or not
                finite.
        """
        self.measured[id] = self._measurement(id, {"value": value, **numbers})
        return self.claims(id)

    def claim_all(self, measured: Measurements) -> Table:
        """Record every claim of a measurement, or none, and show their table.

        Args:
            measured: claim id -> the numbers that `claim` takes.

        Raises:
            BadRequest: nothing was measured, or as in `claim`.
        """
        if not measured:
            raise BadRequest("{} measures no claim: give claim id -> numbers.")
        self.measured |= {
            id: self._measurement(id, numbers) for id, numbers in measured.items()
        }
        return self.claims(*measured)

    def _measurement(self, id: str, numbers: Mapping[str, float]) -> dict[str, float]:
        """The numbers as they are kept, once they are known to fit the claim."""
        claim = self.chapter.claim(id)
        entry = {name: float(number) for name, number in numbers.items()}
        if not np.isfinite(list(entry.values())).all():
            raise BadRequest(
                f"claim {id!r} measured {entry}, which is not finite: look at the "
                "training above, and lower the learning rate if it diverged."
            )
        if fault := claim.fault(entry):
            raise BadRequest(f"claim {id!r} {fault}: look at what measures it.")
        return entry

    def claims(self, *ids: str) -> Table:
        """The table of these claims, or of all that this run has measured.

        Verdicts come from the records of this profile on this kind of device, the
        book's and the reader's (`records.folders`); this run has a column beside them.

        Raises:
            BadRequest: a claim is not declared, or a record is not valid.
        """
        shown = [self.chapter.claim(id) for id in ids or self.measured]
        statistics = "; ".join(dict.fromkeys(claim.statistic for claim in shown))
        head = ["claim", "verdict", "over all seeds", "holds when the", "this run"]
        names = f"{self.slug}/{self.profile}-{self.device.type}-*.json"
        recorded = records.read_all(*records.folders(), names=names)
        pool = ledger.counting(recorded, records.plain(self.settings))
        rows = [self._row(claim, pool) for claim in shown]
        return Table(head, rows, f"*Measured: {statistics}.*")

    def _row(self, claim: Claim, pool: list[dict[str, Any]]) -> list[str]:
        what = f"**{claim.id}** {claim.sentence} ({claim.source})."
        what += f" *The paper: {claim.paper}.*" if claim.paper_has_one else ""
        entry = self.measured.get(claim.id)
        here = ledger.number(entry["value"]) if entry else "–"
        seeds = [r["claims"][claim.id] for r in pool if claim.id in r["claims"]]
        verdict, interval = "no records yet", "–"
        if self.profile not in ledger.JUDGED:
            verdict = f"not judged ({self.profile})"
        elif seeds:
            row = ledger.row(self.chapter, claim, self.profile, seeds)
            verdict = f"**{row['verdict']}**"
            numbers = ledger.measured(row).replace(" ", "\u00a0")  # on one line
            interval = f"{numbers}, n = {row['seeds']}"
            if notes := ledger.beside(row):
                interval += f" ({notes})"
        return [what, verdict, interval, claim.holds_when, here]

    @contextmanager
    def exercise(self, number: int) -> Iterator[None]:
        """Run the checks of an exercise and say whether the answer is right.

        A wrong or missing answer prints one line and stops nothing. Under nbgrader,
        which gives points by exception, the exception is raised.
        """
        before = len(checks.passed)
        try:
            yield
            print(f"{checks.sign('✓')} exercise {number}: right.")
        except Exception as error:
            if os.environ.get("NBGRADER_EXECUTION"):
                raise
            reason = f"{type(error).__name__}: {error}"
            if "llipsis" in reason:
                reason = "The three dots of the stub are yours to fill."
            print(f"{checks.sign('○')} exercise {number}: not yet. {reason}")
        finally:
            del checks.passed[before:]

    def card(self) -> Table:
        """The run card; writes the record when `ICLRTUT_RECORDS` names a folder.

        Raises:
            BadRequest: a record was to be kept, and the notebook was not run from top
                to bottom.
            RunFailed: the record cannot be written.
        """
        record = self.record()
        disorder = self._disorder()
        written = "no: set ICLRTUT_RECORDS to a folder to keep it"
        if os.environ.get("ICLRTUT_RECORDS"):
            if disorder:
                raise BadRequest(
                    f"the notebook was not run from top to bottom ({disorder}): "
                    "restart the kernel and run all cells; no record was written."
                )
            written = records.write(records.kept(), record).name
        peak = record["peak_memory_bytes"]
        rows = {
            "chapter": self.slug,
            "profile, seed": f"{self.profile}, {self.seed}",
            "device": record["device_name"],
            "versions": ", ".join(f"{k} {v}" for k, v in record["versions"].items()),
            "commit": record["commit"],
            "seconds": f"{record['seconds']:.0f} in all; "
            + ", ".join(f"{k} {v:.1f}" for k, v in self.timings.items()),
            "peak memory": f"{peak / 2**20:,.0f} MiB" if peak else "not known here",
            "record kept": written,
        }
        if disorder:
            rows["run from top to bottom"] = f"no: {disorder}"
        return Table(["of this run", "value"], [[k, str(v)] for k, v in rows.items()])

    def record(self) -> dict[str, Any]:
        """This run as a record, the content of its file."""
        return {
            "schema": records.SCHEMA,
            "chapter": self.slug,
            "profile": self.profile,
            "device": self.device.type,
            "device_name": _device_name(self.device),
            "seed": self.seed,
            "versions": _versions(),
            "commit": commit(),
            "settings": records.plain(self.settings),
            "data": dict(data.loaded),
            "seconds": time.perf_counter() - self._start,
            "timings": self.timings,
            "peak_memory_bytes": _peak_memory(self.device),
            "claims": self.measured,
        }

    def _disorder(self) -> str:
        """What shows that cells were left out or run out of order; empty if nothing."""
        declared = [claim.id for claim in self.chapter.claims]
        missing = [id for id in declared if id not in self.measured]
        if missing:
            return f"claims {', '.join(missing)} are missing"
        in_order = checks.passed == sorted(checks.passed)
        return "" if in_order else "checks ran twice, or out of order"


def start(slug: str, profile: str = "quick", seed: int = 0) -> Run:
    """Open a chapter's run and seed everything.

    Args:
        slug: the chapter's name.
        profile: "smoke", "quick" or "full"; `ICLRTUT_PROFILE` overrides it.
        seed: a whole number from 0 on; other seeds are independent runs.

    Raises:
        BadRequest: unknown chapter or profile, or a seed that is no such number.
    """
    profile = claims.profile(os.environ.get("ICLRTUT_PROFILE") or profile)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**31:
        raise BadRequest(
            f"seed {seed!r} is no whole number from 0 to 2**31 - 1: use 0."
        )
    _refuse_misspelt_parameters()
    run = Run(claims.chapter(slug), profile, seed)
    checks.passed.clear()
    data.loaded.clear()
    torch.manual_seed(seed)
    np.random.seed(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode("warn")
    print(f"{slug}: profile {profile}, seed {seed}, on {run.device.type}.")
    return run


def _refuse_misspelt_parameters() -> None:
    """Papermill ignores a parameter whose name is misspelt, and runs the defaults."""
    from IPython import get_ipython

    shell = get_ipython()
    cells = shell.user_ns.get("In", []) if shell else []
    for cell in cells:
        if not cell.startswith("# Parameters\n"):
            continue
        named = re.findall(r"^(\w+) *=", cell, re.MULTILINE)
        for name in set(named) - {"profile", "seed"}:
            raise BadRequest(f"parameter {name!r} is unknown: use profile or seed.")


def _cache() -> Path:
    folder = os.environ.get("ICLRTUT_CHECKPOINTS")
    return (
        Path(folder) if folder else Path.home() / ".cache" / "iclrtut" / "checkpoints"
    )


def _versions() -> dict[str, str]:
    names = ("iclrtut", "torch", "numpy", "scipy", "scikit-learn")
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} thread(s) of {platform.machine()}"


def _peak_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
