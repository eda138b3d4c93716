"""Image classifiers of the transformers library, built from their configuration: no code of a repository is run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from securitynet.errors import MissingExtra, ModelError
from securitynet.files import hash_stably
from securitynet.models.sources.base import NetworkSource, Shape
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.sources.weights import StateDict
from securitynet.torchvision_cure import import_torchvision

_CODE = frozenset({"auto_map", "custom_pipelines", "use_kernels", "kernel_config"})
"""Keys of a configuration that name code in a repository."""
_FETCHES = ("use_pretrained_backbone", "backbone", "use_timm_backbone")
"""Keys whose values make the library fetch another model."""


def open_transformers(
    config: Mapping[str, Any], processor: Mapping[str, Any] | None, *, name: str, **weights: Any
) -> NetworkSource:
    """A source for what a ``config.json`` of transformers describes.

    Args:
        config: Its content.
        processor: Content of ``preprocessor_config.json``; None if there is none.
        name: Of the model, for messages.
        **weights: ``fetch`` and ``is_own`` of `NetworkSource`.

    Raises:
        MissingExtra: Without transformers.
        ModelError: If it describes no image classifier, or one that needs code or weights from elsewhere.
    """
    kind = str(config.get("model_type"))
    for key in _FETCHES:
        if config.get(key):
            raise ModelError(
                f"{name} takes its backbone from another model ({key}), which is not fetched.",
                hint="Load it by a factory of your own: python:FILE:FACTORY --weights FILE.",
            )
    if config.get("quantization_config"):
        raise ModelError(
            f"{name} holds quantised weights, which only its library's own kernels read.",
            hint="Save the model in full precision, or record its outputs (outputs:FILE).",
        )
    transformers = import_transformers()
    known = transformers.models.auto.modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    if kind not in known:
        wanted = ", ".join(map(str, config.get("architectures") or ())) or kind
        raise ModelError(
            f"{name} is {wanted}, which is no image classifier that this version of transformers defines.",
            hint="Code in the repository itself is never run; a factory of your own may make it: python:FILE:FACTORY.",
        )
    settings = _without_code({key: value for key, value in config.items() if key != "model_type"})

    def configured(shape: Shape | None) -> Any:
        made = transformers.AutoConfig.for_model(kind, **settings)
        if shape is None:
            return made
        for key, value in (("num_channels", shape.channels), ("image_size", shape.image_size)):
            if isinstance(getattr(made, key, None), int):
                setattr(made, key, value)
            elif key == "num_channels" and value != _COLOUR:
                raise ModelError(f"{name} takes colour images only.", hint="Convert the images with --channels 3.")
        made.num_labels = shape.num_classes
        return made

    def make(shape: Shape, _keys: frozenset[str]) -> nn.Module:
        # Eager attention: other kinds may be fetched as kernels, and lack second derivatives.
        network: nn.Module = transformers.AutoModelForImageClassification.from_config(
            configured(shape), attn_implementation="eager", trust_remote_code=False
        )
        return network

    stated = configured(None)
    size, channels = getattr(stated, "image_size", None), getattr(stated, "num_channels", None)
    return NetworkSource(
        architecture=f"transformers:{kind}:{hash_stably(settings, 16)}",
        build=make,
        num_classes=int(stated.num_labels),
        channels=channels if isinstance(channels, int) else _COLOUR,
        preprocessing=_preprocessing(processor) if processor is not None else None,
        input_size=(size, size) if isinstance(size, int) else None,
        convert=_convert,
        sized=isinstance(size, int),
        class_names=_class_names(config.get("id2label")),
        **weights,
    )


_COLOUR = 3


def _convert(state: StateDict, network: nn.Module) -> StateDict:
    """Names of tensors as this version of the library has them; files keep those of the first version.

    What the library would fill in, leave out or resize is no conversion: the file is then reported as it is.
    """
    made: Any = network
    try:
        converted, report = type(made).from_pretrained(
            None, config=made.config, state_dict=dict(state), output_loading_info=True, attn_implementation="eager"
        )
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, OSError):
        return state
    if any(report.get(key) for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")):
        return state
    return dict(converted.state_dict())


def import_transformers() -> Any:
    """The transformers library.

    Raises:
        MissingExtra: If it is not installed.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        library: Any = import_torchvision("transformers")
        import_torchvision("transformers.models.auto.modeling_auto")
    except ImportError as error:
        raise MissingExtra("transformers", "transformers", "Loading an image classifier of transformers") from error
    return library


def _without_code(values: Any) -> Any:
    """A configuration without the keys that choose code: of a repository, or kernels for attention."""
    if isinstance(values, dict):
        return {
            key: _without_code(value)
            for key, value in values.items()
            if key not in _CODE and "attn_implementation" not in key and "experts_implementation" not in key
        }
    return [_without_code(value) for value in values] if isinstance(values, list) else values


def _class_names(labels: Any) -> tuple[str, ...]:
    """Names of the classes in the order of outputs; none where they were left as LABEL_0, LABEL_1 and so on."""
    if not isinstance(labels, Mapping):
        return ()
    try:
        ordered = {int(number): str(label) for number, label in labels.items()}
    except ValueError:
        return ()
    if sorted(ordered) != list(range(len(ordered))) or all(ordered[i] == f"LABEL_{i}" for i in ordered):
        return ()
    return tuple(ordered[number] for number in range(len(ordered)))


def _preprocessing(stated: Mapping[str, Any]) -> Preprocessing | None:
    """Read a ``preprocessor_config.json``; None if it states something that has no equivalent here."""
    if stated.get("rescale_offset") or abs(float(stated.get("rescale_factor", 1 / 255)) - 1 / 255) > 1e-6:
        return None
    if stated.get("do_rescale") is False:
        return None
    normalised = stated.get("do_normalize", True) and stated.get("image_mean") and stated.get("image_std")
    mean, std = (stated["image_mean"], stated["image_std"]) if normalised else ((), ())
    size, share = _sides(stated.get("size")), None
    edge = stated["size"].get("shortest_edge") if isinstance(stated.get("size"), Mapping) else None
    crop = _sides(stated.get("crop_size")) if stated.get("do_center_crop") else None
    if stated.get("crop_pct") is not None and isinstance(edge, int):
        # ConvNeXt's processor: small images are resized a little larger and cropped, large ones stretched.
        size, share = (edge, edge), float(stated["crop_pct"]) if edge < 384 else None
    elif crop is not None:
        size, share = crop, min(1.0, crop[0] / (edge if isinstance(edge, int) else size[0] if size else crop[0]))
    if stated.get("do_resize") is False and crop is None:
        size = None
    return Preprocessing(
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
        input_size=size,
        crop_share=None if size is None else share,
        interpolation="bicubic" if stated.get("resample") == 3 else "bilinear",
    )


def _sides(value: Any) -> tuple[int, int] | None:
    if isinstance(value, int):
        return value, value
    if isinstance(value, Mapping):
        if isinstance(value.get("height"), int) and isinstance(value.get("width"), int):
            return value["height"], value["width"]
        if isinstance(value.get("shortest_edge"), int):
            return value["shortest_edge"], value["shortest_edge"]
    return None


def read_weights_file(folder: Path, name: str) -> Path:
    """The one safetensors file of a saved model.

    Raises:
        ModelError: If there is none, or the weights are in several.
    """
    whole = folder / "model.safetensors"
    if whole.is_file():
        return whole
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return files[0]
    raise ModelError(
        f"{name} has {'several files of weights' if files else 'no model.safetensors'}.",
        hint="Save the model with save_pretrained(FOLDER, max_shard_size='100GB').",
    )
