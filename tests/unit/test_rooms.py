"""The rooms of the code: what each may import, what stays unloaded, and that all of them reach an installation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "platform" / "pharos"
SCRIPTS = Path(sys.executable).parent
HEAVY = ("torch", "ray", "mlflow", "optuna", "transformers", "deepspeed", "peft", "accelerate")


def run(*command: str | Path, source_root: Path = PACKAGE.parent) -> subprocess.CompletedProcess[str]:
    """Run a command in the repository with `source_root` as the place that `pharos` is imported from."""
    environment = os.environ | {"PYTHONPATH": str(source_root)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def lint_imports(source_root: Path) -> subprocess.CompletedProcess[str]:
    command = (SCRIPTS / "lint-imports", "--no-cache", "--no-logo", "--config", ROOT / "pyproject.toml")
    return run(*command, source_root=source_root)


def test_imports_between_rooms_point_one_way() -> None:
    result = lint_imports(PACKAGE.parent)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "statement", "broken_import"),
    [
        ("plan/planted.py", "import torch", "pharos.plan.planted -> torch"),
        ("data/planted.py", "import transformers", "pharos.data.planted -> transformers"),
        ("model/planted.py", "import mlflow", "pharos.model.planted -> mlflow"),
        ("train/planted.py", "import ray.train", "pharos.train.planted -> ray"),
        ("track/planted.py", "import pharos.model.planted", "pharos.model.planted -> torch"),
        ("sweep/planted.py", "import pharos.console", "pharos.sweep.planted -> pharos.console"),
        ("spec/planted.py", "def late():\n    import pharos.plan", "pharos.spec.planted -> pharos.plan"),
    ],
)
def test_an_import_in_the_wrong_direction_is_seen(
    tmp_path: Path, module: str, statement: str, broken_import: str
) -> None:
    shutil.copytree(PACKAGE, tmp_path / "pharos", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pharos" / "model" / "planted.py").write_text("import torch\n")
    (tmp_path / "pharos" / module).write_text(statement + "\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert broken_import in result.stdout


def test_help_loads_no_heavy_library() -> None:
    program = f"""
import sys
from pharos.cli import main
sys.argv = ["pharos", "--help"]
try:
    code = main()
except SystemExit as exit:
    code = exit.code
assert not code, code
print("loaded:", *sorted(set(sys.modules) & set({HEAVY!r})), file=sys.stderr)
"""
    result = run(sys.executable, "-c", program)
    assert result.returncode == 0, result.stderr
    assert "sweep" in result.stdout
    assert result.stderr.splitlines()[-1].split() == ["loaded:"]


@pytest.mark.slow
def test_every_file_of_the_package_is_in_the_wheel(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "platform", source / "platform", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    result = run(
        *(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"), "-w", tmp_path, source
    )
    assert result.returncode == 0, result.stderr

    [wheel] = tmp_path.glob("pharos-*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("pharos/")}
    files = (path for path in (source / "platform" / "pharos").rglob("*") if path.is_file())
    written = {path.relative_to(source / "platform").as_posix() for path in files}
    assert packed == written
