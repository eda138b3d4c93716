"""Open a model that is given as an object: a network, which is copied and never changed, or a callable."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from securitynet.datasets.base import ImageDataset
from securitynet.errors import ConfigurationError, ModelError
from securitynet.files import hash_stably
from securitynet.models.architectures.in_process import register_module
from securitynet.models.loading.content_digest import digest_callable, digest_network
from securitynet.models.loading.keras_objects import (
    check_keras_backend,
    digest_keras_model,
    is_keras_model,
    read_input_shape,
    take_channels_first,
)
from securitynet.models.loading.open import DEFAULT_SIZE
from securitynet.models.sources.base import OpaqueNetwork
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.sources.references import describe_forms
from securitynet.models.targets.backends.base import LoadOptions, OpenedModel
from securitynet.models.targets.backends.callables import CallableBackend
from securitynet.models.targets.backends.module import ModuleBackend, find_input_channels
from securitynet.models.targets.optimise import copy_network
from securitynet.models.targets.outputs import AdaptedNetwork, adapt_outputs

logger = logging.getLogger(__name__)

OBJECT = "object:"
"""Prefix of the references of models that were given as objects."""

_BY_REFERENCE = ("weights", "weight_set", "output", "trust")


class ObjectBackend(ModuleBackend):
    """A network that was given as an object; shadow models and surrogates like it are trained from copies of it.

    Attributes:
        blueprint: The network as it was given, copied; None once it is registered as an architecture.
    """

    blueprint: nn.Module | None = None
    _registered: str | None = None

    @property
    def architecture(self) -> str | None:
        """Name under which copies with fresh weights are trained; None if its layers cannot be reset."""
        if self.blueprint is not None:
            try:
                self._registered = register_module(self.blueprint)
            except ModelError as error:
                logger.warning(
                    "Models like %s cannot be trained from copies of it; give architecture=FUNCTION. %s",
                    self.reference,
                    error.message,
                )
            self.blueprint = None
        return self._registered

    @architecture.setter
    def architecture(self, reference: str | None) -> None:
        self.blueprint, self._registered = None, reference


def describe_object(model: object) -> str:
    """Name a model that was given as an object: ``object:`` and the name of its class or function.

    Raises:
        ConfigurationError: If it is not a model; the hint lists what is accepted.
    """
    network = unwrap_network(model)
    if network is not None:
        return f"{OBJECT}{type(network).__name__}"
    if isinstance(model, type):
        kind = "a class, not a model with its weights"
        raise ConfigurationError(f"{model.__name__} is {kind}.", hint=f"Give an instance: {model.__name__}().")
    if not callable(model):
        raise ConfigurationError(
            "No model was given." if model is None else f"A model can't be {_article(type(model).__name__)}.",
            hint="Give a torch.nn.Module, a callable that takes a batch of images and returns class scores, or a "
            f"reference: {describe_forms()}.",
        )
    name = getattr(model, "__name__", None) or type(model).__name__
    return f"{OBJECT}{'callable' if name == '<lambda>' else name}"


def unwrap_network(model: object) -> nn.Module | None:
    """The network that an object is or wraps for several devices or a compiler; None if it is none."""
    owner = getattr(model, "__self__", None)
    if isinstance(owner, nn.Module) and getattr(model, "__name__", "") in ("forward", "__call__", "_wrapped_call_impl"):
        model = owner
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    inner = getattr(model, "_orig_mod", None)  # of torch.compile
    if isinstance(inner, nn.Module):
        model = inner
    return model if isinstance(model, nn.Module) else None


def open_object(
    model: object, options: LoadOptions, dataset: ImageDataset | None, preprocessing: Preprocessing | None
) -> OpenedModel:
    """Open a network or a callable.

    Args:
        model: Left as it is: its mode, gradients and device too.
        options: Options of loading.
        dataset: Images of the model's kind; None if there are none.
        preprocessing: Its preprocessing; None if it is not known.

    Raises:
        ConfigurationError: If it is no model, or an option is for references.
        ModelError: If its parameters have no values, or it cannot be copied.
        TargetError: If its outputs are no class scores.
    """
    reference = describe_object(model)
    for name in _BY_REFERENCE:
        if getattr(options, name):
            raise ConfigurationError(
                f"{reference} is an object: {name} applies only to models that are given by a reference.",
                hint="Leave it out.",
            )
    check_keras_backend(model, reference)
    network = unwrap_network(model)
    if network is not None:
        return _open_network(network, reference, options, dataset, preprocessing)
    assert callable(model)  # `describe_object` raised otherwise
    return _open_callable(model, reference, options, preprocessing)


def _open_network(
    network: nn.Module,
    reference: str,
    options: LoadOptions,
    dataset: ImageDataset | None,
    preprocessing: Preprocessing | None,
) -> OpenedModel:
    check_values(network, reference)
    stated_channels, stated_size, of_keras = None, None, is_keras_model(network)
    if of_keras:
        checksum = digest_keras_model(network)
        stated_channels, stated_size = read_input_shape(network)
        network = take_channels_first(network)
    else:
        checksum = digest_network(network)
    own = blueprint = copy_unchanged(network, reference)
    images = None if dataset is None or dataset.images is None else dataset.image_shape
    channels = stated_channels or find_input_channels(own) or (images[0] if images else 3)
    size = (options.input_size, options.input_size) if options.input_size is not None else None
    size = size or (preprocessing.input_size if preprocessing else None) or stated_size
    size = size or (images[1:] if images else None)
    example = channels, *(size or (DEFAULT_SIZE, DEFAULT_SIZE))
    classes = options.num_classes or (dataset.num_classes if dataset else None)
    own, notes = adapt_outputs(own, example, classes=classes, reference=reference)
    if isinstance(own, AdaptedNetwork):
        checksum = hash_stably([checksum, own.part, own.before_sigmoid, own.single], 64)
    backend = ObjectBackend(
        own,
        reference=reference,
        checksum=checksum,
        example_shape=example,
        device=options.device,
        batch_size=options.batch_size,
    )
    if of_keras:
        backend.channels = stated_channels  # layers of Keras cannot be reset, so no blueprint is left either
    else:
        backend.blueprint = blueprint
    return OpenedModel(backend, preprocessing, input_size=stated_size, example_size=example[1:], notes=tuple(notes))


def _open_callable(
    function: Callable[[torch.Tensor], Any],
    reference: str,
    options: LoadOptions,
    preprocessing: Preprocessing | None,
) -> OpenedModel:
    if options.precision != "fp32":
        raise ConfigurationError(
            f"{reference} is a callable, so precision has no effect on it.",
            hint="Leave it out.",
        )
    paid = options.max_queries is not None
    backend = CallableBackend(
        function,
        reference=reference,
        checksum=digest_callable(function),
        batch_size=options.batch_size,
        charges=paid,
    )
    note = (
        "the model is a callable, whose content cannot be identified: its outputs are stored for this process only. "
        "It is assessed as a black box; a torch.nn.Module allows white-box attacks as well."
    )
    return OpenedModel(backend, preprocessing or Preprocessing(), notes=(note,), paid=paid)


def check_values(network: nn.Module, reference: str) -> None:
    """Raise `ModelError` if parameters of a network have no values yet."""
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if is_lazy(tensor):
            raise ModelError(
                f"{name} of {reference} has no shape yet: it is a lazy layer that has seen no image.",
                hint="Call the network once on a batch of images before.",
            )
        if tensor.is_meta:
            raise ModelError(
                f"{name} of {reference} has no values: it lies on the meta device.", hint="Load its weights."
            )


def copy_unchanged(network: nn.Module, reference: str) -> nn.Module:
    """A copy of a network in float32 on the CPU; the original is left as it is.

    Parts that cannot be copied, such as locks and open files, are shared.

    Raises:
        ModelError: If it still cannot be copied.
    """
    if isinstance(network, torch.jit.ScriptModule):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the copied parameters are no leaves
            script: nn.Module = copy.deepcopy(network)
            return OpaqueNetwork(script, has_modes=True).float().cpu()
    own = copy_network(network)
    if own is None:
        own = _copy_with_shared_parts(network)
    if own is None:
        raise ModelError(
            f"{reference} can't be copied, and an assessment must not change it.",
            hint="Give its class a __deepcopy__ method, or give it as python:FILE:FACTORY. A callable, such as "
            "lambda images: model(images), can be assessed as a black box (of Keras: images.permute(0, 2, 3, 1)).",
        )
    return own.float().cpu()


def _copy_with_shared_parts(network: nn.Module) -> nn.Module | None:
    memo: dict[int, object] = {}
    for part in network.modules():
        for name, value in vars(part).items():
            if name in ("_parameters", "_buffers", "_modules") or isinstance(value, nn.Module | torch.Tensor):
                continue
            try:
                copy.deepcopy(value)
            except Exception:  # whatever an attribute holds may refuse
                memo[id(value)] = value
    try:
        return copy.deepcopy(network, memo)
    except Exception:  # likewise
        return None


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
