"""A result in forms that other tools read; each is rendered from `ResultDocument` alone."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from securitynet.results.document import ResultDocument


@dataclass(frozen=True)
class Format:
    """A form of a result.

    Attributes:
        file: Name of the file, unless another is asked for.
        location: The function that renders it: ``module:function``, from a document to bytes.
    """

    file: str
    location: str


FORMATS: dict[str, Format] = {
    "cyclonedx": Format("result.cdx.json", "securitynet.results.exports.cyclonedx:render"),
    "model-card": Format("model-card.md", "securitynet.results.exports.model_card:render"),
    "eval-result": Format("eval-results.yaml", "securitynet.results.exports.model_card:render_eval_results"),
    "atlas": Format("result.atlas.json", "securitynet.results.exports.atlas:render"),
    "sarif": Format("result.sarif", "securitynet.results.exports.sarif:render"),
    "csv": Format("measurements.csv", "securitynet.results.exports.tables:render_csv"),
    "parquet": Format("measurements.parquet", "securitynet.results.exports.tables:render_parquet"),
}


def render(document: ResultDocument, name: str) -> bytes:
    """A result in one of `FORMATS`.

    Args:
        document: The result, with its grades.
        name: Of the format.
    """
    module, _, function = FORMATS[name].location.partition(":")
    content: bytes = getattr(importlib.import_module(module), function)(document)
    return content
