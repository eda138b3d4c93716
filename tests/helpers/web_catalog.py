"""What the catalog of these tests holds."""

from __future__ import annotations

from securitynet.catalog.catalog import Catalog
from securitynet.catalog.store import Measured

EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"


def fill(catalog: Catalog) -> list[str]:
    """Forty models of five families, and one whose every text is HTML; ids."""
    ids = []
    for number in range(40):
        entry = catalog.add(
            {
                "name": f"net{number}",
                "source": "timm" if number % 2 else "torchvision",
                "dataset": ("CIFAR-10", "SVHN", "ImageNet-1k")[number % 3],
                "family": ("ResNet", "VGG", "DenseNet", "ViT", "Inception")[number % 5],
                "countries": "USA;China" if number % 4 else "Germany",
                "purpose": "security" if number % 10 == 0 else "benchmark",
                "task_type": "classification",
                "reference": f"timm:net{number}",
                "year": str(2012 + number % 8) if number != 7 else "",
                "parameters": str(10 ** (4 + number % 5) + number),
                "claimed_accuracy": str(round(0.5 + number / 100, 4)),
            }
        )
        ends = (0.8 - number / 120, 0.95 - number / 120)
        catalog.record(
            entry.id,
            [
                Measured("accuracy.test", 0.5 + number / 100, "published", "https://example.org/paper"),
                Measured("stealing.accuracy", 0.9 - number / 120, "trial", "abc", *ends),
            ],
        )
        ids.append(entry.id)
    catalog.edit(ids[0], {"venue": "CVPR"}, note="as the paper says")
    evil = catalog.add(
        {"name": EVIL, "dataset": EVIL, "family": EVIL, "venue": EVIL, "notes": EVIL, "purpose_detail": EVIL}, note=EVIL
    )
    catalog.record(evil.id, [Measured("accuracy.test", 0.5, "published", f"javascript:alert(1){EVIL}")])
    return [*ids, evil.id]
