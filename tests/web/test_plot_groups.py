"""The page's plot takes correlations within datasets, and says what a pooled one would hide."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas
import pytest
from fastapi.testclient import TestClient

import securitynet.catalog
from securitynet.catalog.store import Measured
from securitynet.web.app import create_app

DATASETS = ("CIFAR-10", "SVHN", "ImageNet-1k")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Accuracy and stealing fall against each other in each of three datasets, and rise together over all."""
    url = f"sqlite:///{tmp_path_factory.mktemp('plot')}/catalog.sqlite"
    with securitynet.catalog.open(url) as catalog:
        for number in range(30):
            dataset, place = DATASETS[number // 10], number % 10
            entry = catalog.add(
                {"name": f"n{number}", "dataset": dataset, "family": f"f{place}", "purpose": "benchmark"}
            )
            x, y = 0.3 + 0.2 * (number // 10) + 0.005 * place, 0.3 + 0.2 * (number // 10) - 0.005 * place
            values = [Measured("accuracy.test", x, "trial", "t"), Measured("stealing.accuracy", y, "trial", "t")]
            catalog.record(entry.id, values)
    with TestClient(create_app(url), base_url="http://127.0.0.1:8421") as client:
        yield client


def test_the_correlation_is_within_datasets_as_pandas_computes_it(client: TestClient) -> None:
    drawn = client.get("/api/plot?x=accuracy.test&y=stealing.accuracy").json()
    frame = pandas.DataFrame(drawn["points"])
    frame["dataset"] = [DATASETS[int(name[1:]) // 10] for name in frame["name"]]
    assert frame["x"].corr(frame["y"]) > 0.9
    centred = frame[["x", "y"]] - frame.groupby("dataset")[["x", "y"]].transform("mean")
    assert drawn["correlation"]["value"] == pytest.approx(centred["x"].corr(centred["y"]))
    assert drawn["within"] == "dataset"
    by_group = {group["group"]: group["r"] for group in drawn["by_group"]}
    expected = {name: rows["x"].corr(rows["y"]) for name, rows in frame.groupby("dataset")}
    assert by_group == pytest.approx(expected)
    assert "negative in every group" in drawn["mixed"]


def test_the_page_says_so(client: TestClient) -> None:
    text = client.get("/plot?x=accuracy.test&y=stealing.accuracy").text
    assert "within datasets" in text and "Pooled over groups the correlation would be +0.9" in text
    assert "SVHN" in text.partition("<figcaption>")[2]
    one = client.get("/plot?x=accuracy.test&y=stealing.accuracy&dataset=SVHN").text
    assert "within datasets" not in one


def test_many_models_are_centred_by_their_datasets() -> None:
    from securitynet.web.plot import MOST_POINTS, _correlations

    random = np.random.default_rng(0)
    datasets = random.integers(1, 4, MOST_POINTS + 100).astype(np.uint8)
    x = datasets + random.normal(0, 0.1, len(datasets))
    y = datasets - (x - datasets) + random.normal(0, 0.1, len(datasets))
    families = random.integers(1, 9, len(datasets)).astype(np.uint8)
    assert np.corrcoef(x, y)[0, 1] > 0.9
    within, ranks = _correlations(x, y, families, datasets)
    assert ranks is None and -0.8 < within.value < -0.6 and within.low < within.value < within.high
    frame = pandas.DataFrame({"x": x, "y": y, "d": datasets})
    centred = frame[["x", "y"]] - frame.groupby("d").transform("mean")
    assert within.value == pytest.approx(centred["x"].corr(centred["y"]))


def test_models_trained_for_security_are_a_group_of_their_own(tmp_path) -> None:
    """Low and rising for the security models, high and falling for the others: together they rise."""
    url = f"sqlite:///{tmp_path}/catalog.sqlite"
    with securitynet.catalog.open(url) as catalog:
        for number in range(20):
            purpose, place = ("security", "benchmark")[number // 10], number % 10
            codes = {"name": f"n{number}", "dataset": "CIFAR-10", "family": f"f{place}", "purpose": purpose}
            x, y = (0.4 + 0.01 * place, 0.4 + 0.01 * place) if number < 10 else (0.8 + 0.01 * place, 0.8 - 0.01 * place)
            values = [Measured("accuracy.test", x, "trial", "t"), Measured("stealing.accuracy", y, "trial", "t")]
            catalog.record(catalog.add(codes).id, values)
    with TestClient(create_app(url), base_url="http://127.0.0.1:8421") as client:
        drawn = client.get("/api/plot?x=accuracy.test&y=stealing.accuracy").json()
        text = client.get("/plot?x=accuracy.test&y=stealing.accuracy").text
    assert drawn["within"] == "purpose" and drawn["correlation"]["value"] == pytest.approx(0, abs=1e-6)
    by_group = {group["group"]: group["r"] for group in drawn["by_group"]}
    assert by_group == pytest.approx({"CIFAR-10 (security)": 1.0, "CIFAR-10 (benchmark)": -1.0})
    assert "within purposes" in text and "The signs differ" in text
