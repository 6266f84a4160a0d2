"""Labels that only a slip can have made different are told; labels that are different are not."""

import pytest

from electra_fast.finetuning.data.slips import doubts_about, slips_among


@pytest.mark.parametrize(
    "group",
    [
        ("good", "Good", "GOOD"),
        ("good", " good", "good\u00a0", "good\u200b"),
        ("1", "1.0", "01", "\uff11"),
        ("yes", "yes.", "yes!"),
        ("good", "'good'", '"good"', "\u201cgood\u201d"),
        ("good", "\uff47\uff4f\uff4f\uff44"),
        ("not_entailment", "not entailment", "Not-Entailment"),
        ("B-PER", "B_PER", "B-Per"),
        ("caf\u00e9", "cafe\u0301"),
    ],
)
def test_slips(group):
    assert slips_among({*group, "other"}) == [tuple(sorted(group))]
    (doubt,) = doubts_about({*group, "other"}, "classification")
    assert "by a slip alone" in doubt and all(repr(label) in doubt for label in group)


@pytest.mark.parametrize(
    "labels",
    [
        ("0", "1", "-1", "10", "1.5"),
        ("C", "C++", "C#"),
        (".", ",", ":", "``", "''", "(", ")", "$", "PRP", "PRP$", "-LRB-"),
        ("O", "B-PER", "I-PER", "B-ORG"),
        ("positive", "negative", "neutral"),
        ("bad", "b a d"),
        ("cafe", "caf\u00e9"),
        ("", " "),
    ],
)
def test_labels_that_are_different(labels):
    assert slips_among(labels) == []


def test_other_doubts():
    assert doubts_about(["a", "b"], "classification") == []
    assert "'None', 'nan' may say that the label is missing" in doubts_about(["a", "nan", "None"], "tagging")[0]
    assert "may be several labels" in doubts_about(["['a', 'b']", "['a']"], "classification")[0]
    assert "a vector has a zero or a one for each label" in doubts_about(["0", "1"], "multilabel")[0]
    assert doubts_about(["0", "1"], "classification") == []
