"""Mixing of sources by weights: which rows an epoch holds, and how often. Pure numpy.

An epoch stays as long as all rows together. A source's share of it is its weight over the sum of weights; where it
has too few rows they are repeated, where it has too many some are left out, always the same by their content.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mixed_order(parts: np.ndarray, digests: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """The rows of an epoch, int64, in order of their place. parts (N,): the source of each row; digests uint64 (N,).

    A source with n rows and a share of t rows gives each of them t // n times, and once more the t % n rows with the
    lowest digests. Sources without rows leave their share to the others.
    """
    counts = np.bincount(parts, minlength=len(weights))
    shares = np.where(counts > 0, np.asarray(weights, dtype=np.float64), 0.0)
    ends = np.round(np.cumsum(shares) / shares.sum() * len(parts)).astype(np.int64)
    order = []
    for part, target in enumerate(np.diff(ends, prepend=0)):
        places = np.flatnonzero(parts == part)
        if not len(places):
            continue
        times, rest = divmod(int(target), len(places))
        lowest = np.argsort(digests[places], kind="stable")[:rest]
        order += [np.tile(places, times), places[lowest]]
    return np.sort(np.concatenate(order))


def mixture(parts: np.ndarray, order: np.ndarray, names: Sequence[str]) -> str:
    """What was mixed, in words: each source with its share of the epoch, and how often one of its rows is in it."""
    owned = np.bincount(parts, minlength=len(names))
    drawn = np.bincount(parts[order], minlength=len(names))
    return ", ".join(
        f"{name} {drawn[part] / len(order):.0%} (each row {drawn[part] / max(1, owned[part]):.2f} times)"
        for part, name in enumerate(names)
    )
