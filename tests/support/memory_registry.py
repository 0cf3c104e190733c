"""A model registry in memory with the calls of MLflow's client that moving a champion needs, each of them atomic."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST


@dataclass(slots=True)
class Version:
    version: str
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Model:
    aliases: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class MemoryRegistry:
    """Held against MLflow's own by the tests that both run. delay_s: the longest that a call takes to arrive."""

    tracking_uri = "memory"

    def __init__(self, *, delay_s: float = 0.0) -> None:
        self._delay_s = delay_s
        self._models: dict[str, Model] = {}
        self._versions: dict[str, list[Version]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def _arrived(self) -> Iterator[None]:
        if self._delay_s:
            threading.Event().wait(random.random() * self._delay_s)
        with self._lock:
            yield

    def create_registered_model(self, name: str) -> None:
        self._models[name], self._versions[name] = Model(), []

    def create_model_version(self, name: str, source: str) -> Version:
        self._versions[name].append(Version(str(len(self._versions[name]) + 1)))
        return self._versions[name][-1]

    def get_registered_model(self, name: str) -> Any:
        with self._arrived():
            return Model(dict(self._models[name].aliases), dict(self._models[name].tags))

    def get_model_version(self, name: str, version: str) -> Any:
        return self._versions[name][int(version) - 1]

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        with self._arrived():
            self._versions[name][int(version) - 1].tags[key] = value

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        with self._arrived():
            self._models[name].tags[key] = value

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        with self._arrived():
            if key not in self._models[name].tags:
                raise MlflowException(f"no tag {key}", error_code=RESOURCE_DOES_NOT_EXIST)
            del self._models[name].tags[key]

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        with self._arrived():
            self._models[name].aliases[alias] = version

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        with self._arrived():
            self._models[name].aliases.pop(alias, None)
