"""Snakemake finds logger plugins by the name of their module: `snakemake --logger lanline` (profiles/terminal)."""

from lanline.workflow.terminal import LogHandler

__all__ = ["LogHandler"]
