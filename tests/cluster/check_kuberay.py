"""Holds cluster/kuberay to the CRDs of KubeRay, strictly: a field that they do not know is an error.

    python tests/cluster/check_kuberay.py CRD_FOLDER

CRD_FOLDER holds ray.io_rayclusters.yaml and ray.io_rayjobs.yaml of KubeRay's helm chart (kuberay-operator/crds), which
are not part of this repository. Kubernetes itself drops unknown fields and says nothing.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
FILES = {"RayCluster": "ray.io_rayclusters.yaml", "RayJob": "ray.io_rayjobs.yaml"}
MANIFESTS = [ROOT / "cluster" / "kuberay" / name for name in ("raycluster.yaml", "rayjob.yaml")]


def strict(schema: Any) -> Any:
    """The schema with every object closed that names its fields."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(part) for key, part in schema.items()}
    names_fields = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if names_fields and "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed["additionalProperties"] = False
    return closed


@cache
def schema_of(folder: Path, kind: str, version: str) -> dict[str, Any]:
    definition = yaml.load((folder / FILES[kind]).read_text(), Loader=yaml.CSafeLoader)
    [found] = [one for one in definition["spec"]["versions"] if one["name"] == version and one["served"]]
    return dict(strict(found["schema"]["openAPIV3Schema"]))


def pod_schema(folder: Path) -> dict[str, Any]:
    """The schema of a pod's template, as KubeRay takes it over from Kubernetes."""
    return schema_of(folder, "RayCluster", "v1")["properties"]["spec"]["properties"]["headGroupSpec"]["properties"][
        "template"
    ]


def mistakes(content: Any, schema: dict[str, Any]) -> list[str]:
    found = Draft202012Validator(schema).iter_errors(content)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}" for error in found]


def check(folder: Path, manifest: Path) -> list[str]:
    """The mistakes of a manifest, none where KubeRay's CRD takes it as it is."""
    content = yaml.safe_load(manifest.read_text())
    group, _, version = content["apiVersion"].partition("/")
    assert group == "ray.io"
    return mistakes(content, schema_of(folder, content["kind"], version))


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not all((Path(arguments[0]) / name).is_file() for name in FILES.values()):
        print(__doc__)
        print(f"not checked: CRD_FOLDER must hold {' and '.join(FILES.values())}", file=sys.stderr)
        return 2
    found = {manifest: check(Path(arguments[0]), manifest) for manifest in MANIFESTS}
    for manifest, wrong in found.items():
        print(f"{manifest.relative_to(ROOT)}: {'ok' if not wrong else f'{len(wrong)} mistakes'}")
        print("".join(f"  {mistake}\n" for mistake in wrong), end="")
    return int(any(found.values()))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
