"""The available datasets, by name. Importing this module loads nothing heavy."""

from __future__ import annotations

from securitynet.registry import Registry

MEDMNIST = {
    "pathmnist": "colon pathology, 9 tissue types, colour 28×28",
    "chestmnist": "chest X-ray, several findings per image: cannot be a target's dataset",
    "dermamnist": "dermatoscope, 7 skin lesions, colour 28×28",
    "octmnist": "retinal OCT, 4 diagnoses, grey 28×28",
    "pneumoniamnist": "chest X-ray, pneumonia or not, grey 28×28",
    "retinamnist": "fundus camera, 5 grades of retinopathy, colour 28×28",
    "breastmnist": "breast ultrasound, malignant or not, grey 28×28",
    "bloodmnist": "blood cell microscope, 8 cell types, colour 28×28",
    "tissuemnist": "kidney cortex microscope, 8 cell types, grey 28×28",
    "organamnist": "abdominal CT, axial, 11 organs, grey 28×28",
    "organcmnist": "abdominal CT, coronal, 11 organs, grey 28×28",
    "organsmnist": "abdominal CT, sagittal, 11 organs, grey 28×28",
}

DATASETS = Registry(
    "dataset",
    {
        "digits": (
            "securitynet.datasets.digits:digits",
            "1,797 handwritten digits, grey 8×8, with slant and stroke thickness; no download",
        ),
        "cifar10": ("securitynet.datasets.arrays:cifar10", "CIFAR-10: 60,000 colour images 32×32, 10 classes"),
        "cifar100": ("securitynet.datasets.arrays:cifar100", "CIFAR-100: 60,000 colour images 32×32, 100 fine classes"),
        "svhn": (
            "securitynet.datasets.arrays:svhn",
            "Street View House Numbers: 99,289 colour images 32×32, 10 digits",
        ),
        "stl10": ("securitynet.datasets.arrays:stl10", "STL-10: 13,000 labelled colour images 96×96, 10 classes"),
        "mnist": ("securitynet.datasets.arrays:mnist", "MNIST: 70,000 handwritten digits, grey 28×28"),
        "fmnist": (
            "securitynet.datasets.arrays:fmnist",
            "Fashion-MNIST: 70,000 grey images 28×28, 10 kinds of clothing",
        ),
        "celeba": (
            "securitynet.datasets.faces:celeba",
            "CelebA: 202,599 faces, Heavy_Makeup × Mouth_Slightly_Open × Smiling; Male, Young; own download",
        ),
        "utkface": (
            "securitynet.datasets.faces:utkface",
            "UTKFace: about 22,000 faces of the four largest groups; gender; own download",
        ),
        "cub200": ("securitynet.datasets.photos:cub200", "CUB-200-2011: 11,788 photos of 200 bird species"),
        "imagenet": ("securitynet.datasets.photos:imagenet", "ImageNet (ILSVRC 2012): 1,000 classes; own download"),
        "folder": ("securitynet.datasets.folder:folder", "folder:PATH with train/CLASS/* and test/CLASS/*"),
        "parquet": (
            "securitynet.datasets.parquet:parquet",
            "parquet:PATH with train.parquet and test.parquet, columns image and label",
        ),
        **{
            f"medmnist-{name}": ("securitynet.datasets.medical:medmnist", f"MedMNIST: {summary}")
            for name, summary in MEDMNIST.items()
        },
    },
)
"""name -> (location of a function from `Request` to `Source`, summary)."""
