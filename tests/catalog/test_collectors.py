"""What the installed libraries give."""

from __future__ import annotations

import importlib.util
import re
import textwrap
from collections import Counter
from pathlib import Path

import pandas
import pytest

from securitynet.catalog.catalog import Catalog
from securitynet.catalog.codebook import load_codebook
from securitynet.catalog.collectors import COLLECTORS
from securitynet.catalog.collectors.base import NotInstalled
from securitynet.catalog.collectors.facts import count_weights, load_known_facts
from securitynet.catalog.collectors.timm import parse_training_data
from securitynet.catalog.frames import choose_accuracy
from securitynet.catalog.known import find_dataset_facts, find_family_codes, list_families
from securitynet.catalog.selection import select_models

LIBRARIES = ("torchvision", "pytorchcv", "timm")


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """All installed libraries; one of them twice, which must change nothing."""
    catalog = Catalog(str(tmp_path_factory.mktemp("catalog") / "catalog.sqlite"))
    for name in LIBRARIES:
        catalog.collect(name)
    again = catalog.collect("torchvision")  # whose entries are duplicates of others, too
    assert (again.entries.added, again.entries.changed, again.linked) == (0, 0, 0)
    return catalog


@pytest.fixture(scope="module")
def table(collected: Catalog) -> pandas.DataFrame:
    return collected.to_frame()


def test_at_least_2400_models_and_95_percent_known_each_from_a_named_source(
    collected: Catalog, table: pandas.DataFrame
) -> None:
    assert len(table) >= 2400
    known = table[table["architecture"].notna()]
    for code in ("year", "family", "dataset", "venue", "authors", "affiliation_types", "countries"):
        share = known[code].map(lambda value: bool(value) if isinstance(value, tuple) else pandas.notna(value)).mean()
        assert share >= 0.95, code
    assert table[["year", "family", "dataset"]].notna().all(axis=1).mean() >= 0.95, "all three of one entry"
    for key in table["key"].sample(60, random_state=0):
        details = collected.details(key)
        assert set(details.entry.known()) - {"key"} == set(details.sources)
        assert all(source for source in details.sources.values())


def test_backbones_are_not_called_classifiers(table: pandas.DataFrame) -> None:
    classifiers = table[table["task_type"] == "classification"]
    assert (classifiers["head"] == "classifier").all() and classifiers["classes"].notna().all()
    assert (table.loc[table["head"] != "classifier", "classes"].isna()).all()
    by_name = table.set_index("key")["task_type"]
    assert by_name["timm:vit_base_patch14_dinov2.lvd142m"] == "feature extraction"
    assert by_name["timm:vit_base_patch32_clip_224.openai"] == "zero-shot classification"
    assert by_name["torchvision:vgg16@IMAGENET1K_FEATURES"] == "feature extraction", "its classifier holds no weights"


def test_duplicates_of_torchvision_in_timm_are_linked(collected: Catalog) -> None:
    for name, weights in {"resnet50.tv_in1k": "V1", "resnet50.tv2_in1k": "V2", "vgg16.tv_in1k": "V1"}.items():
        details = collected.details(f"timm:{name}")
        stands = collected.get(details.duplicate_of or "")
        assert stands.key == f"torchvision:{name.partition('.')[0]}@IMAGENET1K_{weights}"
    assert collected.query(duplicates=True).count() - collected.query().count() >= 40


def test_published_models_are_those_of_pytorchcv(collected: Catalog, published: Path) -> None:
    before = collected.query().count()
    report = collected.import_table(published)
    assert report.linked >= 250
    assert collected.query().count() == before + 529 - report.linked
    assert (
        "securitynet:benchmark:resnet20_cifar10@CIFAR-10" in collected.details("pytorchcv:resnet20_cifar10").duplicates
    )


def test_known_values(collected: Catalog) -> None:
    resnet = collected.get("pytorchcv:resnet20_cifar10")
    assert (resnet.parameters, resnet.claimed_accuracy, resnet.classes, resnet.image_height) == (272474, 0.9403, 10, 32)
    assert (resnet.year, resnet.venue, resnet.authors, resnet.family) == (2016, "CVPR", 4, "ResNet")
    imagenet = collected.get("pytorchcv:resnet50b")
    assert (imagenet.claimed_accuracy, imagenet.claimed_top5) == (None, 0.9362), (
        "its error is of the first five answers"
    )
    torchvision = collected.get("torchvision:resnet50@IMAGENET1K_V2")
    assert (torchvision.claimed_accuracy, torchvision.claimed_top5, torchvision.flops) == (
        0.80858,
        0.95434,
        4_089_000_000,
    )
    timm = collected.get("timm:convnext_base.fb_in22k_ft_in1k")
    assert (timm.dataset, timm.pretraining, timm.extra_data) == ("ImageNet-1k", ("ImageNet-21k",), True)
    adversarial = collected.get("timm:inception_v3.tf_adv_in1k")
    assert (adversarial.purpose, adversarial.year) == ("security", 2017)


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("a1_in1k", ("ImageNet-1k", ())),
        ("laion2b_ft_in12k_in1k", ("ImageNet-1k", ("LAION-2B", "ImageNet-12k"))),
        ("fb_swsl_ig1b_ft_in1k", ("ImageNet-1k", ("IG-1B",))),
        ("metaclip_400m", ("MetaCLIP-400M", ())),
        ("fcmae_ft_in22k_in1k", ("ImageNet-1k", ("ImageNet-21k",))),
        ("mae", ("ImageNet-1k", ())),
        ("qwen3_vl_8b", (None, ())),
        ("", (None, ())),
    ],
)
def test_training_data_of_timms_tags(tag: str, expected: tuple[str | None, tuple[str, ...]]) -> None:
    dataset, pretraining = parse_training_data(tag)
    if tag == "fcmae_ft_in22k_in1k":
        assert dataset == "ImageNet-1k" and "ImageNet-21k" in pretraining
    else:
        assert (dataset, pretraining) == expected


def test_select_covers_more_than_chance(table: pandas.DataFrame) -> None:
    classifiers = table[table["head"] == "classifier"]
    chosen = select_models(classifiers, 12, seed=0)
    again = select_models(classifiers.sample(frac=1, random_state=5), 12, seed=0)
    assert chosen.chosen["id"].tolist() == again.chosen["id"].tolist(), "the same seed gives the same models"
    assert select_models(classifiers, 12, seed=1).chosen["id"].tolist() != chosen.chosen["id"].tolist()
    distinct = {facet: len(chosen.covered[facet]) for facet in ("family", "year", "accuracy decile")}
    from securitynet.catalog.selection import tabulate_facets

    values = tabulate_facets(classifiers.reset_index(drop=True))
    for seed in range(20):
        drawn = classifiers.reset_index(drop=True).sample(12, random_state=seed).index
        for facet, reached in distinct.items():
            assert reached >= values[facet][drawn].nunique()
    means = {f: sum(values[f].sample(12, random_state=s).nunique() for s in range(20)) / 20 for f in distinct}
    assert all(distinct[facet] > means[facet] for facet in distinct)


def test_curated_architectures(table: pandas.DataFrame) -> None:
    assert len(set(list_families())) == len(list_families()) >= 60
    complete = [name for name in list_families() if _complete(name, table)]
    assert len(complete) >= 60, "families with title, year, venue, authors and affiliations"
    assert table["family"].nunique() >= 150
    for name, family in {
        "tresnet_l": "TResNet",
        "resnet50": "ResNet",
        "gluon_resnet50_v1b": "ResNet",
        "densenet121": "DenseNet",
        "mobilevit_s": "MobileViT",
        "levit_128": "LeViT",
        "vit_b_16": "ViT",
        "hardnet85": "HarDNet",
        "rdnet_tiny": "RDNet",
        "cbam_resnet50": "CBAM",
        "wrn28_10": "WideResNet",
        "swin_v2_t": "Swin Transformer V2",
        "resnetv2_50x1_bit": "BiT",
        "legacy_senet154": "SENet",
        "cspresnet50": "CSPNet",
    }.items():
        assert find_family_codes(name)["family"] == family, name
    assert find_family_codes("unheard_of") == {}


def _complete(family: str, table: pandas.DataFrame) -> bool:
    rows = table[(table["family"] == family) & (table["purpose"] == "benchmark")]
    codes = ("paper_title", "year", "venue", "venue_type", "authors", "architecture_type")
    return not rows.empty and bool(rows.iloc[0][list(codes)].notna().all()) and bool(rows.iloc[0]["affiliations"])


def test_curated_facts_agree_with_pytorchcvs_own_table(table: pandas.DataFrame) -> None:
    import csv

    import pytorchcv

    root = Path(pytorchcv.__file__).parent
    with next(root.rglob("model_metainfos.csv")).open() as stream:
        stated = {row["model_name"]: row["arxiv_paper"] for row in csv.DictReader(stream) if row["arxiv_paper"] != "NA"}
    ours = table[table["source"] == "pytorchcv"].set_index("name")["paper_link"]
    differing = Counter(
        (find_family_codes(name)["family"], paper)
        for name, paper in stated.items()
        if name in ours and ours[name] and paper not in ours[name]
    )
    # pytorchcv names the paper of AlexNet's second version; the family was introduced by the first.
    assert set(differing) <= {("AlexNet", "1404.5997")}, differing


def test_curated_papers_are_those_that_timm_names(table: pandas.DataFrame) -> None:
    folder = Path(str(importlib.util.find_spec("timm").origin)).parent / "models"  # type: ignore[union-attr]
    named = set(re.findall(r"\d{4}\.\d{4,5}", "".join(path.read_text() for path in folder.glob("*.py"))))
    ours = table[(table["source"] == "timm") & (table["purpose"] == "benchmark")][["family", "paper_link"]].dropna()
    papers = {
        family: re.search(r"\d{4}\.\d{4,5}", link) for family, link in ours.drop_duplicates().itertuples(index=False)
    }
    assert len(papers) > 100
    assert {family for family, match in papers.items() if match and match[0] not in named} == set()


def test_datasets_of_the_curated_table() -> None:
    medmnist = pytest.importorskip("medmnist")
    for name, info in medmnist.INFO.items():
        facts = find_dataset_facts(name)
        assert facts is not None
        assert (facts.codes["training_size"], facts.codes["classes"]) == (
            info["n_samples"]["train"],
            len(info["label"]),
        )
    assert all(facts.codes.get("topic_category") in (None, *load_codebook()["topic_category"].values)
               for facts in map(find_dataset_facts, ("CIFAR-10", "webli", "gtsrb")) if facts)  # fmt: skip


def test_shipped_facts_are_what_counting_gives() -> None:
    for library, architecture, side in (
        ("timm", "resnet18", 224),
        ("pytorchcv", "resnet20_cifar10", 32),
        ("torchvision", "squeezenet1_1", 224),
    ):
        fresh, shipped = count_weights(library, architecture, side), load_known_facts()[library, architecture]
        assert fresh[:4] == shipped[:4]
    assert load_known_facts()["timm", "resnet18"].elements == ("batch norm",)
    assert load_known_facts()["timm", "resnet18"].parameters == 11689512
    assert "attention" in load_known_facts()["timm", "vit_tiny_patch16_224"].elements


def test_not_installed_is_told(sqlite_catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(NotInstalled, match="pytorchcv is not installed"):
        sqlite_catalog.collect("pytorchcv")


ZOO = """
    import torch  # reading must not run this
    raise SystemExit("executed")

    class AuthorNet(WideResNet):
        pass

    linf = OrderedDict([
        ('Author2021Robust', {'model': AuthorNet, 'gdrive_id': 'AAA'}),
        ('Other2020Paper_28_10_extra', {'model': lambda: WideResNet(depth=28, widen_factor=10), 'gdrive_id': 'BBB'}),
        ('Third2023XCiT', {'model': (lambda: timm.create_model('xcit_small_12_p16_224')), 'gdrive_id': None}),
        ('Standard', {'model': lambda: normalize_model(pt_models.resnet50(pretrained=True)), 'gdrive_id': ''}),
    ])
    common_corruptions = OrderedDict([('Author2021Robust', {'model': AuthorNet, 'gdrive_id': 'AAA'})])
    cifar_10_models = OrderedDict([(ThreatModel.Linf, linf), (ThreatModel.corruptions, common_corruptions)])
"""


def test_robustbench_lists_are_read_not_run(
    tmp_path: Path, sqlite_catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A package of RobustBench's form, whose modules end the process if they are executed.
    zoo = tmp_path / "robustbench" / "model_zoo"
    zoo.mkdir(parents=True)
    (tmp_path / "robustbench" / "__init__.py").write_text("raise SystemExit('executed')")
    information = tmp_path / "robustbench-1.1.1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: robustbench\nVersion: 1.1.1\n")
    for dataset in ("cifar10", "cifar100", "imagenet"):
        (zoo / f"{dataset}.py").write_text(textwrap.dedent(ZOO))
    monkeypatch.syspath_prepend(str(tmp_path))
    report = sqlite_catalog.collect("robustbench")
    # One of the 15 is among the 236 published models that the package carries.
    assert report.entries.added == 15 + 236 - 1
    found = {entry.key: entry for entry in sqlite_catalog.query(duplicates=True)}
    author = found["robustbench:CIFAR-10:Linf:Author2021Robust"]
    assert (author.family, author.year, author.purpose, author.threat, author.venue) == (
        "WideResNet",
        2021,
        "security",
        "Linf",
        None,
    )
    assert found["robustbench:CIFAR-10:Linf:Other2020Paper_28_10_extra"].architecture == "wide_resnet-28-10"
    assert found["robustbench:CIFAR-10:Linf:Other2020Paper_28_10_extra"].extra_data is True
    assert found["robustbench:CIFAR-10:Linf:Third2023XCiT"].family == "XCiT"
    standard = found["robustbench:ImageNet-1k:Linf:Standard"]
    assert (standard.purpose, standard.reference) == ("benchmark", "torchvision:resnet50@IMAGENET1K_V1")
    assert sum(bool(sqlite_catalog.details(key).duplicate_of) for key in found if "Author2021Robust" in key) == 3


def test_registry_summaries() -> None:
    assert set(COLLECTORS) >= {*LIBRARIES, "robustbench", "huggingface"}


def test_accuracies_of_at_least_1700_entries_are_known(collected: Catalog, table: pandas.DataFrame) -> None:
    """timm's, torchvision's and pytorchcv's; RobustBench's 236 come on top."""
    known = choose_accuracy(table)
    assert known.notna().sum() + 236 >= 1700
    assert known.dropna().between(0.1, 1).all()
    details = collected.details("timm:resnet18.a1_in1k")
    assert details.sources["claimed_accuracy"].startswith("https://github.com/huggingface/pytorch-image-models/")
    assert {m.name for m in details.measured} >= {"accuracy.test", "accuracy.imagenet-a", "accuracy.imagenet-v2"}
