"""Form: lint, format, types, and the one way in which imports go."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
from conftest import REPOSITORY

BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"], ["lint-imports", "--no-cache"]],
    ids=" ".join,
)
def test_clean(command: list[str]) -> None:
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_programs_of_users_are_checked_by_their_types(tmp_path: Path) -> None:
    """What `dltrain.load` gives is typed for who installs it: right calls pass, wrong ones do not."""
    (tmp_path / "program.py").write_text(
        "import numpy as np\nfrom PIL import Image\n\nimport dltrain\n\n"
        'model = dltrain.load("runs/photos/001", device="cpu")\n'
        'found = model.predict(["a.jpg", Image.open("b.jpg"), np.zeros((4, 4, 3), np.uint8)], batch_size=2)\n'
        "reveal_type(found.probabilities.shape)\nreveal_type(found.classes)\nreveal_type(model.module)\n"
        'reveal_type(model.embed("folder").size)\n'
        'model.predict(3)\ndltrain.load("x", views="sideways")\n'
    )
    command = [BIN / "mypy", "--strict", "--config-file=", "--follow-imports=silent", "program.py"]
    places = {**os.environ, "MYPYPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=tmp_path, env=places, capture_output=True, text=True, check=False)
    kinds = re.findall(r'Revealed type is "(.*)"', done.stdout.replace("builtins.", ""))
    assert kinds == ["tuple[Any, ...]", "list[str]", "torch.nn.modules.module.Module", "int"]
    wrong = re.findall(r"program.py:(\d+): error", done.stdout)
    assert wrong == ["12", "13"], done.stdout


def test_no_machine_path_and_no_registry_in_tracked_files() -> None:
    hosts = ["py" + r"pi\.org", "python" + "hosted"]  # in halves: this file is searched too
    pattern = "|".join([r"/(work|root|home/[a-z]+)/", *hosts])
    command = ["git", "grep", "-nIE", pattern, "--", "."]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode == 128:
        pytest.skip("not a git checkout")
    assert done.stdout == ""


def test_no_file_imports_itself_by_way_of_others() -> None:
    """Imports for type checking count: what names each other belongs together."""
    graph = grimp.build_graph("dltrain", exclude_type_checking_imports=False, cache_dir=None)
    imports = {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}
    while done := {module for module, used in imports.items() if not used & imports.keys()}:
        imports = {module: used for module, used in imports.items() if module not in done}
    while unused := imports.keys() - set().union(*imports.values()):
        imports = {module: used for module, used in imports.items() if module not in unused}
    assert sorted(imports) == []


def test_no_file_and_no_function_is_too_long_to_read() -> None:
    found = {}
    for path in (REPOSITORY / "dltrain").rglob("*.py"):
        name, text = path.relative_to(REPOSITORY / "dltrain").as_posix(), path.read_text()
        found[name] = (len(text.splitlines()), 400)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found[f"{name} {node.name}"] = ((node.end_lineno or 0) - node.lineno + 1, 80)
    long = {name: lines for name, (lines, most) in found.items() if lines > most}
    assert long == {}
