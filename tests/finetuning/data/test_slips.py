"""Labels that only a slip can have made different are told; labels that are different are not."""

import pytest

from electra_fast.finetuning.data.slips import doubts_about, joint_among, slips_among


@pytest.mark.parametrize(
    "group",
    [
        ("good", "Good", "GOOD"),
        ("good", " good", "good\u00a0", "good\u200b"),
        ("1", "1.0", "01", "\uff11"),
        ("yes", "yes.", "yes!"),
        ("1", "1.0", "True", "true"),
        ("0", "FALSE"),
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
        ("true", "false", "yes", "no"),
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
    for kind in ("classification", "multilabel", "tagging"):
        labels = ["-", "?", "N/A", "NA", "None", "none", "null", "nan", "a"]
        (doubt,) = [doubt for doubt in doubts_about(labels, kind) if "missing" in doubt]
        assert all(repr(label) in doubt for label in labels[:-1]) and "'a'" not in doubt
        assert doubts_about(["none", "na", "a"], kind) == []
    assert "'-', '?' may say" in doubts_about(["-", "?", "a"], "classification")[0]
    assert doubts_about(["-", "?", "a"], "tagging") == []
    assert "may be several labels" in doubts_about(["['a', 'b']", "['a']"], "classification")[0]
    assert "a vector has a zero or a one for each label" in doubts_about(["0", "1"], "multilabel")[0]
    assert doubts_about(["0", "1"], "classification") == []


@pytest.mark.parametrize(
    "labels, joint",
    [
        (("a", "a b", "b c", "c"), ["a b", "b c"]),
        (("a", "b", "a b"), ["a b"]),
        (("a", "a/b"), ["a/b"]),
        (("#a #b", "#a"), ["#a #b"]),
        (("a+b", "b"), ["a+b"]),
        (("a", "b", "a & b"), ["a & b"]),
        (("a", "b", "a and b", "b AND a"), ["a and b", "b AND a"]),
        (("a", "a\uff0fb"), ["a\uff0fb"]),
        (("a", "b", "a\u3001b"), ["a\u3001b"]),
        (("a", "b", "a:b"), ["a:b"]),
        (("a\\b", "b"), ["a\\b"]),
        (("a\tb", "b"), ["a\tb"]),
        (("a", "b", "a, b"), ["a, b"]),
        (("New York", "New", "York"), ["New York"]),
        (("New York", "New"), []),
        (("New York", "York", "New Jersey"), []),
        (("science fiction", "fiction", "food and drink", "food", "R&D", "R"), []),
        (("C", "C++", "C#", "F#"), []),
        (("Smith, John", "Smith", "a-b", "a"), []),
    ],
)
def test_labels_made_of_others(labels, joint):
    assert joint_among(labels) == joint
    doubts = [doubt for doubt in doubts_about(labels, "multilabel") if "several" in doubt]
    assert len(doubts) == bool(joint)
    assert all(", ".join(map(repr, joint)) in doubt and "at | ; and line feeds" in doubt for doubt in doubts)
