"""The Open Inference Protocol, version 2, over REST: addresses, request bodies and response bodies.

KServe, Triton and MLServer implement it: ``GET v2/models/NAME[/versions/V]`` describes a model, and
``POST .../infer`` queries it.
"""

from __future__ import annotations

import json
import re
import reprlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray

from securitynet.errors import ConfigurationError, ModelError, TargetError
from securitynet.files import hash_stably
from securitynet.models.targets.backends._layout import InputLayout, read_layout

_MODEL_PATH = re.compile(r"(?P<base>.*/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?)(?:/infer)?/?")
_INPUT_TYPES = ("FP32", "FP64")
_OUTPUT_TYPES = ("FP16", "BF16", "FP32", "FP64")
_LARGEST_RESPONSE = 32 << 20
_LONGEST_NAME = 1000
_BYTES_PER_SCORE = 26  # the longest double in JSON, a comma and a blank
_MOST_CLASSES = 22_000  # those of ImageNet-21k, where nothing is known
ANY_LAYOUT = InputLayout(batch=None, channels=None, size=None, channels_last=False)


@dataclass(frozen=True)
class Endpoint:
    """The address of a served model.

    Attributes:
        infer_url: Address for inference requests.
        model_url: Address of the model's description; None for an address of another form.
        model: Name of the model on the server, or None.
        version: Its version, if the address pins one.
        shown: The address without credentials, for messages and records.
    """

    infer_url: str
    model_url: str | None
    model: str | None
    version: str | None
    shown: str

    def identity(self, output_name: str | None) -> str:
        """Digest of everything in the address that determines the outputs. Credentials are not included."""
        parts = urlsplit(self.infer_url)
        return hash_stably(
            {
                "url": urlunsplit((parts.scheme, parts.netloc.lower(), parts.path, parts.query, "")),
                "model": self.model,
                "version": self.version,
                "output": output_name,
            },
            length=64,
        )


def parse_endpoint(url: str) -> Endpoint:
    """Parse ``http://HOST/v2/models/NAME[/versions/V][/infer]``, or any other address that accepts the same requests.

    Raises:
        ConfigurationError: If it is not the address of a web server, or contains a user name or password.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(
            "The address of the endpoint is not understood.", hint="Write http://HOST:PORT/v2/models/NAME."
        )
    if "@" in parts.netloc:
        raise ConfigurationError(
            "The address of the endpoint holds credentials.",
            hint="Take them out, and put the token into the environment variable SECURITYNET_HTTP_TOKEN.",
        )
    shown = urlunsplit((parts.scheme, parts.netloc.lower(), parts.path, "", ""))
    match = _MODEL_PATH.fullmatch(parts.path)
    if match is None:
        return Endpoint(url, None, None, None, shown)
    described = urlunsplit((parts.scheme, parts.netloc, match["base"], parts.query, ""))
    infer_url = urlunsplit((parts.scheme, parts.netloc, match["base"] + "/infer", parts.query, ""))
    return Endpoint(infer_url, described, match["name"], match["version"], shown)


@dataclass(frozen=True)
class ModelMetadata:
    """A server's description of a model.

    Attributes:
        input_name: Name of its input.
        datatype: ``FP32`` or ``FP64``.
        layout: Shape of its input.
        num_classes: Length of an output row, or None.
        versions: Versions of the model that the server lists.
    """

    input_name: str = "input"
    datatype: str = "FP32"
    layout: InputLayout = ANY_LAYOUT
    num_classes: int | None = None
    versions: tuple[str, ...] = ()


def read_metadata(body: Any, shown: str, input_name: str | None, output_name: str | None) -> ModelMetadata:
    """Parse a model's description. A server may omit inputs and outputs; defaults are then used.

    Args:
        body: The decoded JSON of the description.
        shown: The address, for messages.
        input_name: Name of the input; None for the one that is described.
        output_name: Name of the output with the class scores; None for the first suitable one.

    Raises:
        ModelError: If the model is not an image classifier with one float input.
        TargetError: If the response is not a description.
    """
    if not isinstance(body, dict):
        raise TargetError(f"{shown} does not describe its model as the Open Inference Protocol says.")
    inputs, outputs = (_tensors(body, key) for key in ("inputs", "outputs"))
    names = [tensor["name"] for tensor in inputs]
    if input_name is not None:
        inputs = [tensor for tensor in inputs if tensor["name"] == input_name]
        if names and not inputs:
            raise ModelError(f"{shown} has no input {input_name!r}.", hint=f"It has: {reprlib.repr(names)}.")
    if len(inputs) > 1:
        raise ModelError(f"{shown} takes {len(inputs)} inputs ({reprlib.repr(names)}); an image classifier takes one.")
    listed = [tensor["name"] for tensor in outputs]
    if output_name is not None and listed and output_name not in listed:
        raise ModelError(f"{shown} has no output {output_name!r}.", hint=f"It has: {reprlib.repr(listed)}.")
    chosen = [tensor for tensor in outputs if output_name in (None, tensor["name"])]
    shape = chosen[0].get("shape") if len(chosen) == 1 else None
    last = shape[-1] if isinstance(shape, list) and len(shape) == 2 else None
    classes = last if isinstance(last, int) and last > 0 else None
    served = body.get("versions")
    versions = tuple(filter(None, map(_read_version, served[:1000]))) if isinstance(served, list) else ()
    if not inputs:
        return ModelMetadata(input_name or "input", num_classes=classes, versions=versions)
    datatype = inputs[0].get("datatype", "FP32")
    if datatype not in _INPUT_TYPES:
        raise ModelError(f"{shown} takes {str(datatype)[:40]}; images are sent as {' or '.join(_INPUT_TYPES)}.")
    declared = inputs[0].get("shape")
    layout = read_layout(declared, shown) if isinstance(declared, list) and declared else ANY_LAYOUT
    return ModelMetadata(inputs[0]["name"], datatype, layout, classes, versions)


def _tensors(body: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The tensors under ``inputs`` or ``outputs``, as far as they are described."""
    listed = body.get(key)
    if not isinstance(listed, list):
        return []
    return [
        t for t in listed if isinstance(t, dict) and isinstance(t.get("name"), str) and len(t["name"]) <= _LONGEST_NAME
    ]


def build_request(images: NDArray[np.float32], metadata: ModelMetadata, output_name: str | None) -> bytes:
    """Build the body of an inference request.

    Args:
        images: A batch in the layout of the input, float32.
        metadata: The model's description.
        output_name: Name of the output to request; None for all.
    """
    body: dict[str, Any] = {
        "inputs": [
            {
                "name": metadata.input_name,
                "shape": list(images.shape),
                "datatype": metadata.datatype,
                "data": images.reshape(-1).tolist(),
            }
        ]
    }
    if output_name is not None:
        body["outputs"] = [{"name": output_name}]
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()


@dataclass(frozen=True, eq=False)
class InferenceResponse:
    """The outputs in a response.

    Attributes:
        rows: One row of class scores per image, N×K float32; they may hold NaN, which the caller checks.
        version: Version of the model that responded; None if the server does not say.
    """

    rows: NDArray[np.float32]
    version: str | None


def limit_response(count: int, num_classes: int | None) -> int:
    """Largest size in bytes of a response that is read: scores as JSON, with room for a second output.

    At most 32 MiB, whatever is declared: parsed, the worst JSON takes 25 times as much memory.

    Args:
        count: Number of images in the request.
        num_classes: Number of classes; None if it is not known yet.
    """
    scores = count * (num_classes or _MOST_CLASSES)
    return min(_LARGEST_RESPONSE, (1 << 20) + 2 * _BYTES_PER_SCORE * scores)


def read_response(content: bytes, count: int, shown: str, output_name: str | None) -> InferenceResponse:
    """Parse the response to an inference request.

    Args:
        content: Body of the response.
        count: Number of images in the request.
        shown: The address, for messages.
        output_name: Name of the output with the class scores; None for the first float output with a row per image.

    Raises:
        TargetError: If the response is malformed, or has no float output with one row per image.
    """
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise TargetError(
            f"{shown} did not return JSON: {content[:80].decode('utf-8', 'replace')!r}.",
            hint="Check that the address is that of an inference endpoint (…/v2/models/NAME/infer).",
        ) from error
    outputs = body.get("outputs") if isinstance(body, dict) else None
    if not isinstance(outputs, list) or not all(isinstance(o, dict) for o in outputs):
        raise TargetError(
            f"{shown} returned no 'outputs': it does not speak the Open Inference Protocol. It returned "
            f"{content[:60].decode('utf-8', 'replace')!r}{'...' if len(content) > 60 else ''}.",
            hint="Ask any other service from Python: securitynet.assess(ask, train, test), where ask(images) returns a "
            "row of posteriors or logits of all classes for each image; or record them (outputs:recorded.npz).",
        )
    if output_name is not None:
        chosen = [o for o in outputs if o.get("name") == output_name]
    else:
        chosen = [o for o in outputs if _is_scores(o)]
    if not chosen:
        described = [" ".join(reprlib.repr(o.get(key)) for key in ("name", "datatype", "shape")) for o in outputs[:10]]
        listed = ", ".join(described) or "none"
        wanted = f"output {output_name!r}" if output_name else "float output of a row per image"
        raise TargetError(
            f"{shown} returned no {wanted}.",
            hint=f"Its outputs: {listed}. Attacks need posteriors or logits of all classes; labels alone are not "
            "enough.",
        )
    return InferenceResponse(_rows(chosen[0], count, shown), _read_version(body.get("model_version")) or None)


def _read_version(value: Any) -> str:
    """The version of a model, which is a short text or a number; empty if it is anything else."""
    return str(value)[:200] if isinstance(value, str | int) else ""


def _is_scores(output: dict[str, Any]) -> bool:
    shape = output.get("shape")
    return output.get("datatype") in _OUTPUT_TYPES and isinstance(shape, list) and len(shape) >= 2


def _rows(output: dict[str, Any], count: int, shown: str) -> NDArray[np.float32]:
    shape = output.get("shape")
    wrong = TargetError(
        f"{shown} returned an output of shape {reprlib.repr(shape)} for {count} images; one row of class scores "
        "each is expected.",
        hint="If it has several outputs, choose one by name.",
    )
    if not isinstance(shape, list) or not all(isinstance(d, int) and d > 0 for d in shape):
        raise wrong
    if len(shape) < 2 or shape[0] != count or any(d != 1 for d in shape[2:]):
        raise wrong
    try:
        with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite, and is reported as such
            values = np.asarray(output.get("data"), dtype=np.float64).reshape(-1).astype(np.float32)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise TargetError(f"{shown} returned data that are not numbers.") from error
    if values.size != shape[0] * shape[1]:
        raise TargetError(f"{shown} returned {values.size} numbers for an output of shape {reprlib.repr(shape)}.")
    return values.reshape(shape[0], shape[1])
