"""The package's own architectures, by name; listing them loads no torch.

Every factory has the signature ``factory(num_classes, channels=3, image_size=32)`` and returns a network that
emits logits, ends in one ``nn.Linear`` (whose input is the embedding), is symbolically traceable by
``torch.fx`` and draws its initial weights from torch's global random state. A layer or network with a method
``initialise_from_images`` is given some preprocessed training images before the training. Plug-ins add further ones
under the entry-point group ``securitynet.architectures``; `securitynet.models.architectures.in_process` adds factories
and modules that this process was given as objects.
"""

from __future__ import annotations

from securitynet.models.architectures._registry import ArchitectureRegistry

_HERE = "securitynet.models.architectures"

ARCHITECTURES = ArchitectureRegistry(
    {
        "airbench": (
            f"{_HERE}.airbench:airbench",
            "whitened patches and six convolutions, made for fast training (Jordan, 2024)",
        ),
        "airbench-small": (f"{_HERE}.airbench:airbench_small", "airbench, narrower: for small or grey images"),
        "airbench-wide": (f"{_HERE}.airbench:airbench_wide", "airbench, wider, as trained to 95% (Jordan, 2024)"),
        "alexnet": (f"{_HERE}.alexnet:alexnet", "AlexNet for small images (Krizhevsky et al., 2012)"),
        "cifar-resnet20": (
            f"{_HERE}.cifar_resnet:cifar_resnet20",
            "CIFAR ResNet-20, 0.27 M weights (He et al., 2016)",
        ),
        "cifar-resnet32": (
            f"{_HERE}.cifar_resnet:cifar_resnet32",
            "CIFAR ResNet-32, 0.46 M weights (He et al., 2016)",
        ),
        "cifar-resnet44": (
            f"{_HERE}.cifar_resnet:cifar_resnet44",
            "CIFAR ResNet-44, 0.66 M weights (He et al., 2016)",
        ),
        "cifar-resnet56": (
            f"{_HERE}.cifar_resnet:cifar_resnet56",
            "CIFAR ResNet-56, 0.85 M weights (He et al., 2016)",
        ),
        "cifar-resnet110": (
            f"{_HERE}.cifar_resnet:cifar_resnet110",
            "CIFAR ResNet-110, 1.7 M weights (He et al., 2016)",
        ),
        "resnet18": (f"{_HERE}.resnet:resnet18", "ResNet-18 with a stem for small images (He et al., 2016)"),
        "resnet34": (f"{_HERE}.resnet:resnet34", "ResNet-34 with a stem for small images (He et al., 2016)"),
        "simple-cnn": (
            f"{_HERE}.simple_cnn:simple_cnn",
            "two convolutional and two linear layers (ML-Doctor)",
        ),
        "tutorial-cnn": (
            f"{_HERE}.tutorial_cnn:tutorial_cnn",
            "the network of PyTorch's tutorial on CIFAR-10: two convolutional and three linear layers",
        ),
        "vgg11": (
            f"{_HERE}.vgg:vgg11",
            "VGG-11 with batch norm for small images (Simonyan and Zisserman, 2015)",
        ),
        "vgg19": (
            f"{_HERE}.vgg:vgg19",
            "VGG-19 with batch norm for small images (Simonyan and Zisserman, 2015)",
        ),
        "wrn-28-2": (f"{_HERE}.wide_resnet:wrn_28_2", "Wide ResNet-28-2 (Zagoruyko and Komodakis, 2016)"),
        "wrn-28-10": (f"{_HERE}.wide_resnet:wrn_28_10", "Wide ResNet-28-10 (Zagoruyko and Komodakis, 2016)"),
        "wrn-50-2": (f"{_HERE}.wide_resnet:wrn_50_2", "Wide ResNet-50-2 (Zagoruyko and Komodakis, 2016)"),
        "xception": (f"{_HERE}.xception:xception", "Xception with a stem for small images (Chollet, 2017)"),
    },
)
