"""The contracts of tasks and losses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from dltrain.tasks.base import Task
from dltrain.tasks.losses import Loss
from dltrain.tasks.metrics import SPLITS
from dltrain.tasks.outputs import Logits
from dltrain.testing.contract import Contract


def draw(n: int = 200, classes: int = 7, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (n, classes) that are right about half of the time, and labels (n,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    logits = torch.randn(n, classes, generator=generator) + 1.5 * torch.nn.functional.one_hot(labels, classes)
    return logits, labels


class LossContract(Contract):
    """A loss has the value of its fact, one number per example, right gradients, and bears extreme logits."""

    kind = Loss

    def test_it_keeps_the_contract(self, name: str) -> None:
        entry = self.parse(name)
        seen, views = entry.build(Logits(7)), entry.views

        def module(logits: Tensor, targets: Tensor) -> Tensor:
            """Of one row per example, all of its views being equal."""
            losses: Tensor = seen(logits.repeat_interleave(views, 0), targets.repeat_interleave(views, 0))
            return losses[::views]

        fact = module(torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64), torch.tensor([0]))
        assert entry.fact is not None, f"{type(entry).__name__}.fact says nothing"
        assert fact.item() == pytest.approx(entry.fact, abs=1e-6)
        logits, labels = draw(16)
        found = module(logits, labels)
        assert found.shape == (16,) and found.dtype == torch.float32
        assert module(logits.bfloat16(), labels).dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(module(logits, labels), found)
        extreme = torch.tensor([[1000.0, 0.0, -1000.0]] * 3, requires_grad=True)
        value = module(extreme, torch.tensor([0, 1, 2]))
        value.sum().backward()
        assert value.isfinite().all() and extreme.grad is not None and extreme.grad.isfinite().all()
        if entry.soft_targets:
            onehot = torch.nn.functional.one_hot(labels, 7).float()
            torch.testing.assert_close(module(logits, onehot), found)
            mixed = 0.3 * onehot + 0.7 * onehot.roll(1, 0)
            torch.testing.assert_close(module(logits, mixed), 0.3 * found + 0.7 * module(logits, labels.roll(1)))
        assert torch.autograd.gradcheck(lambda x: module(x, labels[:4]), logits[:4].double().requires_grad_())
        with FakeTensorMode():
            module(torch.zeros(4, 7), torch.zeros(4, dtype=torch.int64))


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
