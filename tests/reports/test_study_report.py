"""The report of a study: from files that a study would leave, with hostile names, failures and nothing at all."""

import re

import pytest

from securitynet.errors import ConfigurationError, SecurityNetError
from securitynet.records import (
    Access,
    Auxiliary,
    DatasetIdentity,
    Direction,
    Measurement,
    SplitIdentity,
    TargetIdentity,
    ThreatModel,
    TrialResult,
    TrialSpec,
)  # fmt: skip
from securitynet.reports.pdf import print_pdf
from securitynet.reports.study import render_study_report, write_study_report
from securitynet.results.store import TrialStore
from securitynet.results.study_targets import Capabilities, StudyTargetRecord, StudyTargetStore

HOSTILE = "<script>alert('model')</script>"


def measurement(name, value):
    return Measurement(
        name=name, value=value, low=value - 0.02, high=value + 0.02, n=100, direction=Direction.LOWER, method="by hand"
    )


def fill(folder, count=8):
    """Targets whose membership risk grows with their overfitting level; one trial of the last failed."""
    subjects, trials = StudyTargetStore(folder), TrialStore(folder)
    for number in range(count):
        means = Capabilities(
            target=TargetIdentity(
                reference="arch:simple-cnn", checksum=f"{number:04}", preprocessing={}, head="logits"
            ),
            dataset=DatasetIdentity(reference="digits", fingerprint="f"),
            split=SplitIdentity(name="public", fingerprint="s"),
            access=Access.WHITE_BOX,
            shadow_data=False,
        )
        gap = 0.05 * number
        subjects.save(
            StudyTargetRecord(
                key=f"k{number}", label=f"{HOSTILE}{number}", status="ok", means=means, membership="assumed",
                measurements=(measurement("target.test_accuracy", 0.9 - gap), measurement("target.overfitting", gap)),
                finished="2026-01-01T00:00:00+00:00",
            )
        )  # fmt: skip
        spec = TrialSpec(
            target=means.target, dataset=means.dataset, split=means.split, kind="attack",
            method="membership.modified-entropy",
            threat_model=ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL),
        )  # fmt: skip
        failed = number == count - 1
        trials.save(
            TrialResult(
                spec=spec,
                status="failed" if failed else "ok",
                reason="it <broke>" if failed else None,
                traceback="Traceback: <here>" if failed else None,
                measurements=() if failed else (measurement("membership.modified-entropy.auc", 0.5 + gap / 2),),
                finished="2026-01-01T00:00:00+00:00",
            )
        )


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    fill(folder)
    return render_study_report(folder)


def test_claims_are_judged_by_the_data(page):
    supported = page.partition("Supported (")[2].partition("</ul>")[0]
    assert "Modified entropy separates members better where the overfitting level is higher." in supported
    assert "n = 7" in supported


def test_figures_are_drawn_or_say_what_they_lack(page):
    assert 'id="securitynet-13"' in page and "<svg" in page
    assert "Without data here: MLP on posteriors: AUC; MLP on the top 3 posteriors: AUC." in page
    assert "SecurityNet, Figure 2" in page.partition("Not drawn, and what is missing")[2]


def test_failures_limits_and_all_measurements_are_there(page):
    assert "it &lt;broke&gt;" in page and "Traceback: &lt;here&gt;" in page
    assert "For 8 targets membership is assumed" in page and "1 trials failed" in page
    assert page.count("membership.modified-entropy") >= 1 and "0.6500" in page


def test_names_are_escaped_and_nothing_is_loaded(page):
    assert HOSTILE not in page and "&lt;script&gt;alert" in page
    outside = re.findall(r'(?:src|href)="(?!#|data:)([^"]+)"', page)
    assert outside == []


def test_an_empty_folder_is_no_study(tmp_path):
    with pytest.raises(ConfigurationError, match="no results"):
        write_study_report(tmp_path)


def test_command_writes_a_pdf(tmp_path, run_cli):
    try:
        print_pdf("<p>A page.</p>")  # importing WeasyPrint here would change how Pillow reads images in other tests
    except SecurityNetError as error:
        pytest.skip(error.message)
    fill(tmp_path, count=3)
    assert run_cli("report", tmp_path, "--out", tmp_path / "r.pdf").returncode == 0
    assert (tmp_path / "r.pdf").read_bytes().startswith(b"%PDF")
