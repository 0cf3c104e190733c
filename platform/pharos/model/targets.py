"""Which modules of a loaded model carry an adapter, and their sizes.

The choice is PEFT's: `all-linear` is every Linear but the output embedding, a list chooses by the last parts of a name.
"""

from __future__ import annotations

from torch import nn

from pharos.model.facts import TargetChoice, select_targets


def target_modules(model: nn.Module, choice: TargetChoice) -> dict[str, tuple[int, int]]:
    """Name -> (d_in, d_out) of the Linear modules that `lora.target_modules` chooses, in the model's own order.

    Sizes are the modules', not their parameters': under ZeRO-3 a parameter between uses is an empty tensor.
    Raises BaseModelError if an entry chooses nothing.
    """
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    linears = {
        name: (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not output
    }
    return {name: linears[name] for name in select_targets(list(linears), choice)}
