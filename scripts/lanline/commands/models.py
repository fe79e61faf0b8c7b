"""``lanline models``: every model of the registry, and where its labels can come from."""

from __future__ import annotations

import json
from typing import Any

from rich.table import Table

from lanline.commands.options import wide_console
from lanline.engines import engines_of
from lanline.errors import UserError, did_you_mean
from lanline.models import DEADLINE_SUFFIX, Model, get_model, model_names


def print_models(name: str | None, as_json: bool) -> None:
    """Print all models, or those whose name has ``name`` in it.

    Raises:
        UserError: there is none.
    """
    names = [model for model in model_names() if (name or "").removesuffix(DEADLINE_SUFFIX) in model]
    if not names:
        raise UserError(f"no model has '{name}' in its name.{did_you_mean(name or '', model_names())}")
    models = [get_model(model) for model in names]
    if as_json:
        print(json.dumps([_as_json(model) for model in models], indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("model", "engines", "choices", "parameters"):
        table.add_column(column, overflow="fold")
    for model in models:
        choices = ", ".join(map(str, model.choices))
        table.add_row(model.name, ", ".join(engines_of(model)), choices, " ".join(model.params))
    console = wide_console()
    console.print(table)
    console.print(
        f"\n{len(models)} models. data.engine: auto takes the first engine listed. Each model has a variant with "
        f"a deadline, e.g. {models[0].name}{DEADLINE_SUFFIX}.\nTo plot a density: lanline labels {models[0].name}",
        soft_wrap=True,
    )


def _as_json(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "engines": engines_of(model),
        "choices": model.choices,
        "bounds": model.bounds,
        "particles": model.n_particles,
        "boundary": model.boundary,
        "drift": model.drift,
        "simulator": model.simulator,
    }
