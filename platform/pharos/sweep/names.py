"""How the actors of a sweep are named in a Ray cluster, so that two sweeps never meet."""

from __future__ import annotations

NAMESPACE = "pharos"

HEAD = {"node:__internal_head__": 0.001}
"""Pins proxies, desk and launchers to the head node; they take no CPU, so they never keep a worker from fitting."""

UNTRAINED = -1
"""The number under which the base itself is scored on test rows."""


def desk_name(sweep: str) -> str:
    return f"desk-{sweep}"


def sweep_of(desk: str) -> str:
    """The sweep of a desk's name."""
    return desk.removeprefix("desk-")
