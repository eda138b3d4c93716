"""Parameters, operations and elements of architectures, counted by building each without memory for its weights.

``data/architecture_facts.csv`` is made by ``python -m securitynet.catalog.collectors.facts FILE``; collectors read it.
Building on torch's meta device allocates no weights and computes no numbers, only shapes, so that a thousand
architectures take minutes.
"""

from __future__ import annotations

import csv
import functools
import importlib.metadata
import sys
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from securitynet.files import write_atomically

COLUMNS = ("library", "architecture", "input_size", "parameters", "flops", "elements", "counted_with")


class Facts(NamedTuple):
    """What building an architecture tells.

    Attributes:
        parameters: Number of trainable parameters.
        flops: Multiply-accumulate operations for one image of ``input_size`` pixels a side; None if not countable.
        elements: Kinds of layer present, out of the codebook's ``elements``.
        input_size: Side of the image in pixels.
        counted_with: Library and version.
    """

    parameters: int
    flops: int | None
    elements: tuple[str, ...]
    input_size: int
    counted_with: str


@functools.cache
def load_known_facts() -> dict[tuple[str, str], Facts]:
    """The shipped table, by library and architecture."""
    path = files("securitynet.catalog") / "data" / "architecture_facts.csv"
    with path.open(encoding="utf-8") as stream:
        return {
            (row["library"], row["architecture"]): Facts(
                parameters=int(row["parameters"]),
                flops=int(row["flops"]) if row["flops"] else None,
                elements=tuple(filter(None, row["elements"].split(";"))),
                input_size=int(row["input_size"]),
                counted_with=row["counted_with"],
            )
            for row in csv.DictReader(stream)
        }


def count_weights(library: str, architecture: str, input_size: int, channels: int = 3) -> Facts:
    """Build an architecture on the meta device and count.

    Args:
        library: ``timm``, ``torchvision`` or ``pytorchcv``.
        architecture: Its name there.
        input_size: Side of the image in pixels.
        channels: Channels of the image.
    """
    import torch  # here, because the catalog itself must not need it
    from torch.utils.flop_counter import FlopCounterMode

    from securitynet.devices import use_meta_device

    with use_meta_device():
        model = _build(library, architecture).eval()
        flops = None
        counter = FlopCounterMode(display=False)
        try:
            with counter, torch.no_grad():
                model(torch.empty(1, channels, input_size, input_size))
            # The counter counts a multiply and an add as two.
            flops = counter.get_total_flops() // 2
        except (RuntimeError, TypeError, ValueError, AssertionError, AttributeError, IndexError):
            flops = None  # a forward pass that reads values has none to read on the meta device
    return Facts(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        flops=flops or None,
        elements=tuple(sorted(set(_elements(model.modules())))),
        input_size=input_size,
        counted_with=f"{library} {importlib.metadata.version(library)}",
    )


def _build(library: str, architecture: str) -> Any:
    from securitynet.torchvision_cure import import_torchvision

    if library == "timm":
        return import_torchvision("timm").create_model(architecture, pretrained=False)
    if library == "torchvision":
        extra = {"init_weights": False} if architecture in ("googlenet", "inception_v3") else {}
        return import_torchvision("torchvision.models").get_model(architecture, weights=None, **extra)
    return import_torchvision("pytorchcv.model_provider").get_model(architecture, pretrained=False)


def _elements(modules: Iterable[Any]) -> Iterator[str]:
    for module in modules:
        name = type(module).__name__
        if "Dropout" in name and float(getattr(module, "p", 0) or 0) > 0:
            yield "dropout"
        elif "BatchNorm" in name:
            yield "batch norm"
        elif "LayerNorm" in name:
            yield "layer norm"
        elif "GroupNorm" in name:
            yield "group norm"
        elif "RmsNorm" in name or "RMSNorm" in name:
            yield "RMS norm"
        elif "InstanceNorm" in name:
            yield "instance norm"
        elif "Attention" in name or "Attn" in name:
            yield "attention"
        elif name in ("SEBlock", "SEModule", "SqueezeExcite", "SqueezeExcitation", "EffectiveSEModule", "EcaModule"):
            yield "channel attention"


def _candidates() -> Iterator[tuple[str, str, int]]:
    """Library, architecture and image side of everything that the installed libraries publish weights for."""
    from securitynet.catalog.collectors import COLLECTORS  # they import this module

    seen = set()
    for library in ("torchvision", "pytorchcv", "timm"):
        for item in COLLECTORS.get(library)().collect():
            key = (library, item.entry.architecture)
            if key not in seen and not item.entry.architecture.startswith("quantized_"):
                seen.add(key)
                yield (*key, item.entry.image_height or 224)


def write_counts(path: Path, candidates: Iterable[tuple[str, str, int]]) -> int:
    """Count all ``candidates`` and write the table; the number of rows. What cannot be built is named on stderr."""
    rows = []
    for library, architecture, side in candidates:
        try:
            facts = count_weights(library, architecture, side)
        except Exception as error:  # a library's own constructor failed: say so, and count the others
            print(f"{library}:{architecture}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            continue
        rows.append(
            (library, architecture, side, facts.parameters, facts.flops, ";".join(facts.elements), facts.counted_with)
        )
    with write_atomically(path) as stream:
        text = "\n".join(",".join("" if cell is None else str(cell) for cell in row) for row in [COLUMNS, *rows])
        stream.write(text.encode("utf-8") + b"\n")
    return len(rows)


if __name__ == "__main__":
    print(write_counts(Path(sys.argv[1]), _candidates()))
