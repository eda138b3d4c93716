"""The report: complete, self-contained, well-formed, and safe against what it is told."""

from __future__ import annotations

import base64
import io
import re
import time
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from securitynet.reports.build import render_report, write_report
from securitynet.reports.roc import choose_strongest
from securitynet.results.policy import PolicyOutcome, Violation

VOID = {"meta", "img", "br", "link", "hr", "input", "base"}
LOADING = {"src", "href", "srcset", "data", "action", "poster", "background", "xlink:href", "style"}


class Page(HTMLParser):
    """Checks that tags are balanced, and keeps what may load something, ids and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loads: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [(tag, name, value or "") for name, value in attrs if name in LOADING or name.startswith("on")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def page_of(*pairs, title=None):
    return render_report([document for document, _ in pairs], [found for _, found in pairs], title)


@pytest.fixture(scope="module")
def html(assessed):
    return page_of(assessed)


@pytest.mark.parametrize("which", ["assessed", "null", "broken", "skipped", "recorded", "two"])
def test_is_balanced_and_loads_nothing(which, request):
    pairs = ["assessed", "null"] if which == "two" else [which]
    text = page_of(*(request.getfixturevalue(name) for name in pairs))
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    for tag, attribute, value in page.loads:
        assert value.startswith(("data:image/png;base64,", "#")), f"<{tag} {attribute}={value[:80]!r}>"
    css = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert "url(" not in css and "@import" not in css
    assert len(set(page.ids)) == len(page.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(page.ids)
    assert {value[1:] for _, _, value in page.loads if value.startswith("#")} <= set(page.ids)
    assert "Content-Security-Policy" in text
    assert len(text) < 1_500_000


def test_hostile_text_stays_text(html, broken):
    assert "<script>alert('class')" not in html
    assert "<script>alert('class')</script>" in Page(html).text
    failed = page_of(broken, title="<img src=x onerror=alert(1)>")
    page = Page(failed)
    assert "<script>alert('error')</script>" in page.text
    assert "RuntimeError" in page.text
    assert "<img src=x onerror=alert(1)>" in page.text
    assert not [image for image in page.images if image["src"] == "x"]


def test_holds_every_measurement_with_its_interval(html, assessed):
    document, _ = assessed
    text = Page(html).text
    for measurement in document.measurements:
        if measurement.value is None:
            assert measurement.note in text and measurement.name not in text  # one sentence for all such rows
        else:
            assert measurement.name in text and measurement.method in text
    assert "not resolvable: a FPR of 0.001 takes" in text and "non-members, there are 120" in text


def test_holds_what_is_needed_to_do_it_again(html, assessed):
    document, _ = assessed
    text = Page(html).text
    assert "securitynet assess arch:simple-cnn" in text
    assert "--weights 'models/over fitted/model.st'" in text
    for value in (document.target.checksum, document.dataset.fingerprint, document.dataset.split_fingerprint):
        assert value in text
    for trial in document.trials:
        assert trial.id in text
        assert trial.threat_model.in_words() in text
    for missing in document.not_assessed:
        assert missing.what in text and missing.why in text
    assert "Model stealing" in text
    assert f"{document.queries['unique']:,}" in text


def test_pictures_are_the_images_of_the_most_exposed_members(html, assessed):
    _, found = assessed
    scores = next(trial.output for trial in found.trials if trial.name == "membership.modified-entropy")
    members = scores.indices[scores.is_member]
    highest = members[np.argsort(-scores.scores[scores.is_member], kind="stable")][:12]
    images = Page(html).images
    assert len(images) == 12
    for record, image in zip(highest, images, strict=True):
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))))
        assert np.array_equal(shown, found.assessed_target.dataset.images[int(record)][0].numpy())
        assert found.assessed_target.dataset.get_record_name(int(record)) in image["alt"]


def test_a_recording_without_images_shows_rows(recorded):
    page = Page(page_of(recorded))
    assert not page.images
    assert "only outputs were recorded" in page.text
    assert "Read from the recording" in page.text
    assert "the recording" in page.text


def test_failed_and_skipped_attacks_say_why(broken, skipped):
    page = Page(page_of(broken))
    assert "Modified entropy failed." in page.text
    assert "it failed: RuntimeError" in page.text
    assert "Correctness does not rank the members" in page.text  # the only one left can't name anybody
    assert not page.images
    page = Page(page_of(skipped))
    assert "Modified entropy was skipped." in page.text
    assert "which --auxiliary excludes" in page.text


def test_without_any_result_nothing_is_claimed(broken):
    document, found = broken
    document = document.model_copy(
        update={
            "trials": tuple(t for t in document.trials if t.status == "failed"),
            "measurements": tuple(m for m in document.measurements if m.name.startswith("target.")),
        }
    )
    left = type(found)(
        found.config,
        found.assessed_target,
        found.measurements,
        found.signals,
        [t for t in found.trials if t.output is None],
    )
    page = Page(page_of((document, left)))
    assert "nothing can be said" in page.text
    assert "not evidence that it is safe" in page.text
    assert "ROC curves" not in page.text


def test_policy_banner(assessed):
    document, found = assessed
    broken = Violation(name="membership.modified-entropy.auc", bound="at most 0.5", value=0.9, why="0.9 is above 0.5")
    for policy, said in (
        (PolicyOutcome(met=True, bounds=3, violations=()), "All 3 bounds hold"),
        (PolicyOutcome(met=False, bounds=3, violations=(broken,)), "1 of 3 bounds do not hold"),
    ):
        page = Page(page_of((document.model_copy(update={"policy": policy}), found)))
        assert said in page.text
        assert ("The policy is met." in page.text) == policy.met
    assert "The policy" not in Page(page_of(assessed)).text


def test_two_targets_are_compared_first_and_told_apart(assessed, null):
    page = Page(page_of(assessed, null, title="Two models"))
    text = page.text
    assert text.index("Side by side") < text.index("The target and its data")
    assert "over fitted" in text and "null" in text  # the same architecture: the paths of their weights differ here
    assert "Modified entropy distinguishes members from non-members better for “over fitted” than for “null”" in text
    assert "the model is the same, so it comes from the records" in text
    assert "over fitted: Modified entropy" in text and "null: Modified entropy" in text
    assert text.count("How to read this") == 1
    assert "Membership is known" in text and "Membership is assumed" in text


def test_more_than_two_targets(assessed, null, skipped):
    page = Page(page_of(assessed, null, skipped))
    assert "3 targets compared" in page.text


@pytest.mark.slow
def test_many_targets_draw_their_strongest_attack_only(assessed, null, skipped, broken):
    names, left_out = choose_strongest([document for document, _ in (assessed, null, skipped, broken)])
    assert (names, left_out) == (["membership.modified-entropy"], 1)
    assert "1 other is not drawn" in Page(page_of(assessed, null, skipped, broken)).text
    assert "not drawn" not in Page(page_of(assessed, null)).text


def test_written_whole(assessed, tmp_path):
    document, found = assessed
    path = write_report([document], [found], tmp_path / "deep" / "report.html")
    assert path == tmp_path / "deep" / "report.html"
    assert path.read_text(encoding="utf-8") == render_report([document], [found])
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    with pytest.raises(ValueError, match="2 documents for 1 assessments"):
        write_report([document, document], [found], path)


def test_a_large_dataset_does_not_make_a_large_page(assessed):
    """60,000 records: the page draws a few hundred points of each curve."""
    document, found = assessed
    generator = np.random.default_rng(0)
    trials = []
    for trial in found.trials:
        output = trial.output
        is_member = np.arange(60_000) < 50_000
        # Records beyond the dataset score low, so that those shown are real ones.
        scores = np.concatenate([output.scores, output.scores.min() - generator.random(60_000 - len(output.scores))])
        scores[: len(output.scores)] += 1
        indices = np.concatenate([output.indices, np.arange(60_000 - len(output.indices)) + 10**6])
        members = is_member.copy()
        members[: len(output.scores)] = output.is_member
        large = type(output)(indices, scores, members, output.threshold, np.ones(60_000, dtype=bool))
        trials.append(type(trial)(trial.name, trial.result, large))
    large = type(found)(found.config, found.assessed_target, found.measurements, found.signals, trials)
    started = time.perf_counter()
    page = render_report([document], [large])
    assert time.perf_counter() - started < 20  # about 1 s on a quiet machine
    assert len(page) < 300_000


def test_the_breakdown_is_that_of_the_strongest_attack(assessed):
    from securitynet.reports import verdict
    from securitynet.reports.breakdown import break_down
    from securitynet.reports.families import membership

    document, assessment = assessed
    found = break_down(document, assessment)
    assert found.attack == verdict.title_attack(membership.rank_attacks(document)[0].trial.name)
    trial = next(t for t in assessment.trials if t.name == membership.rank_attacks(document)[0].trial.name)
    slices = {s.name: s for s in trial.output.breakdown(class_names=document.dataset.classes)}
    for _, parts in found.groups:
        for part in parts:
            assert (part.members, part.non_members) == (slices[part.name].members, slices[part.name].non_members)
    by_answer = found.groups[0][1]
    assert sum(p.members + p.non_members for p in by_answer) == int(trial.output.held_out.sum())
