"""The verb that watches a sweep which another process runs: top."""

from __future__ import annotations

from typing import Annotated

import typer

from pharos.cli.app import TRAIN, app
from pharos.cli.options import STORAGE, Address, SweepStorage, typed_again


@app.command(rich_help_panel=TRAIN)
def top(
    sweep: Annotated[
        str | None, typer.Argument(metavar="[SWEEP]", help="Its name (default: the only one that runs).")
    ] = None,
    storage: SweepStorage = STORAGE,
    address: Address = None,
    once: Annotated[bool, typer.Option("--once", help="Show it as it stands now, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as one JSON object, and end.")] = False,
) -> None:
    """Watch a running sweep: seats, leaders, and how busy its pools are, and with what. Ctrl-C ends the watching."""
    from pharos import console
    from pharos.sweep.watching import desk_of, events_since, is_being_run, sweep_to_watch

    try:
        if address is not None:
            from pharos.sweep.environment import set_environment

            set_environment(address=address)
            with desk_of(sweep, address=address) as desk:
                console.show_top(desk.read, lambda: desk.is_running, once=once, as_json=as_json)
            return
        directory = sweep_to_watch(sweep, storage)
        console.show_top(
            lambda sequence: events_since(directory, sequence),
            lambda: is_being_run(directory),
            once=once,
            as_json=as_json,
            options=typed_again(directory.parent),
        )
    except KeyboardInterrupt:
        return
