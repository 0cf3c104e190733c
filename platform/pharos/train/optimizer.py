"""AdamW over the bank's flat tensors, one seat at a time: each with its own rate, betas, epsilon, decay, clip and step.

The arithmetic is torch's own fused AdamW. Clipping and the check for non-finite numbers stay on the device, so a
step never waits for the host.
"""

from __future__ import annotations

import torch
from torch.optim.adamw import adamw

from pharos.model.adapter_bank import AdapterBank
from pharos.plan.hyperparameters import Hyperparameters

CLIP_EPSILON = 1e-6
"""Added to the norm, as in torch.nn.utils.clip_grad_norm_."""


class SeatedAdamW:
    """Moments, step counts and the sign of divergence of every seat of a bank.

    exp_avg_KP, exp_avg_sq_KP: the moments. steps_K: updates done, float as torch wants it. diverged_K: 1.0 from the
    first non-finite loss or gradient on; such a seat is never updated again, until it is reset.
    """

    def __init__(self, bank: AdapterBank) -> None:
        self._bank = bank
        self.exp_avg_KP = torch.zeros_like(bank.values_KP)
        self.exp_avg_sq_KP = torch.zeros_like(bank.values_KP)
        self.steps_K = torch.zeros(bank.num_seats, dtype=torch.float32, device=bank.values_KP.device)
        self.diverged_K = torch.zeros_like(self.steps_K)

    def reset(self, seat: int, *, step: int = 0) -> None:
        """Forget a seat's past; `step` updates count as done."""
        self.exp_avg_KP[seat].zero_()
        self.exp_avg_sq_KP[seat].zero_()
        self.steps_K[seat] = step
        self.diverged_K[seat] = 0.0

    def step(
        self, seat: int, *, loss: torch.Tensor, hyperparameters: Hyperparameters, learning_rate: float
    ) -> torch.Tensor:
        """Clip and apply a seat's gradient, then zero it. Returns the norm before clipping, a scalar tensor.

        A non-finite loss or norm marks the seat as diverged and leaves its values, moments and step as they are.
        """
        grad_P = self._bank.grads_KP[seat]
        norm = torch.linalg.vector_norm(grad_P)
        is_finite = torch.isfinite(loss) & torch.isfinite(norm)
        diverged = self.diverged_K[seat]
        diverged.copy_(torch.maximum(diverged, (~is_finite).to(diverged.dtype)))
        if hyperparameters.max_grad_norm > 0:
            grad_P.mul_((hyperparameters.max_grad_norm / (norm + CLIP_EPSILON)).clamp(max=1.0))
        adamw(
            [self._bank.values_KP[seat]],
            [grad_P],
            [self.exp_avg_KP[seat]],
            [self.exp_avg_sq_KP[seat]],
            [],
            [self.steps_K[seat]],
            fused=True,
            found_inf=diverged,
            amsgrad=False,
            beta1=hyperparameters.adam_beta1,
            beta2=hyperparameters.adam_beta2,
            lr=learning_rate,
            weight_decay=hyperparameters.weight_decay,
            eps=hyperparameters.adam_epsilon,
            maximize=False,
        )
        grad_P.zero_()
        return norm
