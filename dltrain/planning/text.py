"""A plan as text for a terminal: plain characters, no wider than asked where names allow."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from dltrain.data.loading.resources import size

BLOCKS = " ▁▂▃▄▅▆▇█"
HEIGHT, WIDEST = 5, 72
"""Rows and most columns of a curve."""


def render(plan: dict[str, Any], width: int = 80) -> str:
    """What `plan` found, for `width` columns."""
    parts: list[tuple[str, Iterator[str]]] = [
        (plan["experiment"], _pairs(_overview(plan), width)),
        ("layers", _layers(plan, width)),
        ("learning rate", _learning_rate(plan, width)),
        (f"groups of {plan['optimizer']}", _groups(plan["groups"])),
        ("memory, estimated; compiling needs less", _memory(plan)),
        ("decided", _pairs({key: _decision(value) for key, value in plan["decisions"].items()}, width)),
    ]
    if plan["adaptation"]:
        parts.append(("set in the network", _pairs(_changes(plan["adaptation"]), width)))
    parts.append(("warnings", _warnings(plan["warnings"], width)))
    return "\n\n".join("\n".join([title, *(f"  {line}".rstrip() for line in lines)]) for title, lines in parts)


def _overview(plan: dict[str, Any]) -> dict[str, str]:
    examples = ", ".join(f"{count:,} {name}" for name, count in plan["examples"].items())
    frozen = plan["parameters"] - plan["trainable_parameters"]
    parameters = f"{plan['parameters']:,} parameters{f', {frozen:,} of them frozen' if frozen else ''}"
    epochs = f"{many(plan['epochs'], 'epoch')} of {many(plan['steps_per_epoch'], 'step')}"
    batch = f"{many(plan['batch_size'], plan['example'])} a step"
    batch += f", in {plan['accumulate']} parts" if plan["accumulate"] > 1 else ""
    start = _start(plan["initialized"]) if plan["initialized"] else None
    set_apart = {
        "start": start,
        "frozen": plan["frozen"],
        "balance": plan["balance"],
        "images": plan["progressive_size"],
    }
    return {
        "data": f"{plan['data']}: {examples}, {plan['targets']}, {_shape(plan['shape'])}",
        "task": f"{plan['task']}, loss {plan['loss']}",
        "model": f"{plan['model']}: {parameters}, {count(plan['multiply_adds'])} multiply-adds {_a(plan['example'])}",
        "training": f"{epochs}, {many(plan['steps'], 'step')} in all, {batch}",
        **{key: text for key, text in set_apart.items() if text},
    }


def _start(initialized: dict[str, Any]) -> str:
    """What is loaded: how many tensors each list has, where it has some."""
    lists = {what: names for what, names in initialized.items() if isinstance(names, list) and names}
    counts = ", ".join(f"{len(names)} {what.replace('_', ' ')}" for what, names in lists.items())
    return f"tensors of {initialized['file']}: {counts}"


def _shape(shape: Sequence[int]) -> str:
    """Of an example: `3x32x32`, or `8 numbers`."""
    return "x".join(map(str, shape)) if len(shape) > 1 else many(shape[0], "number")


def _a(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _layers(plan: dict[str, Any], width: int) -> Iterator[str]:
    rows = [["name", "type", "output", "parameters", "multiply-adds"]]
    for layer in plan["layers"]:
        output = "x".join(map(str, layer["output"])) if layer["output"] is not None else ""
        cost = count(layer["multiply_adds"]) if layer["multiply_adds"] else ""
        rows.append(
            [layer["name"], layer["type"], output, f"{layer['parameters']:,}" if layer["parameters"] else "", cost]
        )
    rows.append(["total", "", "", f"{plan['parameters']:,}", count(plan["multiply_adds"])])
    yield from _table(rows, "<<<>>", width, total=True)


def _learning_rate(plan: dict[str, Any], width: int) -> Iterator[str]:
    samples = plan["learning_rate"]
    peak_step, peak = max(samples, key=lambda sample: (sample[1], -sample[0]))
    warmup = f", warm-up of {plan['warmup_steps']:,} steps" if plan["warmup_steps"] else ""
    known = {0: samples[0][1], peak_step: peak, samples[-1][0]: samples[-1][1]}
    rates = ", ".join(f"{lr:.3g} at step {step:,}" for step, lr in known.items())
    yield from textwrap.wrap(f"{plan['schedule']}{warmup}: {rates}", max(width - 2, 20), subsequent_indent="  ")
    if plan["follows_results"]:
        yield "(it falls further when the training stalls)"
    yield from plot([value for _, value in samples], plan["steps"], min(width - 2, WIDEST))
    if plan["momentum"] is not None:
        low = min(plan["momentum"], key=lambda sample: sample[1])
        first, last = plan["momentum"][0][1], plan["momentum"][-1][1]
        yield f"momentum: {first:.3g} at step 0, {low[1]:.3g} at step {low[0]:,}, {last:.3g} at the end"


def plot(values: Sequence[float], steps: int, width: int) -> Iterator[str]:
    """A curve from 0 up to its peak as filled columns over an axis of steps; `values` are evenly spaced."""
    peak = max(values)
    left = f"{peak:.3g}"
    columns = max(width - len(left) - 2, 10)
    heights = []
    for column in range(columns):
        value = values[round(column * (len(values) - 1) / (columns - 1))]
        full = round(value / peak * HEIGHT * 8) if peak > 0 else 0
        heights.append(max(full, 1) if value > 0 else 0)
    for row in reversed(range(HEIGHT)):
        label = left if row == HEIGHT - 1 else ""
        yield f"{label:>{len(left)}} │" + "".join(BLOCKS[min(max(height - 8 * row, 0), 8)] for height in heights)
    yield f"{'0':>{len(left)}} └" + "─" * columns
    end = f"step {steps:,}"
    yield " " * (len(left) + 2) + "0" + end.rjust(columns - 1)


def _groups(groups: list[dict[str, Any]]) -> Iterator[str]:
    rows = [["tensors", "parameters", "weight decay", "peak learning rate"]]
    rows += [[f"{g['tensors']:,}", f"{g['parameters']:,}", f"{g['weight_decay']:g}", f"{g['lr']:g}"] for g in groups]
    yield from _table(rows, ">>>>")


def _memory(plan: dict[str, Any]) -> Iterator[str]:
    memory = plan["memory_bytes"]
    examples = plan["batch_size"] // plan["accumulate"]
    precision = plan["decisions"]["precision"]["value"]
    kept = "for the backward pass" if plan["gradient"] == "backpropagation" else "alive at once in a forward pass"
    why = {
        "optimizer": f"what {plan['optimizer']} keeps", "average": "the averaged copy of the network",
        "lookahead": "the slow weights", "sam": "the weights to go back to",
        "estimate": f"what gradient `{plan['gradient']}` holds beside the weights",
        "activations": f"{kept} of {many(examples, plan['example'])} in {precision}",
        "data": f"{'decoded images' if plan['example'] == 'image' else plan['example'] + 's'} on the device",
    }  # fmt: skip
    rows = [[key, size(value), why.get(key, "")] for key, value in memory.items() if value]
    yield from _table(rows, "<><", total=True)


def _decision(decision: dict[str, Any]) -> str:
    value = decision["value"]
    return f"{str(value).lower() if isinstance(value, bool) else value} ({decision['reason']})"


def _changes(adaptation: dict[str, Any]) -> dict[str, str]:
    return {
        key: "; ".join([f"{change['what']} in {many(change['count'], 'place')}", *change["notes"]])
        for key, change in adaptation.items()
    }


def _warnings(warnings: list[str], width: int) -> Iterator[str]:
    for text in warnings:
        yield from textwrap.wrap(text, max(width - 2, 20), initial_indent="- ", subsequent_indent="  ")
    if not warnings:
        yield "none"


def _pairs(values: dict[str, str], width: int) -> Iterator[str]:
    left = max(map(len, values))
    for key, value in values.items():
        lines = textwrap.wrap(value, max(width - left - 4, 20))
        yield f"{key:<{left}}  {lines[0]}"
        yield from (" " * (left + 2) + line for line in lines[1:])


def _table(rows: list[list[str]], align: str, width: int | None = None, *, total: bool = False) -> Iterator[str]:
    """`rows` in columns, each to the left or right as `align` says; the first column gives way to a narrow `width`.
    The last row stands under a line when it is a total."""
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if width is not None:
        sizes[0] = max(min(sizes[0], width - 2 - sum(sizes[1:]) - 2 * (len(sizes) - 1)), 12)
    lines = [
        "  ".join(f"{_short(cell, size):{side}{size}}" for cell, side, size in zip(row, align, sizes, strict=True))
        for row in rows
    ]
    if total:
        rule = "─" * (sum(sizes) + 2 * (len(sizes) - 1) if align[-1] == ">" else sum(sizes[:-1]) + 2)
        lines.insert(-1, rule)
    yield from lines


def _short(text: str, limit: int) -> str:
    """`text`, without its middle where it is longer than `limit`."""
    if len(text) <= limit:
        return text
    half = (limit - 1) // 2
    return f"{text[: limit - 1 - half]}…{text[len(text) - half :]}"


def many(number: int, what: str) -> str:
    """`1 epoch`, `1,000 epochs`."""
    return f"{number:,} {what}{'s' if number != 1 else ''}"


def count(number: float) -> str:
    """A large number for people: `555.4M`."""
    for unit in ("", "k", "M", "G"):
        if number < 1000:
            return f"{number:.1f}{unit}" if unit else f"{number:.0f}"
        number /= 1000
    return f"{number:,.1f}T"
