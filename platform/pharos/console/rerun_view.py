"""A trial trained again beside the first time: some steps of both curves, the differences, the verdict."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.text import Text

from pharos.plan import words

ROWS = 12


def show_curves(first: Mapping[int, float], again: Mapping[int, float], *, console: Console | None = None) -> None:
    """Losses by step, a line each some steps: dense at the beginning, where the comparison decides."""
    lines = [f"{'step':>6}  {'in the sweep':>12}  {'again':>12}  difference"]
    for step in _some(sorted(first)):
        now = again.get(step)
        difference = words.NOTHING if now is None else f"{abs(first[step] - now):.1e}"
        lines.append(
            f"{step:>6}  {first[step]:>12.6f}  {now if now is not None else float('nan'):>12.6f}  {difference:>10}"
        )
    (console or Console(highlight=False)).print(Text("\n".join(lines)), soft_wrap=True)


def _some(steps: list[int]) -> list[int]:
    """The first, some of the first 30, then as many evenly, and the last."""
    if len(steps) <= ROWS:
        return steps
    early = steps[: min(30, len(steps))]
    late = steps[len(early) :]
    chosen = {early[round(index * (len(early) - 1) / (ROWS // 2 - 1))] for index in range(ROWS // 2)}
    chosen |= {late[round((index + 1) * len(late) / (ROWS // 2)) - 1] for index in range(ROWS // 2)} if late else set()
    return sorted(chosen)
