"""cluster/kuberay and cluster/tracking/kubernetes: KubeRay's CRDs, strictly, and the rules that every pod must keep."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.check_kuberay import MANIFESTS, check, mistakes, pod_schema

from pharos.spec.load import load_spec

ROOT = Path(__file__).parents[2]
FOLDERS = [ROOT / "cluster" / "kuberay", ROOT / "cluster" / "tracking" / "kubernetes"]
LOCK = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line)


def documents(folder: Path) -> list[dict[str, Any]]:
    return [
        document
        for file in sorted(folder.glob("*.yaml"))
        if file.name != "kustomization.yaml"
        for document in yaml.safe_load_all(file.read_text())
    ]


def everything() -> list[dict[str, Any]]:
    return [document for folder in FOLDERS for document in documents(folder)]


def named(kind: str, name: str) -> dict[str, Any]:
    [found] = [one for one in everything() if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def templates() -> list[tuple[str, dict[str, Any]]]:
    """Every pod template, by the name of what holds it."""
    found = []

    def look(name: str, part: Any) -> None:
        if isinstance(part, dict):
            for key, inner in part.items():
                if key in ("template", "submitterPodTemplate"):
                    found.append((f"{name}.{key}", inner))
                look(f"{name}.{key}", inner)
        elif isinstance(part, list):
            for inner in part:
                look(name, inner)

    for document in everything():
        look(f"{document['kind']}/{document['metadata']['name']}", document.get("spec", {}))
    return found


TEMPLATES = templates()


def crds() -> Path:
    folder = os.environ.get("PHAROS_KUBERAY_CRDS")
    if folder is None:
        pytest.skip("not checked against KubeRay's CRDs: PHAROS_KUBERAY_CRDS names no folder that holds them")
    return Path(folder)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_kuberay_takes_every_field(manifest: Path) -> None:
    assert check(crds(), manifest) == []


def test_a_field_that_kuberay_does_not_know_is_found(tmp_path: Path) -> None:
    content = yaml.safe_load(MANIFESTS[0].read_text())
    content["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    content["spec"]["autoscaling"] = True
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(content))
    found = check(crds(), tmp_path / "wrong.yaml")
    assert len(found) == 2
    assert all(re.search("livenesProbe|autoscaling", mistake) for mistake in found)


@pytest.mark.parametrize(("name", "template"), TEMPLATES, ids=[name for name, _ in TEMPLATES])
def test_every_pod_is_one_that_kubernetes_knows(name: str, template: dict[str, Any]) -> None:
    assert mistakes(template, pod_schema(crds())) == []


def test_all_pods_were_found() -> None:
    held = {name.split(".")[0] for name, _ in TEMPLATES}
    assert held == {
        "RayCluster/pharos",
        "RayJob/pharos-sweep",
        "StatefulSet/tracking-postgres",
        "Deployment/mlflow",
    }
    assert len(TEMPLATES) == 7  # a head and workers twice, what submits the job, and the two of the tracking server


@pytest.mark.parametrize(("name", "template"), TEMPLATES, ids=[name for name, _ in TEMPLATES])
def test_a_pod_is_bounded_pinned_and_not_root(name: str, template: dict[str, Any]) -> None:
    pod = template["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert not any("hostPath" in volume for volume in pod.get("volumes", []))
    wants_kubernetes = "headGroupSpec" in name
    assert pod["automountServiceAccountToken"] is wants_kubernetes
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        for amounts in (container["resources"]["requests"], container["resources"]["limits"]):
            assert {"cpu", "memory"} <= set(amounts)
        assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert "privileged" not in container["securityContext"]
        assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", container["image"])
        assert not any("hostPort" in port for port in container.get("ports", []))
        is_server = "submitterPodTemplate" not in name
        assert ("readinessProbe" in container and "livenessProbe" in container) is is_server


def clusters() -> list[dict[str, Any]]:
    return [named("RayCluster", "pharos")["spec"], named("RayJob", "pharos-sweep")["spec"]["rayClusterSpec"]]


@pytest.mark.parametrize("cluster", clusters(), ids=["raycluster", "rayjob"])
def test_a_cluster_grows_on_spot_from_nothing_and_wants_a_token(cluster: dict[str, Any]) -> None:
    assert cluster["rayVersion"] == LOCK["ray"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "pharos-ray-token"}
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["idleTimeoutSeconds"] > 0
    head, [workers] = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == head["rayStartParams"]["num-gpus"] == "0"
    assert head["serviceType"] == "ClusterIP"
    assert (workers["minReplicas"], workers["replicas"]) == (0, 0)
    assert workers["maxReplicas"] > 0
    pod = workers["template"]["spec"]
    assert "spot" in str(pod["nodeSelector"])
    assert any("spot" in toleration["key"] for toleration in pod["tolerations"])
    [container] = pod["containers"]
    assert int(container["resources"]["limits"]["nvidia.com/gpu"]) > 0
    watcher = container["lifecycle"]["postStart"]["exec"]["command"][-1]
    assert watcher == "setsid --fork pharos watch-notices </dev/null >/tmp/ray-notices.log 2>&1"
    accounts = {one["metadata"]["name"] for one in everything() if one["kind"] == "ServiceAccount"}
    assert {head["template"]["spec"]["serviceAccountName"], pod["serviceAccountName"]} <= accounts
    # The second autoscaler's condition.
    assert head["template"]["spec"]["restartPolicy"] == pod["restartPolicy"] == "Never"


def test_the_job_is_a_sweep_that_ends_in_order_and_goes_on_after_a_loss() -> None:
    job = named("RayJob", "pharos-sweep")["spec"]
    assert job["entrypoint"] == "python -m pharos sweep /specs/sweep.yaml"
    assert job["shutdownAfterJobFinishes"] is True
    assert job["backoffLimit"] > 0
    stop = yaml.safe_load(job["runtimeEnvYAML"])["env_vars"]
    assert stop == {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "60"}
    head = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert head["terminationGracePeriodSeconds"] > int(stop["RAY_JOB_STOP_WAIT_TIME_S"])
    [mount] = [mount for mount in head["containers"][0]["volumeMounts"] if mount["mountPath"] == "/specs"]
    [volume] = [volume for volume in head["volumes"] if volume["name"] == mount["name"]]
    assert "sweep.yaml" in named("ConfigMap", volume["configMap"]["name"])["data"]


def test_the_sweep_of_the_job_loads_and_fits_its_workers(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(named("ConfigMap", "pharos-sweep")["data"]["sweep.yaml"])
    spec = load_spec(tmp_path / "sweep.yaml")
    [workers] = clusters()[1]["workerGroupSpecs"]
    gpus = int(workers["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    assert spec.pool.workers * spec.pool.gpus_per_worker <= gpus * workers["maxReplicas"]
    service = named("Service", "mlflow")
    assert spec.tracking.uri == f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert spec.storage.startswith("s3://")


def test_nothing_is_reachable_from_outside_and_the_dashboard_from_nowhere() -> None:
    for document in everything():
        assert document["kind"] not in ("Ingress", "Gateway", "HTTPRoute")
        if document["kind"] == "Service":
            assert document["spec"]["type"] == "ClusterIP"
    assert clusters()[0]["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "127.0.0.1"
    policies = [document["spec"] for document in everything() if document["kind"] == "NetworkPolicy"]
    for policy in policies:
        assert "Ingress" in policy["policyTypes"]
        for rule in policy["ingress"]:
            assert rule["from"], "an empty list lets everybody in"
            assert all("podSelector" in peer and peer["podSelector"]["matchLabels"] for peer in rule["from"])
    # Every pod has one that selects it.
    for name, template in TEMPLATES:
        labels = template["metadata"]["labels"]
        selecting = [one for one in policies if one["podSelector"]["matchLabels"].items() <= labels.items()]
        assert selecting, name


def test_the_autoscaler_may_do_what_it_does_and_no_more() -> None:
    rules = named("Role", "pharos-autoscaler")["rules"]
    assert {(rule["resources"][0], tuple(rule["verbs"])) for rule in rules} == {
        ("pods", ("get", "list", "watch")),
        ("rayclusters", ("get", "patch")),
    }
    [subject] = named("RoleBinding", "pharos-autoscaler")["subjects"]
    assert subject["name"] == clusters()[0]["headGroupSpec"]["template"]["spec"]["serviceAccountName"]


def test_no_manifest_holds_a_secret() -> None:
    secrets = [document for document in everything() if document["kind"] == "Secret"]
    assert {secret["metadata"]["name"] for secret in secrets} == {"tracking-server", "pharos-tracking"}
    for secret in secrets:
        assert set(secret["stringData"].values()) == {""}
    for folder in FOLDERS:
        listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
        assert "secret.example.yaml" not in listed
        assert all((folder / name).is_file() for name in listed)


def test_the_tracking_server_is_started_as_in_compose() -> None:
    compose = yaml.safe_load((ROOT / "cluster/tracking/compose.yaml").read_text())["services"]
    [container] = named("Deployment", "mlflow")["spec"]["template"]["spec"]["containers"]

    def options(words: list[str]) -> dict[str, str]:
        pairs = (re.sub(r"\$\{\w+:-(.*)\}", r"\1", word).partition("=") for word in words)
        return {name: value for name, _, value in pairs if name != "--artifacts-destination"}

    assert options(container["args"]) == options(compose["mlflow"]["command"])
    given = {one["name"]: one["value"] for one in container["env"]}
    same = set(compose["mlflow"]["environment"]) - {"PGHOST", "AWS_DEFAULT_REGION"}
    assert {name: given[name] for name in same} == {name: compose["mlflow"]["environment"][name] for name in same}
    keys = set(named("Secret", "tracking-server")["stringData"])
    assert keys == {name for name in compose["mlflow"]["secrets"] if not name.startswith("aws_")}
    [postgres] = named("StatefulSet", "tracking-postgres")["spec"]["template"]["spec"]["containers"]
    assert postgres["image"] == compose["postgres"]["image"]
