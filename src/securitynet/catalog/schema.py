"""`CatalogEntry`: what the catalog knows about one public model, and the codebook that its fields form.

The fields below are the one place where codes are declared. The database's columns, validation, the docs page, the
importers' headings, the command line's filters, and the web page's labels, filters, facets, orders and axes are all
derived from them (`securitynet.catalog.codebook`). docs/catalog.md, "Adding a column", is the recipe.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from securitynet.catalog.code import Code
from securitynet.catalog.values import (
    AffiliationType,
    Count,
    Element,
    Link,
    Notes,
    Several,
    Share,
    TaskType,
    Text,
    TopicCategory,
    VenueType,
    check_preprocessing,
)
from securitynet.files import hash_stably
from securitynet.records import Record


class CatalogEntry(Record):
    """One public model: the codes of the paper's Table 2 and section 2.2, and what an experiment needs besides.

    None (or an empty tuple) means not known. Accuracies are shares in [0, 1]. What was *measured* on the model is not
    here: those are separate rows that say who measured them.
    """

    # Identity and how to get it
    key: Annotated[
        Text,
        Code(
            "identity", "Where the entry comes from and its name there; never changes.", example="timm:resnet18.a1_in1k"
        ),
    ]
    source: Annotated[
        Text,
        Code(
            "identity",
            "Library, table or person that contributed the entry.",
            example="timm",
            term=True,
            facet=60,
            overview=20,
        ),
    ]
    name: Annotated[
        Text,
        Code(
            "identity",
            "Name of the model at its source.",
            text=True,
            ordered=True,
            example="resnet18.a1_in1k",
            sort_labels=("name", ""),
            overview=10,
        ),
    ]
    reference: Annotated[
        Text | None, Code("identity", "Reference by which SecurityNet loads it.", example="timm:resnet18.a1_in1k")
    ] = None
    revision: Annotated[Text | None, Code("identity", "Version of the source it was read from.", example="1.0.31")] = (
        None
    )
    checksum: Annotated[
        Text | None,
        Code(
            "identity",
            "Digest of the weights, or as much of it as is published, with its kind before a colon: `sha256`, `sha1` "
            "or `md5` of the file, or `tensors` of the tensors in it. Other weights are refused under this entry.",
            example="sha256:f37072fd",
        ),
    ] = None
    license: Annotated[
        Text | None,
        Code(
            "identity",
            "Licence of the weights, as an SPDX name where there is one.",
            example="apache-2.0",
            term=True,
            facet=150,
        ),
    ] = None
    weights_link: Annotated[
        Link | None,
        Code("identity", "Where the weights are.", "links in section 2.1", example="https://example.org/model.pth"),
    ] = None
    weights_file: Annotated[
        Text | None,
        Code(
            "identity",
            "File of weights for a reference that names a network only (`arch:`, `python:`): a URL, a path in the "
            "repository of `code_link`, or a path on this machine.",
            example="weights/cifar_net.pth",
        ),
    ] = None
    code_link: Annotated[Link | None, Code("identity", "Where the code is.", example="https://example.org/code")] = None
    purpose: Annotated[
        Literal["benchmark", "security"] | None,
        Code(
            "identity",
            "Published to perform well, or in research on trustworthy machine learning.",
            "section 2.1",
            example="benchmark",
            facet=30,
        ),
    ] = None
    purpose_detail: Annotated[
        Text | None,
        Code(
            "identity",
            "What the security research, or other purpose, is.",
            text=True,
            example="adversarial robustness (Linf)",
        ),
    ] = None
    publisher_type: Annotated[
        Literal["model library", "paper authors", "company", "individual", "competition"] | None,
        Code(
            "identity",
            "Who publishes the weights.",
            "section 2.1",
            example="model library",
            label="publisher",
            facet=80,
        ),
    ] = None

    # Task and dataset
    task_type: Annotated[
        TaskType | None,
        Code(
            "dataset",
            "The type of task the model was designed to perform.",
            "Table 2",
            example="classification",
            label="task",
            facet=40,
        ),
    ] = None
    dataset: Annotated[
        Text | None,
        Code(
            "dataset",
            "The dataset used to train the model (last, if fine-tuned).",
            "Table 2",
            text=True,
            ordered=True,
            example="CIFAR-10",
            term=True,
            facet=10,
            overview=30,
        ),
    ] = None
    topic_category: Annotated[
        TopicCategory | None,
        Code("dataset", "The type of subjects in the dataset.", "Table 2", example="natural", label="topic", facet=70),
    ] = None
    granularity: Annotated[
        Literal["coarse", "fine"] | None,
        Code(
            "dataset",
            "Whether the classes are of many kinds (coarse) or sub-kinds of one (fine).",
            "section 2.2",
            example="coarse",
        ),
    ] = None
    training_size: Annotated[
        Count | None,
        Code(
            "dataset",
            "Number of samples in the training data.",
            "Table 2",
            "50000",
            "samples",
            ordered=True,
            log_axis=True,
        ),
    ] = None
    classes: Annotated[
        Annotated[int, Field(ge=1, le=10**7)] | None,
        Code("dataset", "Number of classes.", "Table 2", "10", "classes", ordered=True, log_axis=True),
    ] = None
    image_height: Annotated[
        Annotated[int, Field(ge=1, le=10**5)] | None,
        Code("dataset", "Height of the model's input.", "Table 2", "32", "pixels", ordered=True),
    ] = None
    image_width: Annotated[
        Annotated[int, Field(ge=1, le=10**5)] | None,
        Code("dataset", "Width of the model's input.", "Table 2", "32", "pixels"),
    ] = None
    image_channels: Annotated[
        Annotated[int, Field(ge=1, le=1000)] | None,
        Code("dataset", "Channels of the model's input.", "Table 2", "3", "channels"),
    ] = None
    pretraining: Annotated[
        Several[Text], Code("dataset", "Datasets used before the last one.", text=True, example="ImageNet-21k")
    ] = ()
    membership: Annotated[
        Literal["known", "assumed", "unknown"] | None,
        Code(
            "dataset",
            "How well it is known which records it was trained on: `known` (its split is published), `assumed` "
            "(the dataset's own training set, by what the publisher says), `unknown`.",
            example="assumed",
            label="membership known?",
            facet=90,
        ),
    ] = None
    extra_data: Annotated[
        bool | None,
        Code("dataset", "Whether data beyond `dataset` was used in training.", "section 2.1", example="false"),
    ] = None

    # Model
    architecture: Annotated[
        Text | None, Code("model", "Name of the architecture.", "section 2.3", text=True, example="resnet18", term=True)
    ] = None
    family: Annotated[
        Text | None,
        Code(
            "model",
            "Model type: the family the architecture belongs to.",
            "section 2.3",
            text=True,
            ordered=True,
            example="ResNet",
            term=True,
            facet=20,
            overview=40,
        ),
    ] = None
    architecture_type: Annotated[
        Literal["cnn", "transformer", "hybrid", "mlp", "other"] | None,
        Code("model", "Kind of architecture.", "section 2.2", example="cnn", label="kind of architecture", facet=50),
    ] = None
    elements: Annotated[
        Several[Element], Code("model", "Kinds of layer present.", "section 2.2", example="batch norm", facet=120)
    ] = ()
    parameters: Annotated[
        Count | None,
        Code(
            "model",
            "Number of parameters.",
            "section 2.2",
            "11689512",
            "parameters",
            ordered=True,
            range_filter=True,
            log_axis=True,
            number_format="short",
            sort_labels=("fewest parameters", "most parameters"),
            overview=70,
        ),
    ] = None
    flops: Annotated[
        Count | None,
        Code(
            "model",
            "Operations for one image, a multiplication with its addition counted as one.",
            "section 2.2",
            "1814073344",
            "multiply-accumulates",
            ordered=True,
            log_axis=True,
            number_format="short",
        ),
    ] = None
    head: Annotated[
        Literal["classifier", "embedding", "none"] | None,
        Code(
            "model",
            "What the model ends in: scores of classes, an embedding, or features only.",
            example="classifier",
            facet=130,
        ),
    ] = None
    preprocessing: Annotated[
        dict[str, Any] | None,
        Code("model", "How images are brought to the model.", example='{"input_size": [3, 32, 32]}'),
    ] = None
    threat: Annotated[
        Text | None,
        Code("model", "Perturbation that a security model was trained against.", example="Linf", term=True, facet=140),
    ] = None

    # Claims of the publisher
    claimed_accuracy: Annotated[
        Share | None,
        Code(
            "claims",
            "Top-1 test accuracy that the publisher states.",
            example="0.917",
            unit="share",
            ordered=True,
            range_filter=True,
            sort_labels=("", "claimed accuracy"),
            overview=60,
        ),
    ] = None
    claimed_top5: Annotated[
        Share | None, Code("claims", "Top-5 test accuracy that the publisher states.", example="0.954", unit="share")
    ] = None
    claimed_train_accuracy: Annotated[
        Share | None,
        Code("claims", "Top-1 training accuracy that the publisher states.", example="0.998", unit="share"),
    ] = None

    # Publication of the architecture (benchmark) or of the model (security)
    paper_title: Annotated[
        Text | None,
        Code("publication", "Title of the paper.", text=True, example="Deep Residual Learning for Image Recognition"),
    ] = None
    paper_link: Annotated[
        Link | None,
        Code("publication", "Where the paper is.", "links in section 2.1", example="https://arxiv.org/abs/1512.03385"),
    ] = None
    venue: Annotated[
        Text | None,
        Code(
            "publication",
            "Conference or journal where the paper that first introduced the model was published.",
            "Table 2",
            text=True,
            example="CVPR",
            term=True,
        ),
    ] = None
    venue_type: Annotated[
        VenueType | None,
        Code(
            "publication", "Topic of the venue.", "Table 2", example="computer vision", label="kind of venue", facet=100
        ),
    ] = None
    year: Annotated[
        Annotated[int, Field(ge=1980, le=2100)] | None,
        Code(
            "publication",
            "Year of the paper's publication (for benchmark models: of the model type's introduction).",
            "Table 2",
            "2016",
            "year",
            ordered=True,
            range_filter=True,
            number_format="plain",
            sort_labels=("oldest", "newest"),
            overview=50,
        ),
    ] = None
    authors: Annotated[
        Annotated[int, Field(ge=1, le=5000)] | None,
        Code("publication", "Number of authors on the paper.", "Table 2", "4", "people", ordered=True),
    ] = None
    affiliations: Annotated[
        Several[Text], Code("publication", "The authors' affiliations.", "Table 2", text=True, example="Microsoft")
    ] = ()
    affiliation_types: Annotated[
        Several[AffiliationType], Code("publication", "The types of affiliation.", "Table 2", example="company")
    ] = ()
    countries: Annotated[
        Several[Text],
        Code(
            "publication",
            "Where the authors' affiliations are established.",
            "Table 2",
            text=True,
            example="USA",
            facet=110,
        ),
    ] = ()
    notes: Annotated[Notes | None, Code("publication", "What else a reader should know.", text=True, example="")] = None

    @field_validator("preprocessing")
    @classmethod
    def _known_keys(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return value if value is None else check_preprocessing(value)

    @property
    def id(self) -> str:
        """16 hexadecimal digits derived from ``key``: the same on every machine."""
        return hash_stably(self.key, length=16)

    def known(self) -> dict[str, Any]:
        """The codes that are known, as JSON types."""
        return {code: value for code, value in self.model_dump(mode="json").items() if value not in (None, [])}
