"""cluster/aws.yaml, gcp.yaml and azure.yaml as `ray up` takes them, with nothing left to Ray's defaults."""

from __future__ import annotations

import json
import re
import shlex
import warnings
from pathlib import Path
from typing import Any

import pytest
import ray.autoscaler
import typer
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from pharos.cli import app

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
CLOUDS = ("aws", "gcp", "azure")
RAY = Path(ray.autoscaler.__file__).parent
SCHEMA = json.loads((RAY / "ray-schema.json").read_text())
LOCK = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line)


def text(cloud: str) -> str:
    return (CLUSTER / f"{cloud}.yaml").read_text()


def config(cloud: str) -> dict[str, Any]:
    return yaml.safe_load(text(cloud))


def commands(cloud: str) -> list[str]:
    return [command for key, listed in config(cloud).items() if key.endswith("commands") for command in listed]


def ray_starts(cloud: str, kind: str) -> list[dict[str, Any]]:
    """The options of each `ray start`, as Ray's own command line reads them."""
    with warnings.catch_warnings():  # of Ray Serve's models, which Ray's commands import
        warnings.simplefilter("ignore", DeprecationWarning)
        from ray.scripts.scripts import start

    found = [
        shlex.split(part.partition("ray start ")[2])
        for command in config(cloud)[f"{kind}_start_ray_commands"]
        for part in command.split(";")
        if "ray start " in part
    ]
    return [start.make_context("start", arguments).params for arguments in found]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_ray_takes_the_file_and_adds_nothing_of_its_own(cloud: str) -> None:
    ours = config(cloud)
    prepared = prepare_config(config(cloud))
    validate_config(prepared)
    assert set(prepared) == set(ours)
    changed = {key for key in ours if prepared[key] != ours[key]}
    # Ray puts the common setup before those of head and workers.
    assert changed <= {"head_setup_commands", "worker_setup_commands"}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_every_key_of_rays_schema_is_set(cloud: str) -> None:
    ours = config(cloud)
    assert set(SCHEMA["properties"]) - set(ours) == {"no_restart"}  # which a flag of `ray up` sets
    docker = SCHEMA["properties"]["docker"]["properties"]
    assert set(docker) - set(ours["docker"]) == {"head_image", "worker_image"}  # one image for all
    for name, kind in ours["available_node_types"].items():
        assert {"min_workers", "max_workers", "resources", "node_config"} <= set(kind), name
    # And what the cloud's own defaults would fill in.
    defaults = yaml.safe_load((RAY / cloud / "defaults.yaml").read_text())
    assert set(defaults["provider"]) <= set(ours["provider"])
    assert set(defaults["auth"]) <= set(ours["auth"])


@pytest.mark.parametrize("cloud", CLOUDS)
def test_nothing_listens_to_the_world_and_everything_wants_a_token(cloud: str) -> None:
    [head] = ray_starts(cloud, "head")
    [worker] = ray_starts(cloud, "worker")
    assert head["head"] is True
    assert head["dashboard_host"] == "127.0.0.1"
    assert worker["address"] == "$RAY_HEAD_IP:6379"
    assert head["port"] == 6379
    assert head["disable_usage_stats"] is True
    assert "0.0.0.0" not in " ".join(commands(cloud))
    options = config(cloud)["docker"]["run_options"]
    mounted = config(cloud)["file_mounts"]
    assert "--env RAY_AUTH_MODE=token" in options
    [path] = [option.partition("RAY_AUTH_TOKEN_PATH=")[2] for option in options if "RAY_AUTH_TOKEN_PATH=" in option]
    assert mounted == {path: "~/.ray/auth_token", "/home/pharos/.mlflow/credentials": "~/.mlflow/credentials"}
    assert not re.search(r"\b[0-9a-f]{32,}\b", text(cloud)), "a token in the file"


@pytest.mark.parametrize("cloud", CLOUDS)
def test_image_and_versions_are_pinned(cloud: str) -> None:
    ours = config(cloud)
    assert re.search(r"/pharos:\d+\.\d+\.\d+$", ours["docker"]["image"])
    [check] = [command for command in ours["setup_commands"] if "ray.__version__" in command]
    assert f"== '{LOCK['ray']}'" in check
    assert not re.search(r"\blatest\b(?!`)", text(cloud).replace("never `latest`", ""))
    assert not any(re.search(r"\b(pip|conda|apt-get|curl)\b", command) for command in commands(cloud))
    # An edit is needed in the first lines alone, and where the same word stands again.
    assert "EDIT" in text(cloud)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_head_trains_nothing_and_workers_come_and_go(cloud: str) -> None:
    ours = config(cloud)
    [head] = ray_starts(cloud, "head")
    kinds = ours["available_node_types"]
    assert (head["num_cpus"], head["num_gpus"]) == (0, 0)
    assert kinds[ours["head_node_type"]]["resources"] == {"CPU": 0}
    assert kinds["head"]["max_workers"] == 0
    assert kinds["worker"]["min_workers"] == 0
    assert kinds["worker"]["max_workers"] == ours["max_workers"] > 1
    assert kinds["worker"]["resources"]["GPU"] > 0
    assert 0 < ours["idle_timeout_minutes"] <= 15
    assert ours["provider"]["cache_stopped_nodes"] is False


def test_workers_are_on_spot_and_heads_on_demand() -> None:
    aws, gcp, azure = (config(cloud)["available_node_types"] for cloud in CLOUDS)
    assert aws["worker"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert "InstanceMarketOptions" not in aws["head"]["node_config"]
    assert gcp["worker"]["node_config"]["scheduling"]["provisioningModel"] == "SPOT"
    assert gcp["head"]["node_config"]["scheduling"]["provisioningModel"] == "STANDARD"
    assert azure["worker"]["node_config"]["azure_arm_parameters"]["priority"] == "Spot"
    assert azure["head"]["node_config"]["azure_arm_parameters"]["priority"] == "Regular"


@pytest.mark.parametrize("cloud", CLOUDS)
def test_workers_watch_for_their_clouds_notices(cloud: str) -> None:
    stop, watch = config(cloud)["worker_start_ray_commands"][-2:]
    command = f"pharos watch-notices --cloud {cloud}"
    assert watch == f"setsid --fork {command} </dev/null >/tmp/ray-notices.log 2>&1"
    # A watcher of an earlier `ray up` is ended. The pattern must not find the shell that runs it.
    pattern = re.search(r"pkill --full '(.+)' \|\| true$", stop)[1]
    assert re.search(pattern, command)
    assert not re.search(pattern, stop)
    verb, *arguments = shlex.split(command)[1:]
    with typer.main.get_command(app).commands[verb].make_context(verb, arguments) as context:
        assert context.params["cloud"] == cloud


def test_azures_parameters_are_those_of_rays_template() -> None:
    template = json.loads((RAY / "_private" / "_azure" / "azure-vm-template.json").read_text())["parameters"]
    types = {"string": str, "securestring": str, "int": int, "bool": bool, "object": dict, "array": list}
    given_by_ray = {"vmName", "vmCount", "vmTags", "msi", "nsg", "subnet", "provisionPublicIp", "zones"}
    given_by_ray |= {"adminUsername", "publicKey"}
    for kind in config("azure")["available_node_types"].values():
        ours = dict(kind["node_config"]["azure_arm_parameters"])
        assert isinstance(ours.pop("availability_zone"), str)  # Ray's own key
        assert not set(ours) & given_by_ray
        assert set(template) - set(ours) - given_by_ray == {"imageId"}  # the other way to name an image
        for name, value in ours.items():
            assert isinstance(value, types[template[name]["type"]]), name


def test_gcps_machines_are_what_the_compute_api_takes() -> None:
    discovery = pytest.importorskip(
        "googleapiclient.discovery_cache", reason="not checked against GCP's API: google-api-python-client is missing"
    )
    schemas = json.loads(discovery.get_static_doc("compute", "v1"))["schemas"]

    def unknown(value: Any, schema: dict[str, Any], where: str) -> list[str]:
        schema = schemas[schema["$ref"]] if "$ref" in schema else schema
        if isinstance(value, list):
            return [wrong for one in value for wrong in unknown(one, schema["items"], where)]
        if isinstance(value, dict):
            known = schema.get("properties", {})
            other = schema.get("additionalProperties")
            return [
                wrong
                for key, inner in value.items()
                for wrong in (
                    unknown(inner, known.get(key) or other, f"{where}.{key}")
                    if key in known or other
                    else [f"{where}.{key}"]
                )
            ]
        types = {"string": str, "integer": int, "boolean": bool}
        right = isinstance(value, types[schema["type"]]) or schema.get("format") == "int64"
        return [] if right and value in schema.get("enum", [value]) else [f"{where}={value}"]

    for name, kind in config("gcp")["available_node_types"].items():
        assert unknown(kind["node_config"], {"$ref": "Instance"}, name) == []
