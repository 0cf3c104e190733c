"""One base sharded over two ranks with ZeRO-3: what a clock takes and gathers with one seat a rank and with eight.

Time and traffic of a clock are shared by all trials in it; bytes are DeepSpeed's own count, free of noise.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tests.benchmarks.loops import Seats, Timed, llama, random_rows, trial
from tests.benchmarks.reporting import Options, Report, Table, Target
from torch import distributed as dist
from torch import multiprocessing

from pharos.train.frozen_base import FrozenBase, load_base
from pharos.train.group import Group, distributed_group

RANKS = 2
SEATS = (1, 8)
HIDDEN_SIZE, NUM_LAYERS = 128, 4
BATCHES = ((1, 48), (8, 48))  # rows, tokens
NUM_CLOCKS, REPETITIONS = 8, 5


def run(options: Options) -> Report:
    with tempfile.TemporaryDirectory() as directory:
        model = llama(hidden_size=16 if options.smoke else HIDDEN_SIZE, num_layers=1 if options.smoke else NUM_LAYERS)
        model.save_pretrained(Path(directory) / "base")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        multiprocessing.spawn(_rank, args=(port, Path(directory), options.smoke), nprocs=RANKS)
        seen = json.loads((Path(directory) / "seen.json").read_text())
    rows = seen["rows"]
    one, most = (f"K={k}" for k in SEATS)
    return Report(
        settings={
            "base": f"hidden {model.config.hidden_size}, {model.config.num_hidden_layers} layers, ZeRO-3 over 2 ranks",
            "clocks": seen["clocks"],
            "repetitions": seen["repetitions"],
            "of repetitions": "median",
            "K": "seats of one rank",
        },
        tables=[Table(title="a clock of two ranks", rows=rows)],
        quality={"largest difference of final losses, K=1 and K=8": max(row["loss difference"] for row in rows)},
        targets=[
            *(
                Target(
                    what=f"bytes gathered a clock, {most} over {one}, {row['micro-batch']}",
                    measured=row[f"MB gathered {most}"] / row[f"MB gathered {one}"],
                    limit=1.0,
                    at_most=True,
                )
                for row in rows
            ),
            Target(
                what="share of the base that a rank holds between clocks, without padding",
                measured=seen["held_share"],
                limit=1 / RANKS,
                at_most=True,
            ),
        ],
        notes=[f"a rank holds {seen['held_bytes']} of {seen['base_bytes']} bytes, {seen['padding_bytes']} of padding"],
    )


def _rank(rank: int, port: int, directory: Path, smoke: bool) -> None:
    """What each rank does; rank 0 writes what was seen."""
    torch.set_num_threads(1)
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}  # two ranks on one GPU would not start
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(RANKS)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    base = _load(directory, None)
    group = distributed_group()
    bases = {SEATS[0]: base, SEATS[1]: _load(directory, group)}
    clocks, repetitions = (2, 1) if smoke else (NUM_CLOCKS, REPETITIONS)
    rows = [
        _measure(bases, group, *batch, num_clocks=clocks, repetitions=repetitions)
        for batch in (BATCHES[:1] if smoke else BATCHES)
    ]
    num_elements = [parameter.ds_numel for parameter in base.module.parameters()]
    base_bytes, own_bytes = 4 * sum(num_elements), 4 * sum(-(-count // RANKS) for count in num_elements)
    held_bytes = max(group.all_gather_objects(base.parameter_bytes_held()))
    padding_bytes = own_bytes - base_bytes // RANKS
    seen = {
        "rows": rows,
        "clocks": clocks,
        "repetitions": repetitions,
        "base_bytes": base_bytes,
        "held_bytes": held_bytes,
        "padding_bytes": padding_bytes,
        "held_share": (held_bytes - padding_bytes) / base_bytes,
    }
    if rank == 0:
        (directory / "seen.json").write_text(json.dumps(seen))
    leave()


def leave() -> None:
    """End a rank whose work is done, without waiting for what Gloo's threads do at exit: now and then they abort it."""
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _load(directory: Path, group: Group | None) -> FrozenBase:
    """Loading the first base is what starts the process group."""
    return load_base(
        directory / "base",
        dtype=torch.float32,
        sharding="zero3",
        activation_checkpointing=False,
        trust_remote_code=False,
        group=group or distributed_group(),
    )


def _measure(
    bases: dict[int, FrozenBase], group: Group, rows: int, tokens: int, *, num_clocks: int, repetitions: int
) -> dict[str, Any]:
    """Clocks with few seats and with many, in turns. Both ranks train the same trials: only their cost counts."""
    data = random_rows(64, shortest=tokens, longest=tokens)
    pools = {
        k: Seats(base, data, num_seats=k, micro_batch_size=rows, r_max=8, group=group) for k, base in bases.items()
    }
    plans = [trial(number, num_steps=num_clocks, batch_size=rows) for number in range(max(pools))]
    gathered = {k: _gathered_bytes(pool, k, rows) for k, pool in pools.items()}
    times: dict[int, list[float]] = {k: [] for k in pools}
    done: dict[int, Timed] = {}
    for _ in range(repetitions):
        for k, pool in pools.items():
            done[k] = pool.train(plans[:k])
            times[k].append(done[k].seconds / num_clocks)
    few, many = min(pools), max(pools)
    ratios = [many / few * one / most for one, most in zip(times[few], times[many], strict=True)]
    return {
        "micro-batch": f"{rows} x {tokens}",
        **{f"ms a clock K={k}": round(1000 * median(seconds), 1) for k, seconds in times.items()},
        **{f"MB gathered K={k}": size / 1e6 for k, size in gathered.items()},
        "time, one after another / together": round(median(ratios), 2),
        "bytes, the same": many / few * gathered[few] / gathered[many],
        "loss difference": abs(done[few].losses[0][-1] - done[many].losses[0][-1]),
    }


def _gathered_bytes(pool: Seats, num_seats: int, rows: int) -> float:
    """Bytes of all-gathers in a clock, after a first one that still learns the order of the modules."""
    from deepspeed.comm.comm import comms_logger

    plans = [trial(number, num_steps=2, batch_size=rows) for number in range(num_seats)]
    pool.train(plans)
    comms_logger.enabled = comms_logger.prof_all = True
    comms_logger.comms_dict.clear()
    pool.train(plans)
    comms_logger.enabled = comms_logger.prof_all = False
    records = {name: sizes for name, sizes in comms_logger.comms_dict.items() if "all_gather" in name}
    return sum(size * counts[0] for sizes in records.values() for size, counts in sizes.items()) / 2
