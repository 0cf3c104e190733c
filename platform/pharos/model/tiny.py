"""The built-in base `builtin:tiny`: a small Llama, trained once on the standard library's docstrings, then found again.

What it is stands here, and needs no torch to be asked: a plan does its sums before the base exists. How it is trained
stands in tiny_pretraining.py, which is loaded only when there is something to train.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pharos.folders import ensure_folder
from pharos.model.tiny_tokenizer import (
    MODEL_MAX_LENGTH,
    TEXT_END_ID,
    TURN_END_ID,
    VOCAB_SIZE,
    corpus_digest,
    digest,
)

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the base is trained. Everything here, and the text, decides the name of its folder."""

    num_steps: int = 800
    rows: int = 36  # of one step
    row_tokens: int = 48
    warmup_steps: int = 30
    matrix_learning_rate: float = 0.02  # its peak
    learning_rate: float = 8e-3  # of embeddings and norms, its peak
    weight_decay: float = 0.01
    chat_share: float = 0.4  # of the rows are turns that answer with words of the question
    repeat_share: float = 0.4  # of the rows repeat some words; the rest is plain text
    seed: int = 0
    version: int = 2  # raise it when the code of tiny_pretraining.py changes what is trained

    def rate_at(self, step: int) -> float:
        """The share of the peak rate at a step counted from 0: a linear rise, a linear fall."""
        return min((step + 1) / self.warmup_steps, (self.num_steps - step) / self.num_steps)


def tiny_config() -> dict:
    """The architecture, under the names of a Llama `config.json`."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 160,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 40,
        "max_position_embeddings": MODEL_MAX_LENGTH,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": TURN_END_ID,
        "pad_token_id": TEXT_END_ID,
    }


def ensure_tiny_base(cache_dir: Path, *, progress: Progress | None = None) -> Path:
    """The folder of the base under `cache_dir`, trained on the first call (about a minute) and found on the next.

    It is a plain Hugging Face folder with its tokenizer. Two processes may call this at once.

    Args:
        progress: told (steps done, steps in all) as the training goes on.

    Raises BaseModelError if the standard library has no source to read docstrings from.
    """
    return ensure_base(cache_dir, Recipe(), progress=progress)


def tiny_base_folder(cache_dir: Path, recipe: Recipe | None = None) -> Path:
    """Where the base of this recipe (none: the built-in one) stands under `cache_dir`, built or not."""
    made_of = {"corpus": corpus_digest(), "config": tiny_config(), "recipe": asdict(recipe or Recipe())}
    return cache_dir / f"tiny-{digest(made_of)}"


def ensure_base(cache_dir: Path, recipe: Recipe, *, progress: Progress | None = None) -> Path:
    """`ensure_tiny_base` by another recipe."""

    def write(folder: Path) -> None:
        from pharos.model.tiny_pretraining import write_base  # torch, only when there is something to train

        write_base(folder, tiny_config(), recipe, progress)

    return ensure_folder(tiny_base_folder(cache_dir, recipe), write)
