"""What models and data share of the Hugging Face hub: one question before anything is fetched, and silence meanwhile.

huggingface_hub repeats a request for half a minute where no one answers, with a warning each time. A person without a
network is told at once; repeating is for downloads that have begun.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from huggingface_hub import DatasetInfo, ModelInfo

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def ask_hub(kind: Literal["model", "dataset"], name: str, *, revision: str | None) -> ModelInfo | DatasetInfo:
    """What the hub says of a repository, its present name (id) and its commit (sha) among it.

    Asked once, for HF_HUB_ETAG_TIMEOUT seconds at most (10). Raises HubAway, and what huggingface_hub raises where the
    hub answers with a refusal.
    """
    import httpx2
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    ask = HfApi().model_info if kind == "model" else HfApi().dataset_info
    try:
        with quiet():
            return ask(name, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except OfflineModeIsEnabled as error:
        raise HubAway("HF_HUB_OFFLINE is set") from error
    except httpx2.TransportError as error:
        raise HubAway(str(error) or type(error).__name__) from error
    except HfHubHTTPError as error:
        if error.response.status_code < 500:
            raise
        raise HubAway(f"it answers with code {error.response.status_code}") from error


class HubAway(Exception):
    """The hub does not answer, or is not to be asked; the message says which."""


@contextmanager
def quiet() -> Iterator[None]:
    """No bars and no warnings of the library that downloads: what goes wrong is said once, by the error.

    Its bars would be drawn across the view of a sweep.
    """
    from huggingface_hub.utils import logging
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    verbosity, had_bars = logging.get_verbosity(), not are_progress_bars_disabled()
    logging.set_verbosity_error()
    disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            enable_progress_bars()
