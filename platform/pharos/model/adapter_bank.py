"""The adapters of all seats of one rank, stacked, outside the module tree of the frozen base.

They lie in one flat tensor, so that clipping, AdamW and a data-parallel sum are a few operations a seat; modules see
strided views of it. Ranks are padded with zeros to the widest: a zero row of A with a zero column of B has zero
gradients, zero moments and zero updates, so padding stays zero. Nothing here knows losses, optimizers or the loop.

Shape letters: K seats, S seats in use, N tokens of a seat, P parameters of a seat, R rank, I and O features in and out.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pharos.model.dropout import DropoutMasks, module_keys

SeatTensors = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""By module: A (r, d_in) and B (d_out, r), at the trial's own rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """An adapter that is evaluated beside the seats' own."""

    tensors: SeatTensors
    r: int
    scaling: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Occupant:
    """What the bank must know of a seat's trial."""

    r: int
    scaling: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lineup:
    """The seats that take part in a forward pass.

    leaves: A (S', R, I) and B (S', O, R) of each module over the span of seats from the first to the last in use, cut
    to the largest rank among them; gradients accumulate into the bank's own. picks: which of the span, none if all.
    """

    leaves: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    picks: torch.Tensor | None
    scaling_S: torch.Tensor
    size: int


class AdapterBank:
    """K seats of LoRA adapters over the modules of `targets`, name -> (d_in, d_out).

    `values_KP` and `grads_KP` hold every parameter and its gradient; a row is a seat. dtype is that of the master copy;
    products are computed in the dtype of the activations, as under autocast.
    """

    def __init__(
        self,
        targets: Mapping[str, tuple[int, int]],
        *,
        num_seats: int,
        r_max: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.targets = dict(targets)
        self.num_seats = num_seats
        self.r_max = r_max
        num_parameters = r_max * sum(d_in + d_out for d_in, d_out in self.targets.values())
        self.values_KP = torch.zeros(num_seats, num_parameters, dtype=dtype, device=device)
        self.grads_KP = torch.zeros_like(self.values_KP)
        self.module_keys = module_keys(list(self.targets))
        self._occupants: dict[int, _Occupant] = {}
        self._lineups: dict[tuple[int, ...], _Lineup] = {}
        self._lineup: _Lineup | None = None
        self._masks: DropoutMasks | None = None

    def attach(self, model: nn.Module) -> None:
        """Hook the adapters onto the model's modules. Under ZeRO-3: after deepspeed.initialize, whose hooks come first.

        Raises KeyError if the model lacks a target.
        """
        # Views of a flat tensor's rows are strided; torch warns once that sums into such gradients may be slow.
        warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")
        modules = dict(model.named_modules())
        for index, name in enumerate(self.targets):
            modules[name].register_forward_hook(self._hook(index))

    @contextmanager
    def active(self, seats: Sequence[int], masks: DropoutMasks | None = None) -> Iterator[None]:
        """Let these seats, in ascending order, take part in the forward and backward passes inside the context.

        Inputs of the model must then be seat-major: the same number of rows for each seat, one seat after another.
        Without seats the base computes alone. Backward belongs inside: checkpointing recomputes there.
        """
        self._lineup, self._masks = self._line_up(tuple(seats)), masks
        try:
            yield
        finally:
            self._lineup, self._masks = None, None

    def load(self, seat: int, tensors: SeatTensors, *, r: int, scaling: float) -> None:
        """Give a seat to an adapter of rank r, whose update is multiplied by `scaling`; its gradient is zero.

        Raises ValueError if the rank does not fit the bank, or if modules or shapes are others.
        """
        self.clear(seat)
        self._seat(seat, tensors, r=r, scaling=scaling)

    def clear(self, seat: int) -> None:
        """Empty a seat: values and gradient zero, to the bit."""
        self._occupants.pop(seat, None)
        self._lineups.clear()
        self.values_KP[seat].zero_()
        self.grads_KP[seat].zero_()

    @contextmanager
    def visitors(self, adapters: Sequence[Visitor | None]) -> Iterator[None]:
        """Put adapters into the first seats for as long as the context lasts, to be evaluated; none is the bare base.

        The seats' own values, ranks and gradients are as before afterwards, to the bit.
        """
        own_values, own_occupants = self.values_KP[: len(adapters)].clone(), dict(self._occupants)
        try:
            for seat, visitor in enumerate(adapters):
                self._occupants.pop(seat, None)
                self.values_KP[seat].zero_()
                if visitor is not None:
                    self._seat(seat, visitor.tensors, r=visitor.r, scaling=visitor.scaling)
            self._lineups.clear()
            yield
        finally:
            self.values_KP[: len(adapters)] = own_values
            self._occupants = own_occupants
            self._lineups.clear()

    def export(self, seat: int, row_P: torch.Tensor | None = None) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """A seat's adapter on the CPU, at its true rank; or what `row_P` (a gradient, a moment) holds in its place."""
        r = self._occupants[seat].r
        row = self._views((self.values_KP[seat] if row_P is None else row_P)[None])
        return {
            name: (a[0, :r].cpu().clone(), b[0, :, :r].cpu().clone())
            for name, (a, b) in zip(self.targets, row, strict=True)
        }

    def write(self, seat: int, tensors: SeatTensors, row_P: torch.Tensor) -> None:
        """Write what `export` gave for a seat into a row like it, zeros beyond the true rank.

        Raises ValueError if modules or shapes are not those of the seat.
        """
        r = self._occupants[seat].r
        if set(tensors) != set(self.targets):
            raise ValueError(f"an adapter of other modules: {sorted(set(tensors) ^ set(self.targets))[:4]}")
        row_P.zero_()
        for (name, (d_in, d_out)), (a, b) in zip(self.targets.items(), self._views(row_P[None]), strict=True):
            a_RI, b_OR = tensors[name]
            if a_RI.shape != (r, d_in) or b_OR.shape != (d_out, r):
                raise ValueError(f"{name}: A {tuple(a_RI.shape)}, B {tuple(b_OR.shape)} do not fit r={r}")
            a[0, :r] = a_RI
            b[0, :, :r] = b_OR

    def _seat(self, seat: int, tensors: SeatTensors, *, r: int, scaling: float) -> None:
        if r > self.r_max:
            raise ValueError(f"r={r} does not fit a bank of rank {self.r_max}")
        self._occupants[seat] = _Occupant(r=r, scaling=scaling)
        self.write(seat, tensors, self.values_KP[seat])

    def _views(self, flat: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Of each module: A (K', r_max, d_in) and B (K', d_out, r_max) inside rows of a flat tensor (K', P)."""
        start = 0
        for d_in, d_out in self.targets.values():
            end_a, end_b = start + self.r_max * d_in, start + self.r_max * (d_in + d_out)
            yield flat[:, start:end_a].view(-1, self.r_max, d_in), flat[:, end_a:end_b].view(-1, d_out, self.r_max)
            start = end_b

    def _line_up(self, seats: tuple[int, ...]) -> _Lineup | None:
        """Leaves over the seats' span. Rebuilt only when seats change, so a clock pays nothing for empty seats."""
        if not seats:
            return None
        if seats not in self._lineups:
            self._lineups = {seats: self._make_lineup(seats)}
        return self._lineups[seats]

    def _make_lineup(self, seats: tuple[int, ...]) -> _Lineup:
        first, last = seats[0], seats[-1]
        occupants = [self._occupants.get(seat, _Occupant(r=1, scaling=0.0)) for seat in seats]
        r = max(occupant.r for occupant in occupants)
        leaves = tuple(
            (_leaf(a[:, :r], grad_a[:, :r]), _leaf(b[:, :, :r], grad_b[:, :, :r]))
            for (a, b), (grad_a, grad_b) in zip(
                self._views(self.values_KP[first : last + 1]), self._views(self.grads_KP[first : last + 1]), strict=True
            )
        )
        device, dtype = self.values_KP.device, self.values_KP.dtype
        is_span = len(seats) == last - first + 1
        return _Lineup(
            leaves=leaves,
            picks=None if is_span else torch.tensor([seat - first for seat in seats], device=device),
            scaling_S=torch.tensor([occupant.scaling for occupant in occupants], dtype=dtype, device=device),
            size=len(seats),
        )

    def _hook(self, index: int) -> Any:
        def add_adapters(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            lineup = self._lineup
            if lineup is None:
                return output
            x = args[0] if self._masks is None else self._masks.drop(args[0], index)
            a_SRI, b_SOR = lineup.leaves[index]
            if lineup.picks is not None:
                a_SRI, b_SOR = a_SRI.index_select(0, lineup.picks), b_SOR.index_select(0, lineup.picks)
            x_SNI = x.reshape(lineup.size, -1, x.shape[-1])
            h_SNR = torch.bmm(x_SNI, a_SRI.to(x.dtype).transpose(1, 2)) * lineup.scaling_S.to(x.dtype)[:, None, None]
            y_SNO = output.reshape(lineup.size, -1, output.shape[-1])
            return torch.baddbmm(y_SNO, h_SNR, b_SOR.to(x.dtype).transpose(1, 2)).view(output.shape)

        return add_adapters


def fresh_adapter(targets: Mapping[str, tuple[int, int]], *, r: int, seed: int) -> SeatTensors:
    """A new trial's adapter, as PEFT makes it: A kaiming-uniform with a = sqrt(5), B zero.

    Each module is drawn at the trial's own rank from its own generator: no draw depends on neighbours, on the bank's
    width or on which other modules carry adapters.
    """
    return {
        name: (_draw(seed, name, r, d_in), torch.zeros(d_out, r, dtype=torch.float32))
        for name, (d_in, d_out) in targets.items()
    }


def _draw(seed: int, name: str, r: int, d_in: int) -> torch.Tensor:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return nn.init.kaiming_uniform_(torch.empty(r, d_in, dtype=torch.float32), a=math.sqrt(5), generator=generator)


def _leaf(value: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """A view as a leaf of autograd; autograd accumulates in place into a gradient that is already there."""
    leaf = value.detach().requires_grad_()
    leaf.grad = grad
    return leaf
