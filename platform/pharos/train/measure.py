"""What a worker holds, measured once a round: bytes of base, seats, activations and host."""

from __future__ import annotations

import psutil
import torch

from pharos.plan.exchange import WorkerMemory
from pharos.train.seats import Worker


def worker_memory(worker: Worker) -> WorkerMemory:
    """Bytes of this rank now; activations are those of the round that ends, and the next one is counted anew."""
    bank, optimizer = worker.pool.bank, worker.optimizer
    base = worker.pool.base.parameter_bytes_held()
    tensors = (bank.values_KP, bank.grads_KP, optimizer.exp_avg_KP, optimizer.exp_avg_sq_KP)
    seats = sum(tensor.nbytes for tensor in tensors)
    return WorkerMemory(
        worker=worker.group.rank,
        base=base,
        seats=seats,
        activations=_peak(worker.group.device, base + seats),
        host=psutil.Process().memory_info().rss,
    )


def _peak(device: torch.device, held: int) -> int:
    if device.type != "cuda":
        return 0
    peak = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return max(0, peak - held)
