"""Pharos: many LoRA trials at once over one frozen, sharded base, each identical to training alone.

Nothing is imported here: `pharos --help` must answer without loading torch, Ray or MLflow.
"""

__version__ = "0.1.0"
