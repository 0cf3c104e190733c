"""Merging an adapter into a 4 GB base in 1 GB shards: peak memory, and time against copying the same files.

The base is an 8B-shaped Llama of eight layers in bfloat16 with made-up weights. It is merged by the real command line
in a process of its own; a copy reads, writes and syncs the same files. Before each, the files' pages are dropped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tests.benchmarks.reporting import Options, Report, Table, Target
from torch import nn

from pharos.model.adapter_files import read_adapter, write_adapter
from pharos.model.base_files import stored_tensors, weight_files
from pharos.model.merge import merge_adapter

ROOT = Path(__file__).parents[2]
REPETITIONS = 3
CHUNK_BYTES = 1 << 24
MERGE = """
import json, sys, time
from pathlib import Path
from pharos.cli import main
import pharos.handover.export  # loads torch, which takes seconds: not part of the merge
sys.argv = ["pharos", "merge", *sys.argv[1:]]
started = time.monotonic()
try:
    main()
except SystemExit as left:
    assert not left.code, left.code
status = Path("/proc/self/status").read_text()  # not getrusage: its peak is inherited from the process that started us
print(json.dumps({"seconds": time.monotonic() - started, "bytes": int(status.split("VmHWM:")[1].split()[0]) * 1024}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    key_values: int
    shard_bytes: int


LARGE = Shape(
    hidden=4096, intermediate=14336, layers=8, vocabulary=32000, key_values=1024, shard_bytes=10**9
)  # 4.0 GB in bfloat16
SMALL = Shape(hidden=64, intermediate=96, layers=2, vocabulary=512, key_values=32, shard_bytes=10**5)


def run(options: Options) -> Report:
    torch.set_num_threads(1)
    shape = SMALL if options.smoke else LARGE
    with tempfile.TemporaryDirectory(prefix="pharos-merge-") as name:
        place = Path(name)
        base, adapter = write_base(place / "base", shape), place / "adapter"
        write_lora(adapter, base, r=16)
        timed = [_round(place, base, adapter) for _ in range(1 if options.smoke else REPETITIONS)]
        apart = _largest_spacings_apart(base, adapter, place / "merged")
        logits = _logit_difference(place / "exact")
        size_bytes = sum(file.stat().st_size for file in weight_files(base))
        shards = len(weight_files(base))
    ratio = median(row["merged s"] / max(row["copied s"], 0.01) for row in timed)  # in small, a copy takes no time
    peak_gb = max(row["peak GB"] for row in timed)
    return Report(
        settings={"base": f"{size_bytes / 10**9:.2f} GB, bfloat16, {shards} shards", "r": 16, "threads": 1},
        tables=[Table(title="merging, against copying and syncing the same files", rows=timed)],
        quality={
            "largest difference from PEFT's merge of sampled weights, in spacings of bfloat16": apart,
            "largest difference of a logit from base + adapter in PEFT, fp32, small model": logits,
        },
        targets=[
            Target(what="peak memory of the command, GB", measured=peak_gb, limit=1.6, at_most=True),
            Target(what="merging / copying and syncing", measured=ratio, limit=3.0, at_most=True),
            Target(what="logits against base + adapter, fp32", measured=logits, limit=1e-5, at_most=True),
        ],
    )


def _round(place: Path, base: Path, adapter: Path) -> dict[str, Any]:
    """Copy, then merge; what they wrote is removed first, and the last merge stays."""
    shutil.rmtree(place / "merged", ignore_errors=True)
    _drop_pages(base)
    started = monotonic()
    _copy_and_sync(base, place / "copied")
    copied_s = monotonic() - started
    shutil.rmtree(place / "copied")
    _drop_pages(base)
    merged = _merge(base, adapter, place / "merged")
    return {
        "copied s": round(copied_s, 2),
        "merged s": round(merged["seconds"], 2),
        "whole command s": round(merged["command"], 2),
        "ratio": round(merged["seconds"] / copied_s, 2),
        "peak GB": round(merged["bytes"] / 10**9, 3),
    }


def _merge(base: Path, adapter: Path, output: Path) -> dict[str, float]:
    command = [sys.executable, "-c", MERGE, str(adapter), "--base", str(base), "--output", str(output)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "platform")}
    started = monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {"command": monotonic() - started} | json.loads(done.stdout.splitlines()[-1])


def _copy_and_sync(source: Path, target: Path) -> None:
    target.mkdir()
    for file in source.iterdir():
        with file.open("rb") as stream, (target / file.name).open("wb") as output:
            while chunk := stream.read(CHUNK_BYTES):
                output.write(chunk)
            output.flush()
            os.fsync(output.fileno())


def _drop_pages(directory: Path) -> None:
    """Forget what the kernel holds of the files, so that they are read from the disk."""
    for file in directory.iterdir():
        with file.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write_base(directory: Path, shape: Shape) -> Path:
    """A Llama in shards with an index, one shard in memory at a time."""
    directory.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": 32 if shape is LARGE else 4,
        "num_key_value_heads": 8 if shape is LARGE else 2,
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    (directory / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    pattern = (torch.randn(1 << 20) * 0.02).to(torch.bfloat16)
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    left = shape.shard_bytes
    for name, size in _sizes(shape).items():
        num_bytes = 2 * torch.Size(size).numel()
        if num_bytes > left and shards[-1]:
            shards.append({})
            left = shape.shard_bytes
        shards[-1][name] = size
        left -= num_bytes
    weight_map = {}
    for number, sizes in enumerate(shards):
        file = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        weight_map |= dict.fromkeys(sizes, file)
        _write_shard(directory / file, sizes, pattern)
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def _write_shard(file: Path, sizes: Mapping[str, tuple[int, ...]], pattern: torch.Tensor) -> None:
    tensors = {}
    for name, size in sizes.items():
        count = torch.Size(size).numel()
        tensors[name] = pattern.repeat(-(-count // len(pattern)))[:count].view(size)
    save_file(tensors, file, metadata={"format": "pt"})
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _sizes(shape: Shape) -> dict[str, tuple[int, ...]]:
    hidden, wide, narrow = shape.hidden, shape.intermediate, shape.key_values
    layer = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (narrow, hidden),
        "self_attn.v_proj": (narrow, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (wide, hidden),
        "mlp.up_proj": (wide, hidden),
        "mlp.down_proj": (hidden, wide),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    sizes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocabulary, hidden)}
    for number in range(shape.layers):
        sizes |= {f"model.layers.{number}.{name}.weight": size for name, size in layer.items()}
    return sizes | {"model.norm.weight": (hidden,), "lm_head.weight": (shape.vocabulary, hidden)}


def write_lora(directory: Path, base: Path, *, r: int) -> None:
    """An adapter on every Linear of the layers."""
    torch.manual_seed(1)
    tensors = {
        name.removesuffix(".weight"): (torch.randn(r, tensor.shape[1]) * 0.02, torch.randn(tensor.shape[0], r) * 0.02)
        for name, tensor in stored_tensors(base).items()
        if "_proj" in name
    }
    write_adapter(
        directory,
        tensors=tensors,
        r=r,
        lora_alpha=2.0 * r,
        lora_dropout=0.0,
        use_rslora=False,
        target_modules=list(tensors),
        base_name=str(base),
    )


def _largest_spacings_apart(base: Path, adapter_dir: Path, merged: Path) -> float:
    """Between merged weights of some modules and what PEFT merges, each rounded once: two fp32 sums may round apart."""
    adapter = read_adapter(adapter_dir)
    apart = 0.0
    for module in list(adapter.tensors)[:: max(1, len(adapter.tensors) // 4)]:
        expected = _merged_by_peft(_weight(base, module), *adapter.tensors[module], adapter.r, adapter.lora_alpha)
        ours = _weight(merged, module)
        spacing = torch.finfo(torch.bfloat16).eps * expected.abs().clamp(min=1e-30)
        apart = max(apart, float(((ours.float() - expected.bfloat16().float()).abs() / spacing).max()))
    return apart


def _weight(directory: Path, module: str) -> torch.Tensor:
    stored = stored_tensors(directory)[f"{module}.weight"]
    with safe_open(stored.file, framework="pt") as file:
        tensor: torch.Tensor = file.get_tensor(stored.name)
    return tensor


def _merged_by_peft(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, r: int, alpha: float) -> torch.Tensor:
    from peft import LoraConfig, get_peft_model

    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data = weight.float()
    model = get_peft_model(nn.Sequential(linear), LoraConfig(r=r, lora_alpha=alpha, target_modules=["0"]))
    layer = model.base_model.model[0]
    layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data = a, b
    merged: torch.Tensor = model.merge_and_unload()[0].weight.data
    return merged


def _logit_difference(place: Path) -> float:
    """Of a small Llama in fp32: merged and loaded plainly, against base + adapter by stock PEFT."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(2)
    config = LlamaConfig(
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        vocab_size=1024,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(place / "base", max_shard_size="2MB")
    write_lora(place / "adapter", place / "base", r=8)
    merge_adapter(place / "base", place / "adapter", place / "merged")
    tokens = torch.arange(64)[None] * 13 % 1024
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(place / "merged").eval()(tokens).logits
        base = AutoModelForCausalLM.from_pretrained(place / "base")
        expected = PeftModel.from_pretrained(base, place / "adapter").eval()(tokens).logits
    return float((merged - expected).abs().max())
