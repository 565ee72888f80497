"""Directives for pages built from data: cards, plan, ledger, speed, sweep, specimen.

Nothing they print is typed: chapters come from `iclrtut.claims`, numbers from the
records, check lines from the executed notebooks.
"""

import json
import math
import re
import statistics
import sys
from collections import Counter
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

# Each verdict with its plural, in the order in which they are counted.
VERDICTS = {"holds": "hold", "does not hold": "do not hold", "undecided": "undecided"}
NO_RECORDS = "<p>There are no records yet.</p>"
MEAN = ("mean", "low", "high")
DEVICES = {"cpu": "CPU", "cuda": "GPU"}
HALVES = ("modules", "checks")  # of deliberate faults


class Page(SphinxDirective):
    """A directive that puts HTML into the page; a subclass says which."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make the HTML."""
        self.tree = Path(self.env.srcdir)
        sys.path.insert(0, str(self.tree))
        return [nodes.raw("", self.html(), format="html")]

    def html(self) -> str:
        """The HTML of this directive."""
        raise NotImplementedError

    def link(self, page: str) -> str:
        """The address of a page, from here."""
        return self.env.app.builder.get_relative_uri(self.env.docname, page)

    def chapters(self) -> dict[str, Any]:
        """Declared chapters by name."""
        from iclrtut import claims

        return {chapter.slug: chapter for chapter in claims.chapters()}

    def plan(self) -> dict[str, dict[str, str]]:
        """Part -> chapter -> working title, in the order of the book."""
        text = (self.tree / "book" / "plan.yml").read_text(encoding="utf-8")
        return yaml.safe_load(text)

    def records(self) -> list[dict[str, Any]]:
        """All judged records."""
        from iclrtut import records

        kept = records.read_all(self.tree / "records")
        return [record for record in kept if record["profile"] != "smoke"]

    def rows(self) -> list[dict[str, Any]]:
        """The ledger."""
        from iclrtut import ledger

        return ledger.rows(self.tree / "records")


class Cards(Page):
    """The chapters that stand, each with picture, times and verdicts."""

    def html(self) -> str:
        """A list of cards."""
        declared = self.chapters()
        cards = [
            self.card(part, declared[slug])
            for part, slugs in self.plan().items()
            for slug in slugs
            if slug in declared
        ]
        return f'<div class="cards">{"".join(cards)}</div>'

    def card(self, part: str, chapter: Any) -> str:
        """One chapter's card."""

        def own(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [entry for entry in entries if entry["chapter"] == chapter.slug]

        picture = self.tree / "book" / "_static" / "cards" / f"{chapter.slug}.svg"
        facts = {
            "Paper": f'{escape(chapter.authors)}: <a href="{escape(chapter.url)}">'
            f"{escape(chapter.paper)}</a>",
            "Time": by_kind(own(self.records()), median_time),
            "Difficulty": escape(chapter.difficulty),
            "Know before": escape(chapter.prerequisites),
            "Claims": by_kind(own(self.rows()), tally),
        }
        listed = "".join(f"<dt>{k}</dt><dd>{v}</dd>" for k, v in facts.items())
        return f"""<section class="chapter">
<div class="picture">{picture.read_text(encoding="utf-8")}</div>
<div class="words"><p class="part">{escape(part)}</p>
<h3><a href="{self.link(f"notebooks/{chapter.slug}")}">{escape(chapter.title)}</a></h3>
<p class="idea">{escape(chapter.idea)}</p><dl>{listed}</dl></div></section>"""


class Planned(Page):
    """The chapters that do not stand yet, by part."""

    def html(self) -> str:
        """A list of parts."""
        declared = self.chapters()
        parts = [
            f'<div><h3>{escape(part)}</h3><ul>{titles}</ul></div>'
            for part, slugs in self.plan().items()
            if (titles := "".join(
                f"<li>{escape(title)}</li>"
                for slug, title in slugs.items()
                if slug not in declared
            ))
        ]  # fmt: skip
        return f'<div class="planned">{"".join(parts)}</div>'


class Specimen(Page):
    """The check line of one equation, as the executed chapter printed it."""

    required_arguments, optional_arguments = 2, 0

    def html(self) -> str:
        """The line, with links to chapter and equation."""
        slug, number = self.arguments
        notebook = self.tree / "notebooks" / f"{slug}.ipynb"
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        printed = [
            line
            for cell in cells
            for output in cell.get("outputs", [])
            for line in "".join(output.get("text", "")).split("\n")
            if re.match(rf"✓ (\(\w+\) )*\({number}\)", line)
        ]
        if not printed:
            raise self.error(f"{notebook.name} prints no check of equation ({number})")
        page = self.link(f"notebooks/{slug}")
        line = re.sub(
            r"\((\d\w*)\)(?= )",
            rf'<a href="{page}#eq-\1" title="Equation (\1)">(\1)</a>',
            escape(printed[0]),
        )
        return f'<p class="check">{line}</p>'


class Ledger(Page):
    """Every claim with its seeds and verdict, a table a chapter and profile."""

    def html(self) -> str:
        """What holds by luck, then all tables; or that there are no records."""
        from iclrtut import ledger

        rows = sorted(self.rows(), key=kind)
        if not rows:
            return NO_RECORDS
        by_chapter = groupby(rows, key=lambda row: row["chapter"])
        return f'<p class="luck">{ledger.luck(rows)}</p>' + "".join(
            self.chapter(slug, list(members)) for slug, members in by_chapter
        )

    def chapter(self, slug: str, rows: list[dict[str, Any]]) -> str:
        """The tables of one chapter."""
        chapter = self.chapters()[slug]
        title = (
            f'<a href="{self.link(f"notebooks/{slug}")}">{escape(chapter.title)}</a>'
        )
        tables = "".join(
            self.table(chapter, of_kind(members[0]), members)
            for _, group in groupby(rows, key=kind)
            for members in [list(group)]
        )
        return f'<section class="ledger" id="{slug}"><h2>{title}</h2>{tables}</section>'

    def table(self, chapter: Any, what: str, rows: list[dict[str, Any]]) -> str:
        """The claims of one chapter under one profile on one kind of device."""
        from iclrtut import ledger

        body = "".join(self.row(chapter, row) for row in rows)
        head = ("Claim", "The paper", "Measured", "Holds when", "Verdict")
        claims = table(f"Claims of {chapter.title}, {what}", head, body)
        told = f"{tally(rows)} {ledger.corrected(rows[0])} {ledger.apart(rows[0])}"
        return f'<h3>{what}</h3><p class="tally">{told}</p>{claims}'

    def row(self, chapter: Any, row: dict[str, Any]) -> str:
        """One claim."""
        from iclrtut import ledger

        claim = chapter.claim(row["claim"])
        paper = escape(claim.paper)
        number = f'<span class="number">{ledger.measured(row)}</span>'
        seeds = f"{row['seeds']} {'seed' if row['seeds'] == 1 else 'seeds'}"
        notes = ", ".join(filter(None, (seeds, ledger.beside(row))))
        cells = (
            f"<td><b>{escape(row['sentence'])}</b><small>{escape(row['statistic'])}. "
            f"<i>{escape(row['source'])}</i></small></td>",
            f"<td>{paper if claim.paper_has_one else f'<small>{paper}</small>'}</td>",
            f"<td>{number}<small>{notes}</small>{whisker(row, claim.rule)}</td>",
            f"<td>{row['rule']}</td>",
            f"<td>{verdict(row['verdict'])}</td>",
        )
        return f"<tr>{''.join(cells)}</tr>"


class Speed(Page):
    """Wall time, parts and peak memory of the recorded runs, then the benchmarks."""

    def html(self) -> str:
        """All tables."""
        kept = sorted(self.records(), key=kind)
        body = "".join(self.row(list(group)) for _, group in groupby(kept, key=kind))
        head = ("Chapter", "Profile", "Device", "Whole run", "Parts", "Peak memory")
        runs = table("Running times", head, body) if kept else NO_RECORDS
        files = sorted((self.tree / "records").glob("*/bench-*.json"))
        return runs + self.faults() + "".join(map(self.benchmark, files))

    def faults(self) -> str:
        """The shares of deliberate faults that were caught, from `make mutants`."""
        body = ""
        for file in sorted((self.tree / "records").glob("*/mutants.json")):
            halves = json.loads(file.read_text(encoding="utf-8"))
            title = self.chapters()[file.parent.name].title
            cells = [escape(title), *(caught(halves.get(h)) for h in HALVES)]
            body += f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        head = ("Chapter", "In its modules", "In its check cells")
        return table("Deliberate faults that were caught", head, body) if body else ""

    def benchmark(self, file: Path) -> str:
        """One file of benchmarks: its facts in a line, its measurements as tables."""
        measured = json.loads(file.read_text(encoding="utf-8"))
        facts = {k: v for k, v in measured.items() if not isinstance(v, dict)}
        line = ", ".join(f"{k} {v}" for k, v in facts.items())
        title = f"The {file.parent.name}"
        if file.parent.name in self.chapters():
            title = self.chapters()[file.parent.name].title
        tables = ""
        for name, rows in ((k, v) for k, v in measured.items() if isinstance(v, dict)):
            columns = list(dict.fromkeys(key for row in rows.values() for key in row))
            head = (name, *(column.replace("_", " ") for column in columns))
            body = "".join(
                f"<tr><td>{escape(what)}</td>"
                + "".join(f"<td>{short(row.get(c))}</td>" for c in columns)
                + "</tr>"
                for what, row in rows.items()
            )
            tables += table(f"Benchmark: {name}", head, body)
        return f"<h2>{escape(title)}</h2>{tables}<p><small>{escape(line)}</small></p>"

    def row(self, members: list[dict[str, Any]]) -> str:
        """The runs of one chapter under one profile on one kind of device."""
        title = escape(self.chapters()[members[0]["chapter"]].title)
        devices = sorted({escape(m["device_name"]) for m in members})
        parts = "".join(
            f"<li>{escape(name)} {duration(statistics.median(spent))}</li>"
            for name in members[0]["timings"]
            if (spent := [m["timings"][name] for m in members if name in m["timings"]])
        )
        peaks = [m["peak_memory_bytes"] for m in members if m["peak_memory_bytes"]]
        peak = f"{max(peaks) / 2**20:,.0f} MiB" if peaks else "–"
        seconds = [m["seconds"] for m in members]
        whole = median_time(members)
        runs = f"median of {len(members)}, at most {duration(max(seconds))}"
        return (
            f"<tr><td>{title}</td><td>{members[0]['profile']}</td>"
            f"<td>{'<br>'.join(devices)}</td>"
            f"<td>{whole}<small>{runs}</small></td>"
            f'<td><ul class="plain">{parts}</ul></td><td>{peak}</td></tr>'
        )


def caught(counts: dict[str, float] | None) -> str:
    """The share of deliberate faults that was caught, and of how many it is one."""
    if not counts:
        return "–"
    many = f"{counts['caught']} of {counts['faults']}"
    return f"{counts['share']:.0%}<small>{many}</small>"


class Sweep(Page):
    """How the wall time of a sweep falls with the number of workers."""

    def html(self) -> str:
        """A sentence, and a row a number of workers."""
        file = self.tree / "records" / "sweep" / "bench-cpu.json"
        if not file.is_file():
            return NO_RECORDS
        record = json.loads(file.read_text(encoding="utf-8"))
        rows = record["workers"]
        title = self.chapters()[record["chapter"]].title
        sentence = (
            f"{record['runs']} runs of <i>{escape(title)}</i> ({record['profile']}) on "
            f"one machine with {record['cores']} cores. When it began, other work had "
            f"a load of {record['load_before']:g} there."
        )
        longest = max(row["seconds"] for row in rows.values())
        body = "".join(self.row(name, row, longest) for name, row in rows.items())
        head = ("Workers", "Wall time", "Times as fast", "Share of the ideal", "Drawn")
        return f"<p>{sentence}</p>{table('Wall time by workers', head, body)}"

    def row(self, name: str, row: dict[str, float], longest: float) -> str:
        """One number of workers: its time, and the time of an ideal division."""
        ends = row["seconds"], row["seconds"] * row.get("share_of_ideal", 1)
        took, ideal = (round(4 + 150 * end / longest, 1) for end in ends)
        bound = f'<path class="bound" d="M{ideal} 0V20"/>' if len(row) > 1 else ""
        cells = (
            escape(name),
            duration(row["seconds"]),
            short(row.get("times_as_fast")),
            short(row.get("share_of_ideal")),
            f'<svg class="whisker" viewBox="0 0 160 20" aria-hidden="true">{bound}'
            f'<path class="interval" d="M4 10H{took}"/>'
            f'<circle cx="{took}" cy="10" r="4"/></svg>',
        )
        return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def table(name: str, head: tuple[str, ...], body: str) -> str:
    """A table in a box of its own that scrolls where the screen is narrow."""
    cells = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(name)}">'
        f'<table class="data"><thead><tr>{cells}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def kind(entry: dict[str, Any]) -> tuple[str, int, str]:
    """What rows and records are grouped by: chapter, then profile and device."""
    order = ("quick", "full").index(entry["profile"])
    return entry["chapter"], order, entry["device"]


def of_kind(entry: dict[str, Any]) -> str:
    """Profile and device in words: `quick, on CPU`."""
    return f"{entry['profile']}, on {DEVICES.get(entry['device'], entry['device'])}"


def verdict(word: str, text: str = "") -> str:
    """A verdict as a mark and a word; the mark says it by its filling."""
    mark = f'<i class="{word.replace(" ", "-")}" aria-hidden="true"></i>'
    return f'<span class="verdict">{mark} {text or word}</span>'


def tally(rows: list[dict[str, Any]]) -> str:
    """How many claims hold, do not hold and are undecided."""
    counts = Counter(row["verdict"] for row in rows)
    return " ".join(
        verdict(word, f"{counts[word]} {word if counts[word] == 1 else plural}")
        for word, plural in VERDICTS.items()
        if counts[word]
    )


def by_kind(entries: list[dict[str, Any]], say: Any) -> str:
    """A line a profile and device: what `say` says of its entries."""
    groups = [list(group) for _, group in groupby(sorted(entries, key=kind), key=kind)]
    lines = [f"{say(group)} <small>({of_kind(group[0])})</small>" for group in groups]
    return "<br>".join(lines) or "no records yet"


def median_time(records: list[dict[str, Any]]) -> str:
    """The median running time of runs of one kind."""
    return duration(statistics.median(record["seconds"] for record in records))


def duration(seconds: float) -> str:
    """A time span as a reader says it: `58 s`, `12 min`, `1.5 h`, unbroken."""
    if seconds < 10:
        text = f"{seconds:.1f} s"
    elif seconds < 120:
        text = f"{seconds:.0f} s"
    else:
        text = (
            f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
        )
    return text.replace(" ", "\u00a0")


def short(value: float | None) -> str:
    """A measured number in three digits, whole from 1,000 on; a dash for none."""
    if value is None:
        return "–"
    return minus(f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}")


def minus(text: str) -> str:
    """Set the minus sign that typographers set."""
    return text.replace("-", "−")


def whisker(row: dict[str, Any], rule: Any) -> str:
    """A small picture of the interval, and every seed below it, against the bound.

    The tinted side is where the rule wants the number; a geometric mean has a
    logarithmic axis.
    """
    scale = math.log if row["log"] else float
    bound, mean, low, high = map(scale, (rule.bound, *(row[k] for k in MEAN)))
    seeds = list(map(scale, row["values"]))
    ends = [v for v in (low, high, mean, bound, *seeds) if v == v]
    left, right = min(ends), max(ends)
    room = 0.18 * (right - left) or 1.0

    def x(value: float) -> float:
        return round(160 * (value - left + room) / (right - left + 2 * room), 1)

    at = x(bound)
    start, width = (at, 160 - at) if rule.side == "above" else (0, at)
    interval = f'<path class="interval" d="M{x(low)} 7H{x(high)}"/>'
    points = (f'<circle class="seed" cx="{x(v)}" cy="16" r="2"/>' for v in seeds)
    look = f"whisker {row['verdict'].replace(' ', '-')}"
    return (
        f'<svg class="{look}" viewBox="0 0 160 20" aria-hidden="true">'
        f'<rect x="{start}" width="{width:.1f}" height="20"/>'
        f'<path class="bound" d="M{at} 0V20"/>{interval if low == low else ""}'
        f'<circle class="mean" cx="{x(mean)}" cy="7" r="4"/>{"".join(points)}</svg>'
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    for name, directive in (
        ("cards", Cards),
        ("planned", Planned),
        ("specimen", Specimen),
        ("ledger", Ledger),
        ("speed", Speed),
        ("sweep", Sweep),
    ):
        app.add_directive(name, directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
