"""cluster/README.md: what it types at Ray and at Pharos is what they take, and what it names is there."""

from __future__ import annotations

import re
import shlex
import warnings
from pathlib import Path

import pytest
import typer
import yaml
from tests.unit.test_readme import blocks

from pharos.cli import app
from pharos.spec.load import load_spec

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "cluster" / "README.md"


def typed(program: str) -> list[list[str]]:
    """The arguments of each command of the page, also of those that `ray exec` runs on the head."""
    lines = [line.strip() for block in blocks("bash", PAGE) for line in block.splitlines()]
    lines += [shlex.split(line)[-1] for line in lines if line.startswith("ray exec ")]
    return [shlex.split(line.partition(" >")[0])[1:] for line in lines if line.startswith(f"{program} ")]


@pytest.mark.parametrize("arguments", typed("ray"), ids=" ".join)
def test_ray_takes_the_command(arguments: list[str]) -> None:
    with warnings.catch_warnings():  # of Ray Serve's models, which Ray's commands import
        warnings.simplefilter("ignore", DeprecationWarning)
        from ray.scripts.scripts import cli

    command, *rest = arguments
    given = cli.commands[command].make_context(command, rest).params
    file = given.get("cluster_config_file")
    assert file is None or (ROOT / file).is_file()


@pytest.mark.parametrize("arguments", typed("pharos"), ids=" ".join)
def test_pharos_takes_the_command(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:8265")
    verb, *rest = arguments
    with typer.main.get_command(app).commands[verb].make_context(verb, rest) as context:
        given = context.params
    if verb in ("submit", "sweep"):
        load_spec(ROOT / given["spec"], given["overrides"] or ())


def test_the_verbs_from_an_account_to_a_promoted_model_are_all_there() -> None:
    verbs = {arguments[0] for arguments in typed("pharos")}
    assert {"doctor", "submit", "status", "logs", "stop", "resume", "compare", "promote"} <= verbs
    assert {"up", "exec", "dashboard", "down"} <= {arguments[0] for arguments in typed("ray")}


def test_every_ray_start_of_the_page_keeps_the_dashboard_on_loopback_and_sets_the_mode_first() -> None:
    for block in blocks("bash", PAGE):
        if "ray start --head" in block:
            assert "--dashboard-host=127.0.0.1" in block
            assert block.index("export RAY_AUTH_MODE=token") < block.index("ray get-auth-token --generate")
            assert block.index("ray get-auth-token --generate >/dev/null") < block.index("ray start")
            # Ray makes the file readable to everybody.
            assert "chmod 600 ~/.ray/auth_token" in block


def test_what_bounds_the_cost_is_what_the_files_say() -> None:
    text = PAGE.read_text()
    for cloud in ("aws", "gcp", "azure"):
        config = yaml.safe_load((ROOT / "cluster" / f"{cloud}.yaml").read_text())
        assert f"`idle_timeout_minutes: {config['idle_timeout_minutes']}`" in text
        assert f"`max_workers: {config['max_workers']}`" in text
    files = re.findall(r"(?<!/)cluster/[\w./-]+\w(?![\w*])", text)
    assert files
    for file in files:
        assert (ROOT / file).exists() or file.startswith("cluster/tracking/secrets"), file
