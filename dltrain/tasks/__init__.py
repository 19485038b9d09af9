"""What learning is for: tasks, their metrics, and losses. Importing this completes the catalogues."""

from dltrain.tasks.base import Task
from dltrain.tasks.classification import Classification
from dltrain.tasks.losses import CrossEntropy, Loss
from dltrain.tasks.reconstruction import Reconstruction

__all__ = ["Classification", "CrossEntropy", "Loss", "Reconstruction", "Task"]
