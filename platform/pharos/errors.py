"""The errors of Pharos. Each takes one finished message, so that it pickles and crosses Ray unchanged.

`UserError` and its kinds are mistakes in what a person wrote or started: exit code 2, no traceback.
Every other `PharosError` means that the work failed: exit code 1.
"""

from __future__ import annotations


class PharosError(Exception):
    """Something that Pharos knows how to say in one message."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UserError(PharosError):
    """What the user wrote or started cannot work; the message says what would."""

    exit_code = 2


class SpecError(UserError):
    """The spec file or an override is wrong. The message lists every mistake, one a line."""


class DataError(UserError):
    """A data file is missing, malformed, or holds rows that cannot be trained on."""


class BaseModelError(UserError):
    """The base cannot be used: not there, not a causal language model, or pickled weights only."""


class ModelError(UserError):
    """A model that was named cannot be found or used: no such version, alias, trial or directory, or no base for it."""


class PlanError(UserError):
    """The sweep as written cannot run: it does not fit, or its numbers contradict each other."""


class StorageError(UserError):
    """The storage cannot be written, or holds a sweep of this name with another spec."""


class TrackingError(UserError):
    """The tracking server is not there."""


class ClusterError(UserError):
    """Ray cannot be started or reached: an address that does not answer, a port in use."""


class HandOverError(PharosError):
    """The merged model failed a check; nothing was registered."""


class SweepFailed(PharosError):
    """The sweep ended without a result."""
