"""The page of a search: everything the story tells is on it, escaped, and the browser draws it."""

from __future__ import annotations

import dataclasses
import math
import random
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import optuna
import pytest
from browsing import needs_browser, open_page
from searching import ACCURACY, SPACE, SPEED, rounds_of, story

from dltrain.evidence.figures import duration
from dltrain.search import Range
from dltrain.sweeps.importance import importance
from dltrain.sweeps.page import PAGE, page, write_page
from dltrain.sweeps.pictures import front, thinned
from dltrain.sweeps.story import Objective, SearchStory, TrialStory, identity

NASTY = '</script><script>evil("1")</script><img src=x onerror=evil()>'
LOSS = Objective("validation/loss", "min", ".3f")


def figures(html: str) -> dict[str, ElementTree.Element]:
    """The figures of a page by their titles, each read by an XML parser; of two of one title, the narrow one."""
    found = [ElementTree.fromstring(each) for each in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]
    return {str(each.findtext("title")): each for each in found}


def marks(figure: ElementTree.Element) -> list[str]:
    return [str(e.get("data-of")) for e in figure.iter() if "mark" in e.get("class", "").split() and e.get("data-of")]


def trials_of(search: SearchStory, *states: str, key: str | None = None) -> set[str]:
    chosen = [t for t in search.trials if t.state in states and (key is None or key in t.values)]
    return {f"t{trial.index + 1}" for trial in chosen}


@pytest.fixture(scope="module")
def usual() -> tuple[SearchStory, str]:
    search = story()
    return search, page(search)


def test_every_trial_stands_in_the_table_with_its_state_and_values(usual: tuple[SearchStory, str]) -> None:
    search, html = usual
    rows = dict(re.findall(r'<tr data-of="(t\d+)"[^>]*>(.*?)</tr>', html))
    assert list(rows) == [f"t{index}" for index in range(1, 101)]
    for trial in search.trials:
        cells = re.findall(r"<td[^>]*>(.*?)</td>", rows[f"t{trial.index + 1}"])
        assert cells[:3] == [str(trial.index + 1), trial.state, str(trial.round + 1)]
        value = trial.metrics.get("validation/accuracy")
        assert cells[3] == ("" if value is None else f"{value:.4f}")
        assert cells[4] == f"{trial.values['optimizer.lr']:.4g}"
        assert (cells[6] == "") == ("optimizer.momentum" not in trial.values)
    best = re.findall(r'<tr data-of="(t\d+)" class="best">', html)
    assert sorted(best) == sorted(f"t{index + 1}" for index in search.best)


def test_every_figure_has_the_trials_that_belong_there(usual: tuple[SearchStory, str]) -> None:
    search, html = usual
    drawn = figures(html)
    measured, ended = trials_of(search, "finished"), trials_of(search, "finished", "pruned")
    assert 60 < len(measured) < len(ended) < 100  # the story has some of each
    assert sorted(marks(drawn["History of accuracy"])) == sorted(trials_of(search, "finished", "pruned", "failed"))
    assert sorted(marks(drawn["Values and results of all trials"])) == sorted(ended)
    for key in SPACE:
        assert sorted(marks(drawn[f"accuracy by {key}"])) == sorted(trials_of(search, "finished", "pruned", key=key))
    curves = marks(drawn["Learning curves"])
    assert sorted(curves) == sorted([*ended, *trials_of(search, "pruned")])  # the latter with a mark at their end
    assert len(trials_of(search, "finished", "pruned", key="optimizer.momentum")) < len(ended)


def test_slices_show_the_range_of_each_round(usual: tuple[SearchStory, str]) -> None:
    figure = figures(usual[1])["accuracy by optimizer.lr"]
    strips = list(figure.iter("rect"))
    assert [each.findtext("title", "").split(" tries")[0] for each in strips] == ["round 1", "round 2", "round 3"]
    whole = float(strips[0].get("width", ""))
    for strip, ranges in zip(strips, rounds_of(3), strict=True):
        low, high = ranges["optimizer.lr"].bounds()
        assert float(strip.get("width", "")) == pytest.approx(whole * math.log10(high / low) / 4, abs=0.3)
    names = figures(usual[1])["accuracy by optimizer.name"]
    assert len(list(names.iter("rect"))) == 3 + 3 + 2  # the last round tries two of three


def test_the_page_says_in_a_sentence_what_was_found(usual: tuple[SearchStory, str]) -> None:
    search, html = usual
    best = search.trial(search.best[0])
    assert f"Trial {best.index + 1} is the best: validation/accuracy {best.metrics['validation/accuracy']:.4f}." in html
    counts = [f"{sum(t.state == s for t in search.trials)} {s}" for s in ("finished", "pruned", "failed")]
    assert f"100 settings tried in 70 min: {', '.join(counts)}." in html
    for words in (*search.repeat, *search.facts, *search.facts.values(), search.budget, search.sampler_reason):
        assert words in html
    failed = [str(t.index + 1) for t in search.trials if t.state == "failed"]
    assert (
        f'<td class="words">the loss is not a number at step 12</td><td class="words">{", ".join(failed)}</td>' in html
    )


def test_the_page_is_the_same_each_time_and_names_nothing_outside(usual: tuple[SearchStory, str]) -> None:
    search, html = usual
    assert page(search) == html
    assert html.count("http") == html.count("http-equiv") == 1
    assert not re.search(r'(?:src|href)="(?!#|data:,)', html)
    assert "@import" not in html and "url(" not in html


def test_words_of_the_story_cannot_break_out() -> None:
    space = {NASTY: Range(choices=[NASTY, "other", [NASTY]])}
    made = [
        TrialStory(0, {NASTY: NASTY}, "finished", {"validation/accuracy": 0.5}, [(1.0, 0.4), (2.0, 0.5)]),
        TrialStory(1, {NASTY: [NASTY]}, "pruned", {"validation/accuracy": 0.4}, [(1.0, 0.4)]),
        TrialStory(2, {NASTY: "other"}, "failed", reason=NASTY),
    ]
    html = page(
        SearchStory(
            NASTY, [ACCURACY], space, made, [0], NASTY, NASTY, [space, space], NASTY, 1.0, [NASTY], {NASTY: NASTY}
        )
    )
    assert html.count("<script") == html.count("</script") == 1
    assert "<img" not in html
    assert html.count("evil(&#34;1&#34;)") > 20
    assert figures(html)


def additive(count: int, *, log: bool, conditional: bool = False) -> SearchStory:
    """A loss that is 2u + v, where u and v are even on [0, 1]: u explains 4/5 of its variance, v 1/5 (by hand: the
    variance of a uniform number times its factor squared). log: u is the logarithm of its key."""
    chance = random.Random(1)
    space = {
        "v": Range(low=0.0, high=1.0),
        "u": Range(low=1e-6, high=1.0, log=True) if log else Range(low=0.0, high=1.0),
    }
    space["w"] = Range(low=0.0, high=1.0)
    made = []
    for index in range(count):
        u, v, w = chance.random(), chance.random(), chance.random()
        values = {"u": 10 ** (6 * u - 6) if log else u, "v": v}
        loss = 2 * u + v
        if not conditional or index % 2:
            values["w"] = w
            loss += 3 * w * conditional
        made.append(TrialStory(index, values, "finished", {"validation/loss": loss}))
    return SearchStory("x", [LOSS], space, made, [0])


@pytest.mark.parametrize("log", [False, True])
def test_importance_is_the_share_of_the_variance(log: bool) -> None:
    found = importance(additive(150, log=log), LOSS)
    assert list(found.shares) == ["u", "v", "w"]
    assert found.shares["u"] == pytest.approx(0.8, abs=0.08)
    assert found.shares["v"] == pytest.approx(0.2, abs=0.08)
    assert found.shares["w"] < 0.03
    assert sum(found.shares.values()) <= 1


def test_a_conditional_key_counts_among_the_trials_that_set_it() -> None:
    found = importance(additive(160, log=False, conditional=True), LOSS)
    assert list(found.shares) == ["u", "v"]
    share, count = found.within["w"]
    assert count == 80
    assert share == pytest.approx(9 / 14, abs=0.12)  # of 2u + v + 3w


def test_results_far_out_do_not_decide_what_is_important() -> None:
    plain = additive(150, log=False)
    made = [
        dataclasses.replace(t, metrics={"validation/loss": 1e6 * (index + 1)}) if index % 30 == 0 else t
        for index, t in enumerate(plain.trials)
    ]
    found = importance(dataclasses.replace(plain, trials=made), LOSS)
    assert found.shares["u"] > 2 * found.shares["v"] > 4 * found.shares["w"]


def test_importance_says_why_it_cannot_be_computed() -> None:
    few = additive(9, log=False)
    assert "it takes 10 finished trials, and there are 9" in page(few)
    same = [dataclasses.replace(trial, metrics={"validation/loss": 0.5}) for trial in additive(20, log=False).trials]
    alike = SearchStory("x", [LOSS], few.space, same, [0])
    assert "all 20 trials have the same loss" in page(alike)


def test_the_front_is_what_optuna_finds() -> None:
    chance = random.Random(3)
    objectives = [ACCURACY, LOSS, SPEED]
    made = [
        TrialStory(i, {"a": 0.5}, "finished", {o.tag: round(chance.random(), 1) for o in objectives}) for i in range(60)
    ]
    study = optuna.create_study(directions=["maximize", "minimize", "maximize"])
    for trial in made:
        study.add_trial(optuna.create_trial(values=[trial.metrics[o.tag] for o in objectives]))
    search = SearchStory("x", objectives, {"a": Range(low=0.0, high=1.0)}, made, [])
    assert sorted(front(search)) == sorted(trial.number for trial in study.best_trials)


def test_several_objectives_have_a_front_and_everything_each() -> None:
    search = story(40, 1, 3, objectives=(ACCURACY, SPEED))
    search = dataclasses.replace(search, best=front(search))
    html = page(search)
    drawn = figures(html)
    figure = drawn["examples_per_second against accuracy"]
    assert sorted(marks(figure)) == sorted(trials_of(search, "finished"))
    ahead = next(
        each for each in figure.iter("g") if each.get("class") == "best" and len(list(each.iter("circle"))) > 1
    )
    assert {e.get("data-of") for e in ahead.iter("circle")} == {f"t{index + 1}" for index in search.best}
    for title in (
        "History of accuracy",
        "Importance for examples_per_second",
        "examples_per_second by data.batch_size",
    ):
        assert title in drawn
    assert f"{len(search.best)} trials are beaten by no other in accuracy and examples_per_second together." in html


@pytest.mark.parametrize(
    "made",
    [
        [],
        [TrialStory(0, {"a": 0.5}, "failed", reason="out of memory")],
        [TrialStory(0, {"a": 0.5}, "running", {"validation/loss": 0.4}, [(1.0, 0.4)])],
        [TrialStory(0, {}, "finished", {"validation/loss": math.nan}), TrialStory(3, {"a": 0.1}, "paused")],
        [
            TrialStory(i, {"a": 0.5}, "finished", {"validation/loss": v})
            for i, v in enumerate([0.5, 0.5, 1e30, math.inf])
        ],
    ],
    ids=["none", "only failed", "running", "no number", "far out"],
)
def test_a_search_that_found_little_has_a_page_too(made: list[TrialStory]) -> None:
    search = SearchStory("x", [LOSS], {"a": Range(low=0.0, high=1.0)}, made, [0] if len(made) > 3 else [])
    html = page(search)
    assert not re.search(r'="[^"]*\b(nan|inf)\b', "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL)))
    figures(html)
    if len(made) < 4:
        assert "No trial has come to an end with a result yet." in html


def test_a_search_of_300_long_trials_fits_in_two_megabytes() -> None:
    keys = {f"model.option_{index}": Range(low=0.0, high=1.0) for index in range(5)}
    search = story(300, 3, 200, space={**SPACE, **keys})
    long = [(float(epoch), 0.5 + epoch / 1000) for epoch in range(1, 201)]
    made = [
        dataclasses.replace(t, state="pruned", curve=long, values={**t.values, **dict.fromkeys(keys, 0.123456)})
        for t in search.trials
        if t.metrics
    ]
    made = (made * 2)[:300]
    made = [dataclasses.replace(trial, index=index) for index, trial in enumerate(made)]
    html = page(dataclasses.replace(search, trials=made, best=[]))  # pruned: a forest would take its time
    assert len(html.encode()) < 2_000_000


def test_choices_that_look_alike_are_told_apart() -> None:
    choices = [1, "1", True, "true", None, "null", 1.0, "one", [1], "[1]", {"b": 1, "a": 2}]
    assert len({identity(choice) for choice in choices}) == len(choices)
    assert identity("one") == "one"
    space = {"a": Range(choices=choices)}
    made = [TrialStory(i, {"a": c}, "finished", {"validation/loss": float(i)}) for i, c in enumerate(choices)]
    search = SearchStory("x", [LOSS], space, made, [0])
    figure = figures(page(search))["loss by a"]
    places = [float(e.get("cx", "")) for e in figure.iter("circle") if e.get("class") == "mark circle"]
    assert places == sorted(set(places))  # each choice has a place of its own, in their order


def test_long_curves_keep_both_ends() -> None:
    curve = [(float(epoch), 1 / epoch) for epoch in range(1, 500)]
    short = thinned(curve, 60)
    assert (short[0], short[-1], len(short)) == (curve[0], curve[-1], 60)
    assert thinned(curve[:60], 60) == curve[:60]


def test_the_page_replaces_the_one_before(tmp_path: Path) -> None:
    search = additive(3, log=False)
    (tmp_path / PAGE).write_text("old")
    assert write_page(tmp_path, search) == tmp_path / PAGE
    assert (tmp_path / PAGE).read_text() == page(search)
    assert [path.name for path in tmp_path.iterdir()] == [PAGE]


@pytest.mark.parametrize(("seconds", "words"), [(4.21, "4.2 s"), (59, "59 s"), (600, "10 min"), (9000, "2.5 h")])
def test_times_are_told_shortly(seconds: float, words: str) -> None:
    assert duration(seconds) == words


SEEN = """[...document.querySelectorAll("svg.figure")].filter((svg) => svg.getClientRects().length).map((svg) => {
    const box = svg.getBBox(), marks = [...svg.querySelectorAll(".mark")];
    return { title: svg.querySelector("title").textContent, wide: box.width, high: box.height, marks: marks.length,
             unseen: marks.filter((m) => { const b = m.getBBox(); return !(b.width + b.height > 0); }).length };
})"""


@needs_browser
def test_the_page_opens_without_an_error_or_a_request(usual: tuple[SearchStory, str]) -> None:
    opened = open_page(usual[1])
    assert (opened.console, opened.requests) == ([], [])


@needs_browser
@pytest.mark.parametrize("width", [1400, 500])
def test_every_figure_is_drawn(usual: tuple[SearchStory, str], width: int) -> None:
    search, html = usual
    opened = open_page(html, f"[{SEEN}, document.documentElement.scrollWidth]", width)
    seen: list[dict[str, Any]] = opened.answer[0]
    counts = {each["title"]: each["marks"] for each in seen}
    assert len(counts) == len(seen) == 4 + len(SPACE)  # of the wide and the narrow ones, one is shown
    ended = trials_of(search, "finished", "pruned")
    assert counts["History of accuracy"] == len(ended | trials_of(search, "failed"))
    assert counts["Values and results of all trials"] == len(ended)
    assert counts["accuracy by optimizer.lr"] == len(ended) + 3
    assert counts["Importance for accuracy"] >= len(SPACE)
    assert all(each["wide"] > 200 and each["high"] > 50 and each["unseen"] == 0 for each in seen)
    assert opened.answer[1] <= width  # nothing stands out of the page
    assert opened.console == []


@needs_browser
def test_tables_sort_marks_light_up_and_axes_are_brushed(usual: tuple[SearchStory, str]) -> None:
    search, html = usual
    act = """(() => {
        const table = document.querySelector("#trials table"), heads = table.tHead.rows[0].cells;
        const column = (n) => [...table.tBodies[0].rows].map((row) => row.cells[n].textContent);
        const press = (n) => { heads[n].querySelector("button").click(); return column(n); };
        const up = press(3), down = press(3), names = press(5), sorted = heads[5].getAttribute("aria-sort");
        const point = document.querySelector("#slices .mark[data-of=t1]"), box = point.getBoundingClientRect();
        point.dispatchEvent(new PointerEvent("pointerover", { bubbles: true, clientX: box.x, clientY: box.y }));
        const lit = [...document.querySelectorAll(".lit")].map((each) => each.dataset.of);
        const tip = document.getElementById("tip").textContent;
        const svg = document.querySelector("#coordinates .wide svg"), brush = svg.querySelector(".brush");
        const area = brush.getBoundingClientRect(), x = area.x + area.width / 2;
        const drag = (kind, share) => brush.dispatchEvent(
            new PointerEvent(kind, { bubbles: true, clientX: x, clientY: area.y + area.height * share }));
        drag("pointerdown", 0.0); drag("pointermove", 0.5); drag("pointerup", 0.5);
        const kept = [...svg.querySelectorAll(".thread:not(.out)")].map((e) => e.dataset.of);
        drag("pointerdown", 0.2); drag("pointerup", 0.2);
        return { up, down, names, sorted, lit, tip, kept, all: svg.querySelectorAll(".thread:not(.out)").length };
    })()"""
    opened = open_page(html, act)
    got = opened.answer
    told = sorted(f"{t.metrics['validation/accuracy']:.4f}" for t in search.trials if t.metrics)
    empty = [""] * (100 - len(told))
    assert got["up"] == told + empty
    assert got["down"] == told[::-1] + empty
    assert got["names"] == sorted(str(t.values["optimizer.name"]) for t in search.trials)
    assert got["sorted"] == "ascending"
    assert set(got["lit"]) == {"t1"} and len(got["lit"]) > 6
    assert got["tip"].startswith("trial 1, ")
    upper = [t for t in search.trials if t.state in ("finished", "pruned") and t.values["optimizer.lr"] >= 1e-2]
    assert sorted(got["kept"]) == sorted(f"t{t.index + 1}" for t in upper)  # the upper half of 1e-4 to 1, in logarithms
    assert got["all"] == len(trials_of(search, "finished", "pruned"))
    assert opened.console == []
