"""Whether a merged model computes what base + adapter compute, on real rows, before it may be registered.

The reference is stock PEFT on the stock model: none of our own merging takes part in it. One model is in memory at a
time.

A merge that is stored in bfloat16 or float16 cannot equal base + adapter: rounding the merged weights changes the
logits. So it is held against stock PEFT's own merge, rounded in the same way, and the effect of the rounding alone is
measured and bounded apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pharos.errors import BaseModelError, HandOverError
from pharos.model.adapter_updates import read_updates
from pharos.model.base_files import stored_tensors
from pharos.model.loading import load_model
from pharos.model.merge import match_weights
from pharos.model.merge_shards import DTYPES

# Of the logits' scale: how far rounding the merged weights may move a logit. A bfloat16 has 8 significant bits, a
# float16 has 11; the errors of one layer's weights add up like noise over d_in and over the layers.
MAX_ROUNDING = {torch.bfloat16: 0.1, torch.float16: 0.0125}
# Where two ways to the same fp32 sum differ in the last bit, a few weights round to the other neighbour.
ROUNDING_SLACK = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How near the merged model is. All but `num_rows` are in units of logits.

    max_abs_difference: to the reference. scale: max(1, largest absolute logit of base + adapter).
    bound: what max_abs_difference had to stay under.
    rounding: how far rounding to the stored dtype moves a logit, 0 where nothing is rounded.
    """

    max_abs_difference: float
    scale: float
    bound: float
    rounding: float
    num_rows: int


def check_parity(
    base_dir: Path,
    adapter_dir: Path,
    merged_dir: Path,
    rows: Sequence[Sequence[int]],
    *,
    dtype: torch.dtype = torch.float32,
    tolerance: float = 1e-5,
    max_rounding: float | None = None,
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> Parity:
    """Compare the logits of merged model and base + adapter on `rows`, token ids of held-out rows.

    All logits of the rows are kept: a few short rows do. Compute is in `dtype`, whatever the weights are stored in.

    Args:
        tolerance: of the logits' scale.
        max_rounding: how far rounding to the stored dtype may move a logit, of the logits' scale; None: as the dtype
            is known to.

    Raises HandOverError with the figures if they differ by more, and if the merged model is not whole.
    """
    if not rows or not all(rows):
        raise HandOverError("The parity check needs rows, and each needs at least one token.")
    updates = read_updates(adapter_dir)
    try:
        stored = stored_tensors(merged_dir)
    except BaseModelError as error:
        raise HandOverError(f"The merged model is not whole: {error.message}") from error
    stored_dtypes = {
        (update.module, weight.rpartition(".")[2]): DTYPES[stored[weight].dtype]
        for weight, update in match_weights(updates, stored).items()
    }

    def load(directory: Path, adapter_dir: Path | None = None) -> nn.Module:
        return load_model(
            directory, dtype=dtype, adapter_dir=adapter_dir, device=device, trust_remote_code=trust_remote_code
        )

    model = load(base_dir, adapter_dir)
    expected = _logits(model, rows)
    scale = max(1.0, *(float(logits.abs().max()) for logits in expected))
    rounding = 0.0
    rounded_dtypes = set(stored_dtypes.values()) & set(MAX_ROUNDING)
    if rounded_dtypes:
        _merge_and_round(model, stored_dtypes)
        rounded = _logits(model, rows)
        rounding = _max_abs_difference(rounded, expected)
        expected = rounded
    del model  # before the next one is loaded

    difference = _max_abs_difference(_logits(load(merged_dir), rows), expected)
    bound = tolerance * scale + ROUNDING_SLACK * rounding
    figures = f"on {len(rows)} rows, with logits up to {scale:.3g}"
    if not difference <= bound:  # `>` would let NaN pass
        raise HandOverError(
            f"The merged model differs from base + adapter by {difference:.3g} in a logit {figures}; {bound:.3g} is "
            f"allowed. {merged_dir} must not be used."
        )
    if max_rounding is None:
        max_rounding = max((MAX_ROUNDING[kind] for kind in rounded_dtypes), default=0.0)
    allowed = max_rounding * scale
    if not rounding <= allowed:
        kinds = ", ".join(str(kind).removeprefix("torch.") for kind in rounded_dtypes)
        raise HandOverError(
            f"Rounding the merged weights to {kinds} moves a logit by {rounding:.3g} {figures}; {allowed:.3g} is "
            "allowed. Store the base in float32 and merge again."
        )
    return Parity(max_abs_difference=difference, scale=scale, bound=bound, rounding=rounding, num_rows=len(rows))


@torch.no_grad()
def _merge_and_round(model: nn.Module, stored_dtypes: dict[tuple[str, str], torch.dtype]) -> None:
    """Let PEFT merge its adapter in place, then round each changed parameter to the dtype that the file has it in.

    stored_dtypes: by the names of a module and of its parameter.
    """
    for (module, name), stored_dtype in stored_dtypes.items():
        layer = model.get_submodule(module)
        if hasattr(layer, "merge"):
            layer.merge()
            layer = layer.get_base_layer()
        elif hasattr(layer, "modules_to_save"):  # trained whole, and used in place of the base's
            layer = layer.modules_to_save["default"]
        parameter = getattr(layer, name)
        parameter.data.copy_(parameter.data.to(stored_dtype))


@torch.no_grad()
def _logits(model: nn.Module, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """One tensor (tokens, vocabulary) a row, on the CPU. Row by row: padding could not be told from a mistake."""
    device = next(model.parameters()).device
    return [model(input_ids=torch.tensor([row], device=device), use_cache=False).logits[0].cpu() for row in rows]


def _max_abs_difference(left: list[torch.Tensor], right: list[torch.Tensor]) -> float:
    """NaN if any logit is not a number."""
    return float(torch.stack([(one - other).abs().max() for one, other in zip(left, right, strict=True)]).max())
