"""YAML that counts as it was written: what one reader would drop, and another one read differently, is refused.

The YAML library keeps the last of two equal keys without a word, and reads YAML 1.1, in which ``no`` is false, ``010``
is 8 and ``1:30`` is 90; in YAML 1.2 these are text, 10 and text.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from lanline.errors import UserError, reason

MAX_NODES = 100_000  # with every alias written out
MAX_DEPTH = 50
_DISAGREED = (
    (re.compile(r"(?i)yes|no|on|off"), "write true or false, or quotes around it if it is text"),
    (re.compile(r"[-+]?0[0-7_]+|[-+]?0o[0-7]+|[-+]?0b[01_]+"), "write the number without the leading 0"),
    (re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"), "write seconds as one number, or quotes around text"),
)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """PyYAML's safe loader, which names what is ambiguous instead of choosing."""

    def compose_document(self) -> yaml.Node:
        node = super().compose_document()
        _measure(node, {}, 0)
        return node

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        _check_keys(node)  # before keys that are merged in stand beside its own
        super().flatten_mapping(node)


def _check_keys(node: yaml.MappingNode) -> None:
    if getattr(node, "checked", False):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise UserError(f"line {line}: a key is text, not a list or a section")
        if key.value in lines:
            raise UserError(f"line {line}: the key {key.value} is already set in line {lines[key.value]}; keep one")
        lines[key.value] = line
        _check_scalar(key, "")
        for item in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            _check_scalar(item, f"{key.value}: ")
    node.checked = True


def _check_scalar(node: yaml.Node, where: str) -> None:
    """Refuse plain text that readers of YAML 1.1 and 1.2 take for different things."""
    if not isinstance(node, yaml.ScalarNode) or node.style is not None:
        return
    for pattern, advice in _DISAGREED:
        if pattern.fullmatch(node.value):
            line = node.start_mark.line + 1
            raise UserError(f"line {line}: {where}YAML readers disagree on what {node.value} means: {advice}")


def _measure(node: yaml.Node, sizes: dict[int, int], depth: int) -> int:
    """Number of nodes below one, aliases written out, so that a few lines cannot fill the memory later."""
    if depth > MAX_DEPTH:
        raise UserError(f"line {node.start_mark.line + 1}: more than {MAX_DEPTH} levels")
    if isinstance(node, yaml.ScalarNode) or node is None:
        return 1
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise UserError(f"line {node.start_mark.line + 1}: this part contains itself")
        return sizes[id(node)]
    sizes[id(node)] = 0
    parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
    size = 1 + sum(_measure(part, sizes, depth + 1) for part in parts)
    if size > MAX_NODES:
        raise UserError(f"line {node.start_mark.line + 1}: its aliases expand to more than {MAX_NODES:,} values")
    sizes[id(node)] = size
    return size


def load(raw: bytes, source: str) -> Any:
    """The value in a YAML file.

    Raises:
        UserError: it is not UTF-8 or not YAML, or readers would not agree on it; the message has the line.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UserError(f"{source}, line {line}: not UTF-8 text; save the file in this encoding") from None
    try:
        return yaml.load(text, _Loader)
    except UserError as error:
        raise UserError(f"{source}, {error}") from None
    except RecursionError:
        raise UserError(f"{source}: more than {MAX_DEPTH} levels") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{source} is not valid YAML: {reason(error)}") from None


def load_json(raw: bytes, source: str) -> Any:
    """The value in a JSON file; raises as `load`."""
    try:
        return json.loads(raw, object_pairs_hook=_unique)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source} is not valid JSON: {reason(error)}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise UserError(f"the key {key} is set twice; keep one")
    return dict(pairs)
