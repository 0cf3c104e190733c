"""cluster/aws-account.yaml and cluster/aws.yaml together, on an EC2 that moto plays, by Ray's own provider."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support import aws

CLUSTER = Path(__file__).parents[2] / "cluster"
SSH_FROM = "203.0.113.7/32"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """An account with the stack in it, and the cluster file with that stack's values where it says EDIT."""
    import boto3

    patch = pytest.MonkeyPatch()
    home = tmp_path_factory.mktemp("home")
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("a token")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        patch.delenv(name)
    patch.setenv("HOME", str(home))
    patch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
    patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "true")
    with patch.context(), aws.aws_server() as address:
        for name, value in aws.environment(address).items():
            patch.setenv(name, value)
        forget_clients()
        ec2 = boto3.client("ec2")
        [vpc] = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
        stacks = boto3.client("cloudformation")
        stacks.create_stack(
            StackName="pharos",
            TemplateBody=(CLUSTER / "aws-account.yaml").read_text(),
            Parameters=[
                {"ParameterKey": "VpcId", "ParameterValue": vpc["VpcId"]},
                {"ParameterKey": "SshFrom", "ParameterValue": SSH_FROM},
            ],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        [stack] = stacks.describe_stacks(StackName="pharos")["Stacks"]
        assert stack["StackStatus"] == "CREATE_COMPLETE"
        outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        text = (CLUSTER / "aws.yaml").read_text().replace("sg-EDIT", outputs["SecurityGroup"])
        text = text.replace("EDIT.dkr.ecr.us-east-1.amazonaws.com/pharos:0.1.0", outputs["Image"])
        text = text.replace("ami-EDIT", image)
        yield {"config": yaml.safe_load(text), "outputs": outputs, "image": image}
    patch.undo()
    forget_clients()


def forget_clients() -> None:
    """Ray keeps its clients of AWS for the life of the process."""
    from ray.autoscaler._private.aws import config, utils

    utils.resource_cache.cache_clear()
    utils.client_cache.cache_clear()
    config._get_subnets_or_die.cache_clear()


def bootstrapped(account: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` does it before the first machine: filled in, validated, made fit for the account."""
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(account["config"])
    config = AWSNodeProvider.fillout_available_node_types_resources(config)
    validate_config(config)
    return AWSNodeProvider.bootstrap_config(config)


@pytest.mark.slow
def test_the_resources_in_the_file_are_those_of_its_machines(account: dict[str, Any]) -> None:
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    for name, kind in account["config"]["available_node_types"].items():
        without = {**account["config"], "available_node_types": {name: {**kind, "resources": {}}}}
        found = AWSNodeProvider.fillout_available_node_types_resources({**without, "head_node_type": "head"})
        detected = found["available_node_types"][name]["resources"]
        if name == "worker":
            assert {key: detected[key] for key in ("CPU", "GPU")} == kind["resources"]
        else:
            assert "GPU" not in detected


@pytest.mark.slow
def test_head_and_workers_are_made_as_the_file_says_and_ended_for_good(account: dict[str, Any]) -> None:
    import boto3
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler.tags import (
        NODE_KIND_HEAD,
        NODE_KIND_WORKER,
        TAG_RAY_CLUSTER_NAME,
        TAG_RAY_LAUNCH_CONFIG,
        TAG_RAY_NODE_KIND,
        TAG_RAY_NODE_NAME,
        TAG_RAY_NODE_STATUS,
        TAG_RAY_USER_NODE_TYPE,
    )

    config = bootstrapped(account)
    ec2 = boto3.client("ec2")
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    made = {}
    for kind, node_type in ((NODE_KIND_HEAD, "head"), (NODE_KIND_WORKER, "worker")):
        tags = {
            TAG_RAY_NODE_KIND: kind,
            TAG_RAY_NODE_NAME: f"ray-pharos-{kind}",
            TAG_RAY_NODE_STATUS: "uninitialized",
            TAG_RAY_LAUNCH_CONFIG: "hash",
            TAG_RAY_USER_NODE_TYPE: node_type,
        }
        created = provider.create_node(config["available_node_types"][node_type]["node_config"], tags, 1)
        [identity] = created
        [made[node_type]] = ec2.describe_instances(InstanceIds=[identity])["Reservations"][0]["Instances"]
    for node_type, instance in made.items():
        ours = account["config"]["available_node_types"][node_type]["node_config"]
        assert instance["InstanceType"] == ours["InstanceType"]
        assert instance["ImageId"] == account["image"]
        assert [group["GroupId"] for group in instance["SecurityGroups"]] == [account["outputs"]["SecurityGroup"]]
        assert instance["IamInstanceProfile"]["Arn"].endswith(f"/pharos-{node_type}")
        assert instance["MetadataOptions"]["HttpTokens"] == "required"
        assert instance["KeyName"] == "pharos"
        tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
        assert (tags["project"], tags[TAG_RAY_CLUSTER_NAME]) == ("pharos", "pharos")
        [disk] = ec2.describe_volumes(VolumeIds=[instance["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]])["Volumes"]
        assert (disk["Size"], disk["Encrypted"]) == (200, True)
    assert made["worker"]["InstanceLifecycle"] == "spot"
    assert "InstanceLifecycle" not in made["head"]
    # Ray's private key is the user's alone.
    assert (Path.home() / ".ssh" / "pharos.pem").stat().st_mode & 0o077 == 0

    # The stack's group, and no other: Ray's own would be open to SSH from everywhere.
    groups = ec2.describe_security_groups()["SecurityGroups"]
    assert {group["GroupName"] for group in groups} == {"default", "pharos-nodes"}
    [ours] = [group for group in groups if group["GroupName"] == "pharos-nodes"]
    ranges = [entry["CidrIp"] for rule in ours["IpPermissions"] for entry in rule["IpRanges"]]
    assert ranges == [SSH_FROM]

    workers = provider.non_terminated_nodes({TAG_RAY_NODE_KIND: NODE_KIND_WORKER})
    heads = provider.non_terminated_nodes({TAG_RAY_NODE_KIND: NODE_KIND_HEAD})
    assert [workers, heads] == [[made["worker"]["InstanceId"]], [made["head"]["InstanceId"]]]
    provider.terminate_nodes(workers + heads)
    assert provider.non_terminated_nodes({}) == []
    left = ec2.describe_instances(InstanceIds=workers + heads)["Reservations"]
    states = {instance["State"]["Name"] for reservation in left for instance in reservation["Instances"]}
    assert states <= {"terminated", "shutting-down"}


@pytest.mark.slow
def test_the_accounts_roles_open_one_bucket_and_end_only_pharos_machines(account: dict[str, Any]) -> None:
    import boto3

    iam = boto3.client("iam")
    statements = {}
    for profile in ("pharos-head", "pharos-worker"):
        [role] = iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"]
        names = iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]
        documents = [iam.get_role_policy(RoleName=role["RoleName"], PolicyName=name) for name in names]
        policies = [document["PolicyDocument"] for document in documents]
        policies = [yaml.safe_load(str(policy)) for policy in policies]  # moto gives them as it got them
        statements[profile] = [one for policy in policies for one in policy["Statement"]]
    bucket = account["outputs"]["Storage"].removeprefix("s3://").partition("/")[0]
    for given in statements.values():
        for statement in given:
            actions = [action for action in statement["Action"] if isinstance(statement["Action"], list)]
            if any(action.startswith("s3:") for action in actions):
                assert bucket in statement["Resource"]
    assert not any("ec2" in str(statement["Action"]) for statement in statements["pharos-worker"])
    [ending] = [one for one in statements["pharos-head"] if "ec2:TerminateInstances" in one["Action"]]
    tagging = [one for one in statements["pharos-head"] if "ec2:CreateTags" in one["Action"]]
    assert all(one["Condition"] for one in tagging), "who may tag any machine may end any machine"
    assert ending["Condition"] == {"StringEquals": {"ec2:ResourceTag/project": "pharos"}}


def test_the_stack_is_one_that_cloudformation_takes() -> None:
    from cfnlint.api import ManualArgs, lint

    found = lint((CLUSTER / "aws-account.yaml").read_text(), config=ManualArgs(regions=[aws.REGION]))
    assert [f"{match.rule.id} {match.message}" for match in found] == []
    content = (CLUSTER / "aws-account.yaml").read_text()
    assert not re.search(r"[:\s][&*]\w+$", content, re.MULTILINE), "CloudFormation refuses YAML's aliases"
    # moto forgets this part of a bucket.
    [blocked] = re.findall(r"PublicAccessBlockConfiguration:\n((?: {8}\w+: \w+\n)+)", content)
    assert len(blocked.splitlines()) == 4
    assert "false" not in blocked
