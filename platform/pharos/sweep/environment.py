"""The environment that Ray and MLflow read when they are first imported. Set it before; this imports neither."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # No telemetry. MLflow would also write an id of this installation into the home directory.
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
LOCAL = {
    # A Ray that spans no machines takes 127.0.0.1 as its own address, as it does on a Mac, and listens nowhere else.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


def set_environment(*, address: str | None) -> None:
    """Quiet Ray and keep SIGINT ours. A cluster of our own (no address) takes requests with its token only.

    Nothing that is set already is touched. The token lives as long as this process and its children. A cluster that is
    there already has a mode and a token of its own: it is sent one where there is one, which Ray does only where told.
    """
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    if address is not None:
        os.environ.setdefault("RAY_AUTH_MODE", "token" if has_token() else "disabled")
        return
    for key, value in LOCAL.items():
        os.environ.setdefault(key, value)
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def has_token() -> bool:
    """Whether Ray would find a token, where it looks for one: a variable, a file that one names, the home directory."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    file = Path(named) if named else Path.home() / ".ray" / "auth_token"
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or file.is_file()
