"""The section `evaluation`: what a network is shown of each image when it answers."""

from __future__ import annotations

from typing import Literal

from dltrain.config import Probability, Section

Views = Literal["center_crop", "flip", "flip_shift", "five_crop", "ten_crop"]
"""center_crop: the image as evaluation sees it. flip: and its mirror image. flip_shift: half of the weight for these,
half for them shifted by one pixel of 32 up and left, or down and right (Jordan 2024, arXiv 2404.00498). five_crop: the
four corners and the centre (Krizhevsky et al. 2012). ten_crop: these and their mirror images."""


class Evaluation(Section):
    """What a network is shown of each image in validation, `eval` and `predict`: of several views it answers with the
    mean of its probabilities, and the loss is the cross-entropy.
    """

    views: Views = "center_crop"
    """center_crop: the image; flip: and its mirror image; flip_shift: these, and shifted by a pixel of 32 both ways
    (https://arxiv.org/abs/2404.00498); five_crop: corners and centre; ten_crop: these and their mirror images."""
    share: Probability = 1.0
    """Only this share of each batch, for whose images the network is least confident, is shown in other views."""

    @property
    def is_plain(self) -> bool:
        """Whether there is one view of each image."""
        return self.views == "center_crop" or self.share == 0
