"""Grades: by intervals, never by estimates; nothing is cleared that could not have been seen."""

from __future__ import annotations

import shlex

import pytest

from securitynet.assessments.config import AssessConfig
from securitynet.attacks import ATTACKS
from securitynet.cli.main import app
from securitynet.detectors import DETECTORS
from securitynet.errors import NO_GRADIENTS
from securitynet.metrics.evasion import WARNING
from securitynet.records import FAMILIES, Access, Auxiliary, Check, Direction, Measurement
from securitynet.reports.evidence import FamilyEvidence, _describe_auc
from securitynet.reports.families.evasion import write_sentences
from securitynet.reports.first_screen import make_first_screen
from securitynet.reports.grades import CORRECTED, _explain, add_grades, find_wrong_verdicts, grade_families
from securitynet.reports.next_steps import (
    BLACK_BOX_LADDERS,
    LABEL_LADDERS,
    LADDERS,
    NEED_SHADOW_DATA,
    propose_step,
    write_command,
)
from securitynet.results.grades import DEFAULT_BOUNDS, GRADES, GradeBounds, decide_grade
from securitynet.results.policy import PolicyCheck, PolicyOutcome

AUC = GradeBounds(moderate=0.6, high=0.75)


@pytest.mark.parametrize(
    "low, high, grade",
    [
        (0.80, 0.90, "high"),
        (0.75, 0.99, "high"),
        (0.70, 0.99, "moderate"),  # the estimate may be 0.9: the interval decides
        (0.52, 0.58, "slight"),
        (0.48, 0.55, "none shown"),
        (0.50, 0.55, "none shown"),
        (0.40, 0.70, "undecided"),  # a moderate weakness would not have been told from none
        (0.45, 0.60, "undecided"),
    ],
)
def test_the_interval_decides(low, high, grade):
    assert decide_grade(low, high, chance=0.5, bounds=AUC) == grade


def replace_auc(document, trial, value, low, high, n=400):
    """The document with one membership attack whose only number is this AUC."""
    auc = Measurement(
        name=f"{trial}.auc", value=value, low=low, high=high, n=n, direction=Direction.LOWER, method="by hand"
    )
    trials = tuple(t for t in document.trials if t.name == trial)
    measurements = (*(m for m in document.measurements if not m.name.startswith("membership.")), auc)
    return document.model_copy(update={"trials": trials, "measurements": measurements, "controls": None})


def membership_of(document, table=None):
    return next(f for f in grade_families(document, table) if f.family == "membership")


def test_a_high_estimate_with_a_wide_interval_is_no_high_grade(assessed):
    document = replace_auc(assessed[0], "membership.modified-entropy", 0.9, 0.45, 0.99)
    finding = membership_of(document)
    assert finding.grade == "undecided" and "too little data" in finding.meaning.lower()
    assert finding.numbers.interval in finding.meaning.replace("\u2060", "")
    # Above chance, but from so few records that it may be hardly more.
    slight = membership_of(replace_auc(assessed[0], "membership.modified-entropy", 0.9, 0.58, 0.99))
    assert slight.grade == "slight" and "So few data allow for much less, too" in slight.meaning
    plain = membership_of(replace_auc(assessed[0], "membership.modified-entropy", 0.6, 0.58, 0.62))
    assert plain.grade == "slight" and "allow for much less" not in plain.meaning


def test_a_policy_moves_the_bounds_and_the_result_carries_them(assessed):
    document = replace_auc(assessed[0], "membership.modified-entropy", 0.72, 0.70, 0.74)
    assert membership_of(document).grade == "moderate"
    strict = {"membership.auc": GradeBounds(moderate=0.55, high=0.65)}
    graded = add_grades(document, strict)
    stored = next(grade for grade in graded.grades if grade.family == "membership")
    assert (stored.grade, stored.measurement) == ("high", "membership.modified-entropy.auc")
    assert membership_of(graded).grade == "high"  # a report made later applies the same bounds


def test_an_overfitted_target_is_graded_and_one_that_saw_no_member_is_not_accused(assessed, null):
    assert membership_of(assessed[0]).grade in ("moderate", "high")
    finding = membership_of(null[0])
    assert finding.grade in ("none shown", "undecided"), finding
    assert {f.grade for f in grade_families(null[0]) if f.family == "stealing"} == {"not assessed"}
    assert set(DEFAULT_BOUNDS) >= {f"{g.family}.{s}" for g, s in [(membership_of(null[0]), "auc")]}
    assert GRADES[0] == "high"


def test_a_model_that_may_not_be_the_stated_one_is_not_cleared(assessed):
    document = replace_auc(assessed[0], "membership.modified-entropy", 0.5, 0.47, 0.53)
    assert membership_of(document).grade == "none shown"
    check = Check(what="accuracy", said="90%", found="10%", agrees=False)
    target = document.target.model_copy(update={"checks": (check,)})
    finding = membership_of(document.model_copy(update={"target": target}))
    assert finding.grade == "undecided" and "may not be the stated one" in finding.meaning


def test_scores_that_are_reversed_are_not_cleared(assessed):
    document = replace_auc(assessed[0], "membership.modified-entropy", 0.2, 0.15, 0.25)
    finding = membership_of(document)
    assert finding.grade == "undecided" and "reverses the scores" in finding.meaning
    assert "lower than non-members in modified-entropy" in finding.meaning and "AUC of 0.80" in finding.meaning
    assert "-scores" not in finding.meaning, "only scores of one's own may have the wrong sign"


def test_reversed_scores_of_ones_own_attack_may_have_the_wrong_sign():
    interval = {"value": 0.2, "low": 0.15, "high": 0.25, "n": 500, "method": "DeLong"}
    found = _describe_auc(Measurement(name="membership.mine.auc", direction=Direction.LOWER, **interval), 1)
    assert found.obstacle is not None and "-scores" in found.obstacle


def test_every_proposed_command_is_one_that_the_command_line_accepts(assessed, null, broken, recorded):
    """The words are read as a shell reads them, and by the parser of `securitynet assess`."""
    import typer.main

    group = typer.main.get_command(app)
    command = group.get_command(None, "assess")
    seen = 0
    for document, assessment in (assessed, null, broken, recorded):
        for line in make_first_screen(document, None).lines:
            if line.step is None or line.step.command is None:
                continue
            program, name, *arguments = shlex.split(line.step.command)
            assert (program, name) == ("securitynet", "assess")
            context = command.make_context("assess", arguments)
            given = {k: v for k, v in context.params.items() if k in AssessConfig.model_fields and v not in (None, [])}
            given = {k: ",".join(v) if isinstance(v, list) else v for k, v in given.items()}  # as the command does
            config = AssessConfig.model_validate(given)
            assert str(config.weights or "") == str(assessment.config.weights or "")
            assert {"stealing", "inversion"} & set(config.attacks) or config.try_defenses or config.attacks
            seen += 1
    assert seen >= 4


def test_the_verdict_lists_what_the_grades_say(assessed):
    document = assessed[0]
    screen = make_first_screen(document)
    facts = dict(screen.facts)
    assert screen.facts[0][0] == "Verdict"
    grades = {finding.title.lower(): finding.grade for finding in grade_families(document)}
    for title, grade in grades.items():
        assert (title in facts["Verdict"]) == (grade != "none shown")
    assert ("needs attention" in facts["Verdict"]) == bool({"high", "moderate"} & set(grades.values()))
    (strongest,) = (one for one in document.exposed if one.trial == "membership.modified-entropy")
    assert f"Modified entropy: {strongest.members[0].file}, " in facts["Records"]
    unmet = document.model_copy(update={"policy": PolicyOutcome(met=False, bounds=1, violations=())})
    screen = make_first_screen(unmet)
    assert "the policy is not met" in dict(screen.facts)["Verdict"] and "Verdict" in screen.troubled
    nothing = document.model_copy(update={"trials": (), "measurements": ()})
    facts = dict(make_first_screen(nothing).facts)
    assert "Records" not in facts and "no weakness" not in facts["Verdict"] and "not assessed" in facts["Verdict"]


def test_an_interval_above_chance_that_proves_nothing_is_explained(assessed):
    """With several attacks the interval of the strongest is corrected; the one that is shown is not."""
    alone = replace_auc(assessed[0], "membership.modified-entropy", 0.54, 0.501, 0.579)
    assert membership_of(alone).grade == "slight"
    (trial,), auc = alone.trials, alone.measurements[-1]
    names = ("membership.loss", "membership.posterior")
    others = [auc.model_copy(update={"name": f"{n}.auc", "value": 0.5, "low": 0.45, "high": 0.55}) for n in names]
    document = alone.model_copy(
        update={
            "trials": (trial, *(trial.model_copy(update={"name": name}) for name in names)),
            "measurements": (*alone.measurements, *others),
        }
    )
    finding = membership_of(document)
    assert finding.grade == "none shown" and finding.measurement.low == 0.501
    assert CORRECTED in finding.meaning


def test_grades_and_checks_that_do_not_follow_are_named(assessed):
    document = add_grades(assessed[0])
    assert find_wrong_verdicts(document) == []
    first = document.grades[0]
    changed = first.model_copy(update={"grade": "none shown" if first.grade != "none shown" else "high"})
    forged = document.model_copy(update={"grades": (changed, *document.grades[1:])})
    assert find_wrong_verdicts(forged) == ["The grade of membership inference does not follow from the measurements."]
    accuracy = next(m for m in document.measurements if m.name == "target.test_accuracy")
    check = PolicyCheck(
        metric=accuracy.name, comparator=">=", threshold=1.1, value=accuracy.value, passed=True, sample_size=1
    )
    policy = PolicyOutcome(met=True, bounds=1, violations=(), checks=(check,))
    assert len(find_wrong_verdicts(document.model_copy(update={"policy": policy}))) == 1
    honest = policy.model_copy(update={"met": False, "checks": (check.model_copy(update={"passed": False}),)})
    assert find_wrong_verdicts(document.model_copy(update={"policy": honest})) == []


def test_folders_of_the_machine_are_not_in_commands(assessed, tmp_path):
    lines = make_first_screen(assessed[0], tmp_path / "out").lines
    assert not any(str(tmp_path) in (line.step.command or "") for line in lines if line.step)


def test_families_that_were_not_tried_share_a_step_that_names_them(assessed):
    screen = make_first_screen(assessed[0])
    untried = [line for line in screen.lines if line.untried]
    assert untried and all(line.finding.grade == "not assessed" for line in untried)
    assert [line.step is None for line in untried] == [False, *[True] * (len(untried) - 1)]
    _, _, *words = shlex.split(untried[0].step.command)
    for line in untried:
        option = "--detectors" if line.finding.family == "backdoor" else "--attacks"
        assert LADDERS[line.finding.family][0] in words[words.index(option) + 1].split(",")
    named = screen.name_families(untried[0]).lower().split(", ")
    assert named == [line.finding.title.lower() for line in untried]
    assert screen.name_families(screen.lines[0]) == screen.lines[0].finding.title


def test_under_black_box_access_nothing_is_proposed_that_needs_weights(assessed):
    document = assessed[0]
    target = document.target.model_copy(update={"access": "black-box"})
    screen = make_first_screen(document.model_copy(update={"target": target}))
    steps = [line for line in screen.lines if line.untried and line.step is not None]
    assert [line.step.command is None for line in steps] == [False, True]
    unable = [line for line in screen.lines if line.untried and not BLACK_BOX_LADDERS.get(line.finding.family, (1,))]
    assert screen.name_families(steps[1]).lower().split(", ") == [line.finding.title.lower() for line in unable]
    named = steps[0].step.command.split("--attacks ")[1].split()[0].split(",")
    assert {"boundary-repulsion", "square"} <= set(named) and "--detectors" not in steps[0].step.command


def test_where_labels_are_all_that_is_revealed_nothing_else_is_proposed(assessed):
    document = assessed[0]
    target = document.target.model_copy(update={"access": "black-box", "head": "labels"})
    hidden = document.trials[0].model_copy(update={"name": "membership.loss", "status": "skipped"})
    document = document.model_copy(update={"target": target, "trials": (hidden,)})
    public = document.model_copy(update={"dataset": document.dataset.model_copy(update={"split": "public"})})
    assert "boundary-repulsion" in str(make_first_screen(document)) and "boundary" not in str(make_first_screen(public))
    first, *others = make_first_screen(document).lines
    assert "augmentation-agreement" in first.step.command
    step = next(line.step for line in others if line.step is not None)
    assert "ml-doctor-surrogate" in step.command and "ml-doctor-surrogate.recipe.loss=cross-entropy" in step.command
    assert "fgsm-transfer" in step.command and "square" not in step.command


@pytest.mark.parametrize(
    "ladders, access",
    [
        (LADDERS, "white-box"),
        (LADDERS | BLACK_BOX_LADDERS, "black-box"),
        (LADDERS | LABEL_LADDERS, "black-box"),
    ],
)
def test_the_methods_that_are_proposed_run_under_the_access(ladders, access):
    assert set(ladders) == set(FAMILIES)
    for family, names in ladders.items():
        for name in names:
            method = (DETECTORS.get(name) if family == "backdoor" else ATTACKS.get(f"{family}.{name}"))()
            served = [model for model in method.threat_models if Access(access).covers(model.access)]
            assert served
            only_shadow = all(model.auxiliary is Auxiliary.SHADOW for model in served)
            assert (name in NEED_SHADOW_DATA) == (only_shadow and method.needs_shadow_parts)


def test_defenses_are_tried_on_the_undefended_model(assessed):
    document = assessed[0]
    stated = {**document.settings, "defense": "top-k", "configure": ["top-k.k=3", "loss.level=0.9"]}
    command = write_command(document.model_copy(update={"settings": stated}), None, try_defenses=True)
    assert "--try-defenses" in command and "top-k" not in command and "loss.level=0.9" in command
    tried = document.model_copy(update={"settings": {**document.settings, "try_defenses": True}})
    assert "--try-defenses" not in write_command(tried, None, defense="label-only")


def test_nothing_stronger_is_proposed_where_what_was_requested_could_not_run(assessed):
    document = assessed[0]
    skipped = document.trials[0].model_copy(update={"name": "inversion.fredrikson", "status": "skipped"})
    document = document.model_copy(update={"trials": (*document.trials, skipped)})
    line = next(line for line in make_first_screen(document).lines if line.finding.family == "inversion")
    assert line.step.command is None and "not assessed" in line.step.what


def test_assumed_members_clear_no_model(null):
    """A model that was trained on other records gives the same outputs for those taken for members as for others."""
    document = null[0]
    # Wide bounds, under which this interval would clear a model whose members are known.
    table = DEFAULT_BOUNDS | {name: GradeBounds(moderate=0.99, high=1.0) for name in ("membership.auc",)}
    grades = {}
    for membership in ("assumed", "known"):
        dataset = document.dataset.model_copy(update={"membership": membership})
        changed = document.model_copy(update={"dataset": dataset})
        grades[membership] = next(f.grade for f in grade_families(changed, table) if f.family == "membership")
    assert grades == {"assumed": "undecided", "known": "none shown"}


def test_the_grade_of_evasion_is_that_of_the_strongest_attack_at_its_budget_and_says_masked(assessed):
    def measure(trial, epsilon, value, low, high, note=None):
        return Measurement(
            name=f"{trial}.success@epsilon={epsilon:g}", value=value, low=low, high=high, n=60,
            direction=Direction.LOWER, method="by hand", note=note,
        )  # fmt: skip

    template = assessed[0].trials[0]
    trials = tuple(
        template.model_copy(update={"name": name, "configuration": {"norm": "linf"}})
        for name in ("evasion.pgd", "evasion.square")
    )
    measured = [
        measure("evasion.pgd", 0.05, 0.12, 0.05, 0.23),
        measure("evasion.pgd", 0.1, 0.48, 0.35, 0.62),
        measure("evasion.square", 0.1, 0.30, 0.19, 0.43),
    ]
    document = assessed[0].model_copy(update={"trials": trials, "measurements": tuple(measured)})
    finding = next(f for f in grade_families(document) if f.family == "evasion")
    assert finding.measurement == measured[1]
    assert "48 of 100" in finding.meaning and "masked" not in finding.meaning
    measured[0] = measure("evasion.pgd", 0.05, 0.0, 0.0, 0.06, "WARNING: gradients look masked: all vanish.")
    document = document.model_copy(update={"measurements": (measured[0], measured[2])})
    finding = next(f for f in grade_families(document) if f.family == "evasion")
    assert finding.measurement == measured[2] and "gradients look masked" in finding.meaning


def test_an_attack_that_sees_outputs_does_not_clear_a_model_that_passes_no_gradients(assessed):
    reason = f"onnx:net.onnx {NO_GRADIENTS}. Run black-box attacks on it."
    blocked, ran = (
        assessed[0].trials[0].model_copy(update={"name": name, "configuration": {"norm": "linf"}, **fields})
        for name, fields in (("evasion.pgd", {"status": "failed", "reason": reason}), ("evasion.square", {}))
    )
    none = Measurement(
        name="evasion.square.success@epsilon=0.03", value=0.0, low=0.0, high=0.01, n=400,
        direction=Direction.LOWER, method="by hand",
    )  # fmt: skip
    document = assessed[0].model_copy(update={"trials": (ran,), "measurements": (none,)})
    finding = next(f for f in grade_families(document) if f.family == "evasion")
    assert finding.grade == "none shown"
    document = document.model_copy(update={"trials": (blocked, ran)})
    finding = next(f for f in grade_families(document) if f.family == "evasion")
    assert finding.grade == "undecided" and "gradients look masked" in finding.meaning
    sentences = write_sentences(document, [ran])
    assert any(WARNING in sentence and "PGD could not run" in sentence for sentence in sentences)


def test_where_gradient_attacks_fail_one_without_gradients_is_proposed(assessed):
    failed = assessed[0].trials[0].model_copy(update={"name": "evasion.pgd", "status": "failed"})
    document = assessed[0].model_copy(update={"trials": (failed,), "measurements": ()})
    finding = next(f for f in grade_families(document) if f.family == "evasion")
    step = propose_step(document, finding)
    assert "no gradients" in step.what and step.command and "square" in step.command


def test_more_records_are_not_proposed_where_a_model_has_too_few_classes_to_judge_inversion(assessed):
    trials = tuple(
        assessed[0].trials[0].model_copy(update={"name": f"inversion.{name}"}) for name in LADDERS["inversion"]
    )
    two_of_two = Measurement(
        name=f"{trials[0].name}.accuracy", value=1.0, low=0.158, high=1.0, n=2, direction=Direction.LOWER,
        method="by hand", note="Guessing gives 0.5.",
    )  # fmt: skip
    settings = {key: value for key, value in assessed[0].settings.items() if key != "limit"}
    changes = {"trials": trials, "measurements": (two_of_two,), "settings": settings}
    target = assessed[0].target.model_copy(update={"num_classes": 2})
    document = assessed[0].model_copy(update={**changes, "target": target})
    finding = next(f for f in grade_families(document) if f.family == "inversion")
    assert finding.grade == "undecided"
    assert "Look at the reconstructions" in propose_step(document, finding).what


@pytest.mark.parametrize(
    "scale, chance, factor, shown",
    [
        ("attribute.gain", 0.0, 1.0, (0.002, 0.052, 0.102)),
        ("membership.tpr-over-fpr", 1.0, 100.0, (0.011, 0.02, 0.06)),
        ("stealing.agreement", 0.12, 1.0, (0.13, 0.5, 0.9)),
    ],
)
def test_no_sentence_says_that_an_interval_includes_what_lies_outside(scale, chance, factor, shown, assessed):
    low, value, high = shown
    number = Measurement(name="a.auc", value=value, low=low, high=high, n=90, direction=Direction.LOWER, method="m")
    options = {"scale": scale, "measurement": number, "chance": chance, "factor": factor, "meaning": "", "nothing": ""}
    corrected = FamilyEvidence(low=chance - 0.01, high=high * factor, **options)
    text = _explain("undecided", corrected, assessed[0])
    assert CORRECTED in text and "includes" not in text
    wide = number.model_copy(update={"low": (chance - 0.01) / factor})
    text = _explain(
        "undecided", FamilyEvidence(low=chance - 0.01, high=high, **{**options, "measurement": wide}), assessed[0]
    )
    assert "includes" in text and CORRECTED not in text


@pytest.mark.parametrize(
    ("judge", "accuracy", "grade", "says"),
    [
        ((0.9, 0.8, 0.95), (0.1, 0.0, 0.4), "none shown", "not recognised"),
        ((0.67, 0.35, 0.9), (0.1, 0.0, 0.4), "undecided", "recognises 67 of 100 real images"),
        ((0.67, 0.35, 0.9), (0.9, 0.6, 1.0), "moderate", "90 of 100"),
        ((0.1, 0.0, 0.4), (None, None, None), "not assessed", "Cannot be judged"),
    ],
)
def test_a_judge_that_sees_little_clears_no_model(assessed, judge, accuracy, grade, says):
    template = assessed[0].trials[0]
    trial = template.model_copy(update={"name": "inversion.fredrikson", "id": "0" * 32})
    given = {"judge-accuracy": judge, "accuracy": accuracy}
    measurements = tuple(
        Measurement(name=f"{trial.name}.{name}", value=value, low=low, high=high, n=12, direction=Direction.LOWER,
                    method="by hand") for name, (value, low, high) in given.items()
    )  # fmt: skip
    document = assessed[0].model_copy(update={"trials": (trial,), "measurements": measurements})
    line = next(line for line in make_first_screen(document).lines if line.finding.family == "inversion")
    assert line.finding.grade == grade and says in line.finding.meaning
    if grade == "not assessed":
        assert "learns from non-members" in line.step.what, "the same attack again would tell as little"


def test_two_classes_are_compared_with_clean_models(assessed):
    trial = assessed[0].trials[0].model_copy(update={"name": "backdoor.neural-cleanse", "id": "0" * 32})
    verdict = Measurement(name=f"{trial.name}.verdict", value=1, low=1, high=1, n=1, direction=Direction.LOWER,
                          method="by hand", note="Undecided.")  # fmt: skip
    steps = {}
    for classes in (2, 10):
        target = assessed[0].target.model_copy(update={"num_classes": classes})
        changed = {"trials": (trial,), "measurements": (verdict,), "target": target}
        document = assessed[0].model_copy(update=changed)
        (line,) = (line for line in make_first_screen(document).lines if line.finding.family == "backdoor")
        steps[classes] = line.step
    assert "clean models" in steps[2].what and "neural-cleanse.reference=19" in steps[2].command
    assert "mm-bd" in steps[10].command and "reference" not in steps[10].command
