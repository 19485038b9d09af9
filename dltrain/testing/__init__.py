"""The contracts of the catalogues as test classes: subclass one in a test file, and name the part to test.

    from dltrain.testing import OptimizerContract

    class TestMine(OptimizerContract):
        names = ["my_optimizer"]

pytest collects the tests of the class. dltrain's own parts are tested with these classes too. This is the only place
in the package that needs pytest.
"""

from pkgutil import iter_modules

import pytest

pytest.register_assert_rewrite(*(module.name for module in iter_modules(__path__, f"{__name__}.")))

from dltrain.testing.augmentations import AugmentationContract
from dltrain.testing.contract import Contract
from dltrain.testing.datasets import DatasetContract
from dltrain.testing.layers import ActivationContract, AttentionContract, InitializationContract, NormContract
from dltrain.testing.models import ModelContract, ModelSizeContract
from dltrain.testing.optim import GradientContract, OptimizerContract, PenaltyContract, ScheduleContract
from dltrain.testing.pruners import PrunerContract
from dltrain.testing.recorders import RecorderContract
from dltrain.testing.samplers import SamplerContract
from dltrain.testing.tasks import LossContract, TaskContract

__all__ = [
    "ActivationContract", "AttentionContract", "AugmentationContract", "Contract", "DatasetContract",
    "GradientContract", "InitializationContract", "LossContract", "ModelContract", "ModelSizeContract", "NormContract",
    "OptimizerContract", "PenaltyContract", "PrunerContract", "RecorderContract", "SamplerContract", "ScheduleContract",
    "TaskContract",
]  # fmt: skip
