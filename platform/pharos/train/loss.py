"""Token losses: logits at the trained positions only, cross-entropy in fp32 by chunks, sums by seat.

Shape letters: R rows, T tokens, D hidden size, V vocabulary, N trained positions, S seats in use.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

CHUNK_TOKENS = 1024
"""Positions whose fp32 logits exist at a time: with a vocabulary of 128k they take 0.5 GB."""


def logits_at(
    model: nn.Module,
    tokens_RT: torch.Tensor,
    positions_N: torch.Tensor,
    own_positions_RT: torch.Tensor | None = None,
) -> torch.Tensor:
    """Logits (N, V) at flat positions (row x T + token) of right-padded rows.

    own_positions_RT: of each token in its own row, where several are packed into one. Transformers confines attention
    to runs of consecutive positions where no attention mask is given; `open_pool` has proved that this model obeys.

    Only these positions enter the output layer; what a model does to its logits afterwards (a cap, a scale) stays its
    own. No attention mask is given: pads follow a row's tokens, and a causal model does not look ahead.
    """
    output_layer = model.get_output_embeddings()

    def pick(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden_RTD = args[0]
        return (hidden_RTD.reshape(-1, hidden_RTD.shape[-1]).index_select(0, positions_N), *args[1:])

    handle = output_layer.register_forward_pre_hook(pick)
    try:
        own = {} if own_positions_RT is None else {"position_ids": own_positions_RT}
        return model(input_ids=tokens_RT, use_cache=False, **own).logits
    finally:
        handle.remove()


def token_losses(logits_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    """Cross-entropy (N,) of each position, in fp32 where logits have 16 bits, never for all positions at a time."""
    return _TokenLosses.apply(logits_NV, targets_N)


def sums_by_seat(values_N: torch.Tensor, seats_N: torch.Tensor, num_seats: int) -> torch.Tensor:
    """Sum (S,) of the values of each seat, by index 0..S-1."""
    return torch.zeros(num_seats, dtype=values_N.dtype, device=values_N.device).index_add(0, seats_N, values_N)


class _TokenLosses(torch.autograd.Function):
    """Cross-entropy that keeps the logits and one number a position: softmax is computed again in backward."""

    @staticmethod
    def forward(ctx: Any, logits_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
        chunks = zip(logits_NV.split(CHUNK_TOKENS), targets_N.split(CHUNK_TOKENS), strict=True)
        losses_N = torch.cat([F.cross_entropy(_wide(logits), targets, reduction="none") for logits, targets in chunks])
        log_sums_N = losses_N + _wide(logits_NV.gather(1, targets_N[:, None])[:, 0])
        ctx.save_for_backward(logits_NV, targets_N, log_sums_N)
        return losses_N

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        """d loss / d logits = softmax(logits) - onehot(target)."""
        tensors = [*ctx.saved_tensors, grads[0]]
        grad_NV = torch.empty_like(tensors[0])
        for out, logits, targets, log_sums, grad in zip(
            grad_NV.split(CHUNK_TOKENS), *(tensor.split(CHUNK_TOKENS) for tensor in tensors), strict=True
        ):
            softmax = (_wide(logits) - log_sums[:, None]).exp_()
            softmax.scatter_add_(1, targets[:, None], torch.full_like(log_sums, -1.0)[:, None])
            out.copy_(softmax.mul_(grad[:, None]))
        return grad_NV, None


def _wide(logits: torch.Tensor) -> torch.Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
