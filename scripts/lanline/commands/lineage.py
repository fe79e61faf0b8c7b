"""``lanline lineage``: where a network came from, as a tree to read or as JSON."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from lanline.lineage.trace import trace
from lanline.lineage.tree import Lineage, Node, TracedFile
from lanline.tracking.mlflow.store import resolve_store

HASH_DIGITS = 12  # shown; --json has all of them
MANY = 24  # shards: more are shown in a few lines
# What is worth a line in the tree, and under which name; --json has everything.
_SHOWN = {
    "network": ("model", "network_type", "framework", "seed", "hidden_layers"),
    "evaluation": ("reference", "mae", "rmse", "mass_q05", "mass_q95", "total_variation_mean"),
    "validation": ("compared_with", "files", "rows", "problems"),
}


def print_lineage(target: str, as_json: bool = False, verify: bool = False, uri: str | None = None) -> list[str]:
    """Print the lineage of a network or run.

    Args:
        target: folder of a network, ONNX file, or MLflow run id.
        as_json: print everything that is known, as JSON, instead of the tree.
        verify: hash every file again.
        uri: of the MLflow store; default: MLFLOW_TRACKING_URI, then sqlite:///mlflow.db.

    Returns:
        Mismatches with the record, if ``verify``.

    Raises:
        UserError: the target is not a network or run, or nothing is recorded of it.
    """
    with trace(target, resolve_store(uri) if uri else None) as lineage:
        problems = lineage.verify() if verify else None
        if as_json:
            print(json.dumps(_as_json(lineage, problems), indent=2))
        else:
            _print(lineage, problems)
    return problems or []


def _as_json(lineage: Lineage, problems: list[str] | None) -> dict[str, Any]:
    verified = {} if problems is None else {"problems": problems, "without_hash": lineage.without_hash()}
    said = {"notes": lineage.notes, "contradictions": lineage.contradictions}
    return {**said, **verified, "tree": lineage.tree.to_json()}


def _print(lineage: Lineage, problems: list[str] | None) -> None:
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(_rich(lineage.tree))
    else:
        print("\n".join(_plain(lineage.tree)))
    for note in lineage.notes:
        console.print(Text(f"note: {note}", "yellow"), soft_wrap=True)
    if problems is None:  # else they are among the problems
        for contradiction in lineage.contradictions:
            console.print(Text(f"contradiction: {contradiction}", "bold red"), soft_wrap=True)
        return
    if unknown := lineage.without_hash():
        console.print(Text(f"{len(unknown)} file(s) have no recorded hash to compare with:", "yellow"))
        console.print("\n".join(f"  {file}" for file in unknown), soft_wrap=True, markup=False)
    if problems:
        console.print(Text(f"{len(problems)} mismatch(es) with the record:", "bold red"))
        console.print("\n".join(f"  {problem}" for problem in problems), soft_wrap=True, markup=False)
    else:
        files = sum(len(node.files) for node in lineage.tree.walk()) - len(unknown)
        which = "the other" if unknown else "all"
        console.print(Text(f"{which} {files} files match the record", "green"))


def _rich(node: Node) -> Tree:
    lines = _lines(node)
    label = Text.assemble((f"{node.kind} ", "bold cyan"), (_title(node), "bold"))
    for line in lines:
        label.append(f"\n{line}", "dim")
    tree = Tree(label, guide_style="dim")
    for part in _parts(node):
        tree.add(_rich(part))
    return tree


def _plain(node: Node, first: str = "", rest: str = "") -> list[str]:
    """The tree as lines of text, for files and pipes: nothing is wrapped."""
    parts = _parts(node)
    bar = "│  " if parts else "   "
    lines = [f"{first}{node.kind} {_title(node)}", *(f"{rest}{bar}{line}" for line in _lines(node))]
    for part in parts:
        last = part is parts[-1]
        lines += _plain(part, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))
    return lines


def _parts(node: Node) -> list[Node]:
    """The parts to show; of very many shards only the first and the last."""
    shards = [part for part in node.parts if part.kind == "shard"]
    if len(shards) <= MANY:
        return list(node.parts)
    others = [part for part in node.parts if part.kind != "shard"]
    rows = sum(part.facts["rows"] for part in shards[1:-1])
    uses = Counter(part.facts.get("used_for", "no training here") for part in shards)
    between = Node(
        "shards",
        f"... {len(shards) - 2} more; --json lists them",
        {"rows": rows, **{f"files used for {use}": count for use, count in uses.items()}},
    )
    return [*others, shards[0], between, shards[-1]]


def _title(node: Node) -> str:
    """A node's name; of a shard everything, for there are many."""
    return f"{node.name}  {_shard(node)}" if node.kind == "shard" else node.name


def _lines(node: Node) -> list[str]:
    """What is said of a node below its name."""
    if node.kind == "shard":
        return []
    facts = node.facts
    if node.kind in _SHOWN:
        facts = {key: facts[key] for key in _SHOWN[node.kind] if facts.get(key) not in (None, [])}
    if node.kind == "made by":
        facts = {key.replace("_", " "): value for key, value in facts.items() if key != "host"}
    lines = [" · ".join(f"{key} {_value(value)}" for key, value in facts.items())] if facts else []
    return lines + [_file(file) for file in node.files]


def _shard(node: Node) -> str:
    facts = node.facts
    made = [
        f"seed {facts['seed']}",
        f"{facts['rows']:,} rows",
        *(f"{facts[key]}" for key in ("engine",) if key in facts),
    ]
    if "host" in facts:
        made.append(f"on {facts['host']}" + (f", job {facts['slurm_job']}" if "slurm_job" in facts else ""))
    use = [f"for {facts['used_for']}"] if "used_for" in facts else []
    return " · ".join([*use, *made, f"sha256 {_digest(node.files[0])}"])


def _file(file: TracedFile) -> str:
    return f"{file.shown}  sha256 {_digest(file)}"


def _digest(file: TracedFile) -> str:
    return file.sha256[:HASH_DIGITS] if file.sha256 else "not recorded"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
