"""Print what each page weighs over the wire and when its first picture is there.

Run as `python tools/page_weights.py`, after the tests of the site have measured both.
"""

import json
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]


def table(measured: dict[str, dict[str, float | None]]) -> str:
    """A line a page, the heaviest first."""
    lines = [f"{'page':<36} {'KiB':>6} {'files':>6} {'first picture':>14}"]
    heaviest = sorted(measured.items(), key=lambda page: -(page[1]["weight"] or 0))
    for name, page in heaviest:
        at = page["first_picture"]
        seen = "no picture" if at is None else f"{at:,.0f} ms"
        kib = (page["weight"] or 0) / 1024
        lines.append(f"{name:<36} {kib:>6.0f} {page['requests']:>6} {seen:>14}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(json.loads((TREE / "_build" / "page_weights.json").read_text("utf-8"))))
