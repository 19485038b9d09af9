"""`record`: replay a run into a recorder. Values flow from the run directory into a recording."""

from __future__ import annotations

from collections.abc import Sequence

from dltrain.commands.showing import require_libraries
from dltrain.config import ConfigError
from dltrain.config.reader import read_file
from dltrain.config.validation import unknown_choice
from dltrain.console.display import Display
from dltrain.errors import RunError
from dltrain.experiment.experiment import Experiment
from dltrain.runs.environment import flatten
from dltrain.runs.events import read_histograms, read_images, read_scalars
from dltrain.runs.recorders.base import About, Recorder
from dltrain.runs.recorders.csv import FILE, read_table
from dltrain.runs.run import Run


def record(path: str, name: str, options: Sequence[str], display: Display) -> None:
    """Show a run, finished or not, in one more recorder. options: `key=value`, of the recorder.

    Its points within epochs and its images are those of its event files, its figures those in `figures/`.
    Raises ConfigError when there is no such recorder, and RunError when nothing was recorded or the recorder fails.
    """
    recorder = _chosen(name, options)
    run, _ = Run.open(path)
    if not (run.path / FILE).is_file():
        raise RunError(f"{run.path} has no {FILE}: nothing was recorded yet")
    epochs = {int(row["step"]): row for row in read_table(run.path)}
    about = _about(run, list(epochs.values()))
    points = {step: row for step, row in read_scalars(run.path).items() if step not in epochs}
    shown = {**points, **epochs}
    recording = recorder.build()
    try:
        recording.start(about, [], max(shown, default=0))
        pictures, histograms = read_images(run.path), read_histograms(run.path)
        for at in sorted({step for _, step in (*pictures, *histograms)} | {*shown}):
            if at in shown:
                (recording.epoch if at in epochs else recording.step)(shown[at])
            if spread := {tag: each for (tag, step), each in histograms.items() if step == at}:
                recording.histograms(spread, at)
            for title, grid in ((title, grid) for (title, step), grid in pictures.items() if step == at):
                recording.images(title, grid, at)
        for figure in sorted(run.path.glob("figures/*.png")):
            recording.figure(figure.stem, figure)
        recording.close(str(run.read_json("result.json").get("state")))
    except Exception as error:  # whatever a library raises
        raise RunError(f"recorder `{name}` failed: {type(error).__name__}: {error}") from error
    display.line(f"{about.title} -> {name}: {len(epochs)} epochs, {len(points)} points within them")


def _chosen(name: str, options: Sequence[str]) -> Recorder:
    if Recorder.lookup(name) is None:
        raise ConfigError([unknown_choice(Recorder, name, None)])
    overrides = [f"recorders=[{name}]", *(f"recorders.0.{text}" for text in options)]
    experiment = Experiment.parse("{data: digits, model: mlp}", overrides=overrides)
    require_libraries(experiment)
    return experiment.recorders[0]


def _about(run: Run, rows: list[dict[str, float]]) -> About:
    """What its directory tells of a run; of one begun before hyperparameters were kept, all of the experiment."""
    tree = read_file(run.path / "experiment.yaml").tree
    settings = {key: value for key, value in tree.items() if key != "name"} if isinstance(tree, dict) else {}
    name = tree.get("name") if isinstance(tree, dict) else None
    facts = run.read_json("environment.json")
    shown = facts.get("hyperparameters") or flatten(settings)
    tags = dict.fromkeys(tag for row in rows for tag in row)
    metrics = list(dict.fromkeys(tag.partition("/")[2] for tag in tags if tag.startswith(("train/", "validation/"))))
    return About(run.path, str(name or run.path.parent.name), shown, metrics, facts)
