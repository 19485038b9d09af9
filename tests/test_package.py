"""What is installed: the wheel holds the whole package, its marker of types and its licence."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY


def test_the_wheel_is_typed_licensed_and_whole(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, tmp_path)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "dltrain", tmp_path / "dltrain", ignore=ignore)
    code = "from setuptools import build_meta; build_meta.build_wheel('.')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        files = {name for name in wheel.namelist() if name.startswith("dltrain/")}
        about = next(name for name in wheel.namelist() if name.endswith("METADATA"))
        metadata = wheel.read(about).decode()
        licence = wheel.read(about.replace("METADATA", "licenses/LICENSE")).decode()
    assert files == {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("dltrain/**/*") if path.is_file()}
    assert "dltrain/py.typed" in files
    assert "License-Expression: Apache-2.0" in metadata
    assert "Apache License" in licence and "Version 2.0, January 2004" in licence
