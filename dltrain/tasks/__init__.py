"""What learning is for: tasks, their metrics, and losses. Importing this completes the catalogues."""

from dltrain.tasks.base import Task
from dltrain.tasks.classification import Classification
from dltrain.tasks.losses import CrossEntropy, Loss, MeanSquaredError
from dltrain.tasks.number_losses import L1, Huber, SmoothL1
from dltrain.tasks.questions import BinaryClassification, Multilabel
from dltrain.tasks.reconstruction import Reconstruction
from dltrain.tasks.regression import Regression

__all__ = [
    "L1", "BinaryClassification", "Classification", "CrossEntropy", "Huber", "Loss", "MeanSquaredError", "Multilabel",
    "Reconstruction", "Regression", "SmoothL1", "Task",
]  # fmt: skip
