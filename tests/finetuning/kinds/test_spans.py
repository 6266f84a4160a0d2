"""Spans of tags, beside seqeval and by hand."""

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast.finetuning.kinds.spans import are_span_tags, span_metrics, spans_of


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("", []),
        ("O O", []),
        ("B-X I-X O B-Y", [("X", 0, 2), ("Y", 3, 4)]),
        ("I-X I-X O I-Y", [("X", 0, 2), ("Y", 3, 4)]),  # IOB1
        ("I-X B-X I-X", [("X", 0, 1), ("X", 1, 3)]),  # IOB1: B parts spans of one type
        ("B-X I-Y I-Y", [("X", 0, 1), ("Y", 1, 3)]),  # another type begins a span
        ("O I-X", [("X", 1, 2)]),
        ("S-X S-X O", [("X", 0, 1), ("X", 1, 2)]),
        ("B-X I-X E-X I-X", [("X", 0, 3), ("X", 3, 4)]),  # E ends: what follows begins
        ("E-X E-X", [("X", 0, 1), ("X", 1, 2)]),
        ("B-X E-Y", [("X", 0, 1), ("Y", 1, 2)]),
        ("B-X I-X L-X U-Y O U-Y", [("X", 0, 3), ("Y", 3, 4), ("Y", 5, 6)]),  # BILOU
        ("B I O B", [("", 0, 2), ("", 3, 4)]),  # no types
        ("B-NP-1 I-NP-1 I-NP-2", [("NP-1", 0, 2), ("NP-2", 2, 3)]),
    ],
)
def test_spans_of_hand_made_tags(tags, spans):
    assert spans_of(tags.split()) == spans


def test_metrics_by_hand():
    true = ["B-X I-X O B-Y".split(), "B-X O".split(), "O O B-Z".split()]
    predicted = ["B-X I-X O B-Z".split(), "B-X I-X".split(), "O O B-Z".split()]
    # Right: the first sentence's X and the third's Z. Four are there and four are told.
    assert span_metrics(true, predicted) == {"f1": 0.5, "precision": 0.5, "recall": 0.5}
    assert span_metrics(true[:1], [["O"] * 4]) == {"f1": 0.0, "precision": 0.0, "recall": 0.0}
    assert span_metrics([["O"]], [["B-X"]]) == {"f1": 0.0, "precision": 0.0, "recall": 0.0}


def test_the_same_span_in_two_sentences_is_two():
    assert span_metrics([["B-X"], ["B-X"]], [["B-X"], ["O"]]) == {
        "f1": pytest.approx(2 / 3),
        "precision": 1.0,
        "recall": 0.5,
    }


def test_a_metric_needs_a_prediction_for_each_sentence():
    with pytest.raises(ValueError):
        span_metrics([["B-X"], ["O"]], [["B-X"]])


def test_which_tags_mark_spans():
    assert are_span_tags(["O", "B-PER", "I-PER"])
    assert are_span_tags(["I-NP", "O", "B-NP"])
    assert are_span_tags(["B", "I", "O"])
    assert are_span_tags(["S-A", "E-A", "B-A", "I-A", "U-A", "L-A"])
    assert not are_span_tags(["NN", "VB", "IN"])
    assert not are_span_tags(["O", "NOUN"])
    assert not are_span_tags(["O"])


TAGS = [f"{place}-{type_}" for place in "BIES" for type_ in ("A", "B-2")]
SENTENCES = st.lists(st.integers(1, 8), min_size=1, max_size=5).flatmap(
    lambda lengths: st.tuples(
        *[st.tuples(*[st.lists(st.sampled_from(["O", *TAGS, "B", "I"]), min_size=n, max_size=n)] * 2) for n in lengths]
    )
)


@settings(max_examples=150, deadline=None)
@given(SENTENCES)
def test_spans_and_metrics_are_seqevals(sentences):
    seqeval = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed")
    from seqeval.metrics.sequence_labeling import get_entities

    for sentence in sentences:
        for tags in sentence:
            theirs = [("" if type_ == "_" else type_, first, last + 1) for type_, first, last in get_entities(tags)]
            assert spans_of(tags) == theirs
    true, predicted = (list(tags) for tags in zip(*sentences, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of shares of nothing
        theirs = {
            "f1": seqeval.f1_score(true, predicted),
            "precision": seqeval.precision_score(true, predicted),
            "recall": seqeval.recall_score(true, predicted),
        }
    assert span_metrics(true, predicted) == pytest.approx(theirs)


@given(st.lists(st.sampled_from(["O", *TAGS, "U-A", "L-A"]), max_size=12))
def test_spans_cover_what_is_not_outside_once(tags):
    covered = [word for _, first, end in spans_of(tags) for word in range(first, end)]
    assert covered == [word for word, tag in enumerate(tags) if tag != "O"]
