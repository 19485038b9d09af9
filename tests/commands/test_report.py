"""`dltrain report`: the page holds what the table of the examples holds, opens alone, and lets nothing in."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from answers import TASKS, fit_task
from browsing import needs_browser, open_page
from evaluating import invoke, measured
from rationing import except_for
from reporting import assert_cells_hold, paths_by_pixels, pictures, reported, rows_of, section, write_noise

from dltrain.evidence.intervals import wilson


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reported")


@pytest.fixture(scope="module")
def run(base: Path) -> Path:
    """A classifier that errs."""
    write_noise(base)
    for seed in (0, 1):
        done = invoke("fit", base / "noise.yaml", "--runs", base, "--device", "cpu", f"seed={seed}")
        assert done.exit_code == 0, done.output
    return base / "noise" / "001"


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return reported(run)


@pytest.fixture(scope="module")
def both(run: Path) -> str:
    return reported(run, run.parent / "002", "--split", "test", "--output", run.parent / "both.html")


def examples(run: Path, split: str = "validation") -> list[dict[str, str]]:
    return rows_of(run / "eval" / f"{split}.csv")


def test_the_images_of_every_confusion_cell_are_those_of_the_table(run: Path, html: str) -> None:
    assert_cells_hold(html, examples(run))


def test_lists_hold_the_worst_mistakes_and_the_least_sure(run: Path, html: str) -> None:
    rows = examples(run)
    wrong = [row["path"] for row in rows if row["target"] != row["prediction"]][:24]
    top = {row["path"]: max(float(v) for k, v in row.items() if k.startswith("probability of ")) for row in rows}
    files = paths_by_pixels(rows)
    assert [files[pixels] for pixels in pictures(section(html, "worst"))] == wrong
    unsure = [top[files[pixels]] for pixels in pictures(section(html, "unsure"))]
    assert unsure == pytest.approx(sorted(top.values())[:24], abs=1e-6)


def test_the_summary_has_the_interval_and_all_sections_are_there(run: Path, html: str) -> None:
    rows = examples(run)
    right = sum(row["target"] == row["prediction"] for row in rows)
    share, ends = right / len(rows), wilson(right, len(rows))
    told = f"Right on {right} of {len(rows)} images of the validation split: {share:.2%} (95 % interval {ends.low:.2%}"
    assert told in html
    sections = re.findall(r'<section id="(\w+)">', html)
    assert sections == ["results", "curves", "rate", "time", "worst", "unsure", "confusion", "classes", "thresholds",
                        "calibration", "slices", "augmented", "plan", "environment", "repeat"]  # fmt: skip
    for fact in ("accuracy by image size", "accuracy by brightness"):
        assert f"<title>{fact}</title>" in html
    assert html.count("below as the network got them") == 1
    assert f"dltrain report {run} --split validation" in html
    assert "versions and machine give the same weights, bit for bit" in html


def test_a_run_that_is_not_exact_promises_no_bits(run: Path, tmp_path: Path) -> None:
    experiment, changes = run.parents[1] / "noise.yaml", ["training.epochs=1", "training.deterministic=false"]
    done = invoke("fit", experiment, *changes, "--runs", tmp_path, "--device", "cpu")
    assert done.exit_code == 0, done.output
    own = tmp_path / "noise/001"
    about = json.loads((own / "environment.json").read_text())
    assert "bit for bit" in reported(own), "on a CPU it is"
    about["decisions"]["device"]["value"] = "cuda:0"
    (own / "environment.json").write_text(json.dumps(about))
    told = reported(own)
    assert "bit for bit" not in told and "weights differ from run to run" in told


def test_names_like_markup_are_words(html: str) -> None:
    assert html.count("<script>") == html.count("</script>") == 1
    assert "&lt;script&gt;evil()&lt;" in html and "onerror=evil()&gt;" in html
    assert not re.search(r"<img src=x|<script>evil", html)
    assert not re.search(r'(?:src|href)="(?!data:|#)', html)


def test_several_runs_are_compared_and_drawn_together(run: Path, both: str) -> None:
    rows = examples(run, "test")
    assert f"of {len(rows)} images of the test split" in both
    assert re.search(r"images: undecided|images apart: (undecided|B is (better|worse))", both)
    assert "<td>seed</td><td>0</td><td>1</td>" in both
    curve = re.search(r"<svg[^>]*><title>loss by epoch</title>.*?</svg>", both, re.DOTALL)
    assert curve is not None
    for name in ("A train", "A validation", "B train", "B validation"):
        assert name in curve[0]


def test_without_its_data_a_run_is_told_without_images(run: Path, html: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    text = (copy / "experiment.yaml").read_text()
    (copy / "experiment.yaml").write_text(text.replace(str(run.parent.parent / "data"), str(tmp_path / "gone")))
    told = reported(copy)
    assert "The data cannot be read, so no example is shown" in told and "<img" not in told
    assert re.findall(r'<details id="(cell-\d-\d)">', told) == re.findall(r'<details id="(cell-\d-\d)">', html)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_of_tables_is_told_by_rows(base: Path, name: str) -> None:
    run = fit_task(base, name)
    told, ece = reported(run), measured(run, "--split", "validation").get("ece")
    assert "<img" not in told and '<section id="worst">' in told
    assert ece is None or f"Expected calibration error {ece:.4f}: " in told
    own = {
        "classification": ["Confusion matrix", "ROC", "Reliability diagram"],
        "binary_classification": ["Confusion matrix", "ROC", "accuracy by x1"],
        "multilabel": ["Precision and recall", "Reliability diagram"],
        "regression": ["answered against right", "residuals", "rmse by x2", "rmse by kind"],
        "several numbers": ["size: residuals", "weight: residuals"],
        "reconstruction": ["Error of each example"],
    }[name]
    for title in own:
        assert re.search(rf"<title>[^<]*{title}[^<]*</title>", told), title


@pytest.fixture(scope="module")
def autoencoder(base: Path, arrays: Path) -> str:
    (base / "auto.yaml").write_text(
        f"data: {{name: arrays, path: {arrays}, scaling: none, validation: 0.3}}\n"
        "model: {name: variational_autoencoder, hidden: [8], code: 2}\nloss: mse\n"
        "training: {epochs: 1, batch_size: 50}\n"
    )
    done = invoke("fit", base / "auto.yaml", "--runs", base, "--device", "cpu")
    assert done.exit_code == 0, done.output
    return reported(base / "auto" / "001")


def test_an_autoencoder_shows_inputs_outputs_and_samples(autoencoder: str) -> None:
    for anchor, count in (("answers", 48), ("worst", 48), ("samples", 24)):
        assert section(autoencoder, anchor).count("<img") == count


def test_wrong_requests_are_told(run: Path, tmp_path: Path) -> None:
    for arguments, words in (
        ([tmp_path / "none"], "there is no run"),
        ([run, "--output", tmp_path / "no" / "x.html"], "cannot write to"),
    ):
        done = invoke("report", *arguments)
        assert done.exit_code == 2 and words in done.stderr and "Traceback" not in done.output


BROKEN = """(addEventListener("load", () => {
    const svgs = [...document.querySelectorAll("svg.figure")].filter((svg) => svg.getClientRects().length);
    const figures = svgs.map((svg) => {
        const box = svg.getBBox(), marks = [...svg.querySelectorAll(".mark")];
        const unseen = marks.filter((m) => { const b = m.getBBox(); return !(b.width + b.height > 0); });
        return { title: svg.querySelector("title").textContent, wide: box.width, high: box.height,
                 unseen: unseen.length,
                 odd: /NaN|undefined|inf/.test(svg.outerHTML.replace(/<(title|desc|text)[^]*?<[/]/g, "")) };
    });
    document.querySelectorAll("details").forEach((each) => { each.open = true; });
    const images = [...document.querySelectorAll("img")];
    document.getElementById("answer").textContent = JSON.stringify({
        figures, images: images.length, broken: images.filter((i) => !i.complete || !i.naturalWidth).length,
        wide: document.documentElement.scrollWidth });
}), null)"""


@needs_browser
@pytest.mark.parametrize("which", except_for(["html"], ["html", "both", "autoencoder"]))
def test_nothing_is_broken_in_a_browser(which: str, request: pytest.FixtureRequest) -> None:
    told = request.getfixturevalue(which)
    for width in (1400, 500):
        seen = open_page(told, BROKEN, width)
        assert (seen.console, seen.requests) == ([], [])
        answer = seen.answer
        assert answer["broken"] == 0 and answer["images"] == told.count("<img ") and answer["wide"] <= width
        assert len(answer["figures"]) >= 5
        for figure in answer["figures"]:
            assert figure["wide"] > 100 and figure["high"] > 50 and not figure["unseen"] and not figure["odd"], figure
    opened = open_page(told)  # under its own policy
    assert (opened.console, opened.requests) == ([], [])


@needs_browser
def test_cells_open_by_keyboard_and_by_click(html: str) -> None:
    act = """(() => {
        const svg = document.querySelector("#confusion svg.figure");
        const press = (key) => document.activeElement.dispatchEvent(
            new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
        svg.focus();
        const cells = [...svg.querySelectorAll(".mark")], first = cells.findIndex((c) => c.dataset.opens);
        for (let step = 0; step <= first; step++) press("ArrowRight");
        press("Enter");
        const one = document.getElementById(cells[first].dataset.opens);
        const inside = [one.open, document.activeElement === one.querySelector("summary")];
        const last = cells.filter((c) => c.dataset.opens).pop();
        last.dispatchEvent(new MouseEvent("click", { bubbles: true }));
        return [...inside, document.getElementById(last.dataset.opens).open,
                document.querySelectorAll("details[open]").length];
    })()"""
    assert open_page(html, act).answer == [True, True, True, 2]
