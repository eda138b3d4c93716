"""A model of RobustBench, with its normalisation inside: images in [0, 1] go in.

Networks come from the definitions of RobustBench's own package. Where that is not installed, wide ResNets and ResNets
that this package or torchvision builds are filled by the names of their tensors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from securitynet.catalog.published import ROBUSTBENCH, load_packaged
from securitynet.errors import ModelError, WeightsMismatch
from securitynet.files import write_atomically
from securitynet.models.architectures.factory import build
from securitynet.models.architectures.wide_resnet import WideResNet
from securitynet.models.sources import _robustbench as package
from securitynet.models.sources import timm, torchvision
from securitynet.models.sources._robustbench import DATASETS, Definition
from securitynet.models.sources.base import NetworkSource, Progress, Shape, explain_unknown_model
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.sources.references import ModelReference
from securitynet.models.sources.schemes import Scheme
from securitynet.models.sources.tensor_names import fit_names
from securitynet.models.sources.weights import StateDict, read_weight_parts
from securitynet.torchvision_cure import import_torchvision

SCHEME = Scheme(
    "robustbench",
    "robustbench:cifar10:Linf:NAME",
    network=True,
    takes_weights=True,
    pattern=r"(?P<name>[^:]+:[^:]+:[^:]+)",
    mismatch="does not name dataset, threat model and model",
    libraries=("robustbench",),
    install="pip install --no-deps robustbench torchdiffeq geotorch",
)

_THREATS = {"corruptions_3d": "corruptions"}
"""Threats that share the models of another one."""

# Which set RobustBench takes from files that hold several. Networks that it registers with timm are read by timm.
_SETS = ("last",)
_TIMM_SETS = ("state_dict_ema", "model_ema")
_NORMALIZERS = ("mu", "sigma", "mean", "std")
# Saved beside the weights by the code that trained them; no output depends on them.
_UNUSED = re.compile(r"(^|\.)(sub_block1\.|model_preact_hl1\.|scores$)|\.scores$")
_OLDER_NAMES = ((".shortcut.", ".downsample."), (".linear.", ".fc."))
"""Parts of names in ResNets for small images -> those of torchvision and this package."""


def open_source(reference: ModelReference) -> NetworkSource:
    """Describe a model of RobustBench.

    Raises:
        ModelError: If it has no such model, or its package is missing and nothing else builds the network.
    """
    dataset, threat, name = reference.name.split(":")
    threat = _THREATS.get(threat, threat)
    if dataset not in DATASETS:
        raise explain_unknown_model("RobustBench", reference.name, [f"{known}:{threat}:{name}" for known in DATASETS])
    if dataset == "imagenet" and name == "Standard_R50":  # torchvision's own, which the list only refers to
        return torchvision.open_source(ModelReference(scheme="torchvision", name="resnet50", detail="IMAGENET1K_V1"))
    if not package.is_installed():
        return _without_package(reference, dataset)
    try:
        definition = package.find_definition(dataset, threat, name)
    except KeyError:
        if reference.name in load_packaged(ROBUSTBENCH):
            raise ModelError(
                f"RobustBench lists results of {reference.name}, and its installed package defines no network for it.",
                hint="A newer package may: pip install --no-deps git+https://github.com/RobustBench/robustbench.",
            ) from None
        lists = package.import_lists()[dataset]
        known = [f"{dataset}:{other}:{key}" for other, models in lists.items() for key in models]
        raise explain_unknown_model("RobustBench", reference.name, known) from None
    size = (32, 32) if dataset != "imagenet" else None

    def make(_shape: Shape, _keys: frozenset[str]) -> nn.Module:
        try:
            return package.build_robustbench_network(definition)
        except (OSError, RuntimeError) as error:  # some download parts of themselves
            words = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            if torch.get_default_device().type == "meta":
                raise RuntimeError(words) from error  # it is built with memory then
            raise ModelError(f"RobustBench cannot build {reference.name}: {words}") from error

    return NetworkSource(
        architecture=f"robustbench:{dataset}:{threat}:{name}",
        build=make,
        num_classes=DATASETS[dataset],
        channels=3,
        preprocessing=Preprocessing(input_size=size) if size else _imagenet_preprocessing(definition),
        fetch=lambda progress: _fetch(reference, definition, (dataset, threat, name), make, progress),
        convert=convert_robustbench,
        fixed_classes=True,
        # The definition normalises and decides the input, whoever gives the file.
        is_own=lambda _path: True,
        weight_sets=_TIMM_SETS if definition.timm else _SETS,
    )


def _imagenet_preprocessing(definition: Definition) -> Preprocessing:
    """What comes before a network for ImageNet: its resizing and crop, without normalisation."""
    if definition.timm:
        return timm.read_preprocessing(definition.timm).model_copy(update={"mean": (), "std": ()})
    name = definition.preprocessing
    match = re.fullmatch(r"(Bicubic)?(?:Res(\d+))?(?:Crop(\d+))?", name)
    if match is None or not name:
        return Preprocessing(input_size=(224, 224), crop_share=224 / 256)
    resized, cropped = match[2] and int(match[2]), match[3] and int(match[3])
    side = cropped or resized or 224
    # A crop without resizing depends on the size of each image; the usual margin stands for it.
    share = (side / resized if resized else 224 / 256) if cropped else None
    return Preprocessing(input_size=(side, side), crop_share=share, interpolation="bicubic" if match[1] else "bilinear")


def convert_robustbench(state: StateDict, network: nn.Module) -> StateDict:
    """Rename the tensors of a RobustBench file to those of a network, and complete its normaliser.

    Files for ImageNet hold the network inside the normalising module; some files lack the constants of the normaliser,
    which the definition states, and some hold tensors that no output depends on.

    Args:
        state: Tensors by the names of the file.
        network: The network that the definition builds.
    """
    wanted = network.state_dict()
    candidates = [state]
    inner = getattr(network, "model", None)
    if isinstance(inner, nn.Module):
        alone = fit_names(state, inner.state_dict()).state  # without the wrappers of whoever trained it
        variants = [alone, timm.convert_timm(alone, inner)] if type(inner).__module__.startswith("timm.") else [alone]
        candidates += [{f"model.{key}": value for key, value in variant.items()} for variant in variants]
    best = max(candidates, key=lambda candidate: sum(_fits(wanted, key, value) for key, value in candidate.items()))
    kept = {key: value for key, value in best.items() if key in wanted or not _UNUSED.search(key)}
    for key, value in network.named_buffers():
        if key in wanted.keys() - kept.keys() and key.rpartition(".")[2] in _NORMALIZERS and value.numel() in (1, 3):
            kept[key] = value.detach().clone().float()
    return kept | {alias: kept[key] for alias, key in _aliases(network).items() if alias not in kept and key in kept}


def _aliases(network: nn.Module) -> dict[str, str]:
    """Names of tensors that a network also holds under an earlier name: name -> earlier name."""
    every = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    first: dict[int, str] = {}
    named = {key: first.setdefault(id(tensor), key) for key, tensor in every}
    return {key: earlier for key, earlier in named.items() if key != earlier}


def _fits(wanted: Mapping[str, torch.Tensor], key: str, value: torch.Tensor) -> bool:
    return key in wanted and wanted[key].shape == value.shape


def _fetch(
    reference: ModelReference,
    definition: Definition,
    place: tuple[str, str, str],
    make: Callable[[Shape, frozenset[str]], nn.Module],
    progress: Progress | None,
) -> Path:
    """The file of a model's own weights: laid by the user, or downloaded; parts of an ensemble as one file."""
    dataset, threat, name = place
    sources = definition.parts or ((str(definition.timm["url"]),) if definition.timm.get("url") else ())
    if not sources:
        raise ModelError(f"RobustBench states no file of weights for {reference}.", hint="Give one with --weights.")
    folder, names = Path(dataset, threat), package.list_part_names(name, len(sources))
    theirs, ours = (root / folder for root in package.list_weights_folders())
    files = package.locate_parts(dataset, threat, name, len(sources))
    if files is None:
        advice = f"Put {' and '.join(names)}, as RobustBench saves them, into {theirs}" + (
            f", or give the file: {reference} --weights FILE." if len(names) == 1 else "."
        )
        for part, source in zip(names, sources, strict=True):
            if not (ours / part).is_file():
                package.fetch_part(source, ours / part, reference=str(reference), advice=advice, progress=progress)
        files = [ours / part for part in names]
    for file in files:
        package.check_part(file, str(reference))
    if len(files) == 1:
        return files[0]
    shape = Shape(DATASETS[dataset])
    joined = join_parts([read_weight_parts(file, _SETS) for file in files], make(shape, frozenset()))
    path = ours / f"{name}.safetensors"
    with write_atomically(path) as stream:
        stream.write(save(joined))
    return path


def join_parts(files: list[list[StateDict]], network: nn.Module) -> StateDict:
    """The weights of an ensemble under the names of its network: each file fills the next part that it fits.

    Args:
        files: The sets of tensors of each file, in order. The first fills a network, and the others further parts, such
            as a normalisation of what networks are mixed by.
        network: The ensemble. What no file holds of its mixing weights and normalisers is its own.

    Raises:
        WeightsMismatch: If a file fits no part that is still empty, or a part stays empty.
    """
    joined: StateDict = {}
    filled: list[str] = []
    for number, sets in enumerate(files):
        for place, state in enumerate(sets):
            part = _fill_part(state, network, filled)
            if part is not None:
                joined |= part
            elif place == 0:
                raise WeightsMismatch(f"File {number} of the ensemble fits none of its networks.")
    aliases = _aliases(network)
    for key, value in network.state_dict().items():
        if key in joined or key in aliases or key.endswith("num_batches_tracked"):
            continue
        last = key.rpartition(".")[2]
        if value.numel() > (3 if last in _NORMALIZERS else 1) or last.startswith("running_"):
            raise WeightsMismatch(f"No file of the ensemble holds {key}.")
        joined[key] = value.detach().clone().float()
    return joined


def _fill_part(state: StateDict, network: nn.Module, filled: list[str]) -> StateDict | None:
    """Tensors under the names of the first part of a network that is empty and that they fit; None if there is none."""
    for prefix, part in network.named_modules():
        wanted = part.state_dict()
        if not prefix or not wanted or any(prefix == other or prefix.startswith(f"{other}.") for other in filled):
            continue
        fitted = convert_robustbench(fit_names(state, wanted).state, part)
        if fitted.keys() <= wanted.keys() and all(
            key.endswith("num_batches_tracked") or (key in fitted and _fits(wanted, key, fitted[key])) for key in wanted
        ):
            filled.append(prefix)
            aliases = _aliases(part)
            return {f"{prefix}.{key}": value.contiguous() for key, value in fitted.items() if key not in aliases}
    return None


def _without_package(reference: ModelReference, dataset: str) -> NetworkSource:
    """The network by its published architecture; its normalisation is tried on labelled images, or read in the file."""
    rows = load_packaged(ROBUSTBENCH).get(reference.name)
    make = _own_network(rows[0].facts.get("architecture", "") if rows else "", dataset)
    if make is None:
        raise ModelError(
            f"{reference} needs RobustBench's definition of its network, and the package is not installed.",
            hint=f"Install it: {SCHEME.install}.",
        )

    def fetch(_progress: Progress | None) -> Path:
        threat, name = reference.name.split(":")[1:]
        files = package.locate_parts(dataset, threat, name, 1)
        if files is None:
            theirs = package.list_weights_folders()[0] / reference.name.rpartition(":")[0].replace(":", "/")
            raise ModelError(
                f"The address of the weights of {reference} is in RobustBench's package, which is not installed.",
                hint=f"Install it ({SCHEME.install}), put the file into {theirs}, or give it: "
                f"{reference} --weights FILE.",
            )
        return files[0]

    return NetworkSource(
        architecture=f"robustbench:{reference.name}",
        build=make,
        num_classes=DATASETS[dataset],
        channels=3,
        input_size=(32, 32) if dataset != "imagenet" else (224, 224),
        fetch=fetch,
        convert=_convert_own,
        weight_sets=_SETS,
    )


def _own_network(architecture: str, dataset: str) -> Callable[[Shape, frozenset[str]], nn.Module] | None:
    """What builds an architecture that RobustBench names, if this package or torchvision does; else None."""
    models: Any = import_torchvision("torchvision.models")
    wide = re.fullmatch(r"WideResNet-(\d+)-(\d+)", architecture)
    plain = re.fullmatch(r"ResNet-(18|34|50)", architecture)
    if dataset == "imagenet":
        name = f"resnet{plain[1]}" if plain else "wide_resnet50_2" if architecture == "WideResNet-50-2" else None
        return None if name is None else lambda shape, _keys: models.get_model(name, num_classes=shape.num_classes)
    if wide and (int(wide[1]) - 4) % 6 == 0:
        return lambda shape, _keys: WideResNet(int(wide[1]), int(wide[2]), shape.num_classes, shape.channels)
    if plain and plain[1] != "50":
        return lambda shape, _keys: build(f"resnet{plain[1]}", shape.num_classes, shape.channels, shape.image_size)
    return None


def _convert_own(state: StateDict, network: nn.Module) -> StateDict:
    """Rename the tensors of ResNets for small images, and leave out what no output depends on."""
    renamed = {f".{key}": value for key, value in state.items()}
    for old, new in _OLDER_NAMES:
        renamed = {key.replace(old, new): value for key, value in renamed.items()}
    return convert_robustbench({key[1:]: value for key, value in renamed.items()}, network)
