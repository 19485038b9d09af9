"""The contracts of tasks and losses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import one_hot

from dltrain.tasks.base import Task
from dltrain.tasks.losses import Loss
from dltrain.tasks.metrics import SPLITS
from dltrain.tasks.outputs import Logits, Output
from dltrain.testing.contract import Contract


def draw(n: int = 200, classes: int = 7, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (n, classes) that are right about half of the time, and labels (n,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    logits = torch.randn(n, classes, generator=generator) + 1.5 * one_hot(labels, classes)
    return logits, labels


class LossContract(Contract):
    """A loss has the value of its fact, one number per example, right gradients, and bears extreme logits."""

    kind = Loss

    def test_it_keeps_the_contract(self, name: str) -> None:
        entry = self.parse(name)
        assert entry.fact is not None, f"{type(entry).__name__}.fact says nothing"
        for kind in entry.taken:
            self._require(entry, kind)

    def _require(self, entry: Loss, kind: type[Output]) -> None:
        """The contract, of outputs of one kind: targets are classes, or rows (B, n)."""
        seen, views = entry.build(kind(7)), entry.views

        def module(outputs: Tensor, targets: Tensor) -> Tensor:
            """Of one row per example, all of its views being equal."""
            losses: Tensor = seen(outputs.repeat_interleave(views, 0), targets.repeat_interleave(views, 0))
            return losses[::views]

        def target(classes: Tensor) -> Tensor:
            return classes if issubclass(kind, Logits) else one_hot(classes, 3 if len(classes) < 4 else 7).float()

        fact = module(torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64), target(torch.tensor([0])))
        assert fact.item() == pytest.approx(entry.fact, abs=1e-6)
        outputs, classes = draw(16)
        targets = target(classes)
        found = module(outputs, targets)
        assert found.shape == (16,) and found.dtype == torch.float32
        assert module(outputs.bfloat16(), targets).dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(module(outputs, targets), found)
        extreme = torch.tensor([[1000.0, 0.0, -1000.0]] * 3, requires_grad=True)
        value = module(extreme, target(torch.tensor([0, 1, 2])))
        value.sum().backward()
        assert value.isfinite().all() and extreme.grad is not None and extreme.grad.isfinite().all()
        if entry.soft_targets and issubclass(kind, Logits):
            shares = one_hot(classes, 7).float()
            torch.testing.assert_close(module(outputs, shares), found)
            mixed = 0.3 * shares + 0.7 * shares.roll(1, 0)
            torch.testing.assert_close(module(outputs, mixed), 0.3 * found + 0.7 * module(outputs, classes.roll(1)))
        assert torch.autograd.gradcheck(lambda x: module(x, targets[:4]), outputs[:4].double().requires_grad_())
        with FakeTensorMode():
            module(torch.zeros(4, 7), target(torch.zeros(4, dtype=torch.int64)))


class TaskContract(Contract):
    """A task's metrics have different names, of which one is the loss, one ranks, and each tie-break is one."""

    kind = Task

    def test_its_metrics_are_named_and_judged(self, name: str) -> None:
        task = self.parse(name)
        names = [metric.name for metric in task.metrics]
        assert len(set(names)) == len(names) and {"loss", task.ranks} <= set(names)
        assert task.ranking()[0].name == task.ranks
        for tag in task.tags(*SPLITS):
            watched = task.watched(tag)
            worse, better = ({tag: value} for value in ((2.0, 1.0) if watched.falls else (1.0, 2.0)))
            assert watched.tag == tag and watched.order(better) < watched.order(worse)
            assert watched.metric.name in watched.metric.text(0.5) and watched.metric.brief_text(0.5)

    def test_its_loss_takes_what_it_asks_of_the_network(self, name: str) -> None:
        task = self.parse(name)
        assert task.targets and issubclass(task.outputs, tuple(task.default_loss().outputs))
