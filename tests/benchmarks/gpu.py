"""An 8B-shaped Llama with random weights on one GPU: tokens/s of K trials together against a PEFT loop, one at a time.

Beside it the share of the GPU's measured matmul peak, counting 4 FLOPs a parameter and token (forward, and backward to
the activations: a frozen base has no weight gradients) and nothing for recomputation. `--shape tiny` runs on a CPU.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass

import torch
from tests.benchmarks.loops import VOCAB_SIZE, PeftLoop, Seats, largest_difference, random_rows, trial
from tests.benchmarks.reporting import Options, Report, Table, Target
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from pharos.train.frozen_base import ReplicatedBase
from pharos.train.group import SingleProcess

TARGET_SEATS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """hidden_size to vocab_size as in a Llama config.json; row_tokens: of the one row of a micro-batch."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    vocab_size: int
    row_tokens: int
    seats: tuple[int, ...]
    num_steps: int
    matmul_size: int


SHAPES = {
    "8b": Shape(
        hidden_size=4096,
        intermediate_size=14336,
        num_layers=32,
        num_heads=32,
        num_key_value_heads=8,
        vocab_size=128_256,
        row_tokens=512,
        seats=(1, 4, 8, 16, 32),
        num_steps=8,
        matmul_size=8192,
    ),
    "tiny": Shape(
        hidden_size=32,
        intermediate_size=64,
        num_layers=2,
        num_heads=2,
        num_key_value_heads=1,
        vocab_size=VOCAB_SIZE,
        row_tokens=16,
        seats=(1, 4, 8),
        num_steps=2,
        matmul_size=256,
    ),
}


def run(options: Options) -> Report:
    name = options.shape or ("tiny" if options.smoke else "8b")
    shape = SHAPES[name]
    if name == "8b" and not torch.cuda.is_available():
        return Report(
            settings={"shape": name},
            tables=[],
            quality={"measured": False},
            notes=["no GPU is at hand, so nothing was measured; --shape tiny runs the same code on a CPU"],
        )
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    model = _model(shape, device)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    rows = random_rows(64, shortest=shape.row_tokens, longest=shape.row_tokens, vocab_size=shape.vocab_size)
    peak = _matmul_flops(shape.matmul_size, device)

    peft = PeftLoop(model, rows, r=16, autocast=True)
    plans = [trial(number, num_steps=shape.num_steps, batch_size=1, r=16) for number in range(max(shape.seats))]
    peft.train(plans[0])
    alone = peft.train(plans[0])
    alone_tokens_s = shape.num_steps * shape.row_tokens / alone.seconds
    model = peft.unload()
    del peft

    table, difference = [], 0.0
    for num_seats in shape.seats:
        _forget_hooks(model)
        gc.collect()
        try:
            seats = Seats(
                ReplicatedBase(model),
                rows,
                num_seats=num_seats,
                micro_batch_size=1,
                r_max=16,
                group=SingleProcess(device=device),
            )
            seats.train(plans[:num_seats])
            fused = seats.train(plans[:num_seats])
        except torch.OutOfMemoryError:
            table.append({"K": num_seats, "tokens/s": None, "against PEFT": None, "share of peak": None, "GB": None})
            continue
        tokens_s = num_seats * shape.num_steps * shape.row_tokens / fused.seconds
        difference = max(difference, largest_difference(fused.losses, alone.losses))
        table.append(
            {
                "K": num_seats,
                "tokens/s": round(tokens_s),
                "against PEFT": round(tokens_s / alone_tokens_s, 3),
                "share of peak": round(tokens_s * 4 * num_parameters / peak, 4),
                "GB": round(torch.cuda.max_memory_allocated() / 1e9, 1) if device.type == "cuda" else None,
            }
        )
    at_target = next((row for row in table if row["K"] == TARGET_SEATS and row["tokens/s"] is not None), None)
    is_real = name == "8b" and at_target is not None
    return Report(
        settings={
            "shape": name,
            "parameters": num_parameters,
            "dtype": "bfloat16",
            "micro-batch": f"1 x {shape.row_tokens}",
            "r": 16,
            "steps": shape.num_steps,
            "matmul peak, TFLOP/s": round(peak / 1e12, 2),
            "PEFT loop, tokens/s": round(alone_tokens_s),
            "PEFT loop, share of peak": round(alone_tokens_s * 4 * num_parameters / peak, 4),
        },
        tables=[Table(title="one frozen base, K trials; no figures: out of memory", rows=table)],
        quality={"measured": True, "largest difference of final losses from the PEFT loop": difference},
        targets=[
            Target(what="tokens/s against a PEFT loop, K=8", measured=at_target["against PEFT"], limit=2.0),
            Target(what="share of the matmul peak, best K", measured=_best_share(table), limit=0.45),
        ]
        if is_real
        else (),
    )


def _model(shape: Shape, device: torch.device) -> nn.Module:
    """Random weights, made on the device in bfloat16: nothing of this size passes through the host."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_key_value_heads,
        vocab_size=shape.vocab_size,
        max_position_embeddings=shape.row_tokens,
        tie_word_embeddings=False,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    return model.requires_grad_(False).eval()


def _matmul_flops(size: int, device: torch.device) -> float:
    """FLOP/s of a square bfloat16 product, the best of five runs of ten."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best_s = float("inf")
    for _ in range(5):
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(10):
            a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        best_s = min(best_s, (time.perf_counter() - started) / 10)
    return 2 * size**3 / best_s


def _forget_hooks(model: nn.Module) -> None:
    """Take the last bank's adapters off the base, so that the next one's are alone on it."""
    for module in model.modules():
        module._forward_hooks.clear()


def _best_share(table: list[dict]) -> float:
    return max(row["share of peak"] for row in table if row["share of peak"] is not None)
