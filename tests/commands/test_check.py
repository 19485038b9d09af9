"""`dltrain check`, plug-ins, and what may be imported before a training starts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from forking import Zygote
from typer.testing import CliRunner, Result

from dltrain.cli import app

ROOT = Path(__file__).parents[2]
SMALL = "data: digits\nmodel: mlp\n"


def check(*arguments: str | Path) -> Result:
    """`dltrain check` in this process."""
    return CliRunner().invoke(app, ["check", *map(str, arguments)])


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


def test_json_says_what_is_wrong_and_where(small: Path) -> None:
    wrong = small.with_name("wrong.yaml")
    wrong.write_text("data: digits\nmodel: mlpp\noptimizer: {lr: -1}\n")
    result = check(wrong, small, "--json")
    first, second = json.loads(result.stdout)
    assert result.exit_code == 2 and (first["ok"], second["ok"]) == (False, True)
    assert [(e["line"], e["column"], e["file"]) for e in first["errors"]] == [(2, 8, str(wrong)), (3, 17, str(wrong))]
    assert first["errors"][0]["message"] == "unknown model `mlpp`"
    assert first["errors"][0]["hint"] == "did you mean `mlp`?" and second["errors"] == []
    override = json.loads(check(small, "optimizer.lr=-1", "--json").stdout)[0]["errors"][0]
    assert override["line"] is None and "optimizer.lr" in override["message"]


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


def test_check_creates_nothing(small: Path, zygote: Zygote) -> None:
    assert zygote.capture("check", small, cwd=small.parent).code == 0
    assert zygote.capture("check", small, "model=nothing", cwd=small.parent).code == 2
    assert list(small.parent.iterdir()) == [small]


# -- imports


HEAVY = ["torch", "torchvision", "timm", "optuna", "sklearn", "tensorboard"]
SHIPPED = [str(path) for path in sorted(ROOT.glob("experiments/*.yaml"))]


LIGHT = [*HEAVY, "numpy"]
COMMANDS: list[tuple[list[str], list[str]]] = [
    (["--help"], [*LIGHT, "pydantic", "yaml", "rich"]), (["fit", "--help"], [*LIGHT, "yaml"]),
    (["check", *SHIPPED], LIGHT), (["list"], LIGHT), (["list", "models"], LIGHT),
    (["list", "models", "timm/resnet*"], LIGHT), (["list", "--json"], LIGHT), (["schema"], LIGHT),
]  # fmt: skip
"""Commands, and what has not been imported when they and those above them are done."""


def test_nothing_heavy_is_imported() -> None:
    code = f"""
import sys
from dltrain.cli import app
for arguments, banned in {COMMANDS!r}:
    try:
        app(arguments)
    except SystemExit as end:
        assert end.code == 0
    assert [name for name in banned if name in sys.modules] == [], arguments
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


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


def test_a_plugin_adds_an_entry(plugin: Path, small: Path, zygote: Zygote) -> None:
    small.write_text(SMALL + "loss: {name: hard, margin: 2.0}")
    assert zygote.capture("check", small).code == 2
    assert zygote.capture("check", small, "--plugin", plugin).code == 0
    shown = zygote.capture("list", "losses", "hard", "--plugin", plugin).stdout
    assert "margin: a number; default 1.0" in shown
    assert "The distance that is asked for." in shown
    assert '"hard"' in zygote.capture("schema", "--plugin", plugin).stdout


def test_mixed_labels_for_a_loss_that_takes_none_are_refused(plugin: Path, small: Path, zygote: Zygote) -> None:
    small.write_text(SMALL + "loss: hard\naugmentation: [translate, mixup]")
    result = zygote.capture("check", small.name, "--plugin", plugin, cwd=small.parent)
    assert result.code == 2
    assert result.stderr == (
        "error: `mixup` mixes targets, and loss `hard` takes none that are mixed\n"
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
    plugin: Path, small: Path, source: str, message: str, zygote: Zygote
) -> None:
    plugin.write_text(source)
    result = zygote.capture("check", small, "--plugin", plugin)
    assert result.code == 2, result.stdout
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize("name", ["absent.py", "", "small.yaml"])
def test_a_plugin_that_is_no_python_file_exits_2(small: Path, name: str, zygote: Zygote) -> None:
    result = zygote.capture("check", small, "--plugin", small.with_name(name) if name else small.parent)
    assert result.code == 2
    assert "Traceback" not in result.stderr


def test_a_plugin_cannot_be_named_from_a_file(plugin: Path, small: Path, zygote: Zygote) -> None:
    small.write_text(SMALL + f"plugin: {plugin}\nplugins: [{plugin}]\nloss: {plugin}:Hard\nextends: {plugin}\n")
    result = zygote.capture("check", small)
    assert result.code == 2
    small.write_text(SMALL + f"plugin: {plugin}\nloss: my_parts.Hard\n")
    result = zygote.capture("check", small)
    assert "unknown key `plugin`" in result.stderr
    assert "unknown loss `my_parts.Hard`" in result.stderr
