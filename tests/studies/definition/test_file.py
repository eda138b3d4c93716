"""Study files: what they mean, what is wrong in them, and which trials follow."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import securitynet.catalog
from securitynet.catalog.schema import CatalogEntry
from securitynet.errors import ConfigurationError, SecurityNetError
from securitynet.files import parse_toml
from securitynet.models.sources.references import list_code
from securitynet.models.sources.schemes import SCHEMES
from securitynet.results.excluded_entries import describe_excluded
from securitynet.studies.definition.file import parse_study
from securitynet.studies.definition.file_digests import FileDigests
from securitynet.studies.definition.plan import expand, plan_study
from securitynet.studies.definition.targets import expand_alternatives, expand_targets

READY = sorted((Path(__file__).parents[3] / "studies").glob("*.toml"))


def planned(text: str, base, data='[data]\ndataset = "digits"\n'):
    content = parse_toml(f'name = "x"\n{data}{text}')
    study, digests = parse_study(content), FileDigests()
    return expand(study, base, "", digests, expand_targets(study, base, digests, trust=list(list_code(content))))


def trials(plan, number=0):
    subject = plan.targets[number]
    return plan.trials(subject, plan.capabilities(subject, None))


def test_grids_seeds_threat_models_and_tags(tmp_path):
    plan = planned(
        """
[[train]]
architecture = ["simple-cnn", "cifar-resnet20"]
epochs = [1, 2]
seeds = [0, 1]
tags = ["own"]
[[attacks]]
name = ["correctness", "ml-doctor-black-box"]
[[attacks]]
name = "lira"
seeds = [3, 4]
[attacks.settings]
variance = "fixed"
[attacks.grid]
"shadows.count" = [4, 8]
"shadows.recipe.epochs" = [1, 2, 3]
[[attacks]]
name = "modified-entropy"
only = ["other"]
[[attacks]]
name = "ml-doctor-white-box"
threat_models = ["white-box/shadow"]
""",
        tmp_path,
    )
    assert len(plan.targets) == 8 and len({subject.key for subject in plan.targets}) == 8
    assert plan.targets[0].label == "digits simple-cnn epochs=1 seed=0"
    found = trials(plan)
    names = [trial.name for trial in found]
    assert names.count("membership.lira") == 2 * 3 * 2
    assert names.count("membership.ml-doctor-white-box@shadow") == 1
    assert "membership.modified-entropy" not in names and len(found) == 1 + 2 + 12 + 1
    settings = [trial.plan.settings["shadows"] for trial in found if trial.name == "membership.lira"]
    assert {"count": 4, "recipe": {"epochs": 3}} in settings
    assert len({trial.id for trial in found}) == len(found)


def test_targets_without_a_label_are_named_by_their_defense_and_backdoor(tmp_path):
    plan = planned(
        """
[[train]]
architecture = "simple-cnn"
epochs = 1
[[train]]
architecture = "simple-cnn"
epochs = [1, 2]
defense = "relaxloss"
[[train]]
architecture = "simple-cnn"
epochs = 1
backdoor = "badnets"
[[train]]
label = "mine"
architecture = "simple-cnn"
epochs = 3
defense = "relaxloss"
[[attacks]]
name = "correctness"
""",
        tmp_path,
    )
    assert [target.label for target in plan.targets] == [
        "simple-cnn digits",
        "simple-cnn digits relaxloss epochs=1",
        "simple-cnn digits relaxloss epochs=2",
        "simple-cnn digits badnets",
        "mine",
    ]


def test_what_cannot_be_played_out_is_skipped_with_the_reason(tmp_path):
    plan = planned(
        """
[[models]]
reference = "http://localhost:1/predict"
[[models]]
reference = "arch:simple-cnn"
weights = "absent.pt"
[[attacks]]
name = ["gradient-norm", "lira-offline", "correctness"]
""",
        tmp_path,
    )
    obstacles = {trial.name: trial.obstacle for trial in trials(plan)}
    assert obstacles["membership.gradient-norm"] == "it needs white-box access"
    assert "no shadow data" in obstacles["membership.lira-offline"]
    assert obstacles["membership.correctness"] is None
    assert "weights is missing" in plan.targets[1].obstacle


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[attacks]]\nname = "correctness"', "no targets"),
        ('[[models]]\nreference = "timm:x"', "nothing to run"),
        ('[[models]]\nreference = "timm:x"\nquery = "y"\n[[attacks]]\nname = "correctness"', "one of"),
        ('[[models]]\nreference = "timm:x"\nlr = 1\n[[attacks]]\nname = "correctness"', "no setting lr"),
        ('[[models]]\nreference = "timm:x"\n[[attacks]]\nname = "corectness"', "Did you mean correctness"),
        ('[[models]]\nreference = "timm:x"\n[[attacks]]\nname = "lira"\nsettings = { count = 1 }', "count"),
        (
            '[[models]]\nreference = "timm:x"\n[[attacks]]\nname = "lira"\nthreat_models = ["grey"]',
            "not a threat model",
        ),
        ('[[models]]\nreference = "tim:x"\n[[attacks]]\nname = "correctness"', "tim"),
        ('[[train]]\narchitecture = "simple-cnn"\nepochs = 0\n[[attacks]]\nname = "correctness"', "epochs"),
        ('[[train]]\narchitecture = "simple-cnn"\ndefense = "dp"\n[[attacks]]\nname = "correctness"', "defense"),
        ('sedes = [1]\n[[models]]\nreference = "timm:x"\n[[attacks]]\nname = "correctness"', "sedes"),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path, text, told):
    with pytest.raises(SecurityNetError) as error:
        planned(text, tmp_path, data="" if text.startswith("sedes") else '[data]\ndataset = "digits"\n')
    assert told in str(error.value)


def test_the_same_weights_elsewhere_are_the_same_subject_and_others_are_not(tmp_path):
    text = '[[models]]\nreference = "arch:simple-cnn"\nweights = "w.pt"\n[[attacks]]\nname = "correctness"'
    keys = []
    for folder, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "w.pt").write_bytes(content)
        keys.append(planned(text, tmp_path / folder).targets[0].key)
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("scheme", [scheme.name for scheme in SCHEMES.schemes if scheme.file])
def test_a_model_file_that_is_swapped_makes_another_target(tmp_path, scheme):
    declared = SCHEMES.by_name[scheme]
    rest = declared.completion.lower()
    suffix = (*declared.suffixes, ".pt")[0]
    text = f'[[models]]\nreference = "{scheme}:m{suffix}{rest}"\n[[attacks]]\nname = "correctness"'
    keys = []
    for folder, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"m{suffix}").write_bytes(content)
        keys.append(planned(text, tmp_path / folder).targets[0].key)
    assert keys[0] == keys[1] != keys[2]


def test_a_factory_whose_imports_change_makes_another_target(tmp_path):
    text = '[[models]]\nreference = "python:net.py:make"\n[[attacks]]\nname = "loss"'
    keys = []
    for folder, width in (("a", 8), ("b", 8), ("c", 9)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.py").write_text("from parts import make\n")
        (tmp_path / folder / "parts.py").write_text(f"def make():\n    return {width}\n")
        keys.append(planned(text, tmp_path / folder).targets[0].key)
    assert keys[0] == keys[1] != keys[2]


def test_a_model_file_without_its_scheme_is_looked_up_beside_the_study(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"1")
    subject = planned('[[models]]\nreference = "m.onnx"\n[[attacks]]\nname = "correctness"', tmp_path).targets[0]
    assert subject.options["model"] == f"onnx:{tmp_path}/m.onnx"


def test_a_pinned_checksum_keeps_other_weights_from_being_loaded(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"1")
    text = '[[models]]\nreference = "arch:simple-cnn"\nweights = "w.pt"\nchecksum = "sha256:abc"\n'
    text += '[[attacks]]\nname = "loss"'
    assert "was expected" in planned(text, tmp_path).targets[0].obstacle


def test_models_of_the_catalog(tmp_path):
    url = f"sqlite:///{tmp_path}/catalog.sqlite"
    with securitynet.catalog.open(url) as catalog:
        for number, dataset in enumerate(["CIFAR-10", "CIFAR-10", "Flowers-102"]):
            catalog.add(
                CatalogEntry(
                    key=f"mine:{number}", source="mine", name=f"net {number}", reference=f"timm:resnet{number}",
                    head="classifier", task_type="classification", dataset=dataset, claimed_accuracy=0.9,
                    family="ResNet",
                ).known()
            )  # fmt: skip
        first = catalog.get("mine:0")
    attack = '[[attacks]]\nname = "correctness"\n'
    head = f'catalog = "{url}"\n'
    plan = planned('[[models]]\nquery = ""\nfilters = { dataset = "CIFAR-10" }\n' + attack, tmp_path, data=head)
    assert [subject.options["dataset"] for subject in plan.targets] == ["cifar10", "cifar10"]
    assert plan.targets[0].accuracy == 0.9 and plan.targets[0].codes["family"] == "ResNet"
    # An entry whose dataset cannot be loaded leaves the study, and says so; the others stay.
    left = planned('[[models]]\nquery = ""\n' + attack, tmp_path, data=head)
    assert [subject.label for subject in left.targets] == ["mine:0", "mine:1"]
    assert [(entry.label, "Flowers 102" in entry.reason) for entry in left.excluded] == [("mine:2", True)]
    with pytest.raises(ConfigurationError, match=r"no target.*1 × it was trained on .*Flowers 102"):
        planned('[[models]]\nquery = ""\nfilters = { name = "net 2" }\n' + attack, tmp_path, data=head)
    with pytest.raises(ConfigurationError, match="mine:2 was trained on"):  # the user names this one itself
        planned('[[models]]\ncatalog = "mine:2"\n' + attack, tmp_path, data=head)
    mapped = head + '[datasets]\n"Flowers-102" = "folder:flowers"\n'
    assert len(planned('[[models]]\nquery = ""\ncount = 2\n' + attack, tmp_path, data=mapped).targets) == 2
    (tmp_path / "list.toml").write_text(f'[[models]]\nreference = "timm:resnet0"\ncatalog = "{first.id}"\n')
    listed = planned('[[models]]\nlist = "list.toml"\n' + attack, tmp_path, data=head)
    assert (listed.targets[0].catalog, listed.targets[0].label) == (first.id, "mine:0")


def test_every_entry_that_cannot_be_a_target_is_counted_with_its_reason(tmp_path):
    url = f"sqlite:///{tmp_path}/catalog.sqlite"
    usable = {"source": "mine", "dataset": "CIFAR-10", "purpose": "security"}
    classifier = {"head": "classifier", "task_type": "classification"}
    rows = {
        "fine": usable | classifier,
        "medical": usable | classifier | {"dataset": "bloodmnist"},
        "features": usable | {"head": "none", "task_type": "feature extraction"},
        "unstated": usable | {"task_type": "classification"},
        "nowhere": usable | classifier | {"reference": None},
        "code": usable | classifier | {"reference": "python:net.py:make"},
    }
    with securitynet.catalog.open(url) as catalog:
        for name, codes in rows.items():
            codes = {"reference": f"timm:net_{name}"} | codes  # equal references would be duplicates
            catalog.add({"key": f"mine:{name}", "name": name} | {k: v for k, v in codes.items() if v is not None})
    text = '[[models]]\nquery = ""\nfilters = { purpose = "security" }\n[[attacks]]\nname = "correctness"\n'
    plan = planned(text, tmp_path, data=f'catalog = "{url}"\n')
    assert {subject.label: subject.options["dataset"] for subject in plan.targets} == {
        "mine:fine": "cifar10",
        "mine:medical": "medmnist-bloodmnist",
    }
    reasons = {entry.label: entry.reason for entry in plan.excluded}
    assert len(plan.targets) + len(reasons) == len(rows)
    assert reasons["mine:features"] == "its task type is feature extraction, where a target is a classification model"
    assert reasons["mine:unstated"] == "its head is not stated, where a target is a classifier model"
    assert reasons["mine:nowhere"] == "the entry does not say how to load its model"
    assert "run code" in reasons["mine:code"]
    assert "4 × " not in "\n".join(describe_excluded(plan.excluded))
    assert next(describe_excluded(plan.excluded)) == "Entries of the catalog left out: 4"


def test_alternatives_are_all_combinations():
    found = list(expand_alternatives({"a": [1, 2], "b": "x", "auxiliary": ["partial", "shadow"], "c": [3]}))
    assert found == [
        {"a": 1, "b": "x", "auxiliary": ["partial", "shadow"], "c": 3},
        {"a": 2, "b": "x", "auxiliary": ["partial", "shadow"], "c": 3},
    ]


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_ready_files_make_sense(path, tmp_path, monkeypatch):
    """Those that query the catalog are tried with an entry of each dataset that they ask for, and scanned ones."""
    text = path.read_text()
    if "query" not in text:
        plan = plan_study(path)
        assert plan.targets and trials(plan)
        assert all(trial.obstacle is None for subject in plan.targets if subject.obstacle is None
                   for trial in plan.trials(subject, plan.capabilities(subject, None)))  # fmt: skip
        return
    url = f"sqlite:///{tmp_path}/catalog.sqlite"
    with securitynet.catalog.open(url) as catalog:
        for dataset in ("CIFAR-10", "CIFAR-100", "SVHN", "ImageNet-1k", "CUB-200-2011"):
            for purpose in ("benchmark", "security"):
                catalog.add(
                    CatalogEntry(
                        key=f"{purpose}:{dataset}",
                        source="s",
                        name=dataset,
                        reference=f"timm:{purpose}-{dataset.lower()}",
                        head="classifier",
                        task_type="classification",
                        dataset=dataset,
                        purpose=purpose,
                    ).known()
                )
        scanned = {"source": "scan", "reference": "arch:tutorial-cnn", "architecture": "tutorial-cnn"}
        shape = {"head": "classifier", "task_type": "classification", "classes": 10, "image_channels": 3}
        for number in range(3):
            weights = tmp_path / f"{number}.pth"
            weights.write_bytes(bytes([number]))
            own = {
                "weights_file": str(weights),
                "checksum": f"sha256:{hashlib.sha256(weights.read_bytes()).hexdigest()}",
            }
            catalog.add({"key": f"scan:{number}", "name": f"net-{number}", **scanned, **shape, **own})
    plan = expand(parse_study({**parse_toml(text), "catalog": url}), path.parent)
    assert len(plan.targets) >= 2 and all(trials(plan, number) for number in range(len(plan.targets)))


def test_ready_files_agree_on_the_settings_of_a_paper_s_attack():
    """Whatever is measured at the paper's scale is measured as in the paper, in every file."""
    names = {"ml-doctor-black-box", "ml-doctor-white-box", "inversion.fredrikson", "inversion.generative",
             "ml-doctor-surrogate", "attribute"}  # fmt: skip
    given = {}
    for path in READY:
        if path.stem.startswith(("ml-doctor", "defenses")) and not path.stem.endswith("-small"):
            content = parse_toml(path.read_text())
            for attack in content["attacks"]:
                for name in names & set(attack["name"] if isinstance(attack["name"], list) else [attack["name"]]):
                    given.setdefault((name, *attack.get("only", [])), []).append(attack.get("settings", {}))
            configured = [each for table in content["train"] for each in table.get("configure", [])]
            assert all("dp-sgd.accountant=zcdp" in each for each in configured)
    assert {name for name, *_ in given} == names
    for name, settings in given.items():
        assert len(settings) >= 4 and all(each == settings[0] for each in settings), name


def test_every_ready_study_has_a_small_variant():
    names = {path.stem for path in READY if path.stem.startswith(("securitynet", "ml-doctor"))}
    assert {name for name in names if not name.endswith("-small")} == {
        name.removesuffix("-small") for name in names if name.endswith("-small")
    }
