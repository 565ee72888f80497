"""What needs what, as a graph, and its drawing: layers from left to right."""

import textwrap
from collections.abc import Callable, Mapping
from html import escape
from itertools import pairwise
from typing import Any

import networkx as nx

WIDTH, GAP = 132, 60  # of a box, and between two columns
LINE, PAD, ROOM = 18, 9, 14  # of text, around it, between two boxes
LETTERS = 16  # in a line of text
STEP = 140  # from chapter to chapter
SWEEPS = 25  # the last one towards the chapters

# A box is named by what it says; a bend in a long edge by (from, to, layer).
Box = Any


def network(data: dict[str, Any], needs: Mapping[str, list[str]]) -> nx.DiGraph:
    """The graph: what is to be known, then the chapters by name.

    An edge that others imply is left out. Its `kind` is `needs` or `helps`.

    Args:
        data: `know`, what each thing builds on, and `helps`, what helps each chapter.
        needs: what each chapter asks for.
    """
    below = {**data["know"], **needs}
    whole = nx.DiGraph((a, b) for b, all_ in below.items() for a in all_)
    whole.add_nodes_from(below)
    graph = nx.DiGraph()  # in an order of its own: networkx keeps edges in sets
    graph.add_nodes_from(below)
    graph.add_edges_from(sorted(nx.transitive_reduction(whole).edges))
    nx.set_edge_attributes(graph, "needs", "kind")
    for chapter, things in data["helps"].items():
        for thing in things:
            if not (thing in whole and nx.has_path(whole, thing, chapter)):
                graph.add_edge(thing, chapter, kind="helps")
    return graph


def columns(graph: nx.DiGraph) -> dict[Box, int]:
    """The column of each box: as far right as what it leads to allows, from 0."""
    depth: dict[Box, int] = {}
    for box in reversed(list(nx.topological_sort(graph))):
        depth[box] = 1 + max((depth[b] for b in graph.successors(box)), default=-1)
    last = max(depth.values())
    return {box: last - d for box, d in depth.items()}


def bent(graph: nx.DiGraph, column: dict[Box, int]) -> nx.DiGraph:
    """The graph with a bend, put into `column` too, wherever an edge passes one."""
    made = nx.DiGraph()
    made.add_nodes_from(graph)
    for a, b in graph.edges:
        bends = [(a, b, k) for k in range(column[a] + 1, column[b])]
        column.update({bend: bend[2] for bend in bends})
        nx.add_path(made, [a, *bends, b])
    return made


def heights(
    graph: nx.DiGraph, column: dict[Box, int], fixed: list[str]
) -> dict[Box, float]:
    """How far down the middle of each box is.

    The last column stays as it is given. The other boxes move to the mean of their
    neighbours, column by column, and make room for each other.
    """
    stacks: list[list[Box]] = [[] for _ in range(max(column.values()))]
    for box in graph:
        if box not in fixed:
            stacks[column[box]].append(box)
    y: dict[Box, float] = {box: 0.0 for box in graph}
    y.update({box: STEP * k for k, box in enumerate(fixed)})
    for sweep in range(SWEEPS):
        to_left = sweep % 2 == 0
        near = graph.successors if to_left else graph.predecessors
        for stack in reversed(stacks) if to_left else stacks:
            mean = {b: middle([y[c] for c in near(b)], y[b]) for b in stack}
            stack.sort(key=mean.__getitem__)
            place(stack, mean, y)
    return y


def middle(values: list[float], otherwise: float) -> float:
    """The mean, or another value where there is none."""
    return sum(values) / len(values) if values else otherwise


def place(stack: list[Box], wanted: Mapping[Box, float], y: dict[Box, float]) -> None:
    """Set the boxes of a column near where they want to be, none on another."""
    for above, box in zip([None, *stack], stack, strict=False):
        least = -1e9 if above is None else y[above] + (tall(above) + tall(box)) / 2
        y[box] = max(wanted[box], least)
    shift = sum(wanted[box] - y[box] for box in stack) / len(stack)
    for box in stack:
        y[box] += shift


def tall(box: Box) -> float:
    """The height that a box takes, with the room below it; a bend takes little."""
    return ROOM + 2 * PAD + LINE * len(wrapped(box)) if isinstance(box, str) else ROOM


def wrapped(text: str) -> list[str]:
    """A name in lines that fit into a box."""
    return textwrap.wrap(text, LETTERS, break_on_hyphens=False)


def draw(
    graph: nx.DiGraph, titles: Mapping[str, str], link: Callable[[str], str]
) -> str:
    """The graph as an inline drawing; the chapters are links.

    Args:
        graph: from `network`.
        titles: chapter -> title, in the order from top to bottom.
        link: chapter -> address.
    """
    shown = nx.relabel_nodes(graph, titles)
    address = {name: link(slug) for slug, name in titles.items()}
    column = columns(shown)
    routes = bent(shown, column)
    y = heights(routes, column, list(titles.values()))
    top = min(y[box] - tall(box) / 2 for box in routes)
    height = max(y[box] + tall(box) / 2 for box in routes) - top
    x = {box: column[box] * (WIDTH + GAP) + 2 for box in routes}
    y = {box: y[box] - top for box in routes}
    edges = "".join(
        f'<path class="{kind}" d="{path(a, b, x, y, column)}"/>'
        for a, b, kind in shown.edges(data="kind")
    )
    boxes = "".join(framed(box, x[box], y[box], address.get(box)) for box in shown)
    width = (max(column.values()) + 1) * (WIDTH + GAP) - GAP + 4
    return (
        f'<svg class="needed" viewBox="0 0 {width} {height:.0f}" role="group" '
        'aria-label="What each chapter needs"><defs><marker id="arrow" refX="7" '
        'refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0L8 4L0 8z"/></marker></defs>{edges}{boxes}</svg>'
    )


def path(
    a: str, b: str, x: dict[Box, int], y: dict[Box, float], column: dict[Box, int]
) -> str:
    """A smooth line from one box round all between to another."""
    way = [a, *((a, b, k) for k in range(column[a] + 1, column[b])), b]
    line = f"M{x[a] + WIDTH} {y[a]:.1f}"
    for left, right in pairwise(way):
        if left != a:
            line += f"H{x[left] + WIDTH}"
        half = x[right] - GAP / 2
        line += f"C{half:.0f} {y[left]:.1f} {half:.0f} {y[right]:.1f} "
        line += f"{x[right]} {y[right]:.1f}"
    return line


def framed(name: str, x: int, y: float, address: str | None) -> str:
    """One box with its name; a link where it has an address."""
    lines = wrapped(name)
    start = y - LINE * (len(lines) - 1) / 2 + 5
    words = "".join(
        f'<tspan x="{x + WIDTH // 2}" y="{start + LINE * k:.1f}">{escape(line)}</tspan>'
        for k, line in enumerate(lines)
    )
    height = 2 * PAD + LINE * len(lines)
    frame = (
        f'<rect x="{x}" y="{y - height / 2:.1f}" width="{WIDTH}" height="{height}" '
        f'rx="4"/><text>{words}</text>'
    )
    if address is None:
        return f"<g>{frame}</g>"
    return f'<a href="{escape(address)}" class="chapter">{frame}</a>'
