"""lanline: from a simulator model to a tested likelihood network."""

__version__ = "0.1.0"
