"""``python -m lanline.cluster``: what the Makefile's slurm-... targets call."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lanline.cluster.folder import cancel_orphans
from lanline.cluster.site import write_profile
from lanline.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lanline.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "cancel-orphans", help="cancel the jobs of this folder whose Snakemake died, and wait for their end"
    )
    command = commands.add_parser("profile", help="ask SLURM what there is, and write a profile for it")
    command.add_argument("path", type=Path, nargs="?", default=Path("profiles/site/config.yaml"))
    args = parser.parse_args()
    if args.command == "cancel-orphans":
        cancel_orphans(Path())
    else:
        found = write_profile(args.path)
        print(
            f"{args.path}: {len(found)} partition(s) looked at. Read it, then: snakemake --profile {args.path.parent}"
        )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
