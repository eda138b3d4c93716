"""Numbers and sentences: what is written never says more than the interval does."""

from __future__ import annotations

import base64
import dataclasses
import io
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from securitynet.assessments.config import AssessConfig
from securitynet.assessments.repair_config import RepairConfig
from securitynet.cli.options import parse
from securitynet.files import read_toml
from securitynet.metrics import roc
from securitynet.metrics.exposure import rank_most_exposed
from securitynet.records import Direction, Measurement
from securitynet.reports import bars, grades, labels, settings, verdict, words
from securitynet.reports.exposed import _price, find_exposed
from securitynet.reports.families import membership
from securitynet.reports.grades import grade_families
from securitynet.reports.pictures import encode_data_uri


def measured(name, value, low, high, n=1000):
    return Measurement(name=name, value=value, low=low, high=high, n=n, direction=Direction.LOWER, method="test")


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("target.train_accuracy", (0.8604, 0.8573, 0.8634), ("86.04%", "85.73–86.34%")),
        ("membership.x.auc", (0.525, 0.5201, 0.5299), ("0.5250", "0.5201–0.5299")),
        ("membership.x.tpr@fpr=0.001", (0.002, 0.0015, 0.0027), ("0.200%", "0.150–0.270%")),
        ("target.overfitting", (-0.004, -0.02, 0.012), ("−0.4 points", "−2.0 to 1.2 points")),
        ("membership.x.tpr@fpr=0.01", (0.0, 0.0, 0.0082), ("0%", "0–0.82%")),
        ("membership.x.epsilon-lower-bound@delta=1e-05", (1.05, 1.05, 1.05), ("1.05", "lower bound")),
        ("evasion.x.steps", (12.0, 12.0, 12.0), ("12.00", "12.00–12.00")),
    ],
)
def test_numbers_have_the_digits_that_their_interval_supports(name, values, expected):
    numbers = words.write_numbers(measured(name, *values))
    assert (numbers.value, numbers.interval) == expected


def test_rounding_never_puts_an_end_onto_chance():
    numbers = words.write_numbers(measured("membership.x.auc", 0.55, 0.50004, 0.6))
    assert numbers.interval == "0.50004–0.60000"


@pytest.mark.parametrize(
    ("low", "value", "high", "expected"),
    [
        (0.49, 0.51, 0.53, "not distinguishable from guessing"),
        (0.5, 0.51, 0.53, "not distinguishable from guessing"),
        (0.501, 0.51, 0.53, "slightly better than guessing"),
        (0.501, 0.53, 0.56, "better than guessing"),
        (0.61, 0.7, 0.8, "clearly better than guessing"),
        (0.75, 0.8, 0.85, "far better than guessing"),
        (0.96, 0.98, 0.99, "close to certainty"),
        (0.4, 0.45, 0.49, "worse than guessing"),
    ],
)
def test_an_auc_in_words_follows_its_interval(low, value, high, expected):
    said = membership.describe_auc(measured("membership.x.auc", value, low, high))
    assert said.startswith(expected)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0011, 0.003, "more than guessing"),
        (0.0005, 0.003, "not distinguishable"),
        (0.0, 0.0009, "fewer than guessing"),
    ],
)
def test_a_tpr_in_words_is_compared_with_its_fpr(low, high, expected):
    said = membership.describe_tpr(measured("membership.x.tpr@fpr=0.001", (low + high) / 2, low, high))
    assert expected in said
    assert "At a false-positive rate of 0.1%" in said


def test_the_verdict_names_the_strongest_attack(assessed):
    document, _ = assessed
    ranked = membership.rank_attacks(document)
    assert [s.trial.name for s in ranked] == ["membership.modified-entropy"]
    assert ranked[0].fpr == 0.1  # 0.001 and 0.02 take more than 120 non-members
    auc, tpr = verdict.write_verdict(document)
    assert auc.startswith("An adversary who sees only the model's outputs")
    assert words.write_numbers(ranked[0].auc).value in auc
    assert "At a false-positive rate of 10% they identify" in tpr
    assert membership.describe_unresolved(document).endswith("nothing can be said about 0.1% and 2%.")


def change(document, **changed):
    """The result with other (value, low, high) of some measurements of membership inference."""
    named = {f"membership.{name}": ends for name, ends in changed.items()}
    return document.model_copy(
        update={
            "measurements": tuple(
                m.model_copy(update=dict(zip(("value", "low", "high"), named[m.name], strict=True)))
                if m.name in named
                else m
                for m in document.measurements
            )
        }
    )


def test_overfitting_is_no_attack_but_is_not_hidden(assessed):
    """The AUC of prediction correctness is an identity: it is no attack, and yet a grade does not fall below it."""
    document, _ = assessed
    much = {"correctness.auc": (0.8, 0.78, 0.82)}
    few = {"modified-entropy.auc": (0.52, 0.51, 0.53), "modified-entropy.tpr@fpr=0.1": (0.1, 0.08, 0.12)}
    slight = change(document, **much, **few)
    assert membership.rank_attacks(slight)[0].trial.name == "membership.modified-entropy"
    assert membership.describe_choice(slight) is None  # one attack: nothing was chosen, and nothing is corrected
    *_, last = verdict.write_verdict(slight)
    assert last.startswith("No attack does better than overfitting alone, which gives an AUC of 0.800 ")
    finding = next(f for f in grade_families(slight) if f.family == "membership")
    assert finding.grade == "high" and finding.measurement.name == "membership.correctness.auc"
    assert "right about more members" in finding.meaning and "strongest" not in finding.meaning
    stronger = change(document, **much, **{"modified-entropy.auc": (0.9, 0.88, 0.92)})
    assert not any("overfitting" in sentence for sentence in verdict.write_verdict(stronger))
    finding = next(f for f in grade_families(stronger) if f.family == "membership")
    assert finding.measurement.name == "membership.modified-entropy.auc"


def test_a_rate_that_cannot_be_told_from_a_weakness_is_not_cleared_by_the_auc(assessed):
    document, _ = assessed
    nothing = {
        "correctness.auc": (0.5, 0.49, 0.51),
        "modified-entropy.auc": (0.5, 0.48, 0.52),
        "correctness.tpr@fpr=0.1": (0.0, 0.0, 0.01),
    }
    wide = change(document, **nothing, **{"modified-entropy.tpr@fpr=0.1": (0.1, 0.02, 0.5)})
    finding = next(f for f in grade_families(wide) if f.family == "membership")
    assert finding.grade == "undecided" and finding.measurement.name.endswith("tpr@fpr=0.1")
    narrow = change(document, **nothing, **{"modified-entropy.tpr@fpr=0.1": (0.1, 0.08, 0.12)})
    finding = next(f for f in grade_families(narrow) if f.family == "membership")
    assert finding.grade == "none shown" and finding.measurement.name.endswith(".auc")


def test_the_low_rate_is_told_of_the_attack_that_does_best_there(assessed):
    """An attack with the highest AUC need not be the one that identifies most members at a low FPR."""
    document, _ = assessed
    trial = next(t for t in document.trials if t.name == "membership.correctness")
    other = "membership.entropy"
    document = document.model_copy(
        update={
            "trials": tuple(t.model_copy(update={"name": other}) if t is trial else t for t in document.trials),
            "measurements": tuple(
                m.model_copy(update={"name": m.name.replace("membership.correctness", other)})
                for m in document.measurements
            ),
        }
    )
    altered = change(document, **{"entropy.auc": (0.99, 0.98, 1.0), "entropy.tpr@fpr=0.1": (0.0, 0.0, 0.01)})
    assert membership.rank_attacks(altered)[0].trial.name == other
    assert membership.describe_choice(altered).startswith("Entropy is the strongest of 2 attacks")
    auc, tpr = verdict.write_verdict(altered)
    assert "0.99" in auc
    quietest = membership.find_lowest_rate(membership.rank_attacks(altered))
    assert quietest.trial.name == "membership.modified-entropy" and quietest.tpr.value > 0
    assert "At a false-positive rate of 10% the attack “Modified entropy” identifies" in tpr
    assert words.write_numbers(quietest.tpr).value in tpr


def test_attacks_on_groups_of_records_say_nothing_of_single_ones(assessed):
    document, _ = assessed
    single, new = "membership.loss", "membership.group-membership"
    names = {"membership.correctness": single, "membership.modified-entropy": new}

    def rename(name: str) -> str:
        old = next((old for old in names if name.startswith(old)), None)
        return name if old is None else name.replace(old, names[old])

    trials = tuple(t.model_copy(update={"name": rename(t.name)}) for t in document.trials)
    measurements = tuple(m.model_copy(update={"name": rename(m.name)}) for m in document.measurements)
    altered = document.model_copy(update={"trials": trials, "measurements": measurements})
    # It has the higher AUC, and comes last all the same.
    assert [s.trial.name for s in membership.rank_attacks(altered)] == [single, new]
    assert "can distinguish members from non-members" in verdict.write_verdict(altered)[0]
    assert membership.find_lowest_rate(membership.rank_attacks(altered)).trial.name == single
    alone = altered.model_copy(update={"trials": tuple(t for t in trials if t.name == new)})
    auc, tpr = verdict.write_verdict(alone)
    assert "can distinguish groups of members from groups of non-members" in auc
    assert "of the groups of members" in tpr
    finding = next(f for f in grades.grade_families(alone) if f.family == "membership")
    assert "group of records" in finding.meaning or "groups of records" in finding.meaning


def test_a_null_target_is_not_called_leaky(null):
    document, _ = null
    said = " ".join(verdict.write_verdict(document))
    assert "not distinguishable from guessing" in said
    assert "better than" not in said


def test_the_strongest_of_several_useless_attacks_rarely_exposes_anybody():
    # Without the correction, 10.6% of 1,500 runs with 73 and 211 records called somebody exposed.
    random, called = np.random.default_rng(0), 0
    is_member = np.arange(284) < 73
    for _ in range(200):
        scores = random.normal(size=(8, 284))
        best = scores[np.argmax([roc.compute_auc(one[is_member], one[~is_member]) for one in scores])]
        exposure = rank_most_exposed(np.arange(284), best, is_member)
        called += _price(exposure, 73, 1 - 0.05 / 8)[1]
    assert called <= 8


def test_exposed_records_are_not_called_exposed_where_the_attack_guesses(assessed, null):
    assert "not distinguishable from guessing" in find_exposed(*null).price
    document, found = assessed
    trials = [
        dataclasses.replace(t, output=dataclasses.replace(t.output, scores=t.output.is_member - t.output.indices / 1e6))
        for t in found.trials
    ]
    certain = find_exposed(document, dataclasses.replace(found, trials=trials))
    assert "right about 12 of 120 members (10%), and wrong about 0 of 120 non-members (0%)." in certain.price
    assert "guessing" not in certain.price


def test_bars_put_interval_and_chance_where_they_are():
    axis = bars.choose_axis([measured("membership.x.auc", 0.7, 0.6, 0.8)])
    assert (axis.low, axis.high) == (0.4, 1.0)
    assert axis.at(0.7) == pytest.approx((bars.MARGIN + bars.WIDTH - bars.MARGIN) / 2)
    logarithmic = bars.choose_axis([measured("membership.x.tpr@fpr=0.001", 0.01, 0.001, 0.1)])
    assert logarithmic.log and logarithmic.low == pytest.approx(1e-4)
    assert logarithmic.at(0.01) == pytest.approx(bars.WIDTH / 2)
    assert logarithmic.at(0.0) == bars.MARGIN
    drawing = bars.draw_interval([measured("membership.x.auc", 0.7, 0.6, 0.8)], ["<b>"])
    assert "<b>" not in drawing and "&lt;b&gt;: 0.70, interval 0.60–0.80" in drawing


def test_a_bound_has_no_interval_to_draw():
    bound = measured("membership.x.epsilon-lower-bound@delta=1e-05", 1.05, 1.05, 1.05)
    assert bars.draw_interval([bound]) is None
    assert words.find_kind(bound.name).label == "ε at least, for δ = 1e-05"


def test_durations():
    said = [words.write_duration(s) for s in (0.001, 1.234, 45.67, 125, 3725)]
    assert said == ["under 0.01 s", "1.23 s", "45.7 s", "2 min 05 s", "1 h 02 min"]


def test_posteriors_are_not_rounded_to_certainty():
    assert [words.write_probability(p) for p in (1.0, 0.99999, 0.5, 0.0001, 0.0)] == [
        "100.0%",
        "> 99.9%",
        "50.0%",
        "< 0.1%",
        "0.0%",
    ]


def test_command_line_and_file_give_the_same_configuration(assessed, tmp_path):
    document, _ = assessed
    config = AssessConfig(
        model="arch:simple-cnn",
        weights=Path('it\'s "here"/a\\b.st'),
        dataset="folder:my photos",
        attacks=("correctness", "modified-entropy"),
        auxiliary=("partial", "none"),
        known=1 / 3,
        fprs=(0.1, 0.02),
        rerun=True,
        channels=3,
    )
    stated = document.model_copy(update={"settings": config.model_dump(mode="json", exclude_none=True)})
    file = tmp_path / "options.toml"
    file.write_text(settings.write_toml(stated), encoding="utf-8")
    assert AssessConfig.model_validate(read_toml(file)) == config
    words_ = shlex.split(settings.write_assess_command(stated))
    assert words_[:3] == ["securitynet", "assess", "arch:simple-cnn"]
    given = {"model": words_[2]}
    rest = words_[3:]
    while rest:
        option = rest.pop(0).removeprefix("--").replace("-", "_")
        given[option] = True if option == "rerun" else rest.pop(0)
    given["channels"] = int(given["channels"])  # Typer's work
    assert parse(AssessConfig, given) == config
    assert "--seed" not in words_


def test_a_following_command_reads_the_data_as_the_one_before():
    stated = {"model": "arch:simple-cnn", "weights": "m.safetensors", "dataset": "folder:my cats", "channels": 1,
              "limit": 100, "seed": 0, "attacks": ["loss"], "defense": "top-k"}  # fmt: skip
    assert settings.write_command_line("repair", "arch:simple-cnn", RepairConfig, stated, ("defense",)) == (
        "securitynet repair arch:simple-cnn --dataset 'folder:my cats' --channels 1 --limit 100 --weights m.safetensors"
    )


def test_labels_tell_targets_apart(assessed):
    document, _ = assessed

    def with_(reference, weights=None):
        target = document.target.model_copy(update={"reference": reference})
        given = {"weights": weights} if weights else {}
        return document.model_copy(update={"target": target, "settings": given})

    assert labels.make_distinct([with_("a"), with_("b")]) == ["a", "b"]
    assert labels.make_distinct([with_("a", "x/one/m.st"), with_("a", "x/two/m.st")]) == ["one", "two"]
    assert labels.make_distinct([with_("a"), with_("a")]) == ["a (1)", "a (2)"]
    assert labels.make_distinct([with_("a", "one.st"), with_("a", "two.st"), with_("b")]) == ["a, one", "a, two", "b"]


def test_colour_pictures_keep_their_channels_and_large_ones_shrink():
    def opened(pixels):
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(encode_data_uri(pixels).partition(",")[2]))))

    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 7), dtype=np.uint8)
    assert np.array_equal(opened(pixels), pixels.transpose(1, 2, 0))
    assert opened(np.zeros((3, 300, 150), dtype=np.uint8)).shape == (96, 48, 3)
    with pytest.raises(ValueError, match="2 channels"):
        encode_data_uri(np.zeros((2, 4, 4), dtype=np.uint8))
