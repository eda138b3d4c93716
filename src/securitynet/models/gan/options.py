"""`GANTraining`: how a DCGAN is built and trained; importing it loads no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from securitynet.records import Record


class GANTraining(Record):
    """How a DCGAN is built and trained.

    Noise of 100 dimensions as in ML-Doctor (section 5.2); loss, optimizer, rates and batch normalisation as in the
    DCGAN paper (Radford et al., 2016, section 4). ML-Doctor does not state the length of the training. As shadow data
    may be a few hundred images, there are three additions: the discriminator sees shifted images, so that it does not
    memorise them; labels of real images are smoothed; and the final generator is the running average over the training.

    Attributes:
        latent: Dimensions of the noise.
        width: Channels of the feature maps next to the image; each halving of the side doubles them, up to eightfold.
        steps: Updates of the generator.
        batch_size: Real images in an update, and as many generated ones; fewer if there are fewer images.
        learning_rate: Learning rate of Adam, for both networks.
        momentum: First beta of Adam.
        smoothing: Difference between 1 and the label of a real image (Salimans et al., 2016, section 3.4).
        shift: Largest shift of the images that the discriminator sees, as a share of the side; 0 for none.
        average: Weight of the past in the running average of the generator; 0 uses the last weights.
        previews: Number of sample grids, evenly spaced; the last one shows the final generator.
        version: Version of the training code.
    """

    latent: int = Field(default=100, ge=2, description="Dimensions of the noise.")
    width: int = Field(default=64, ge=4, description="Channels of the feature maps next to the image.")
    steps: int = Field(default=4000, ge=1, description="Updates of the generator.")
    batch_size: int = Field(default=64, ge=2, description="Images in an update.")
    learning_rate: float = Field(default=2e-4, gt=0, allow_inf_nan=False, description="Learning rate of Adam.")
    momentum: float = Field(default=0.5, ge=0, lt=1, description="First beta of Adam.")
    smoothing: float = Field(default=0.1, ge=0, lt=0.5, description="How far below 1 the label of a real image is.")
    shift: float = Field(default=0.0625, ge=0, le=0.5, description="Largest shift of images, as a share of the side.")
    average: float = Field(default=0.999, ge=0, lt=1, description="Share of its past that the average keeps in a step.")
    previews: int = Field(default=8, ge=0, description="Sample grids on the way.")
    version: Literal[1] = Field(default=1, description="Of the code that trains.")
