"""The verdict of a report: what was assessed, which checks failed, and the sentences of each family in turn."""

from __future__ import annotations

from securitynet.records import FAMILIES, Measurement
from securitynet.reports import families, words
from securitynet.results.document import ResultDocument, TrialSummary


def select_measurements(document: ResultDocument, trial: TrialSummary) -> list[Measurement]:
    """Select the measurements of a finished trial: those whose names begin with the trial's name."""
    if trial.status != "ok":
        return []
    return [m for m in document.measurements if m.name.startswith(f"{trial.name}.")]


def describe_assessment(document: ResultDocument) -> str:
    """Describe in one sentence what was assessed."""
    target, dataset = document.target, document.dataset
    finished = sum(trial.status == "ok" for trial in document.trials)
    membership = "known" if dataset.membership == "known" else "assumed from the dataset's own split"
    return (
        f"A classifier of {words.count_noun(target.num_classes, 'class', 'classes')}, assessed with "
        f"{words.count_noun(finished, 'trial')} on {dataset.members:,} members of its training set and "
        f"{dataset.non_members:,} non-members; membership is {membership}."
    )


def write_verdict(document: ResultDocument) -> list[str]:
    """The verdict: a sentence or two for each family with a finished trial."""
    if not any(trial.status == "ok" for trial in document.trials):
        return [
            "No attack finished with a result, so nothing can be said about how vulnerable this model is. "
            "That is not evidence that it is safe."
        ]
    return [
        *write_doubts(document),
        *(
            sentence
            for family in FAMILIES
            for sentence in families.write_sentences(family, document, select_finished(document, family))
        ),
    ]


def write_doubts(document: ResultDocument) -> list[str]:
    """A warning for each check of the target that failed."""
    failed = [check for check in document.target.checks if not check.agrees]
    return [
        f"The numbers below may not describe this model: {check.note or f'its {check.what} is {check.found}.'}"
        for check in failed
    ]


def select_finished(document: ResultDocument, family: str) -> list[TrialSummary]:
    """Select the finished trials of a family."""
    finished = [trial for trial in document.trials if trial.status == "ok"]
    return [trial for trial in finished if trial.name.startswith(f"{family}.")]


def title_attack(name: str) -> str:
    """An attack's name as words: ``membership.modified-entropy`` becomes ``Modified entropy``.

    The part after ``@`` names the adversary's data, for attacks that are run with several kinds of data.
    """
    attack, _, auxiliary = name.rpartition(".")[2].partition("@")
    words_of_title = [_NAMES.get(word, word) for word in attack.split("-")]
    title = " ".join([words_of_title[0][:1].upper() + words_of_title[0][1:], *words_of_title[1:]])
    return f"{title} ({auxiliary} data)" if auxiliary else title


_NAMES = {
    "ml": "ML",
    "doctor": "Doctor",
    "mlp": "MLP",
    "lira": "LiRA",
    "rmia": "RMIA",
    "top3": "top-3",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "apgd": "APGD",
    "t": "T",
    "l1": "L1",
    "rs": "RS",
}
"""Words in attack names with a spelling of their own."""
