"""Galleries of a trial's output, as the template shows them: a table of pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from securitynet.reports.pictures import encode_data_uri, is_reduced

if TYPE_CHECKING:
    from securitynet.methods.output import Gallery

MOST_ROWS = 24
"""Rows of pictures that a report shows; the arrays beside the trial's file hold all."""


@dataclass(frozen=True)
class ShownGallery:
    """A gallery with its pictures as data URIs.

    Attributes:
        title: Heading.
        caption: What the images show.
        columns: Their names.
        rows: (name, pictures).
        omitted: Rows that are not shown.
        reduced: Whether the pictures are smaller than the images.
    """

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    omitted: int
    reduced: bool


def show_galleries(galleries: Iterable[Gallery]) -> tuple[ShownGallery, ...]:
    """The galleries of an output, with the pictures that a report shows."""
    return tuple(map(_shown, galleries))


def _shown(gallery: Gallery) -> ShownGallery:
    named = zip(gallery.rows[:MOST_ROWS], gallery.images[:MOST_ROWS], strict=True)
    return ShownGallery(
        title=gallery.title,
        caption=gallery.caption,
        columns=gallery.columns,
        rows=tuple((name, tuple(encode_data_uri(image) for image in images)) for name, images in named),
        omitted=max(len(gallery.rows) - MOST_ROWS, 0),
        reduced=is_reduced(gallery.images.shape),
    )
