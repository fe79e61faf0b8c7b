"""Writing files such that no reader ever sees half of one, nor a credential; reading YAML, and hashing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from lanline import strict_yaml
from lanline.errors import UserError

# Keys in the query of a URI whose values are shown.
HARMLESS = frozenset(
    ("cache", "charset", "connect_timeout", "driver", "immutable", "mode", "sslmode", "timeout", "uri")
)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; renamed to ``path`` if the block succeeds, else removed.

    A killed job, a full disk or a second writer leaves either the old file or a whole new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # some libraries write for the owner only
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno is not None and error.filename in (
            None,
            str(temporary),
        ):  # a full disk does not say which file was written
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):  # the first error says more
            temporary.unlink(missing_ok=True)


@contextmanager
def emptied_if_refused(folder: Path) -> Iterator[None]:
    """Leave no new file in ``folder``, nor new folders without files, if the block ends with a user's mistake.

    Raises:
        UserError: that of the block; or ``folder`` cannot be one, because a file is in the way.
    """
    parents = [folder.absolute(), *folder.absolute().parents]
    first = next(path for path in parents if path.exists())
    if not first.is_dir():
        raise UserError(f"{first} is a file; expected a folder")
    before = set(folder.iterdir()) if folder.is_dir() else set()
    try:
        yield
    except UserError:
        for path in set(folder.iterdir()) - before if folder.is_dir() else ():
            path.unlink(missing_ok=True)
        for path in parents[: parents.index(first)]:
            with suppress(OSError):  # others may have put something there meanwhile
                path.rmdir()
        raise


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_config(path: Path, values: Mapping[str, Any]) -> None:
    """A configuration as YAML, without the credentials of its URIs."""
    write_text(path, yaml.safe_dump(redact_values(dict(values)), sort_keys=False))


def redact(text: str) -> str:
    """``text`` without the credentials of any URI in it: of each, scheme, host, port and path are shown, and no value
    of its query but those known to be `HARMLESS`."""
    # With a colon a password may hold slashes; better too much is hidden, when an @ comes later, than too little.
    text = re.sub(r"(://)(?:[^/\s\"'<>]*:[^\s\"'<>]*|[^/\s\"'<>]*)@", r"\1***@", text)
    text = re.sub(r"(://[^\s\"'<>?#;]*)([?#;][^\s\"'<>]*)", lambda found: found[1] + _harmless(found[2]), text)
    return re.sub(r"(?i)([?&](?:password|passwd|token|secret|access_key)=)[^&\s\"'<>]+", r"\1***", text)


def _harmless(rest: str) -> str:
    """What follows the path of a URI: values of keys that are known to be harmless, and pages of MLflow's own."""
    parts = re.split(r"([?#;&])", rest)  # separators at the odd places
    return "".join(part if i % 2 or not part else _shown(parts[i - 1], part) for i, part in enumerate(parts))


def _shown(separator: str, part: str) -> str:
    if separator == "#" and re.fullmatch(r"/[\w/-]*", part):
        return part
    key, equals, value = part.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z][\w.-]{0,39}", key):
        return "***"
    return part if key in HARMLESS and re.fullmatch(r"[\w.+-]*", value) else f"{key}=***"


def redact_values(value: Any) -> Any:
    """Plain data with `redact` done to every text in it.

    Before it is written as JSON or YAML, since cutting in what is written already takes quotes and backslashes along.
    """
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: redact_values(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_values(each) for each in value]
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """Keys and values of a YAML file, or of a JSON file by its suffix.

    Raises:
        UserError: the file is missing, is not YAML with keys, or readers would not agree on it.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    try:
        values = (strict_yaml.load_json if Path(path).suffix == ".json" else strict_yaml.load)(raw, str(path))
    except UserError as error:
        raise UserError(redact(str(error))) from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected keys and values, found {type(values).__name__}")
    return values


def section(values: Mapping[str, Any], name: str, source: object) -> dict[str, Any]:
    """A section of a configuration that was not checked yet; an empty one is as good as none.

    Raises:
        UserError: it is not keys and values.
    """
    found = values.get(name)
    if found is not None and not isinstance(found, Mapping):
        raise UserError(redact(f"{source}: {name}: expected keys and values below it, not {found!r}"))
    return dict(found or {})


def sha256_file(path: Path) -> str:
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hash of plain JSON data, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
