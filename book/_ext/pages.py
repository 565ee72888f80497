"""Directives for pages that are built from data: cards, plan, ledger, speed, specimen.

Nothing they print is typed: chapters come from `iclrtut.claims`, numbers from the
records, check lines from the executed notebooks.
"""

import json
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

MARKS = {"holds": "●", "does not hold": "○", "undecided": "◐"}
PLURAL = {"holds": "hold", "does not hold": "do not hold", "undecided": "undecided"}
DEVICES = {"cpu": "CPU", "cuda": "GPU"}


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
        picture = self.tree / "book" / "_static" / "cards" / f"{chapter.slug}.svg"
        facts = {
            "Paper": escape(f"{chapter.authors}: {chapter.paper}"),
            "Time": times(r for r in self.records() if r["chapter"] == chapter.slug),
            "Difficulty": escape(chapter.difficulty),
            "Know before": escape(chapter.prerequisites),
            "Claims": tally(r for r in self.rows() if r["chapter"] == chapter.slug),
        }
        listed = "".join(f"<dt>{k}</dt><dd>{v}</dd>" for k, v in facts.items())
        return f"""<section class="card">
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
            f'<div class="part"><h3>{escape(part)}</h3><ul>{titles}</ul></div>'
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
            if line.startswith(f"✓ ({number})")
        ]
        if not printed:
            raise self.error(f"{notebook.name} prints no check of equation ({number})")
        what = escape(printed[0].removeprefix(f"✓ ({number})"))
        href = f"{self.link(f'notebooks/{slug}')}#eq-{number}"
        return (
            f'<p class="check">✓ <a href="{href}" title="Equation ({number})">'
            f"({number})</a>{what}</p>"
        )


class Ledger(Page):
    """Every claim with its interval and verdict, a table a chapter and profile."""

    def html(self) -> str:
        """All tables, or one sentence where there are no records."""
        rows = self.rows()
        if not rows:
            return "<p>There are no records yet.</p>"
        groups = groupby(rows, key=lambda r: (r["chapter"], r["profile"], r["device"]))
        return "".join(self.table(*kind, list(members)) for kind, members in groups)

    def table(
        self, slug: str, profile: str, device: str, rows: list[dict[str, Any]]
    ) -> str:
        """The claims of one chapter under one profile on one kind of device."""
        chapter = self.chapters()[slug]
        body = "".join(self.row(chapter, row) for row in rows)
        what = f"{profile} on {DEVICES.get(device, device)}"
        head = ("Claim", "The paper", "Measured, 95 % interval", "Holds when", "Verdict")
        title = f'<a href="{self.link(f"notebooks/{slug}")}">{escape(chapter.title)}</a>'
        return f"""<section class="ledger" id="{slug}-{profile}-{device}">
<h2>{title} <span class="kind">{what}</span></h2><p>{tally(rows)}</p>
{table(f"Claims of {chapter.title}, {what}", head, body)}</section>"""

    def row(self, chapter: Any, row: dict[str, Any]) -> str:
        """One claim."""
        from iclrtut import ledger

        rule = chapter.claim(row["claim"]).rule
        number = f'<span class="number">{ledger.measured(row)}</span>'
        seeds = f'{row["seeds"]} {"seed" if row["seeds"] == 1 else "seeds"}'
        cells = (
            f'<td><b>{escape(row["sentence"])}</b><small>{escape(row["statistic"])}. '
            f'<i>{escape(row["source"])}</i></small></td>',
            f"<td>{escape(row['paper'] or '–')}</td>",
            f"<td>{number}<small>{seeds}</small>{whisker(row, rule)}</td>",
            f"<td>{rule.side} {ledger.number(rule.bound)}</td>",
            f"<td>{verdict(row['verdict'])}</td>",
        )
        return f"<tr>{''.join(cells)}</tr>"


class Speed(Page):
    """Wall time, parts and peak memory of the recorded runs."""

    def html(self) -> str:
        """One table."""
        def kind(record: dict[str, Any]) -> tuple[str, str, str]:
            return record["chapter"], record["profile"], record["device_name"]

        kept = sorted(self.records(), key=kind)
        if not kept:
            return "<p>There are no records yet.</p>"
        titles = {slug: chapter.title for slug, chapter in self.chapters().items()}
        body = "".join(
            self.row(titles[slug], profile, device, list(members))
            for (slug, profile, device), members in groupby(kept, key=kind)
        )
        head = ("Chapter", "Profile", "Device", "Whole run", "Parts", "Peak memory")
        return table("Running times", head, body)

    def row(self, title: str, profile: str, device: str, members: list[Any]) -> str:
        """The runs of one chapter under one profile on one device."""
        parts = "".join(
            f"<li>{escape(name)} {duration(statistics.median(spent))}</li>"
            for name in members[0]["timings"]
            if (spent := [m["timings"][name] for m in members if name in m["timings"]])
        )
        peaks = [m["peak_memory_bytes"] for m in members if m["peak_memory_bytes"]]
        peak = f"{max(peaks) / 2**20:,.0f} MiB" if peaks else "–"
        seconds = [m["seconds"] for m in members]
        whole = duration(statistics.median(seconds))
        runs = f"median of {len(members)}, at most {duration(max(seconds))}"
        return (
            f"<tr><td>{escape(title)}</td><td>{profile}</td><td>{escape(device)}</td>"
            f"<td>{whole}<small>{runs}</small></td>"
            f'<td><ul class="plain">{parts}</ul></td><td>{peak}</td></tr>'
        )


def table(name: str, head: tuple[str, ...], body: str) -> str:
    """A table in a box of its own that scrolls where the screen is narrow."""
    cells = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(name)}">'
        f'<table class="data"><thead><tr>{cells}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def verdict(word: str) -> str:
    """A verdict as a mark and its word."""
    kind = word.replace(" ", "-")
    return f'<span class="verdict {kind}"><i aria-hidden="true">{MARKS[word]}</i> {word}</span>'


def tally(rows: Any) -> str:
    """How many claims hold, do not hold, are undecided, for each profile and device."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        kind = f"{row['profile']} on {DEVICES.get(row['device'], row['device'])}"
        counts.setdefault(kind, Counter())[row["verdict"]] += 1
    lines = [
        " ".join(
            f'<span class="verdict"><i aria-hidden="true">{mark}</i> {count[word]} '
            f"{word if count[word] == 1 else PLURAL[word]}</span>"
            for word, mark in MARKS.items()
            if count[word]
        )
        + (f" <small>({kind})</small>" if len(counts) > 1 else "")
        for kind, count in counts.items()
    ]
    return "<br>".join(lines) or "no records yet"


def times(records: Any) -> str:
    """The median running time for each profile and device."""
    spent: dict[str, list[float]] = {}
    for record in records:
        kind = f"{record['profile']}, {DEVICES.get(record['device'], record['device'])}"
        spent.setdefault(kind, []).append(record["seconds"])
    lines = [
        f"{duration(statistics.median(seconds))} <small>({escape(kind)})</small>"
        for kind, seconds in spent.items()
    ]
    return "<br>".join(lines) or "no records yet"


def duration(seconds: float) -> str:
    """A time span as a reader says it: `58 s`, `12 min`, `1.5 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def whisker(row: dict[str, Any], rule: Any) -> str:
    """A small picture of the interval against the bound that decides.

    The tinted side is where the whole interval must lie for the claim to hold.
    """
    ends = [v for v in (row["low"], row["high"], row["mean"]) if v == v]
    left, right = min(*ends, rule.bound), max(*ends, rule.bound)
    room = 0.18 * (right - left) or 1.0

    def x(value: float) -> float:
        return round(160 * (value - left + room) / (right - left + 2 * room), 1)

    at = x(rule.bound)
    start, width = (at, 160 - at) if rule.side == "above" else (0, at)
    line = (
        f'<path class="interval" d="M{x(row["low"])} 10H{x(row["high"])}"/>'
        if row["low"] == row["low"]
        else ""
    )
    return f"""<svg class="whisker {row["verdict"].replace(" ", "-")}" viewBox="0 0 160 20"
 aria-hidden="true"><rect x="{start}" width="{width:.1f}" height="20"/>
<path class="bound" d="M{at} 0V20"/>{line}<circle cx="{x(row["mean"])}" cy="10" r="4"/></svg>"""


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    for name, directive in (
        ("cards", Cards),
        ("planned", Planned),
        ("specimen", Specimen),
        ("ledger", Ledger),
        ("speed", Speed),
    ):
        app.add_directive(name, directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
