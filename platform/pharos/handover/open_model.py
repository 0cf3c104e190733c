"""A model that was found, in memory with its tokenizer, ready to be evaluated or talked to. One process, one device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pharos.errors import HandOverError, ModelError
from pharos.handover.references import FoundModel
from pharos.model.adapter_updates import read_updates
from pharos.model.base_files import stored_tensors
from pharos.model.loading import load_model
from pharos.model.merge import match_weights

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenModel:
    """stop_ids: tokens at which the model's own files end an answer. pad_id fills batches."""

    found: FoundModel
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stop_ids: tuple[int, ...]
    pad_id: int


def open_model(found: FoundModel, *, dtype: str = "auto") -> OpenModel:
    """Load a model onto the GPU, or the CPU where there is none.

    dtype: float32, bfloat16, or auto: bfloat16 on a GPU, float32 on a CPU, as train.dtype. Raises ModelError for an
    adapter that is no LoRA adapter of its base, HandOverError for a model that is not whole.
    """
    from transformers import AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = ("bfloat16" if device == "cuda" else "float32") if dtype == "auto" else dtype
    if found.adapter_dir is not None:
        try:  # PEFT would load a pickle, and only warn of tensors that fit nowhere
            match_weights(read_updates(found.adapter_dir), stored_tensors(found.model_dir))
        except HandOverError as error:
            raise ModelError(f"{found.shown} does not fit {found.model_dir}: {error.message}") from error
    model = load_model(
        found.model_dir,
        dtype=DTYPES[kind],
        adapter_dir=found.adapter_dir,
        device=device,
        trust_remote_code=found.trust_remote_code,
    )
    tokenizer = AutoTokenizer.from_pretrained(
        found.model_dir, trust_remote_code=found.trust_remote_code, local_files_only=True
    )
    stop_ids = sorted({*_ids(model.generation_config.eos_token_id), *_ids(tokenizer.eos_token_id)})
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(stop_ids), 0)
    return OpenModel(found=found, model=model, tokenizer=tokenizer, stop_ids=tuple(stop_ids), pad_id=pad_id)


def _ids(value: int | list[int] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else value
