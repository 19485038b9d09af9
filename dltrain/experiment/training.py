"""The sections `training` and `sweep`: how long, in which precision, at which size, when to stop, what to search."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from dltrain.config import Fraction, NonNegative, NonNegativeInt, PathText, Positive, PositiveInt, Section, reject
from dltrain.config.durations import require_time, seconds_of
from dltrain.optim.averages import Average
from dltrain.tasks.base import Tag

Size = tuple[int, int, int]
"""A step, and the height and the width of the images from that step on."""


class InitializeFrom(Section):
    """Weights that a training starts from, and which of them."""

    rivals = ((("path",), ("run",)),)

    path: PathText | None = None
    """A run, a checkpoint, a `.safetensors` file, or another library's state dict (`.pth`, `.bin`)."""
    run: PathText | None = None
    """The same: a run's directory."""
    part: str | None = None
    """Take only the weights whose names begin so, such as `encoder`, without this beginning; null for all."""

    @model_validator(mode="after")
    def _one(self) -> InitializeFrom:
        if self.path is not None and self.run is not None:
            raise reject("run", "`path` and `run` both say where the weights are; keep one")
        if self.path is None and self.run is None:
            raise reject("path", "`initialize_from` needs a `path`, or a `run`")
        return self

    @property
    def place(self) -> str:
        """Where the weights are."""
        return self.path or self.run or ""


class Moment(Section):
    """A time within a training."""

    rivals = ((("epochs",), ("steps",)),)

    epochs: Positive | None = None
    """In epochs; fractions allowed. Either this or `steps`."""
    steps: PositiveInt | None = None
    """In optimizer steps."""

    @model_validator(mode="after")
    def _one(self) -> Moment:
        if self.epochs is not None and self.steps is not None:
            raise reject("steps", "`epochs` and `steps` are both given; keep one")
        if self.epochs is None and self.steps is None:
            raise reject("epochs", "a time needs `epochs: 3`, or `steps: 500`")
        return self

    def in_epochs(self, steps_per_epoch: int) -> float:
        """The same in epochs of so many steps."""
        return self.epochs if self.epochs is not None else (self.steps or 0) / steps_per_epoch

    def in_steps(self, steps_per_epoch: int) -> int:
        """The first optimizer step, from 0, that does not come before it."""
        return self.steps if self.steps is not None else math.ceil((self.epochs or 0) * steps_per_epoch)

    def __str__(self) -> str:
        return f"{self.epochs:g} epochs" if self.epochs is not None else f"{self.steps:,} steps"


class EarlyStopping(Section):
    """Stop when a metric has not improved for some epochs (Prechelt 1998); `best` keeps the best."""

    patience: PositiveInt = 20
    """Evaluations without improvement before training stops."""
    metric: Tag = "validation/loss"
    """The metric that must improve: a loss falls, an accuracy rises."""
    minimum_change: NonNegative = 0.0
    """A smaller improvement than this does not count."""


class ProgressiveSize(Section):
    """Train on small images first, which costs less. Their side grows linearly from `start` to the full side, rounded
    down to one of `count` sizes; evaluation sees full images (Howard 2018; Composer's ProgressiveResizing; on what
    the last epochs must see: https://arxiv.org/abs/1906.06423).
    """

    start: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Side of the first images, as a share of the full side."""
    delay: Fraction = 0.5
    """Share of the training before the side begins to grow."""
    finetune: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the training, at its end, on full images: norms and weights get used to them."""
    count: Annotated[int, Field(ge=2, le=6)] = 3
    """How many different sizes, the full one included; a compiled network is compiled again for each."""
    multiple_of: PositiveInt = 4
    """The side, in pixels, of all images but the full ones is a multiple of this."""

    @model_validator(mode="after")
    def _agree(self) -> ProgressiveSize:
        if self.delay + self.finetune > 1:
            raise reject("delay", f"`delay` and `finetune` are more than the whole: {self.delay:g} + {self.finetune:g}")
        return self

    def sizes(self, height: int, width: int, steps: int) -> list[Size]:
        """Where each size begins in a training of `steps` steps on full images of `height` x `width` pixels."""
        found: list[Size] = []
        for index in range(self.count):
            grown = index / (self.count - 1)
            scale = self.start + (1 - self.start) * grown
            sides = [max(round(side * scale / self.multiple_of), 1) * self.multiple_of for side in (height, width)]
            h, w = (height, width) if grown == 1 else (min(sides[0], height), min(sides[1], width))
            begin = round(steps * (self.delay + (1 - self.delay - self.finetune) * grown)) if index else 0
            if found and (begin == found[-1][0] or found[-1][1:] == (h, w)):  # too short, or too small, for them all
                begin = found.pop()[0]
            found.append((begin, h, w))
        return found


class Watch(Section):
    """Look at every layer in some steps: mean and deviation of what it puts out, dead units, saturated ones, gradient,
    and how far a step moves it. The recorders get curves and histograms, and who trains a sentence where a layer is
    ill. The weights are those of a training without it. See docs/watching.md.
    """

    every: PositiveInt = 100
    """Steps from one look to the next; the first step and the last are looked at too. A look costs about a
    step, and some more where it gives histograms (benchmarks/README.md, watching)."""
    histograms: NonNegativeInt = 50
    """Looks that give histograms too, spread evenly, besides the first; each takes about 1 kB of disk a layer. 0: no
    look does."""


LENGTHS = ("epochs", "steps", "time")
"""The keys that say how long a training is."""


class Training(Section):
    """How long and how to train."""

    rivals = ((("epochs",), ("steps",), ("time",)),)

    epochs: Positive | None = None
    """Passes over the training split; fractions allowed. 10 when neither epochs nor steps nor time is given."""
    steps: PositiveInt | None = None
    """Optimizer steps, instead of epochs."""
    time: Positive | str | None = None
    """How long the training takes, instead of epochs: `2h`, `90m`, `1h30m`, or a number of seconds. `fit` times a few
    steps and an evaluation, and decides the number of steps by them, once: the schedule ends where the time ends."""
    batch_size: PositiveInt | Literal["all"] = 128
    """Examples per optimizer step. all: the whole training part, so that an epoch is a step; the run's experiment.yaml
    has the number."""
    accumulate: PositiveInt = 1
    """Parts into which a batch is cut to save memory; gradients are averaged over them."""
    precision: Literal["auto", "float32", "bfloat16", "float16", "pure_bfloat16", "pure_float16"] = "auto"
    """Arithmetic of the network; auto: bfloat16 where the GPU or the CPU (AMX) has units for it and the network gains
    from them, else float32. With `pure_`, convolutions and linear layers keep their weights in it too: less memory, no
    casts, and updates far below a weight are lost."""
    compile: bool | Literal["auto"] = "auto"
    """torch.compile the network; auto: where it pays and a compiler is found."""
    graph: bool | Literal["auto"] = "auto"
    """Record the kernels of the compiled network as a CUDA graph, which starts them all at once: for small networks,
    whose kernels are shorter than their start. auto: not yet, its gain has not been measured."""
    channels_last: bool | Literal["auto"] = "auto"
    """Memory format NHWC for convolutions; auto: where it pays."""
    threads: PositiveInt | Literal["auto", "probe"] = "auto"
    """Threads of a step on a CPU; their number decides last digits. auto: one for steps under 50 million multiply-adds
    (of the forward pass), which gain little from more and lose much beside busy programs, else torch's default. probe:
    `fit` times a few steps with one thread and with all, and the run keeps the faster number. OMP_NUM_THREADS in the
    environment stands above it."""
    progressive_size: ProgressiveSize | None = None
    """Small images first; null: all of the full size."""
    deterministic: bool = True
    """Same YAML, seed and machine give the same weights; false lets cuDNN pick faster kernels."""
    average: Average | None = None
    """Running average of the weights, used by validation, `best` and `eval`."""
    early_stopping: EarlyStopping | None = None
    """When to stop before the end."""
    clip_norm: Positive | Literal["auto"] | None = "auto"
    """Largest norm of the gradient; longer ones are scaled down. null: none is. auto: 1, so that the first steps do not
    kill a network without norms; none for an optimizer that searches along the gradient."""
    evaluate_every: PositiveInt = 1
    """Epochs between evaluations on the validation split; the last epoch is always evaluated."""
    checkpoint_every: Positive = 10.0
    """Minutes between checkpoints inside an epoch; one is written after every epoch too, or once a second where epochs
    are shorter."""
    log_every: PositiveInt | None = None
    """Steps from one point of the curves `train/loss` and `lr` to the next, counted from the begin of each epoch, whose
    end is a point too. null: a tenth of an epoch, and none within epochs under 20 steps."""
    log_gradients: bool = False
    """Report the norm of each layer's gradient at the end of each epoch too, `norm/gradient/<layer>`, as it was before
    `clip_norm`: where the first layers' is far below the last ones', gradients vanish."""
    watch: Watch | None = None
    """Look at what each layer does: `{every: 100}`. null: never."""
    smoothing: Fraction = 0.6
    """Share that the epochs before keep in the smoothed columns of metrics.csv, such as `smoothed/train/loss`, which
    stand beside the raw ones: an exponential moving average, corrected for its start. 0 writes none. (TensorBoard
    smooths by itself, by default with 0.6 too.)"""
    limit_batches: PositiveInt | None = None
    """Use only this many batches of each split per epoch: to try things out. Of the validation split, always the same
    ones, with all classes in proportion."""

    @field_validator("time")
    @classmethod
    def _some_time(cls, time: float | str | None) -> float | str | None:
        return require_time("training.time", time)

    def batch_of(self, examples: int) -> int:
        """Examples of a step where the training part has so many."""
        return examples if self.batch_size == "all" else self.batch_size

    @property
    def batch(self) -> int:
        """`batch_size` of a training whose data is known, where it is a number (engine/resolve.py)."""
        assert self.batch_size != "all", "the data says how many examples there are"
        return self.batch_size

    @property
    def micro_batch(self) -> int:
        """Examples of one forward, on a single device. See `batch`."""
        return self.batch // self.accumulate

    @property
    def seconds(self) -> float | None:
        """`time` as a number."""
        return None if self.time is None else seconds_of(self.time)

    @model_validator(mode="before")
    @classmethod
    def _length(cls, value: Any) -> Any:
        if isinstance(value, dict) and all(value.get(key) is None for key in LENGTHS):
            return {**value, "epochs": 10}
        return value

    @model_validator(mode="after")
    def _agree(self) -> Training:
        given = [key for key in LENGTHS if getattr(self, key) is not None]
        if len(given) > 1:
            raise reject(given[1], f"`training.{given[0]}` and `training.{given[1]}` are both given; keep one")
        if self.batch_size != "all" and self.batch_size % self.accumulate:
            message = f"`training.accumulate` must divide `batch_size`: {self.batch_size} / {self.accumulate}"
            raise reject("accumulate", message)
        return self
