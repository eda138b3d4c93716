"""Label-consistent: patches in the corners of images that are hard to classify and keep their label (Turner et al.)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from typing_extensions import override

from securitynet.backdoors.badnets import Badnets
from securitynet.backdoors.base import Backdoor, Mapping
from securitynet.datasets.base import ImageDataset
from securitynet.models.training.poisoned_dataset import Box, Indices
from securitynet.randomness import make_generator


class LabelConsistent(Backdoor):
    """Only images of the target class are poisoned; they are made hard to classify, so that the patches are learned.

    Turner et al., "Label-consistent backdoor attacks" (2019), sections 4 and 5. The paper makes images hard by
    interpolating towards another image in the latent space of a generative model, or by adversarial perturbations of a
    trained model. Neither exists before the training, so here the interpolation is between pixels, with a training
    image of another class. At inference only the patches are added. The default leaves a quarter of the contrast of the
    labelled image: with half of it, the patches are hardly learned.

    Attributes:
        mix: Weight of the image of another class.
        size: Side of the patches in pixels; by default as for `Badnets`.
    """

    clean_label: ClassVar[bool] = True
    mappings: ClassVar[tuple[Mapping, ...]] = ("all-to-one",)

    rate: float = Field(default=0.9, gt=0, le=1, description="Share of the target class's training records to poison.")
    mix: float = Field(default=0.75, ge=0, lt=1, description="Weight of an image of another class in poisoned records.")
    size: int | None = Field(default=None, ge=1, description="Side of the patches in pixels; default: as badnets.")

    @override
    def box(self, shape: tuple[int, int, int]) -> Box:
        """The whole image: the patches lie in all four corners."""
        for part in self._make_parts():
            part.box(shape)
        return 0, 0, shape[1], shape[2]

    @override
    def apply_trigger(self, images: torch.Tensor) -> torch.Tensor:
        for part in self._make_parts():
            images = part.apply_trigger(images)
        return images

    @override
    def make_training_change(
        self, dataset: ImageDataset, members: Indices
    ) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        others = members[dataset.labels[members] != self.target]

        def change(images: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
            drawn = [
                int(torch.randint(len(others), (), generator=make_generator(self.seed, "label-consistent", index)))
                for index in indices.tolist()
            ]
            partners = dataset.batch(others[np.array(drawn)]).to(images.device)
            mixed = torch.lerp(images.float(), partners.float(), self.mix)
            return self.apply_trigger(mixed.round().to(torch.uint8))

        return change if self.mix and len(others) else self.apply_training_trigger_to

    def _make_parts(self) -> list[Badnets]:
        corners = ("bottom-right", "bottom-left", "top-right", "top-left")
        return [
            Badnets(target=self.target, size=self.size, margin=0, pattern="chequered", corner=corner)
            for corner in corners
        ]
