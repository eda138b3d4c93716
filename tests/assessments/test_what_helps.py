"""`assess --defense` and `--try-defenses`: attacks behind a defense, and what would help, in result and report."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from securitynet.api import assess
from securitynet.defenses.dp_sgd import DpSgd
from securitynet.errors import ConfigurationError, UnknownName
from securitynet.models.store.train_target import train_model
from securitynet.models.training.config import TrainConfig
from securitynet.records import Access, Direction, Measurement
from securitynet.reports.what_helps import describe_outcome, describe_tried_defenses, helps
from securitynet.results.document import DefenseEffect, DefenseEffects, ResultDocument, WorstCase, read_document

QUICK = {"attacks": ("loss", "entropy", "correctness"), "detectors": ("none",), "defense_trainings": 0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network that knows 120 digits by heart."""
    out = tmp_path_factory.mktemp("trained") / "m.safetensors"
    config = TrainConfig(
        architecture="simple-cnn", dataset="digits", limit=240, out=out, epochs=25, batch_size=25, optimizer="adam",
        learning_rate=3e-3, schedule="constant", weight_decay=0,
    )  # fmt: skip
    train_model(config)
    return out


def run(weights, out, **options):
    values = {"weights": weights, "limit": 240, "out": out, **QUICK, **options}
    return assess("arch:simple-cnn", "digits", **values)


def test_attacks_run_unchanged_behind_a_defense(trained, tmp_path):
    plain = run(trained, tmp_path / "plain")
    defended = run(trained, tmp_path / "top", defense="rounding", configure=("rounding.digits=1",))
    for name in ("target.test_accuracy", "membership.correctness.auc"):
        assert defended[name] == plain[name]
    assert defended["membership.loss.auc"] != plain["membership.loss.auc"]
    document = defended.document
    assert document.target.access == "black-box" and document.target.head == "answers"
    assert "rounded to 1 digit" in document.target.reference
    assert document.target.checksum != plain.document.target.checksum
    assert {trial.status for trial in document.trials} == {"ok"}


def test_what_labels_only_denies_is_skipped_with_the_reason(trained, tmp_path):
    document = run(trained, tmp_path / "out", defense="label-only").document
    status = {trial.name: trial.status for trial in document.trials}
    assert status == {
        "membership.loss": "skipped", "membership.entropy": "skipped", "membership.correctness": "ok",
    }  # fmt: skip
    assert any("labels only" in absent.why for absent in document.not_assessed if absent.what == "membership.loss")
    assert "hidden" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"defense": "top-kk"}, UnknownName, "top-k"),
        ({"defense": "dp-sgd"}, ConfigurationError, "trained already"),
        ({"defense": "top-k", "configure": ("top-k.k=0",)}, ConfigurationError, "k:"),
        ({"configure": ("top-k.k=1",)}, ConfigurationError, "not requested"),
        ({"defense": "top-k", "access": Access.WHITE_BOX}, ConfigurationError, "has the model itself"),
        ({"defense": "top-k", "try_defenses": True}, ConfigurationError, "undefended model"),
        ({"try_defenses": True, "defenses": ("tops",)}, UnknownName, "top-k"),
        ({"try_defenses": True, "defense_trainings": 3}, ConfigurationError, "too few"),
    ],
)
def test_what_makes_no_sense_is_told_before_the_model_is_loaded(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        run(tmp_path / "absent.safetensors", tmp_path / "out", **options)


def test_settings_of_attacks_and_of_the_defense_go_together(trained, tmp_path):
    found = run(
        trained, tmp_path / "out", defense="top-k", configure=("top-k.k=1", "modified-entropy.per_class=true"),
        attacks=("modified-entropy",),
    )  # fmt: skip
    assert found.document.trials[0].configuration["per_class"] is True
    assert "the highest posterior" in found.document.target.reference


@pytest.mark.slow
def test_what_would_help_is_measured_here(trained, tmp_path):
    chosen = ("label-only", "rounding", "weight-decay", "early-stopping")
    found = run(trained, tmp_path / "out", try_defenses=True, defenses=chosen)
    remedies = found.document.remedies
    assert read_document(tmp_path / "out" / "result.json").remedies == remedies
    tried = {(t.name, json.dumps(t.settings)): t for t in remedies.tried}
    assert {name for name, _ in tried} == set(chosen) and len(tried) == 1 + 2 + 2 + 1
    undefended = remedies.undefended
    assert undefended.auc.value == max(found[f"{name}.auc"] for name in remedies.attacks)
    assert set(remedies.attacks) == {f"membership.{name}" for name in QUICK["attacks"]}
    labels = tried["label-only", "{}"]
    assert labels.attack == "membership.correctness" and labels.worked == 1 and len(labels.denied) == 2
    assert labels.accuracy == undefended.accuracy  # answers keep their labels
    decayed = tried["weight-decay", '{"strength": 0.05}']
    assert decayed.stage == "training" and decayed.reason is None and decayed.auc.n == undefended.auc.n
    assert tried["early-stopping", '{"patience": 5}'].auc.n < undefended.auc.n  # records held out are no members
    assert any("trainings" in note for note in remedies.notes)
    rows = describe_tried_defenses(found.document).rows
    assert rows[-1].name.startswith("blind baseline")
    assert float(rows[-1].auc.value) == pytest.approx(found["membership.blind.auc"], abs=5e-3)  # two digits are shown
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for words in ("What would help", "weight-decay (strength = 0.05)", "no defense", "anyone who has the weights"):
        assert words in page
    again = run(trained, tmp_path / "out", try_defenses=True, defenses=chosen)  # models come from the cache
    strip = {"seconds"}
    assert [t.model_dump(exclude=strip) for t in again.document.remedies.tried] == [
        t.model_dump(exclude=strip) for t in remedies.tried
    ]


def test_what_helps_is_told_apart_for_who_asks_and_who_has_the_weights(trained, tmp_path):
    """An attack on the weights is no yardstick for a defense of the answers, and no defense of them holds it up."""
    settings = ("ml-doctor-white-box.epochs=15", "ml-doctor-white-box.learning_rate=0.002")
    found = run(
        trained, tmp_path / "out", attacks=("correctness", "ml-doctor-white-box"), configure=settings,
        try_defenses=True, defenses=("rounding", "label-only"),
    )  # fmt: skip
    remedies = found.document.remedies
    whole = remedies.undefended
    assert whole.attack.startswith("membership.ml-doctor-white-box")
    correctness = found["membership.correctness.auc"]
    assert whole.auc.value > correctness
    for tried in remedies.tried:
        assert tried.against.value == tried.auc.value == correctness  # labels are told all the same
        assert describe_outcome(tried, whole) == "no difference shown"
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "no defense, outputs only" in page and "attacks that need the model itself do not count" in page
    assert "the records that are most at risk are better off was not measured" in page


def test_an_attack_that_breaks_costs_its_defense_alone(trained, tmp_path, monkeypatch):
    from securitynet.defenses.rounding import Rounding

    def broken(*_):
        raise ValueError("a bug")

    monkeypatch.setattr(Rounding, "interface", broken)
    found = run(trained, tmp_path / "out", try_defenses=True, defenses=("rounding", "label-only"))
    reasons = {tried.name: tried.reason for tried in found.document.remedies.tried}
    assert reasons == {"rounding": "ValueError: a bug", "label-only": None}


def test_without_a_record_of_its_training_only_answers_can_be_defended(overfitted, tmp_path):
    target, splits, dataset = overfitted
    records = np.sort(np.concatenate([splits.members, splits.non_members]))
    parts = {"train": np.flatnonzero(np.isin(records, splits.members)),
             "test": np.flatnonzero(np.isin(records, splits.non_members))}  # fmt: skip
    small = dataclasses.replace(
        dataset, images=dataset.batch(records), labels=dataset.labels[records], parts=parts, content_digest=None
    )
    found = assess(target, small, out=tmp_path / "out", try_defenses=True, defenses=("rounding", "dropout"), **QUICK)
    assert {t.name for t in found.document.remedies.tried} == {"rounding"}
    assert any("no model record" in note for note in found.document.remedies.notes)


def test_epsilon_is_in_every_report(tmp_path):
    out = tmp_path / "m.safetensors"
    config = TrainConfig(
        architecture="simple-cnn", dataset="digits", limit=240, out=out, epochs=1, batch_size=16, defense="dp-sgd"
    )
    _, trained = train_model(config, defense=DpSgd(noise_multiplier=2.0, delta=1e-3))
    found = run(out, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"epsilon = {trained.defense.privacy.epsilon:.3g} at delta = 0.001" in page
    assert found.document.target.training["defense"]["privacy"]["epsilon"] == trained.defense.privacy.epsilon


def measured(label, low, value, high):
    return Measurement(name=label, value=value, low=low, high=high, n=100, direction=Direction.LOWER, method="-")


def effect(name, low, value, high, accuracy=0.9, canaries=None, exposed=None, **more):
    """An effect with these ends of intervals; canaries and exposed are (low, value, high)."""
    right = measured("test_accuracy", accuracy - 0.02, accuracy, accuracy + 0.02)
    worst = None
    if canaries is not None:
        worst = WorstCase(
            trainings=8, records=40, fpr=0.05, canaries=measured("canaries.tpr@fpr=0.05", *canaries),
            exposed=exposed and measured("exposed.tpr@fpr=0.05", *exposed),
            average_auc=measured("auc", low, value, high), accuracy=right,
        )  # fmt: skip
    auc = measured("auc", low, value, high)
    return DefenseEffect(name=name, stage="output", attack="a", auc=auc, accuracy=right, worst=worst, **more)


def test_outcomes_claim_no_more_than_the_intervals():
    tried = effect
    plain = tried("none", 0.65, 0.7, 0.75)
    lower = "lowers the average; the worst records were not measured"
    assert describe_outcome(plain, plain) == "the model without a defense"
    assert describe_outcome(tried("x", 0.6, 0.64, 0.68), plain) == "no difference shown"
    assert describe_outcome(tried("x", 0.52, 0.56, 0.6), plain) == lower
    assert describe_outcome(tried("x", 0.48, 0.52, 0.56, accuracy=0.8), plain) == f"{lower}; costs accuracy"
    assert describe_outcome(tried("x", 0.3, 0.34, 0.4), plain).startswith("no difference shown (scores are reversed")
    assert describe_outcome(tried("x", 0.42, 0.45, 0.48), plain).startswith(f"{lower} (scores are reversed")
    assert describe_outcome(tried("x", 0.52, 0.56, 0.6, denied=("a", "b")), plain) == f"{lower}; rules out 2 attacks"
    assert describe_outcome(tried("x", 0.8, 0.84, 0.88), plain) == "makes it worse on average"
    assert describe_outcome(DefenseEffect(name="x", stage="output", reason="no"), plain) == "not tried: no"
    assert "no attack" in describe_outcome(DefenseEffect(name="x", stage="output", denied=("a",)), plain)
    assert describe_outcome(DefenseEffect(name="x", stage="output"), plain).startswith("not measured")
    # An output defense is compared with the strongest attack that needs only outputs, not with one on weights.
    output_only = tried("none", 0.53, 0.57, 0.61).auc
    assert describe_outcome(tried("x", 0.52, 0.56, 0.6, against=output_only), plain) == "no difference shown"
    assert describe_outcome(tried("x", 0.5, 0.51, 0.52, against=output_only), plain) == lower
    turned_round = tried("none", 0.25, 0.3, 0.35).auc
    assert describe_outcome(tried("x", 0.65, 0.7, 0.75, against=turned_round), plain) == "no difference shown"


def test_a_defense_helps_only_if_the_worst_records_are_better_off():
    high, low = (0.6, 0.8, 0.9), (0.02, 0.06, 0.2)
    plain = effect("none", 0.65, 0.7, 0.75, canaries=high, exposed=high)
    halved = effect("x", 0.5, 0.52, 0.54, canaries=(0.55, 0.75, 0.88), exposed=(0.5, 0.7, 0.85))
    assert not helps(halved, plain)
    said = describe_outcome(halved, plain)
    assert said == "not shown to help the worst records, though the average is lower"
    same_average = effect("x", 0.64, 0.69, 0.74, canaries=low, exposed=low)
    assert helps(same_average, plain) and describe_outcome(same_average, plain) == "helps"
    half = effect("x", 0.5, 0.52, 0.54, canaries=low, exposed=high)
    assert not helps(half, plain) and describe_outcome(half, plain) == "helps canaries, not exposed members"
    worse = effect("x", 0.5, 0.52, 0.54, canaries=(0.92, 0.95, 0.99), exposed=low)
    assert not helps(worse, plain) and describe_outcome(worse, plain).startswith("makes it worse for canaries")
    harmless = effect("none", 0.48, 0.5, 0.52, canaries=low, exposed=low)
    assert not helps(same_average, harmless) and "no leak that it could reduce" in describe_outcome(
        same_average, harmless
    )


def test_a_defense_that_does_no_more_than_dp_sgd_is_said_to():
    high, low = (0.6, 0.8, 0.9), (0.02, 0.06, 0.2)
    plain = effect("none", 0.65, 0.7, 0.75, canaries=high, exposed=high)
    baseline = effect("dp-sgd", 0.5, 0.52, 0.54, canaries=low, exposed=low, baseline=True)
    equal = effect("x", 0.5, 0.52, 0.54, canaries=low, exposed=low)
    assert describe_outcome(equal, plain, baseline) == "helps; not shown to beat DP-SGD tuned for utility"
    useful = effect("x", 0.5, 0.52, 0.54, canaries=low, exposed=low, accuracy=0.97)
    assert describe_outcome(useful, plain, baseline) == "helps"
    dearer = effect("x", 0.5, 0.52, 0.54, canaries=(0, 0, 0.01), exposed=(0, 0, 0.01), accuracy=0.7)
    assert "not shown to beat" in describe_outcome(dearer, plain, baseline)


def test_a_defense_with_which_records_leak_that_do_not_leak_without_it_is_no_remedy():
    none = (0.0, 0.04, 0.24)
    plain = effect("none", 0.45, 0.5, 0.55, canaries=none, exposed=none)
    leaking = effect("dp-sgd", 0.45, 0.5, 0.55, canaries=(0.16, 0.31, 0.44), exposed=none)
    assert describe_outcome(leaking, plain) == (
        "with it, canaries are shown to leak; without it, no leak of them is shown"
    )
    assert "no leak that it could reduce" in describe_outcome(
        effect("x", 0.45, 0.5, 0.55, canaries=none, exposed=none), plain
    )


def test_the_section_names_what_helps_the_worst_records_and_what_beats_dp_sgd():
    high, low = (0.6, 0.8, 0.9), (0.02, 0.06, 0.2)
    plain = effect("none", 0.65, 0.7, 0.75, canaries=high, exposed=high)
    halved = effect("label-only", 0.5, 0.52, 0.54, canaries=high, exposed=high)
    baseline = effect("dp-sgd", 0.5, 0.52, 0.54, canaries=low, exposed=low, accuracy=0.8, baseline=True)
    better = effect("x", 0.6, 0.65, 0.7, canaries=low, exposed=low)
    effects = DefenseEffects(undefended=plain, tried=(baseline, halved, better), attacks=("membership.loss",))
    section = describe_tried_defenses(ResultDocument.model_construct(remedies=effects, measurements=()))
    rows = {row.name: row for row in section.rows}
    assert section.fpr == "5%" and rows["no defense"].canaries.value.startswith("80")
    assert rows["dp-sgd, tuned for utility"].outcome == "helps; costs accuracy"
    assert rows["label-only"].outcome == "not shown to help the worst records, though the average is lower"
    words = " ".join(section.sentences)
    assert "2 of them help all" in words and "Shown to beat DP-SGD tuned for utility: x." in words
    alone = effects.model_copy(update={"tried": (halved,)})
    words = " ".join(describe_tried_defenses(ResultDocument.model_construct(remedies=alone, measurements=())).sentences)
    assert "None of the defenses is shown to help them" in words
