"""The verb that trains a trial again: rerun."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pharos.cli.app import COMPARE, app
from pharos.cli.options import STORAGE, SweepStorage, typed_again

if TYPE_CHECKING:
    from pharos.sweep.rerun import Rerun


@app.command(rich_help_panel=COMPARE)
def rerun(
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="A trial of a sweep: NAME-0007.", show_default=False)],
    storage: SweepStorage = STORAGE,
    steps: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop after N steps (default: as far as the trial came).")
    ] = None,
    base: Annotated[Path | None, typer.Option(metavar="DIR", help="Where its base lies, if it has moved.")] = None,
) -> None:
    """Train a trial again, alone and without Ray, and compare its losses. Exit code 1: they are not the same."""
    from pharos import console
    from pharos.sweep.environment import set_environment
    from pharos.sweep.rerun import rerun as train_again

    set_environment(address="none: nothing is started")
    with console.steps_progress("training") as watch:
        done = train_again(trial, storage=storage, num_steps=steps, base=base, progress=typer.echo, watch=watch)
    console.show_curves(done.first, done.again)
    _say(done, storage)
    if not done.is_same:
        raise typer.Exit(1)


def _say(done: Rerun, storage: Path) -> None:
    """The figures, the verdict, and what to type next."""
    from pharos.sweep.rerun import TOLERANCE

    for name, (before, now) in done.changed.items():
        typer.echo(f"{name} was {before}, and is {now}")
    early, all_of_them = done.largest_difference(done.held_steps), done.largest_difference()
    typer.echo(
        f"largest difference of a loss: {early:.1e} over the first {done.held_steps} steps, {all_of_them:.1e} over all "
        f"{len(done.first)}; {done.seconds:.0f} s"
    )
    if done.is_same:
        typer.echo(f"the same: {done.trial} again, within {TOLERANCE:g} over its first {done.held_steps} steps")
        where = "".join(f" {shlex.quote(word)}" for word in typed_again(storage))
        verb = "rerun" if len(done.first) < done.num_steps else "export"
        output = "" if verb == "rerun" else f" --output {done.trial}-model"
        typer.echo(f"next:     pharos {verb} {done.trial}{output}{where}  (nothing was kept of this run)")
        return
    typer.echo(f"not the same: step {done.first_step_apart} is the first that is off by more than {TOLERANCE:g}")
    own = f"with the last bits of its base changed it is off by {done.own_difference:.1e} from itself"
    if not done.reproduces_itself:
        typer.echo(f"why:      it does not reproduce itself at all: {own}. So high a rate amplifies every last bit")
        return
    suspects = [f"{name} is another" for name in done.changed]
    suspects += [] if done.dtype == "float32" else [f"it trains in {done.dtype}"]
    said = "; ".join(suspects) or "the code, the weights of the base, or the processor"
    typer.echo(f"why:      not by chance: {own} only. Something else has changed: {said}")
