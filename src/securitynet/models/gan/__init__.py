"""Generative models of images: a DCGAN for any image size, its resumable trainer, and the store of trained DCGANs.

Radford, Metz and Chintala, "Unsupervised representation learning with deep convolutional generative adversarial
networks" (2016), is [41] of ML-Doctor, whose inversion attack (section 5.2) takes noise of 100 dimensions.
"""

from securitynet.models.gan.networks import Discriminator, GANGenerator
from securitynet.models.gan.options import GANTraining
from securitynet.models.gan.store import GAN, obtain_gan

__all__ = ["GAN", "Discriminator", "GANGenerator", "GANTraining", "obtain_gan"]
