"""Plugins installed as a stranger's are: a module and its entry point, in a folder on the path."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path


def install(site: Path, project: Path) -> None:
    """Lay a project's modules and metadata out in `site`, as an installer does."""
    said = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    for module in project.glob("*.py"):
        (site / module.name).write_bytes(module.read_bytes())
    points = said["entry-points"]["costspan"]
    lay_out(site, said["name"], said["version"], points)


def install_module(site: Path, name: str, source: str) -> None:
    """A plugin of one module, `plugin_NAME`, known as NAME."""
    (site / f"plugin_{name}.py").write_text(source, "utf-8")
    lay_out(site, f"plugin-{name}", "1.0", {name: f"plugin_{name}"})


def lay_out(site: Path, name: str, version: str, points: dict[str, str]) -> None:
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "utf-8"
    )
    lines = "".join(f"{point} = {module}\n" for point, module in points.items())
    (info / "entry_points.txt").write_text(f"[costspan]\n{lines}", "utf-8")


def python(site: Path, books: Path, *arguments: str, **environment: str) -> str:
    """What a fresh interpreter prints that finds these plugins, with books of its own."""
    path = os.pathsep.join([str(site), *filter(None, sys.path)])
    settings = {"COSTSPAN_LEDGER": f"{books}/ledger.db", "COSTSPAN_SPOOL": f"{books}/spool"}
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **settings, **environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
