"""Is the hardware busy, and with what?"""

from __future__ import annotations

from queries import BAD, GOOD, POOLS, WARN, WINDOW, chart, number, of_pools, rate, ray
from shapes import HALF, Dashboard, Panel, Query, Row

from pharos.sweep import metrics as m

PARTS = rate(m.SECONDS, by="sweep, pool, part")
ALL_PARTS = rate(m.SECONDS)
PADS = f'sum by (sweep, pool) (rate({m.TOKENS.exported}{{sweep=~"$sweep", pool=~"$pool", kind="pad"}}{WINDOW}))'
CLOCK_S = (
    f"sum by (sweep, pool) (rate({m.SECONDS.exported}"
    f'{{sweep=~"$sweep", pool=~"$pool", part=~"batch|gather|forward|backward|optimizer"}}{WINDOW}))'
)
OF_POOL = "{{sweep}} {{pool}}"

POOLS_BOARD = Dashboard(
    name="pools",
    title="Pharos / Pools",
    says="Is the hardware busy, and with what? Seats, clocks, tokens, time, arithmetic, memory.",
    of_pools=True,
    rows=(
        Row(
            title="Now",
            panels=(
                number(
                    "Seats taken", "Of all open pools", f"sum(max by (sweep, pool) ({m.SEATS_TAKEN.exported}{POOLS}))"
                ),
                number(
                    "Occupancy",
                    "Share of seats that trained, over the window",
                    f"sum({rate(m.LIVE_SEAT_CLOCKS)}) / (sum({rate(m.SEAT_CLOCKS)}) > 0)",
                    unit="percentunit",
                    limits=((0, BAD), (0.5, WARN), (0.8, GOOD)),
                ),
                number(
                    "Clocks a second",
                    "As workers turn them",
                    f"sum(max by (sweep, pool) (sum by (sweep, pool, worker) "
                    f"(rate({m.WORKER_CLOCKS.exported}{POOLS}{WINDOW}))))",
                    decimals=2,
                ),
                number(
                    "Trained tokens a second",
                    "Of all trials together",
                    f'sum(rate({m.TOKENS.exported}{{sweep=~"$sweep", pool=~"$pool", kind="trained"}}{WINDOW}))',
                ),
                number(
                    "Pads",
                    "Share of positions that are pads",
                    f"sum({PADS}) / (sum({rate(m.TOKENS)}) > 0)",
                    unit="percentunit",
                ),
                number(
                    "Achieved FLOP/s",
                    "Of clocks alone: 4 operations a frozen parameter and token, without pads",
                    f"sum({rate(m.FLOPS)}) / (sum({CLOCK_S}) > 0)",
                    unit="flops",
                ),
            ),
        ),
        Row(
            title="Busy",
            panels=(
                chart(
                    "Occupancy",
                    "Share of a pool's seats that trained",
                    Query(expr=f"{rate(m.LIVE_SEAT_CLOCKS)} / ({rate(m.SEAT_CLOCKS)} > 0)", legend=OF_POOL),
                    unit="percentunit",
                ),
                chart(
                    "Where the time goes",
                    "Shares of a pool's time. Parts of a clock are timed on one clock of a round, on rank 0; gather is "
                    "waiting for the base's shards, exchange is waiting for the desk",
                    Query(
                        expr=f"{PARTS} / on (sweep, pool) group_left () ({ALL_PARTS} > 0)", legend=OF_POOL + " {{part}}"
                    ),
                    unit="percentunit",
                    kind="areas",
                ),
                Panel(
                    title="Seats",
                    says="Taken or free",
                    kind="timeline",
                    queries=(
                        Query(expr=of_pools(m.SEAT_TAKEN, by="sweep, pool, seat"), legend=OF_POOL + " seat {{seat}}"),
                    ),
                    width=HALF,
                ),
                chart(
                    "Clocks a second",
                    "By worker, counted as they are turned; and of a whole round, with evaluation and the rest",
                    Query(expr=rate(m.WORKER_CLOCKS, by="sweep, pool, worker"), legend=OF_POOL + " worker {{worker}}"),
                    Query(expr=of_pools(m.CLOCK_RATE), legend=OF_POOL + " whole rounds"),
                ),
            ),
        ),
        Row(
            title="Work",
            panels=(
                chart(
                    "Tokens a second",
                    "Positions in clocks: trained on, read as context, pads",
                    Query(expr=rate(m.TOKENS, by="sweep, pool, kind"), legend=OF_POOL + " {{kind}}"),
                    kind="areas",
                ),
                chart(
                    "Achieved FLOP/s of clocks",
                    "4 operations a frozen parameter and token (Kaplan et al. 2020), without pads and attention",
                    Query(expr=f"{rate(m.FLOPS)} / ({CLOCK_S} > 0)", legend=OF_POOL),
                    unit="flops",
                ),
                Panel(
                    title="Share of the stated peak",
                    says="Achieved FLOP/s of clocks over pool.peak_tflops_per_worker times workers",
                    kind="lines",
                    queries=(
                        Query(expr=f"{rate(m.FLOPS)} / ({CLOCK_S} > 0) / {of_pools(m.PEAK_FLOPS)}", legend=OF_POOL),
                    ),
                    width=HALF,
                    unit="percentunit",
                    needs="a peak",
                ),
                chart(
                    "Checkpoints",
                    "Bytes written a second",
                    Query(expr=rate(m.CHECKPOINT_BYTES), legend=OF_POOL),
                    unit="Bps",
                ),
            ),
        ),
        Row(
            title="Memory and devices",
            panels=(
                chart(
                    "Memory of workers",
                    "The largest of a pool's workers: base share, seats, activations (on a GPU), resident memory",
                    Query(expr=of_pools(m.WORKER_MEMORY, by="sweep, pool, part"), legend=OF_POOL + " {{part}}"),
                    unit="bytes",
                ),
                Panel(
                    title="GPU use",
                    says="Of each GPU, as Ray sees it",
                    kind="lines",
                    queries=(
                        Query(
                            expr=ray("ray_node_gpus_utilization", by="ip, GpuIndex"), legend="{{ip}} GPU {{GpuIndex}}"
                        ),
                    ),
                    width=HALF,
                    unit="percent",
                    needs="a GPU",
                ),
            ),
        ),
    ),
)
