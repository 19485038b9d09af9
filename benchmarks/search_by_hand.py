"""A search as one writes it without dltrain: Optuna around a plain loop. For search.py, which gives it the data.

    python benchmarks/search_by_hand.py DATA.npz --trials 60 --epochs 9 --batch 32 --pruner halving

DATA holds `train_images`, `train_labels`, `validation_images` and `validation_labels`. Prints a line of JSON after each
epoch: the time by the clock, and the accuracy on the validation images.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import optuna
import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 10


def tensors(file: Path) -> dict[str, Tensor]:
    """Images as rows, standardised by the training ones, and labels."""
    content = np.load(file)
    train = torch.from_numpy(content["train_images"]).float().flatten(1)
    validation = torch.from_numpy(content["validation_images"]).float().flatten(1)
    mean, std = train.mean(), train.std()
    return {
        "x": (train - mean) / std, "y": torch.from_numpy(content["train_labels"]).long(),
        "vx": (validation - mean) / std, "vy": torch.from_numpy(content["validation_labels"]).long(),
    }  # fmt: skip


def train(trial: optuna.Trial, data: dict[str, Tensor], epochs: int, batch: int, seed: int) -> float:
    """The best validation accuracy of one setting."""
    lr = trial.suggest_float("lr", 1e-5, 10.0, log=True)
    momentum = trial.suggest_float("momentum", 0.0, 0.99)
    weight_decay = trial.suggest_float("weight_decay", 1e-7, 1.0, log=True)
    dropout = nn.Dropout(trial.suggest_float("dropout", 0.0, 0.9))
    smoothing = trial.suggest_float("label_smoothing", 0.0, 0.9)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(data["x"].shape[1], 64), nn.ReLU(), dropout, nn.Linear(64, CLASSES))
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum, weight_decay=weight_decay)
    size = len(data["x"]) // batch  # the last, smaller batch is left out
    best = 0.0
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(len(data["x"]))
        for number in range(size):
            done = (epoch * size + number) / (epochs * size)
            optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * done)) / 2
            rows = order[number * batch : (number + 1) * batch]
            loss = F.cross_entropy(model(data["x"][rows]), data["y"][rows], label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        model.eval()
        with torch.no_grad():
            accuracy = (model(data["vx"]).argmax(1) == data["vy"]).float().mean().item()
        print(json.dumps([time.time(), accuracy]), flush=True)
        best = max(best, accuracy)
        trial.report(accuracy, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return best


def main() -> None:
    """Search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--pruner", choices=["none", "halving"], default="none")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruners = {"none": optuna.pruners.NopPruner(), "halving": optuna.pruners.SuccessiveHalvingPruner()}
    sampler = optuna.samplers.TPESampler(seed=options.seed)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruners[options.pruner])
    data = tensors(options.data)
    study.optimize(
        lambda trial: train(trial, data, options.epochs, options.batch, options.seed),
        n_trials=options.trials, timeout=options.seconds,
    )  # fmt: skip


if __name__ == "__main__":
    main()
