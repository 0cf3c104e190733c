"""Loading a whole model into one process, quietly, for checks and for generation. Training loads its own way.

transformers' progress bars and load reports stay silent: a weight that is missing is an error here, not a warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from pharos.errors import BaseModelError, HandOverError
from pharos.model.base_files import stored_tensors


def load_model(
    directory: Path,
    *,
    dtype: torch.dtype,
    adapter_dir: Path | None = None,
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """The model in `directory` in evaluation mode, its floating-point weights in `dtype`.

    Args:
        adapter_dir: an adapter that stock PEFT injects into it, unmerged.

    Raises HandOverError if a weight is missing, has another shape, or lies in a file that is not whole.
    """
    try:
        stored_tensors(directory)  # says which file is truncated; transformers would not
    except BaseModelError as error:
        raise HandOverError(error.message) from error
    with quiet():
        model, report = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
        )
        lacking = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
        if lacking:
            raise HandOverError(f"{directory} lacks {len(lacking)} of the model's weights: {', '.join(lacking[:3])}.")
        if adapter_dir is not None:
            from peft import PeftModel

            # PEFT 0.21 asks for an attribute that transformers 5.23 has renamed.
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
            # What PEFT injected stays in the base; its wrapper would only be in the way of `generate`.
            model = PeftModel.from_pretrained(model, adapter_dir).get_base_model()
    return model.to(device).eval()


@contextmanager
def quiet() -> Iterator[None]:
    """No bars, reports or warnings of transformers while a model is loaded."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
