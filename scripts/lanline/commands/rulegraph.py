"""Draw Snakemake's rule graph: `snakemake --rulegraph | python -m lanline.commands.rulegraph FILE.svg`.

Snakemake prints the graph in the language of graphviz, which is a system package; a pipeline of ten rules needs no
more than this.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure


def read_rulegraph(dot: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Names of rules by node, and edges (from, to), of a graph in graphviz's language."""
    names = {node: label.split("\\n")[0] for node, label in re.findall(r'^\s*(\d+)\[label = "([^"]+)"', dot, re.M)}
    return names, re.findall(r"^\s*(\d+) -> (\d+)", dot, re.M)


def rank_nodes(names: dict[str, str], edges: list[tuple[str, str]]) -> dict[str, int]:
    """Column of each node: the longest way to it from a node without input."""
    ranks = dict.fromkeys(names, 0)
    for _ in names:
        for start, end in edges:
            ranks[end] = max(ranks[end], ranks[start] + 1)
    return ranks


def without_shortcuts(edges: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The edges that are not implied by a longer way."""
    followers = defaultdict(set)
    for start, end in edges:
        followers[start].add(end)

    def reaches(start: str, end: str) -> bool:
        return end in followers[start] or any(reaches(step, end) for step in followers[start])

    return [(a, b) for a, b in edges if not any(reaches(step, b) for step in followers[a] if step != b)]


def draw_rulegraph(dot: str, path: Path) -> None:
    """Draw the graph from left to right into an image file."""
    names, edges = read_rulegraph(dot)
    ranks = rank_nodes(names, edges)
    columns = defaultdict(list)
    for node in sorted(names, key=names.__getitem__):
        columns[ranks[node]].append(node)
    place = {
        node: (column, (len(nodes) - 1) / 2 - row)
        for column, nodes in columns.items()
        for row, node in enumerate(nodes)
    }
    height = max(map(len, columns.values()))
    figure = Figure(figsize=(1.75 * len(columns), 0.75 * height + 0.4), layout="constrained")
    axes = figure.add_subplot(xlim=(-0.55, len(columns) - 0.45), ylim=(-height / 2, height / 2))
    axes.set_axis_off()
    for start, end in without_shortcuts(edges):
        arrow = {"arrowstyle": "-|>", "color": "#7a8594", "shrinkA": 34, "shrinkB": 34, "lw": 1.2}
        axes.annotate("", xy=place[end], xytext=place[start], arrowprops=arrow)
    for node, (x, y) in place.items():
        box = {"boxstyle": "round,pad=0.5", "facecolor": "#eef3f8", "edgecolor": "#2f6f9f", "lw": 1.2}
        axes.text(x, y, names[node].replace("_", "\n"), ha="center", va="center", fontsize=9, bbox=box)
    figure.savefig(path)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    draw_rulegraph(sys.stdin.read(), target)
    print(f"rule graph: {target}")
