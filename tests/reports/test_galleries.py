"""Galleries: pictures of an output become a table of pictures, cut where there are too many."""

import base64
import io

import numpy as np
from PIL import Image

from securitynet.methods.output import Gallery, Output
from securitynet.reports.comparison import compare_targets
from securitynet.reports.galleries import MOST_ROWS, show_galleries


class Pictures(Output):
    def __init__(self, images):
        self.images = images

    def arrays(self):
        return {"images": self.images}

    @classmethod
    def from_arrays(cls, arrays):
        return cls(arrays["images"])

    def measurements(self, *, level, fprs, seed):
        return []

    def galleries(self):
        rows = tuple(f"class {number}" for number in range(len(self.images)))
        return [Gallery("Means", "What is seen.", self.images, rows, ("grey", "same"))]


def test_pictures_are_the_pixels_and_rows_are_cut():
    images = np.random.default_rng(0).integers(0, 256, (MOST_ROWS + 3, 2, 3, 5, 4), dtype=np.uint8)
    (gallery,) = show_galleries(Pictures(images).galleries())
    assert len(gallery.rows) == MOST_ROWS and gallery.omitted == 3 and not gallery.reduced
    name, pictures = gallery.rows[7]
    content = base64.b64decode(pictures[1].partition(",")[2])
    assert name == "class 7"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), images[7, 1].transpose(1, 2, 0))


def test_a_comparison_puts_measurements_under_their_trials(assessed, null):
    """A name with a decimal point, such as ``…accuracy-drop@epsilon=0.01``, belongs to its trial all the same."""
    documents = []
    for document, _ in (assessed, null):
        first = document.trials[0]
        extra = document.measurements[-1].model_copy(update={"name": "evasion.fgsm.accuracy-drop@epsilon=0.01"})
        documents.append(
            document.model_copy(
                update={
                    "trials": (first.model_copy(update={"name": "evasion.fgsm"}), *document.trials),
                    "measurements": (extra, *document.measurements),
                }
            )
        )
    titles = [title for title, _ in compare_targets(documents, [assessed[1], null[1]], ["a", "b"]).groups]
    assert titles[0] == "The target itself" and titles[-1] == "FGSM"
    assert not any("epsilon" in title for title in titles)
