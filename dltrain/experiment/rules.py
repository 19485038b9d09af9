"""Mistakes between the sections of an experiment: each is right by itself, and together they are not."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import replace

from dltrain.config import Diagnostic
from dltrain.data.augmentation.base import Augmentation, check_order
from dltrain.data.targets import Classes
from dltrain.data.types import ImageShape
from dltrain.experiment.schema import ExperimentSchema
from dltrain.models import Model
from dltrain.tasks.base import Task
from dltrain.tasks.losses import Loss
from dltrain.tasks.metrics import OF_COST, SPLITS
from dltrain.tasks.outputs import LikeInput

"""Scalings that give inputs in 0..1."""


def problems_between_sections(experiment: ExperimentSchema, wrong: Container[str]) -> Iterator[Diagnostic]:
    """What does not go together, among the sections that are not `wrong` by themselves."""
    if "data" not in wrong:
        yield from _made_for_other_data(experiment, wrong)
        yield from _made_for_images(experiment, wrong)
    if "augmentation" not in wrong:
        for index, message in check_order(experiment.augmentation):
            yield Diagnostic(message, experiment.span("augmentation", index))
        if "loss" not in wrong:
            yield from _mixing_for_a_loss_without(experiment)
            yield from _views_and_loss(experiment)
        if "training" not in wrong:
            yield from _mixing_of_one(experiment)
        if "task" not in wrong and "data" not in wrong:
            yield from _mixing_for_a_task_without(experiment)
    if "schedule" not in wrong and "training" not in wrong:
        yield from _too_long_warmup(experiment)
    if "schedule" not in wrong and "optimizer" not in wrong:
        for high in experiment.schedule.above_peak(experiment.optimizer.lr):
            yield replace(high, where=experiment.span("schedule", *high.key.split(".")))
    if "optimizer" not in wrong and "training" not in wrong:
        yield from _sharpness_with_scaled_gradients(experiment)
        yield from _closure_with_changed_gradients(experiment)
        yield from _graph_of_more_than_one_pass(experiment)
        if "gradient" not in wrong:
            yield from _what_needs_a_backward_pass(experiment)
        yield from _groups_that_never_learn(experiment)
        if "freeze" not in wrong and "unfreeze_at" not in wrong:
            yield from _unfreezing_that_never_comes(experiment)
        yield from _what_needs_float32_weights(experiment, wrong)
        yield from _what_needs_no_schedule(experiment, wrong)
    if "task" not in wrong and "data" not in wrong:
        yield from _data_without_such_targets(experiment)
        if "loss" not in wrong:
            yield from _loss_of_other_outputs(experiment)
            yield from _loss_of_values_beyond_one(experiment)
        if "model" not in wrong:
            yield from _model_of_other_outputs(experiment, wrong)
        if "evaluation" not in wrong:
            yield from _views_that_make_no_answer(experiment)
        yield from _metrics_of_another_task(experiment, wrong)
    if "data" not in wrong and experiment.data.balance is not None:
        if "task" not in wrong:
            yield from _balance_of_no_classes(experiment)
        if "loss" not in wrong:
            yield from _balanced_twice(experiment)
    if "data" not in wrong and not experiment.data.has_validation:
        yield from _missing_validation(experiment, wrong)


def _made_for_other_data(experiment: ExperimentSchema, wrong: Container[str]) -> Iterator[Diagnostic]:
    """Parts that take other inputs than the data gives."""
    data = experiment.data
    if "model" not in wrong and experiment.model.takes_probabilities and not data.gives_shares:
        message = f"`{experiment.model.name}` takes inputs in 0..1, and `data.scaling: {data.scaling}` gives others"
        place = experiment.span("data", "scaling") or experiment.span("data")
        yield Diagnostic(message, place, notes=("write `data.scaling: none` or `min_max`",))
    taking: list[tuple[Model | Augmentation, tuple[str | int, ...]]] = []
    if "model" not in wrong:
        taking.append((experiment.model, ("model",)))
    if "augmentation" not in wrong:
        taking += [(entry, ("augmentation", index)) for index, entry in enumerate(experiment.augmentation)]
    for part, where in taking:
        if data.inputs not in part.inputs:
            takes = " or ".join(spec.words for spec in part.inputs)
            message = f"`{part.name}` takes {takes}, and data `{data.name}` gives {data.inputs.words}"
            yield Diagnostic(message, experiment.span(*where))


def _made_for_images(experiment: ExperimentSchema, wrong: Container[str]) -> Iterator[Diagnostic]:
    """Settings that only images give something to do."""
    data = experiment.data
    wanted = {
        ("training", "progressive_size"): experiment.training.progressive_size is not None,
        ("evaluation", "views"): experiment.evaluation.views != "center_crop",
    }
    for path, wants in wanted.items() if data.inputs is not ImageShape else ():
        if path[0] not in wrong and wants:
            message = f"`{path[1]}` is of images, and data `{data.name}` gives {data.inputs.words}"
            yield Diagnostic(message, experiment.span(*path, key=True))


def _mixing_for_a_loss_without(experiment: ExperimentSchema) -> Iterator[Diagnostic]:
    loss = experiment.loss
    for index, augmentation in enumerate(experiment.augmentation):
        if augmentation.mixing is not None and not loss.soft_targets:
            message = f"`{augmentation.name}` mixes targets, and loss `{loss.name}` takes none that are mixed"
            default = experiment.resolved_task.default_loss().name
            yield Diagnostic(message, experiment.span("augmentation", index), notes=(f"use loss `{default}`",))


def _mixing_for_a_task_without(experiment: ExperimentSchema) -> Iterator[Diagnostic]:
    ways = {"blend": "blended targets", "paste": "targets of images that are pasted together"}
    task = experiment.resolved_task
    for index, augmentation in enumerate(experiment.augmentation):
        if (mixing := augmentation.mixing) is not None and mixing not in task.mixing:
            message = f"task `{task.name}` has no {ways[mixing]}, which `{augmentation.name}` makes"
            fit = [
                f"`{name}`" for entry in Augmentation.catalogue
                if issubclass(entry, Augmentation) and entry.mixing in task.mixing for name in entry.names()
            ]  # fmt: skip
            notes = (f"{', '.join(fit)} fits the task",) if fit else ()
            yield Diagnostic(message, experiment.span("augmentation", index), notes=notes)


def _mixing_of_one(experiment: ExperimentSchema) -> Iterator[Diagnostic]:
    for index, augmentation in enumerate(experiment.augmentation):
        if augmentation.mixing is not None and experiment.training.batch_size == 1:
            message = f"`{augmentation.name}` mixes examples of a batch, and `training.batch_size: 1` leaves one alone"
            yield Diagnostic(message, experiment.span("augmentation", index))


def _views_and_loss(experiment: ExperimentSchema) -> Iterator[Diagnostic]:
    """Several views of an example need a loss that compares them, and the other way round."""
    loss, seen = experiment.loss, 1
    for index, augmentation in enumerate(experiment.augmentation):
        where, views = experiment.span("augmentation", index), getattr(augmentation, "views", 1)
        if views > 1 and seen > 1:
            yield Diagnostic(f"a second `{augmentation.name}` cannot make views of views", where)
        elif views not in (1, loss.views):
            message = f"`{augmentation.name}` makes {views} views of an example, and loss `{loss.name}` compares none"
            yield Diagnostic(message, where, notes=("use loss `jsd`, or write `views: 1`",))
        elif seen > 1 and augmentation.stage == "batch":
            yield Diagnostic(f"`{augmentation.name}` cannot mix examples of which the network sees {seen} views", where)
        seen = max(seen, views)
    if loss.views > 1 and seen == 1:
        message = f"loss `{loss.name}` compares {loss.views} views of an example, and no augmentation makes them"
        note = f"add {{name: aug_mix, views: {loss.views}}} to `augmentation`"
        yield Diagnostic(message, experiment.span("loss", key=True), notes=(note,))


def _too_long_warmup(experiment: ExperimentSchema) -> Iterator[Diagnostic]:
    for unit in ("epochs", "steps"):
        long, total = getattr(experiment.schedule.warmup, unit, None), getattr(experiment.training, unit)
        if long is not None and total is not None and long >= total:
            message = f"the warm-up takes {long:g} {unit}, and the whole training only {total:g}"
            yield Diagnostic(message, experiment.span("schedule", "warmup", unit))


def _sharpness_with_scaled_gradients(experiment: ExperimentSchema) -> Iterator[Diagnostic]:
    if experiment.optimizer.sam is not None and experiment.training.precision == "float16":
        message = "`sam` needs gradients that are not scaled, and float16 scales them"
        yield Diagnostic(message, experiment.span("optimizer", "sam", key=True), notes=("use bfloat16",))


def _closure_with_changed_gradients(experiment: ExperimentSchema) -> Iterator[Diagnostic]:
    name, training = experiment.optimizer.name, experiment.training
    if not experiment.optimizer.needs_closure:
        return
    if isinstance(training.clip_norm, float):
        message = f"`{name}` takes the gradient as it is: leave `clip_norm` out"
        yield Diagnostic(message, experiment.span("training", "clip_norm", key=True))
    if training.precision == "float16":
        message = f"`{name}` takes the gradient as it is, and float16 scales it"
        yield Diagnostic(message, experiment.span("training", "precision"), notes=("use float32",))


def _what_needs_a_backward_pass(experiment: ExperimentSchema) -> Iterator[Diagnostic]:
    gradient, optimizer, training = experiment.gradient, experiment.optimizer, experiment.training
    if gradient.backward:
        return
    name, here = f"gradient `{gradient.name}`", experiment.span("gradient")
    if optimizer.needs_closure:
        yield Diagnostic(f"`{optimizer.name}` compares gradients, and {name} is an estimate with other noise", here)
    if optimizer.sam is not None:
        message = f"`sam` goes up along the gradient, and {name} is an estimate of it"
        yield Diagnostic(message, experiment.span("optimizer", "sam", key=True))
    if training.precision in ("float16", "pure_float16"):
        message = f"{training.precision} scales the gradients of a backward pass, and {name} has none"
        yield Diagnostic(message, experiment.span("training", "precision"), notes=("use float32 or bfloat16",))
    if training.precision == "pure_bfloat16" and gradient.compares_losses:
        message = f"{name} moves weights by less than pure_bfloat16 can tell"
        yield Diagnostic(message, experiment.span("training", "precision"), notes=("use float32",))
    if training.graph is True:
        message = f"a CUDA graph records a backward pass, and {name} has none"
        yield Diagnostic(message, experiment.span("training", "graph"), notes=("leave `graph` out",))
    if training.compile is True and gradient.differentiates:
        message = f"torch compiles no forward-mode derivatives, which {name} takes"
        yield Diagnostic(message, experiment.span("training", "compile"), notes=("leave `compile` out",))


def _groups_that_never_learn(experiment: ExperimentSchema) -> Iterator[Diagnostic]:
    for index, group in enumerate(experiment.optimizer.groups):
        if experiment.training.epochs is not None and group.after >= experiment.training.epochs:
            message = f"the group would never learn: the training has {experiment.training.epochs:g} epochs"
            yield Diagnostic(message, experiment.span("optimizer", "groups", index, "after"))


def _unfreezing_that_never_comes(experiment: ExperimentSchema) -> Iterator[Diagnostic]:
    moment, optimizer, where = experiment.unfreeze_at, experiment.optimizer, experiment.span("unfreeze_at", key=True)
    if moment is None:
        return
    if not experiment.freeze:
        yield Diagnostic("there is nothing to unfreeze: `freeze` names no parameters", where)
    elif optimizer.needs_closure:
        yield Diagnostic(f"`{optimizer.name}` moves all weights together, and none of them later", where)
    for unit in ("epochs", "steps"):
        at, total = getattr(moment, unit), getattr(experiment.training, unit)
        if at is not None and total is not None and at >= total:
            message = f"nothing would be unfrozen: the training has {total:g} {unit}"
            yield Diagnostic(message, experiment.span("unfreeze_at", unit), notes=("leave `unfreeze_at` out",))


def _what_needs_float32_weights(experiment: ExperimentSchema, wrong: Container[str]) -> Iterator[Diagnostic]:
    """Weights of 16 bits: a move of SAM or a sum of squares would mostly be rounding."""
    precision = experiment.training.precision
    if not precision.startswith("pure_"):
        return
    optimizer, notes = experiment.optimizer, (f"`precision: {precision.removeprefix('pure_')}` keeps them in float32",)
    if optimizer.sam is not None:
        message = f"`sam` needs weights in float32, and {precision} keeps them in 16 bits"
        yield Diagnostic(message, experiment.span("optimizer", "sam", key=True), notes=notes)
    if optimizer.needs_closure or optimizer.schedules is not None:
        message = f"`{optimizer.name}` needs weights in float32, and {precision} keeps them in 16 bits"
        yield Diagnostic(message, experiment.span("training", "precision"), notes=notes)
    if "penalties" not in wrong and experiment.penalties:
        message = f"penalties need weights in float32, and {precision} keeps them in 16 bits"
        yield Diagnostic(message, experiment.span("penalties", key=True), notes=notes)


def _graph_of_more_than_one_pass(experiment: ExperimentSchema) -> Iterator[Diagnostic]:
    """The gradients of a pass lie where the next one writes its own."""
    training, optimizer = experiment.training, experiment.optimizer
    several = {"training.accumulate": training.accumulate > 1, "optimizer.sam": optimizer.sam is not None,
               f"optimizer `{optimizer.name}`": optimizer.needs_closure}  # fmt: skip
    for what, wants in several.items() if training.graph is True else ():
        if wants:
            message = f"a CUDA graph holds the gradients of one pass, and {what} adds up those of several"
            yield Diagnostic(message, experiment.span("training", "graph"), notes=("leave `graph` out",))


def _what_needs_no_schedule(experiment: ExperimentSchema, wrong: Container[str]) -> Iterator[Diagnostic]:
    optimizer, schedule = experiment.optimizer, experiment.schedule
    if optimizer.schedules is None:
        return
    if "schedule" not in wrong and schedule.name not in optimizer.schedules:
        given = "schedule" in experiment.model_fields_set
        which = f"`{schedule.name}`" if given else f"`{schedule.name}`, the default,"
        message = f"`{optimizer.name}` needs no schedule, and {which} would spoil it"
        note = "set `schedule: constant`, or `schedule: {name: constant, warmup: {epochs: 1}}`"
        yield Diagnostic(message, experiment.span("schedule" if given else "optimizer"), notes=(note,))
    if experiment.training.average is not None:
        message = f"`{optimizer.name}` keeps an average of its own: leave `training.average` out"
        yield Diagnostic(message, experiment.span("training", "average", key=True))


def _data_without_such_targets(experiment: ExperimentSchema) -> Iterator[Diagnostic]:
    task, data = experiment.resolved_task, experiment.data
    if data.targets_for(task.targets) is None:
        needs = " or ".join(target.words for target in task.targets)
        message = f"task `{task.name}` learns {needs}, and an example of data `{data.name}` has {data.targets.words}"
        yield Diagnostic(message, experiment.span("task") or experiment.span("data"))


def _balance_of_no_classes(experiment: ExperimentSchema) -> Iterator[Diagnostic]:
    data = experiment.data
    learned = data.targets_for(experiment.resolved_task.targets) or data.targets
    if not issubclass(learned, Classes):
        message = f"`balance` draws classes, and an example of data `{data.name}` has {learned.words}"
        yield Diagnostic(message, experiment.span("data", "balance", key=True), notes=("leave `balance` out",))


def _balanced_twice(experiment: ExperimentSchema) -> Iterator[Diagnostic]:
    if getattr(experiment.loss, "class_weights", None) == "balanced":
        message = "`data.balance` and `loss.class_weights: balanced` both make up for rare classes, together too much"
        where = experiment.span("loss", "class_weights", key=True)
        yield Diagnostic(message, where, notes=("keep one of them",))


def _loss_of_other_outputs(experiment: ExperimentSchema) -> Iterator[Diagnostic]:
    task, loss = experiment.resolved_task, experiment.loss
    if not issubclass(task.outputs, loss.taken):
        takes = " or ".join(output.words for output in loss.taken)
        message = f"loss `{loss.name}` takes {takes}, and task `{task.name}` gives {task.outputs.words}"
        losses = [entry for entry in Loss.catalogue if issubclass(entry, Loss)]
        fit = [f"`{name}`" for entry in losses if issubclass(task.outputs, entry.outputs) for name in entry.names()]
        yield Diagnostic(message, experiment.span("loss"), notes=(f"losses of the task: {', '.join(fit)}",))


def _loss_of_values_beyond_one(experiment: ExperimentSchema) -> Iterator[Diagnostic]:
    """A probability is compared with each value of an input, which must be one too."""
    task, loss, data = experiment.resolved_task, experiment.loss, experiment.data
    if task.outputs.like_input and loss.of_logits and not data.gives_shares:
        message = f"loss `{loss.name}` compares values in 0..1, and `data.scaling: {data.scaling}` gives others"
        where = experiment.span("data", "scaling") or experiment.span("loss")
        yield Diagnostic(message, where, notes=("write `data.scaling: none` or `min_max`, or use loss `mse`",))


def _model_of_other_outputs(experiment: ExperimentSchema, wrong: Container[str]) -> Iterator[Diagnostic]:
    task, model = experiment.resolved_task, experiment.model
    if task.outputs.like_input != model.reconstructs:
        gives = LikeInput.words if model.reconstructs else "a row of numbers"
        message = f"`{model.name}` gives {gives}, and task `{task.name}` wants {task.outputs.words}"
        yield Diagnostic(message, experiment.span("task") or experiment.span("model"))
    elif not issubclass(task.outputs, model.outputs):
        gives = " or ".join(output.words for output in model.outputs)
        message = f"`{model.name}` gives {gives}, and task `{task.name}` wants {task.outputs.words}"
        fit = [
            name for entry in Task.catalogue
            if issubclass(entry, Task) and issubclass(entry.outputs, model.outputs)
            and experiment.data.targets_for(entry.targets) is not None for name in entry.names()
        ]  # fmt: skip
        yield Diagnostic(message, experiment.span("model"), notes=tuple(f"set `task: {name}`" for name in fit[:1]))
    elif model.replaces_loss and "loss" not in wrong and experiment.loss != task.default_loss():
        message = f"`{model.name}` brings what training minimises: leave `loss` out"
        yield Diagnostic(message, experiment.span("loss"))


def _views_that_make_no_answer(experiment: ExperimentSchema) -> Iterator[Diagnostic]:
    task, seen = experiment.resolved_task, experiment.evaluation
    if not task.combines_views and seen.views != "center_crop":
        message = f"task `{task.name}` makes no one answer of several views of an example"
        yield Diagnostic(message, experiment.span("evaluation", "views"), notes=("use `views: center_crop`",))
    elif not task.confident and seen.share not in (0, 1):
        message = f"task `{task.name}` does not know which answers are the least sure"
        yield Diagnostic(message, experiment.span("evaluation", "share"), notes=("leave `share` out",))


def _metrics_of_another_task(experiment: ExperimentSchema, wrong: Container[str]) -> Iterator[Diagnostic]:
    """Every task's metrics are names that a key takes, and this experiment has one task."""
    task, stopping, sweep = experiment.resolved_task, experiment.training.early_stopping, experiment.sweep
    named: dict[tuple[str | int, ...], tuple[str | None, Sequence[str]]] = {
        ("training", "early_stopping", "metric"): (
            stopping.metric if stopping is not None else None,
            task.tags(*SPLITS),
        ),
        ("schedule", "metric"): (getattr(experiment.schedule, "metric", None), task.tags(*SPLITS)),
    }
    for index, objective in enumerate(sweep.metrics if sweep is not None else ()):
        place = ("sweep", "metric") if isinstance(sweep and sweep.metric, str) else ("sweep", "metric", index)
        named[place] = (objective, [*task.tags("validation"), *OF_COST])
    for path, (tag, measured) in named.items():
        if path[0] not in wrong and tag is not None and tag not in measured:
            message = f"task `{task.name}` has no metric `{tag}`"
            notes = (f"it measures {', '.join(f'`{name}`' for name in measured)}",)
            yield Diagnostic(message, experiment.span(*path), notes=notes)


def _missing_validation(experiment: ExperimentSchema, wrong: Container[str]) -> Iterator[Diagnostic]:
    note = ("set `data.validation: 0.1`",)
    stopping = experiment.training.early_stopping
    if "training" not in wrong and stopping is not None and stopping.metric.startswith("validation/"):
        message = f"early stopping watches `{stopping.metric}`, and there is no validation split"
        yield Diagnostic(message, experiment.span("training", "early_stopping", key=True), notes=note)
    watched = getattr(experiment.schedule, "metric", None)
    if "schedule" not in wrong and watched is not None and watched.startswith("validation/"):
        message = f"schedule `{experiment.schedule.name}` watches `{watched}`, and there is no validation split"
        yield Diagnostic(message, experiment.span("schedule", "metric"), notes=note)
    if "sweep" not in wrong and experiment.sweep is not None:
        message = "a sweep is judged on the validation split, and there is none"
        yield Diagnostic(message, experiment.span("sweep", key=True), notes=note)
