"""Each import contract breaks on a planted violation."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("config", "examples", "subscriptions", "webhooks")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(tree: Path, contract: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--contract", contract]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("contract", "file", "line"),
    [
        ("packages", "subscriptions/secrets.py", "import webhooks.models"),
        ("packages", "webhooks/signing.py", "import config.urls"),
        ("wishes", "subscriptions/conf.py", "import subscriptions.models"),
        ("wishes", "subscriptions/newcomer.py", ""),
        ("traffic", "webhooks/signing.py", "import webhooks.sending"),
        ("traffic", "webhooks/newcomer.py", ""),
        ("one-door-to-httpx", "webhooks/sending.py", "import httpx"),
        ("cli", "webhooks/cli/showing.py", "import webhooks.matching"),
        ("one-door-to-rq", "webhooks/deliveries.py", "import django_rq"),
    ],
)
def test_a_planted_violation_breaks_the_contract(tree: Path, contract: str, file: str, line: str) -> None:
    assert lint(tree, contract).returncode == 0, "broken before anything was planted"
    with (tree / file).open("a") as planted:
        planted.write(f"\n{line}\n")
    result = lint(tree, contract)
    assert result.returncode == 1
    assert "BROKEN" in result.stdout or Path(file).stem in result.stdout
