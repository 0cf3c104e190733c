"""Two tiny models and their rows for all equality tests; helpers lie beside, importable by their names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package, and a worker process needs the helpers too

from equality_pools import Rows, llama, phi, rows_of_all_splits

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def phi_fp64() -> nn.Module:
    """LayerNorm, biases, and no cast to fp32 on the way: Llama's RMSNorm would hide differences below 1e-7."""
    return phi(torch.float64)


@pytest.fixture(scope="session")
def llama_fp32() -> nn.Module:
    return llama(torch.float32)


@pytest.fixture(scope="session")
def rows() -> Rows:
    return rows_of_all_splits()
