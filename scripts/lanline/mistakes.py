"""One clear line for each mistake that pydantic finds in a configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, BeforeValidator

from lanline.errors import UserError, did_you_mean
from lanline.files import redact

_EXPONENT = re.compile(r"[-+]?\d+\.?\d*[eE][-+]?\d+")


def explain(mistake: Mapping[str, Any], root: type[BaseModel]) -> str:
    """The key, the value (without the credentials of URIs), and what is allowed.

    Args:
        mistake: one of ``ValidationError.errors()``.
        root: the type that was validated.
    """
    return redact(_explanation(mistake, root))


def _explanation(mistake: Mapping[str, Any], root: type[BaseModel]) -> str:
    *parents, last = mistake["loc"] or ("configuration",)
    key = ".".join(str(part) for part in mistake["loc"]) or "configuration"
    value = mistake["input"]
    if mistake["type"] == "extra_forbidden":
        allowed = _section_at(parents, root).model_fields
        return f"{key}: unknown key (value {value!r}). Known keys: {', '.join(allowed)}.{did_you_mean(last, allowed)}"
    if mistake["type"] == "missing":
        return f"{key}: this key is required"
    if mistake["type"] == "literal_error":
        options = [option.strip("' ") for option in mistake["ctx"]["expected"].replace(" or ", ",").split(",")]
        return f"{key}: {value!r} is not one of {', '.join(options)}.{did_you_mean(str(value), options)}"
    if isinstance(error := mistake.get("ctx", {}).get("error"), UserError):
        return f"{key}: {error}"
    if hint := number_as_text(mistake):
        return f"{key}: {hint}"
    message = mistake["msg"]
    return f"{key}: {message[0].lower()}{message[1:]}, not {value!r}"


def number_as_text(mistake: Mapping[str, Any]) -> str | None:
    """What to say where YAML did not see a number in what looks like one."""
    value = mistake["input"]
    if mistake["type"] in ("float_type", "int_type") and isinstance(value, str) and _EXPONENT.fullmatch(value):
        right = "write whole numbers out" if mistake["type"] == "int_type" else "write 1.0e-3, with a point and a sign"
        return f"YAML reads {value} as text: {right}"
    return None


def _section_at(location: list[int | str], root: type[BaseModel]) -> type[BaseModel]:
    """The type of the section that a mistake's location leads to."""
    section = root
    for part in location:
        if isinstance(part, str) and part in section.model_fields:
            section = _section_in(section.model_fields[part].annotation)
    return section


def _section_in(annotation: Any) -> type[BaseModel]:
    """The one section inside an annotation such as ``list[Annotated[ModelEntry, ...]]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(_section_in(argument) for argument in get_args(annotation) if not isinstance(argument, BeforeValidator))
