"""What is installed is what is here."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("subscriptions", "webhooks")


def test_every_file_of_the_packages_is_in_the_wheel() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    for name in PACKAGES:
        folders = [init.parent for init in (ROOT / name).rglob("__init__.py")]
        taken = {file for folder in folders for pattern in patterns for file in folder.glob(pattern)}
        code = {file for folder in folders for file in folder.glob("*.py")}
        files = {file for file in (ROOT / name).rglob("*") if file.is_file() and "__pycache__" not in file.parts}
        assert files - code - taken == set()


def test_every_entry_point_leads_somewhere() -> None:
    project = PROJECT["project"]
    for target in (*project["scripts"].values(), *project["entry-points"]["pytest11"].values()):
        module, _, name = target.partition(":")
        found = importlib.import_module(module)
        assert not name or callable(getattr(found, name))
