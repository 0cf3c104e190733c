"""How much arithmetic training did, from the base's shape and the tokens that passed. Pure."""

from __future__ import annotations

from pharos.plan.facts import BaseFacts

FLOPS_PER_PARAMETER_AND_TOKEN = 4
"""Of a frozen weight: a multiplication and an addition forward, and as many again for the gradient of its input.

Kaplan et al., Scaling Laws for Neural Language Models (2020), section 2.1, count 2 N forward and 4 N backward for each
token; half of the 4 N is the weights' own gradient, which a frozen weight does not take.
"""


def training_flops(base: BaseFacts, *, num_row_tokens: int, num_tokens: int) -> float:
    """Floating-point operations of clocks that took `num_row_tokens` through the layers and trained on `num_tokens`.

    Layers see all tokens of rows, the output layer the trained ones alone. Left out, so that the figure is rather low:
    attention scores, adapters, pads, recomputed activations, evaluations.
    """
    layers = base.num_hidden_layers * base.num_layer_parameters
    output = base.vocab_size * base.hidden_size
    return float(FLOPS_PER_PARAMETER_AND_TOKEN * (layers * num_row_tokens + output * num_tokens))
