"""What a plan must know of a base, read from config.json and the headers of its weight files: sizes, targets, digests.

Free of torch: a plan of an 8B model takes a second and no memory. Where weights are not on disk yet, the shapes follow
from the config, and the facts say that they are estimated.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pharos.errors import BaseModelError
from pharos.model.base_files import has_whole_weights, read_config, stored_tensors, weight_files
from pharos.plan.facts import BaseFacts, TargetModule

TargetChoice = Literal["all-linear"] | Sequence[str]

LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
NOT_LINEAR = re.compile(r"norm|embed|conv|\.experts\.")  # transformers holds experts in one stacked parameter
# Their layers are all made of q, k, v, o and gate, up, down projections.
LLAMA_LIKE = {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "olmo2", "granite", "smollm3"}
BIASED_QKV = {"qwen2"}  # biases that no key of the config mentions
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json"),
)


def base_facts(
    name: str,
    directory: Path | None,
    *,
    target_modules: TargetChoice = "all-linear",
    tokenizer_directory: Path | None = None,
) -> BaseFacts:
    """The facts of a base.

    Args:
        name: as the user wrote it.
        directory: its files; None is builtin:tiny before it is built.
        target_modules: `lora.target_modules`.
        tokenizer_directory: where the tokenizer is, if not in `directory`.

    Raises BaseModelError if a suffix of `target_modules` names no module, if a file is broken, or if the weights are
    not on disk and the architecture is none whose shapes follow from its config.
    """
    if directory is None:
        from pharos.model.tiny import tiny_config

        config = tiny_config()
    else:
        config = read_config(directory)
    estimated = directory is None or not has_whole_weights(directory)
    shapes = _expected_shapes(name, config) if estimated else _stored_shapes(directory, config)

    layer_parameters: dict[int, int] = defaultdict(int)
    for tensor, shape in shapes.items():
        if layer := LAYER.search(tensor):
            layer_parameters[int(layer[1])] += math.prod(shape)
    linears = {
        tensor.removesuffix(".weight"): shape
        for tensor, shape in shapes.items()
        if LAYER.search(tensor) and tensor.endswith(".weight") and len(shape) == 2 and not NOT_LINEAR.search(tensor)
    }
    hidden_size = _config_number(config, "hidden_size", "n_embd", "d_model")
    tokenizer = tokenizer_directory or directory
    return BaseFacts(
        name=name,
        directory=str(directory) if directory else None,
        architecture=next(iter(config.get("architectures") or []), "unknown"),
        hidden_size=hidden_size,
        intermediate_size=_config_number(config, "intermediate_size", "ffn_dim", "n_inner") or 4 * hidden_size,
        num_hidden_layers=_config_number(config, "num_hidden_layers", "n_layer") or len(layer_parameters),
        vocab_size=_config_number(config, "vocab_size"),
        max_position_embeddings=_config_number(config, "max_position_embeddings", "n_positions"),
        num_parameters=sum(math.prod(shape) for shape in shapes.values()),
        num_layer_parameters=max(layer_parameters.values(), default=0),
        targets=tuple(
            TargetModule(name=module, d_in=linears[module][1], d_out=linears[module][0])
            for module in select_targets(list(linears), target_modules)
        ),
        digest=directory_digest(directory) if directory else _digest(json.dumps(config, sort_keys=True).encode()),
        tokenizer_digest=tokenizer_digest(tokenizer) if tokenizer else "",
        estimated=estimated,
    )


def select_targets(modules: Sequence[str], choice: TargetChoice) -> list[str]:
    """Those of `modules` that `lora.target_modules` chooses, in their order.

    A list chooses as PEFT does: a module whose full name, or whose last parts, are an entry. Unlike PEFT, an entry that
    chooses nothing is an error even if others do. Raises BaseModelError for it, or if there is no module at all.
    """
    if not modules:
        raise BaseModelError(
            "lora.target_modules: the base has no Linear module that could carry an adapter. Choose a base whose "
            "layers are torch.nn.Linear."
        )
    if isinstance(choice, str):
        return list(modules)
    if not choice:
        raise BaseModelError("lora.target_modules=[] chooses nothing. Name modules, or write all-linear.")
    suffixes = sorted({module.rsplit(".", 1)[-1] for module in modules})
    for entry in choice:
        if not any(_is_chosen(module, entry) for module in modules):
            near = difflib.get_close_matches(entry, [*suffixes, *modules], n=2)
            hint = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(suffixes)}."
            raise BaseModelError(f"lora.target_modules={entry} names no Linear module in the base's layers. {hint}")
    return [module for module in modules if any(_is_chosen(module, entry) for entry in choice)]


def directory_digest(directory: Path) -> str:
    """Of config.json and of each weight file its name, size and header: changes with the model, reads no weights."""
    content = hashlib.sha256(json.dumps(read_config(directory), sort_keys=True).encode())
    for file in weight_files(directory) if has_whole_weights(directory) else []:
        with file.open("rb") as stream:
            header = stream.read(int.from_bytes(stream.read(8), "little"))
        content.update(f"\n{file.name} {file.stat().st_size} ".encode() + header)
    return content.hexdigest()[:16]


def tokenizer_digest(directory: Path) -> str:
    """Of the content of the tokenizer's files and the chat template."""
    files = [directory / name for name in TOKENIZER_FILES if (directory / name).is_file()]
    return _digest(b"".join(file.name.encode() + b"\n" + file.read_bytes() for file in files))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _is_chosen(module: str, entry: str) -> bool:
    return module == entry or module.endswith(f".{entry}")


def _stored_shapes(directory: Path | None, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of what the files hold, layer by layer."""
    assert directory is not None
    tensors = stored_tensors(directory).values()
    shapes = {tensor.name: tensor.shape for tensor in tensors if not tensor.name.endswith("inv_freq")}  # a buffer
    if config.get("tie_word_embeddings"):
        shapes.pop("lm_head.weight", None)  # some files hold the shared matrix twice
    return dict(sorted(shapes.items(), key=lambda item: (_layer_of(item[0]), item[0])))


def _layer_of(tensor: str) -> int:
    layer = LAYER.search(tensor)
    return int(layer[1]) if layer else -1


def _expected_shapes(name: str, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape as a Llama-like architecture makes them from its config."""
    if config.get("model_type") not in LLAMA_LIKE:
        raise BaseModelError(
            f"base={name}: its weights are not on disk, and the shapes of model_type={config.get('model_type')} do not "
            "follow from its config. Download the model first."
        )
    hidden, intermediate, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    d_query, d_key = heads * head_dim, (config.get("num_key_value_heads") or heads) * head_dim
    attention = {"q_proj": (d_query, hidden), "k_proj": (d_key, hidden), "v_proj": (d_key, hidden)}
    attention["o_proj"] = (hidden, d_query)
    mlp = {"gate_proj": (intermediate, hidden), "up_proj": (intermediate, hidden), "down_proj": (hidden, intermediate)}
    biased = set(attention) if config.get("attention_bias") else set()
    if config.get("model_type") in BIASED_QKV:
        biased = {"q_proj", "k_proj", "v_proj"}
    if config.get("mlp_bias"):
        biased |= set(mlp)

    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    if not config.get("tie_word_embeddings", config.get("model_type", "").startswith("gemma")):
        shapes["lm_head.weight"] = (vocab, hidden)
    for layer in range(config["num_hidden_layers"]):
        for part, linears in (("self_attn", attention), ("mlp", mlp)):
            for linear, shape in linears.items():
                module = f"model.layers.{layer}.{part}.{linear}"
                shapes[f"{module}.weight"] = shape
                if linear in biased:
                    shapes[f"{module}.bias"] = shape[:1]
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"model.layers.{layer}.{norm}.weight"] = (hidden,)
    return shapes


def _config_number(config: Mapping[str, Any], *keys: str) -> int:
    """The first of `keys` that the config gives a number, 0 if none does: architectures name one thing differently."""
    return next((int(config[key]) for key in keys if config.get(key) is not None), 0)
