"""The ranks of a pool as one small value: who I am, and the four things that ranks say to each other.

The loop takes a group as an argument, so it runs under Ray, under torchrun and in a plain test. Ray is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist


class Group(Protocol):
    """All ranks must call the same methods in the same order: each is a collective."""

    @property
    def rank(self) -> int: ...

    @property
    def world_size(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def broadcast_object(self, value: Any) -> Any:
        """What rank 0 gave, on every rank."""

    def all_gather_objects(self, value: Any) -> list[Any]:
        """What each rank gave, by rank, on every rank."""

    def all_reduce(self, tensor: torch.Tensor) -> None:
        """Sum a contiguous tensor over the ranks, in place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleProcess:
    """A group of one."""

    device: torch.device
    rank: int = 0
    world_size: int = 1

    def broadcast_object(self, value: Any) -> Any:
        return value

    def all_gather_objects(self, value: Any) -> list[Any]:
        return [value]

    def all_reduce(self, tensor: torch.Tensor) -> None:
        del tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchGroup:
    """The default process group of torch.distributed."""

    rank: int
    world_size: int
    device: torch.device

    def broadcast_object(self, value: Any) -> Any:
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def all_gather_objects(self, value: Any) -> list[Any]:
        box: list[Any] = [None] * self.world_size
        dist.all_gather_object(box, value)
        return box

    def all_reduce(self, tensor: torch.Tensor) -> None:
        dist.all_reduce(tensor)


def distributed_group() -> Group:
    """The process group that a launcher (Ray Train, torchrun) has started; this process alone where there is none.

    On a GPU the device is torch's current one: under torchrun the caller sets it from LOCAL_RANK first.
    """
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    if not dist.is_initialized():
        return SingleProcess(device=device)
    return TorchGroup(rank=dist.get_rank(), world_size=dist.get_world_size(), device=device)
