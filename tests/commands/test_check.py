"""`dltrain check`, plug-ins, and what may be imported before a training starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dltrain.cli import app

ROOT = Path(__file__).parents[2]
SMALL = "data: digits\nmodel: mlp\n"


def check(*arguments: str | Path) -> Result:
    """`dltrain check` in this process."""
    return CliRunner().invoke(app, ["check", *map(str, arguments)])


def dltrain(*arguments: str | Path, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "dltrain", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=60)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


# -- the command


def test_every_shipped_experiment_is_right() -> None:
    paths = sorted(ROOT.glob("experiments/*.yaml"))
    result = check(*paths)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [f"{path}: ok" for path in paths]


def test_one_wrong_file_among_several_exits_2_and_the_others_are_checked(small: Path) -> None:
    wrong = small.with_name("wrong.yaml")
    wrong.write_text("data: digits\nmodel: mlpp\n")
    result = check(wrong, small, small.with_name("absent.yaml"))
    assert result.exit_code == 2
    assert result.stdout == f"{small}: ok\n"
    assert f"--> {wrong}:2:8" in result.stderr
    assert "no such file" in result.stderr


def test_overrides_apply_to_every_file(small: Path) -> None:
    assert check(small, "optimizer.lr=0.2").exit_code == 0
    result = check(small, small, "optimizer.lr=-1")
    assert result.exit_code == 2
    assert result.stderr.count("| optimizer.lr=-1") == 2


def test_what_an_override_drops_is_said(small: Path) -> None:
    small.write_text(SMALL + "optimizer: {name: sgd, lr: 0.1, momentum: 0.9}")
    result = check(small, "optimizer.name=adam")
    assert result.exit_code == 0
    assert "`optimizer.momentum` is dropped: `adam` has no such option" in result.stderr


def test_a_file_whose_name_holds_an_equals_sign(small: Path) -> None:
    path = small.rename(small.with_name("lr=1.yaml"))
    assert check(path).exit_code == 0


def test_no_file_at_all_exits_2() -> None:
    assert check("optimizer.lr=1").exit_code == 2
    assert check().exit_code == 2


@pytest.mark.parametrize("content", [b"", b"\xff\xfea\x00", b"\x80", b"[" * 30_000, b"a: &a [*a]", b"\x00" * 9])
def test_files_of_any_content_are_refused_politely(small: Path, content: bytes) -> None:
    small.write_bytes(content)
    result = check(small)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.exception is None or isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("root", ["x" * 300, '"a\\0b"', "/", "/dev/null"])
def test_a_folder_that_cannot_be_is_no_traceback(small: Path, root: str) -> None:
    small.write_text(f"data: {{name: image_folder, validation: 0, root: {root}}}\nmodel: mlp\n")
    assert check(small).exit_code == 0  # `fit` looks at the data


def test_check_creates_nothing(small: Path) -> None:
    dltrain("check", small, folder=small.parent)
    dltrain("check", small, "model=nothing", folder=small.parent)
    assert list(small.parent.iterdir()) == [small]


# -- imports


HEAVY = ["torch", "torchvision", "timm", "optuna", "sklearn", "tensorboard"]
SHIPPED = [str(path) for path in sorted(ROOT.glob("experiments/*.yaml"))]


@pytest.mark.parametrize(
    ("arguments", "banned"),
    [
        (["--help"], [*HEAVY, "numpy", "pydantic", "yaml", "rich"]), (["fit", "--help"], [*HEAVY, "numpy", "yaml"]),
        (["check", *SHIPPED], [*HEAVY, "numpy"]), (["list"], [*HEAVY, "numpy"]),
        (["list", "models"], [*HEAVY, "numpy"]),
        (["list", "models", "timm/resnet*"], [*HEAVY, "numpy"]), (["list", "--json"], [*HEAVY, "numpy"]),
        (["schema"], [*HEAVY, "numpy"]),
    ],
    ids=lambda value: "_".join(value[:2]).replace(str(ROOT), "") if value[0] not in HEAVY else "",
)  # fmt: skip
def test_nothing_heavy_is_imported(arguments: list[str], banned: list[str]) -> None:
    code = f"""
import sys
from dltrain.cli import app
try:
    app({arguments!r})
except SystemExit as end:
    assert end.code == 0
print([name for name in {banned!r} if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[]"


# -- plug-ins

PLUGIN = '''
from typing import Literal

from dltrain.tasks.losses import Loss


class Hard(Loss):
    """A loss of one's own, which takes no mixed labels."""

    name: Literal["hard"] = "hard"
    margin: float = 1.0
    """The distance that is asked for."""

    def build(self, classes):
        from torch import nn

        return nn.MultiMarginLoss(margin=self.margin, reduction="none")
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "my_parts.py"
    path.write_text(PLUGIN)
    return path


def test_a_plugin_adds_an_entry(plugin: Path, small: Path) -> None:
    small.write_text(SMALL + "loss: {name: hard, margin: 2.0}")
    assert dltrain("check", small).returncode == 2
    assert dltrain("check", small, "--plugin", plugin).returncode == 0
    shown = dltrain("list", "losses", "hard", "--plugin", plugin).stdout
    assert "margin: a number; default 1.0" in shown
    assert "The distance that is asked for." in shown
    assert '"hard"' in dltrain("schema", "--plugin", plugin).stdout


def test_mixed_labels_for_a_loss_that_takes_none_are_refused(plugin: Path, small: Path) -> None:
    small.write_text(SMALL + "loss: hard\naugmentation: [translate, mixup]")
    result = dltrain("check", small.name, "--plugin", plugin, folder=small.parent)
    assert result.returncode == 2
    assert result.stderr == (
        "error: `mixup` mixes labels, and loss `hard` takes none that are mixed\n"
        "  --> small.yaml:4:27\n"
        "   |\n"
        " 4 | augmentation: [translate, mixup]\n"
        "   |                           ^^^^^\n"
        "   = use loss `cross_entropy`\n\n"
        "1 error in small.yaml; nothing was started\n\n"
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nothing_of_this_name\n", "my_parts.py:1:1"),
        ("x = 1\n\ndef f(:\n", "my_parts.py:3:1"),
        ("def f():\n    raise ValueError('no \\x1b[31m')\n\nf()\n", "my_parts.py:2:5"),
        ("exit(0)\n", "the plug-in failed: SystemExit"),
        ("x = 1\n", "the plug-in adds no entry"),
        (PLUGIN.replace('"hard"', '"focal"'), "'focal' is already the name of Focal"),
        (PLUGIN.replace('Literal["hard"]', "str"), "the plug-in adds no entry"),
        (PLUGIN.replace("def build(", "def make("), "has no `build`"),
        ("\x00", "my_parts.py"),
    ],
)
def test_a_plugin_with_an_error_exits_2_without_a_traceback(
    plugin: Path, small: Path, source: str, message: str
) -> None:
    plugin.write_text(source)
    result = dltrain("check", small, "--plugin", plugin)
    assert result.returncode == 2, result.stdout
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize("name", ["absent.py", "", "small.yaml"])
def test_a_plugin_that_is_no_python_file_exits_2(small: Path, name: str) -> None:
    result = dltrain("check", small, "--plugin", small.with_name(name) if name else small.parent)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_a_plugin_cannot_be_named_from_a_file(plugin: Path, small: Path) -> None:
    small.write_text(SMALL + f"plugin: {plugin}\nplugins: [{plugin}]\nloss: {plugin}:Hard\nextends: {plugin}\n")
    result = dltrain("check", small)
    assert result.returncode == 2
    small.write_text(SMALL + f"plugin: {plugin}\nloss: my_parts.Hard\n")
    result = dltrain("check", small)
    assert "unknown key `plugin`" in result.stderr
    assert "unknown loss `my_parts.Hard`" in result.stderr
