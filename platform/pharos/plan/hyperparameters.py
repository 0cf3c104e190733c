"""What one trial may choose, as one flat value, and how searched values lay over the spec's own.

Pure. Names are those of PEFT and transformers, without their section.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

from pharos.spec.model import LoraSpec, OptimSpec, Scalar, Section, SweepSpec, TrainSpec

Params = Mapping[str, Scalar]
"""Searched values by dotted field, e.g. {"lora.r": 8, "optim.learning_rate": 2e-4}."""
_SECTIONS: dict[str, type[Section]] = {"lora": LoraSpec, "optim": OptimSpec, "train": TrainSpec}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """One trial's own values: everything that lies outside the frozen base."""

    r: int
    lora_alpha: float
    lora_dropout: float
    use_rslora: bool
    learning_rate: float
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float
    weight_decay: float
    max_grad_norm: float
    lr_scheduler_type: str
    warmup_ratio: float
    num_train_epochs: float
    max_steps: int | None
    batch_size: int
    seed: int
    data_seed: int

    @property
    def scaling(self) -> float:
        """The factor on B(A(x)), as in PEFT: alpha / r, or alpha / sqrt(r) with rank-stabilised LoRA."""
        return self.lora_alpha / (sqrt(self.r) if self.use_rslora else self.r)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Hyperparameters:
        return cls(**fields)


def hyperparameters(spec: SweepSpec, params: Params | None = None) -> Hyperparameters:
    """The spec's own values with `params` (dotted field -> value) laid over them.

    `lora.alpha_over_r` is a derived field: it sets lora_alpha to that multiple of the trial's own r.
    """
    flat: dict[str, Any] = {}
    for section in (spec.lora, spec.optim, spec.train):
        flat |= {name: getattr(section, name) for name in Hyperparameters.__slots__ if hasattr(section, name)}
    chosen = dict(params or {})
    alpha_over_r = chosen.pop("lora.alpha_over_r", None)
    flat |= {field.split(".", 1)[1]: value for field, value in chosen.items()}
    if alpha_over_r is not None:
        flat["lora_alpha"] = float(alpha_over_r) * flat["r"]
    return Hyperparameters(**flat)


def dotted(values: Hyperparameters) -> dict[str, Scalar]:
    """A trial's own values by dotted field, {"lora.r": 8, ...}, in the spec's order. What is not set is left out."""
    flat = {name: getattr(values, name) for name in Hyperparameters.__slots__}
    return {field: flat[name] for field, name in _DOTTED.items() if flat[name] is not None}


def baseline_params(spec: SweepSpec) -> dict[str, Scalar]:
    """Trial 0 as a point of the search space: the spec's own value of every searched field."""
    if spec.search is None:
        return {}
    own = hyperparameters(spec)
    derived = {"lora.alpha_over_r": own.lora_alpha / own.r}
    return {
        field: derived[field] if field in derived else getattr(own, field.split(".", 1)[1])
        for field in spec.search.space
    }


_DOTTED = {
    f"{section}.{name}": name
    for section, model in _SECTIONS.items()
    for name in model.model_fields
    if name in Hyperparameters.__slots__
}
"""Where in the spec each value of a trial stands."""
