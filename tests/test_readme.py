"""Every command, YAML and program in the README and in docs/ works, in the order in which it stands there."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from forking import Zygote
from photos import make_photos
from typer.testing import CliRunner

from dltrain import Experiment
from dltrain.cli import app
from dltrain.config.section import _index, kinds
from dltrain.layers import Activation, Attention, Initialization, Norm
from dltrain.models import Model
from dltrain.optim import Optimizer, Schedule

NAMES = ("data", "training", "watching", "tasks", "search", "running", "evidence", "export", "python", "extending")
PAGES = ["README.md", *(f"docs/{page}.md" for page in NAMES)]
"""Read one after the other: a page may use what those before it have trained."""
TEXT = "\n".join((REPOSITORY / page).read_text() for page in PAGES)
BLOCKS = re.findall(r"(?:<!-- (\w+) -->\n)?```(\w*)\n(.*?)```", TEXT, re.DOTALL)
PLUGINS = dict(re.findall(r"`((?:test_)?my_\w+\.py)`:\n\n```python\n(.*?)```", TEXT, re.DOTALL))
SHORT = {
    "fit": ["training.epochs=1", "training.limit_batches=2", "training.batch_size=8"],
    "ask": ["training.epochs=1", "training.limit_batches=2", "training.batch_size=8"],
    "ablate": ["training.epochs=1", "training.limit_batches=2", "training.batch_size=8", "--error=0.3", "--budget=8"],
    "resume": ["training.epochs=2"],
    "sweep": ["sweep.trials=2", "sweep.epochs=1", "training.limit_batches=2"],
}
"""What makes these trainings short enough for a test."""


@pytest.fixture(scope="module", autouse=True)
def catalogues() -> Iterator[None]:
    """The plug-ins of the pages are in the catalogues of this file's tests alone: others name what there is."""
    before = {kind: list(kind.catalogue) for kind in kinds().values()}
    yield
    for kind, entries in before.items():
        kind.catalogue[:] = entries
    _index.cache_clear()


def blocks(language: str) -> list[str]:
    return [text for mark, found, text in BLOCKS if found == language and not mark]


def commands() -> list[list[str]]:
    lines = [line.partition("  #")[0].strip() for text in blocks("") for line in text.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith(("dltrain ", "curl "))]


def run(arguments: list[str]) -> tuple[int, str]:
    output = None
    arguments = [
        name for text in arguments for name in (sorted(map(str, Path().glob(text))) if "/*" in text else [text])
    ]
    if ">" in arguments:
        output, arguments = arguments[-1], arguments[: arguments.index(">")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    if output is not None:
        Path(output).write_text(result.stdout)
    return result.exit_code, result.output


class Servers:
    """What the pages start behind a `&`, each on a free port in place of the one that they say, and ask by curl."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []
        self.place = ""

    def start(self, arguments: list[str]) -> None:
        port = arguments.index("--port") + 1
        command = [sys.executable, "-m", "dltrain", *arguments[:port], "0", *arguments[port + 1 :]]
        self.processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        said = self.processes[-1].stderr
        assert said is not None
        found = re.search(r"http://[\d.]+:\d+", line := said.readline())
        assert found, line
        self.place = found[0]

    def ask(self, command: list[str]) -> Any:
        if shutil.which("curl") is None:
            pytest.skip("there is no curl")
        asked = [re.sub(r"http://127\.0\.0\.1:\d+", self.place, text) for text in command]
        return json.loads(subprocess.run([*asked, "--silent"], capture_output=True, check=True).stdout)

    def end(self) -> None:
        for process in self.processes:
            process.terminate()
            process.communicate(timeout=60)


@pytest.fixture
def servers() -> Iterator[Servers]:
    started = Servers()
    yield started
    started.end()


def test_every_command_works_in_the_order_of_the_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], servers: Servers
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for folder in ("experiments", "claims"):
        shutil.copytree(REPOSITORY / folder, folder)
    for claim in Path("claims").glob("*.yaml"):  # decided by few runs
        text = re.sub(r"error: [\d.]+", "error: 0.3", claim.read_text())
        claim.write_text(re.sub(r"runs: \d+", "runs: 8", text))
    make_photos(Path("photos"))
    make_photos(Path("folder"))
    make_photos(Path("other_photos"), images=3)
    shutil.copy("photos/train/class_0/0.jpg", "new_photo.jpg")
    houses = [f"{size},{size % 4 + 1},{'ab'[size % 2]},{1000.5 * size + 10 * (size % 4)}" for size in range(40, 120)]
    Path("houses.csv").write_text("\n".join(["size,rooms,town,price", *houses]))
    for name, program in PLUGINS.items():
        Path(name).write_text(program)
    done = set()
    for command in dict.fromkeys(map(tuple, commands())):  # what stands on two pages is run once
        arguments = list(command[1:])
        if arguments[-1] == "&":
            servers.start(arguments[:-1])
            done.add("serve")
            continue
        if command[0] == "curl":
            assert servers.ask(command)["class"].startswith("class_")
            done.add("curl")
            continue
        extra = [] if "--plugin" in arguments else SHORT.get(arguments[0], [])
        if "--plugin" in arguments:
            extra = SHORT["fit"]
        keys = {text.partition("=")[0] for text in extra}  # those of the page give way: a key is given once
        arguments = [text for text in arguments if text.partition("=")[0] not in keys]
        if arguments[:2] == ["fit", "photos.yaml"]:
            extra = [*extra, "data.size=32", "model=convnet"]
        redirect = arguments.index(">") if ">" in arguments else len(arguments)
        code, output = run([*arguments[:redirect], *extra, *arguments[redirect:]])
        assert code == 0, (command, output)
        done.add(arguments[0])
    assert done >= {
        "fit",
        "eval",
        "sweep",
        "list",
        "schema",
        "init",
        "predict",
        "check",
        "plan",
        "export",
        "serve",
        "curl",
    }
    assert Path("labels.csv").read_text().count("\n") == 26
    assert list(Path("runs/digits").glob("*/events.out.tfevents.*"))
    programs = [text for mark, _, text in BLOCKS if mark == "run"]
    assert len(programs) == 2
    for program in programs:
        Path("program.py").write_text(program)
        runpy.run_path("program.py")
        assert "class_" in capsys.readouterr().out


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_yaml_is_an_experiment(text: str) -> None:
    Experiment.parse(text)


def test_the_claim_of_the_pages_is_shipped() -> None:
    [text] = [text for mark, _, text in BLOCKS if mark == "claim"]
    assert text == (REPOSITORY / "claims/digits_smoothing.yaml").read_text()


def test_the_python_example_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    example = next(text for text in blocks("python") if "build(" in text and "class " not in text)
    program = tmp_path / "example.py"
    program.write_text(example)
    runpy.run_path(str(program))
    assert "EpochReport" in capsys.readouterr().out


def test_the_error_in_the_readme_is_the_one_that_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = next(text for text in blocks("") if text.startswith("error:"))
    monkeypatch.chdir(tmp_path)
    Path("experiments").mkdir()
    source = re.search(r"^ 4 \| (.*)$", shown, re.MULTILINE)
    assert source is not None
    Path("experiments/typo.yaml").write_text(f"data: digits\nmodel: mlp\n\n{source[1]}\n")
    code, output = run(["check", "experiments/typo.yaml"])
    assert code == 2
    assert shown.strip() in output


def test_an_author_tests_a_part_with_its_contract(zygote: Zygote, tmp_path: Path) -> None:
    program, test = PLUGINS["my_activations.py"], PLUGINS["test_my_activations.py"]
    assert len(program[program.index("class ") :].strip().splitlines()) <= 15 and len(test.splitlines()) <= 10
    (tmp_path / "my_activations.py").write_text(program)
    (tmp_path / "test_my_activations.py").write_text(test)
    wrong = program.replace("1.0: 0.936722", "1.0: 0.9").replace('"serf"', '"wrong"')
    (tmp_path / "my_mistake.py").write_text(wrong)
    (tmp_path / "test_my_mistake.py").write_text(test.replace("my_activations", "my_mistake").replace("serf", "wrong"))
    program = "import sys, pytest\nsys.path.insert(0, '')\nsys.exit(pytest.main(['-q']))"
    output = zygote.capture(cwd=tmp_path, setup=program).stdout
    assert "1 failed, 9 passed" in output, output
    assert "test_my_mistake.py::TestSerf::test_values_and_parameters_are_those_of_its_facts[wrong]" in output


def ours(kind: Any) -> list[str]:
    """The names of a kind, without those of plug-ins that an earlier test imported."""
    return [name for name in kind.all_names() if kind.lookup(name).__module__.startswith("dltrain.")]


def test_the_numbers_of_the_table_are_those_of_the_catalogues() -> None:
    table = TEXT[TEXT.index("<!-- peers -->") :].partition("\n\n")[0]
    rows = {row.split("|")[1].strip(): row.split("|")[2] for row in table.splitlines() if row.startswith("| ")}
    kinds = {
        "activation": Activation, "norm": Norm, "attention": Attention, "initial weights": Initialization,
        "optimizers": Optimizer, "learning-rate schedules": Schedule,
    }  # fmt: skip
    for row, kind in kinds.items():
        assert int(re.findall(r"\d+", rows[row])[0]) == len(ours(kind)), row
    names = [name for name in ours(Model) if name != "sequential"]
    libraries = sum("/" in name for name in names)
    assert [int(n) for n in re.findall(r"\d+", rows["networks"])] == [len(names) - libraries, libraries]


def heading(text: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


PROSE = sorted(path for folder in (".", "docs", "benchmarks") for path in (REPOSITORY / folder).glob("*.md"))


@pytest.mark.parametrize("page", PROSE, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text())
    for place, anchor in links:
        target = (page.parent / place).resolve() if place else page
        assert target.exists() and target.is_relative_to(REPOSITORY), f"{page.name}: {place}"
        if anchor:
            assert anchor in map(heading, re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)), (
                f"{place}#{anchor}"
            )


def test_the_readme_shows_the_way_from_photos_to_a_server_in_six_lines() -> None:
    """`test_every_command_works_in_the_order_of_the_pages` runs each."""
    pages = re.findall(r"\n\n```\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    [way] = [text.splitlines() for text in pages if "curl " in text]
    assert [" ".join(line.split()[: 1 if line.startswith("curl") else 2]) for line in way] == [
        "dltrain init", "dltrain fit", "dltrain export", "dltrain predict", "dltrain serve", "curl",
    ]  # fmt: skip


def test_the_readme_reads_in_five_minutes() -> None:
    prose = re.sub(r"```.*?```", "", (REPOSITORY / "README.md").read_text(), flags=re.DOTALL)
    assert len(prose.split()) <= 1300


def test_the_ci_script_runs_the_test_command_of_the_readme() -> None:
    command = next(text for mark, _, text in BLOCKS if mark == "test")
    assert command.count("\n") == 1
    assert "pytest" in command
    assert "<!-- test -->" in (REPOSITORY / ".ci/run").read_text()
