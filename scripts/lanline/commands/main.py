"""``lanline``: where a network came from, and what looks at, moves and tidies records of runs."""

from __future__ import annotations

import sys

from lanline.errors import UserError


def main() -> None:
    """Run ``lanline lineage ...``, or one of the commands of ``python -m lanline.tracking``."""
    try:
        if sys.argv[1:2] == ["lineage"]:
            from lanline.commands.lineage import main as lineage

            raise SystemExit(lineage(sys.argv[2:]))
        from lanline.tracking.__main__ import main as tracking

        tracking(program="lanline")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
