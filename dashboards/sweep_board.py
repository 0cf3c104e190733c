"""Is the sweep finding something?"""

from __future__ import annotations

from queries import BAD, GOOD, SWEEPS, WARN, WINDOW, chart, number, of_sweeps
from shapes import SMALL, Dashboard, Panel, Query, Row

from pharos.sweep import metrics as m

FINAL = f'sum by (sweep) (max by (sweep, state) ({m.TRIALS.exported}{{sweep=~"$sweep", state!~"WAITING|RUNNING"}}))'
FAILING = f'sum by (sweep) (max by (sweep, state) ({m.TRIALS.exported}{{sweep=~"$sweep", state=~"DIVERGED|FAILED"}}))'
CLOCKS_LEFT = f"clamp_min({of_sweeps(m.TRIAL_CLOCKS_EXPECTED)} - {of_sweeps(m.TRIAL_CLOCKS)}, 0)"
LIVE_RATE = f"sum by (sweep) (rate({m.LIVE_SEAT_CLOCKS.exported}{SWEEPS}{WINDOW}))"

SWEEP = Dashboard(
    name="sweep",
    title="Pharos / Sweep",
    says="Is it finding something? Scores, trials, rungs, and what goes wrong.",
    rows=(
        Row(
            title="Now",
            panels=(
                number("Best score", "Of the best trial so far", of_sweeps(m.BEST), decimals=4),
                number("Baseline", "Score of trial 0, the file's own values", of_sweeps(m.BASELINE_SCORE), decimals=4),
                number(
                    "Trials done",
                    "Share of the search's trials that have ended",
                    f"{FINAL} / {of_sweeps(m.TRIALS_PLANNED)}",
                    unit="percentunit",
                ),
                number(
                    "About left",
                    "Clocks that are left, if rungs stop as many as they should, at the present rate",
                    f"{CLOCKS_LEFT} / ({LIVE_RATE} > 0)",
                    unit="s",
                    decimals=0,
                ),
                number(
                    "Diverged or failed",
                    "Share of the trials that exist",
                    f"{FAILING} / clamp_min(sum by (sweep) ({of_sweeps(m.TRIALS, by='sweep, state')}), 1)",
                    unit="percentunit",
                    limits=((0, GOOD), (0.2, WARN), (0.4, BAD)),
                ),
                Panel(
                    title="Cost so far",
                    says="Node-hours times pool.price_per_node_hour, in its currency",
                    kind="number",
                    queries=(Query(expr=of_sweeps(m.COST), legend="{{sweep}}"),),
                    width=SMALL,
                    decimals=2,
                    needs="a price",
                ),
            ),
        ),
        Row(
            title="Finding",
            panels=(
                chart(
                    "Best against baseline",
                    "A search that finds something leaves its baseline behind",
                    Query(expr=of_sweeps(m.BEST, by="sweep, metric"), legend="{{sweep}} best {{metric}}"),
                    Query(expr=of_sweeps(m.BASELINE_SCORE, by="sweep, metric"), legend="{{sweep}} baseline {{metric}}"),
                ),
                chart(
                    "Trials by state",
                    "Every trial that exists",
                    Query(expr=f"sum by (state) ({of_sweeps(m.TRIALS, by='sweep, state')})", legend="{{state}}"),
                    kind="areas",
                ),
                chart(
                    "Rung decisions",
                    "How many went on, how many were stopped, so far",
                    Query(
                        expr=f"sum by (decision) ({of_sweeps(m.RUNG_DECISIONS, by='sweep, decision')})",
                        legend="{{decision}}",
                    ),
                ),
                chart(
                    "Clocks of all trials",
                    "Done, and expected if rungs stop as many as they should",
                    Query(expr=of_sweeps(m.TRIAL_CLOCKS), legend="{{sweep}} done"),
                    Query(expr=of_sweeps(m.TRIAL_CLOCKS_EXPECTED), legend="{{sweep}} expected"),
                ),
            ),
        ),
        Row(
            title="Seats",
            panels=(
                chart(
                    "Trials to come and seats",
                    "Trials that wait or do not exist yet, beside the seats that there are and those that are taken",
                    Query(expr=of_sweeps(m.TRIALS_TO_COME), legend="{{sweep}} to come"),
                    Query(expr=f"sum by (sweep) ({of_sweeps(m.SEATS, by='sweep, pool')})", legend="{{sweep}} seats"),
                    Query(
                        expr=f"sum by (sweep) ({of_sweeps(m.SEATS_TAKEN, by='sweep, pool')})", legend="{{sweep}} taken"
                    ),
                ),
                chart(
                    "How far the seats' trials are",
                    "Share of its steps that the trial in a seat has done; it falls when the next trial takes the seat",
                    Query(
                        expr=of_sweeps(m.SEAT_PROGRESS, by="sweep, pool, seat"),
                        legend="{{sweep}} {{pool}} seat {{seat}}",
                    ),
                    unit="percentunit",
                ),
            ),
        ),
    ),
)
