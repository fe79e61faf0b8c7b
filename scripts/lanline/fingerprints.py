"""Fingerprints of the code that decides the result of a stage.

Rules carry them as a parameter, so that a stage runs again when code that its result depends on has changed, and only
then: Snakemake itself sees changes of the script, not of what the script imports. A stage's code is the import closure
of its root modules: all that they import, in functions too, and what that imports. It ends at the modules of `EXEMPT`.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lanline.cached_facts import recall

# What the closure ends at: modules, or packages with all that is in them, and why they cannot change a result.
EXEMPT = {
    "cached_facts": "keeps facts, does not make them",
    "cluster": "decides where a job runs, not what it computes",
    "commands": "console commands: the workflow does not call them",
    "config": "its values reach the rules as parameters of their own",
    "dataset.checking": "looks at data that console commands are given",
    "dataset.foreign": "reads data of other programs, for console commands",
    "engine_facts": "refuses configurations before anything runs",
    "errors": "messages",
    "evaluation.label_curves": "for the command lanline labels",
    "evaluation.label_figure": "for the command lanline labels",
    "experiment": "records a run",
    "files": "decides how bytes reach the disk, not which",
    "fingerprints": "is about code, not part of it",
    "lineage": "reads records",
    "locks": "keep writers apart",
    "logs": "messages",
    "mistakes": "messages",
    "networks.lanfactory_files": "copies of a trained network for LANfactory, written by console commands",
    "paths": "names of files",
    "sidecars": "records beside the files that are computed",
    "stages": "carries files and records between what computes; those of `ROOTS` decide more",
    "strict_yaml": "refuses files, or reads them as any YAML reader does",
    "termination": "ends a process in good order",
    "tracking": "records",
    "versions": "what is recorded of the installation",
    "workflow": "what the Snakefile calls: plans jobs and shows them",
}

# Root modules of each stage that computes something.
ROOTS = {
    "generate_shards": ("dataset.generate",),
    "validate_training_data": ("dataset.validation",),
    "train_network": ("stages.train_network",),
    "evaluate_network": ("stages.evaluate_network",),
    "write_report": ("stages.write_report",),
}
# Frameworks are started by name, which no import tells.
BACKENDS = {"torch": "training.torch_backend", "jax": "training.jax_backend"}


class Code:
    """The modules of a library, read from its files; nothing is imported.

    Args:
        folder: of the library's package.
    """

    def __init__(self, folder: Path) -> None:
        sources = {_module_name(path, folder): path.read_bytes() for path in sorted(folder.rglob("*.py"))}
        digest = hashlib.sha256(repr(sources).encode()).hexdigest()[:16]
        python = "{}.{}".format(*sys.version_info)
        self.modules: dict[str, dict[str, Any]] = recall(f"code-{digest}-python-{python}.json", lambda: _parse(sources))

    def closure(self, *roots: str) -> list[str]:
        """Names of the modules that the result of the root modules depends on, sorted, the roots among them.

        Raises:
            ValueError: there is no such root.
        """
        found: set[str] = set()
        ahead = list(roots)
        if unknown := set(roots) - self.modules.keys():
            raise ValueError(f"no module of lanline: {', '.join(sorted(unknown))}")
        while ahead:
            module = ahead.pop()
            if module in self.modules and module not in found and (module in roots or not is_exempt(module)):
                found.add(module)
                ahead += self.modules[module]["imports"]
        return sorted(found)

    def fingerprint(self, *roots: str) -> str:
        """Hash of the closure of the root modules, blind to comments, docstrings and layout."""
        lines = [f"{module} {self.modules[module]['syntax']}" for module in self.closure(*roots)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def stage_code(stage: str) -> str:
    """Fingerprint of the code of a stage of `ROOTS`."""
    return _library().fingerprint(*ROOTS[stage])


def training_code(framework: str) -> str:
    """Fingerprint of the code that decides a network's weights; the other framework's is not part of it."""
    return _library().fingerprint(*ROOTS["train_network"], BACKENDS[framework])


def engine_code() -> str:
    """Fingerprint of what decides which settings an engine refuses: the engines, and the settings that there are."""
    return _library().fingerprint("engines", "engine_facts", "config")


def is_exempt(module: str) -> bool:
    """Whether a module, or a package that it lies in, is one of `EXEMPT`."""
    parts = module.split(".")
    return any(".".join(parts[:n]) in EXEMPT for n in range(1, len(parts) + 1))


@cache
def _library() -> Code:
    return Code(Path(__file__).parent)


def _module_name(path: Path, folder: Path) -> str:
    """Dotted name below the library; the empty name is the library's own __init__."""
    return ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix("__init__").rstrip(".")


def _parse(sources: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """By module: a hash of its ``syntax``, and the names of the modules that it ``imports``."""
    read = {module: _read(source) for module, source in sources.items() if module}
    return {
        module: {
            "syntax": syntax,
            "imports": sorted({name for name in names if name in read} | {*_packages_of(module)}),
        }
        for module, (syntax, names) in read.items()
    }


@cache
def _read(source: bytes) -> tuple[str, frozenset[str]]:
    """Hash of the syntax of a module, and names of what it imports."""
    tree = ast.parse(source)
    return hashlib.sha256(_dump(tree).encode()).hexdigest(), frozenset(_imports(tree))


def _imports(tree: ast.AST) -> Iterator[str]:
    """Names, below lanline, of what is imported anywhere in a tree: of modules, and of what lies in them."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError("relative imports are not followed: lanline has none")
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.startswith("lanline."):
                inside = name.removeprefix("lanline.")
                yield inside
                yield from _packages_of(inside)


def _packages_of(module: str) -> Iterator[str]:
    """The packages that a module lies in, whose code runs when it is imported."""
    parts = module.split(".")
    return (".".join(parts[:n]) for n in range(1, len(parts)))


def _dump(node: Any) -> str:
    """A syntax tree as text, without docstrings, and without fields that only some versions of Python have."""
    if isinstance(node, list):
        return f"[{','.join(map(_dump, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(value, list) and value and _is_docstring(value[0]):
            value = value[1:]
        if value is not None and value != []:
            fields.append(f"{name}={_dump(value)}")
    return f"{type(node).__name__}({','.join(fields)})"


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
