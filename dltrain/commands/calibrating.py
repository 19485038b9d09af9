"""The temperature that is kept beside a checkpoint, put to use by the commands that ask it."""

from __future__ import annotations

from pathlib import Path

from dltrain.engine.predictor import Predictor
from dltrain.runs.calibrations import read_calibration


def use_calibration(predictor: Predictor, checkpoint: Path) -> list[str]:
    """Answer with the temperature of a checkpoint's file, where one is kept; what there is to say of it. The views must
    have been chosen before.

    Raises CalibrationError for one that is damaged or of another checkpoint.
    """
    found = read_calibration(checkpoint)
    return [] if found is None else [predictor.calibrate(found) or found.told()]
