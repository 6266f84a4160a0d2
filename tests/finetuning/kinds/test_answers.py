"""The best spans of windows, and of questions from their windows."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast.finetuning.data.examples import QuestionExample
from electra_fast.finetuning.kinds.answers import best_spans, best_starts, context_tokens, predict_answers, text_of


def test_context_is_the_second_segment_without_its_end():
    types = torch.tensor([[0, 0, 0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 0, 0, 0, 0]])
    is_real = torch.tensor([[1, 1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0]])
    assert context_tokens(types, is_real).int().tolist() == [
        [0, 0, 0, 1, 1, 0, 0, 0],
        [0, 0, 1, 1, 1, 0, 0, 0],  # types at padding mean nothing
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]


@settings(deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(1, 14), st.integers(1, 30), st.booleans(), st.integers(0, 2**32)
)
def test_best_spans_are_those_of_a_search(length, beam_size, max_length, n_best, is_joint, seed):
    random = torch.Generator().manual_seed(seed)
    start_scores = torch.randn(2, length, generator=random)
    is_context, may_start = (torch.rand(2, length, generator=random) < 0.7 for _ in range(2))
    may_start &= is_context
    # [R, start, end]; the same for all starts where they are not joint.
    end_table = torch.randn(2, length if is_joint else 1, length, generator=random)

    starts, values = best_starts(start_scores, may_start, beam_size)
    end_scores = end_table.gather(1, starts[:, :, None].expand(-1, -1, length)) if is_joint else end_table
    found = best_spans(starts, values, end_scores, is_context, max_length, n_best)

    for row in range(2):
        allowed = [i for i in range(length) if may_start[row, i]]
        tried = sorted(allowed, key=lambda i: -start_scores[row, i])[:beam_size]
        expected = [
            (float(start_scores[row, i] + end_table[row, i if is_joint else 0, j]), i, j)
            for i, j in itertools.product(tried, range(length))
            if i <= j < i + max_length and is_context[row, j]
        ]
        expected = sorted(expected, reverse=True)[:n_best]
        np.testing.assert_array_equal(found[row]["starts"], [i for _, i, _ in expected])
        np.testing.assert_array_equal(found[row]["ends"], [j for _, _, j in expected])
        np.testing.assert_allclose(found[row]["scores"], [score for score, _, _ in expected], rtol=1e-6)


def example(context, id="q"):
    return QuestionExample(id=id, line=1, question="?", context=context)


def window(*spans, **null):
    """spans: (start, end, score), best first."""
    columns = list(zip(*spans, strict=True)) or [(), (), ()]
    return {"starts": np.array(columns[0], int), "ends": np.array(columns[1], int), "scores": np.array(columns[2])} | {
        name: np.float32(value) for name, value in null.items()
    }


# "red dog, red cat", a token a word, in two windows of three tokens behind [CLS].
CONTEXT = "red dog, red cat"
SPANS = [np.array([[0, 0], [0, 3], [4, 7], [9, 12]]), np.array([[0, 0], [4, 7], [9, 12], [13, 16]])]


def test_windows_are_joined_and_equal_texts_counted_once():
    scores = [
        window((1, 1, 2.0), (2, 2, 1.0), (3, 3, -9.0), null_score=0.5),
        window((2, 3, 3.0), (2, 2, 2.5), null_score=-1.0),
    ]
    (prediction,) = predict_answers([example(CONTEXT)], np.array([0, 0]), SPANS, scores, 20, None)
    weights = np.exp([3.0, 2.5, 1.0])
    assert prediction["answer"] == "red cat" and prediction["id"] == "q"
    assert [(best["text"], best["start"], best["score"]) for best in prediction["n_best"]] == [
        ("red cat", 9, 3.0),
        ("red", 9, 2.5),
        ("dog", 4, 1.0),
    ]
    assert [best["probability"] for best in prediction["n_best"]] == pytest.approx(list(weights / weights.sum()))
    assert prediction["null_odds"] == pytest.approx(-1.0 - 3.0)
    (fewer,) = predict_answers([example(CONTEXT)], np.array([0, 0]), SPANS, scores, 2, None)
    assert [best["text"] for best in fewer["n_best"]] == ["red cat", "red"]
    assert sum(best["probability"] for best in fewer["n_best"]) == pytest.approx(1)


@pytest.mark.parametrize(
    "null, odds", [({"null_score": 4.0}, [2.0, 5.0]), ({"no_answer_logit": 4.0}, [4.0, 4.0])], ids=["score", "logit"]
)
def test_no_answer_above_the_threshold(null, odds):
    examples = [example(CONTEXT, "a"), example(CONTEXT, "b")]
    scores = [window((1, 1, 2.0), **null), window((1, 1, -1.0), **null)]
    for threshold in (1.9, 2.0, 4.0, 4.9, 5.0, None):
        predictions = predict_answers(examples, np.array([0, 1]), [SPANS[0]] * 2, scores, 20, threshold)
        assert [prediction["null_odds"] for prediction in predictions] == pytest.approx(odds)
        expected = ["red" if threshold is None or x <= threshold else "" for x in odds]
        assert [prediction["answer"] for prediction in predictions] == expected
        assert [len(prediction["n_best"]) for prediction in predictions] == [1, 1]


def test_least_logit_of_the_windows_counts():
    scores = [window((1, 1, 2.0), no_answer_logit=3.0), window((1, 1, 2.0), no_answer_logit=-2.0)]
    (prediction,) = predict_answers([example(CONTEXT)], np.array([0, 0]), SPANS, scores, 20, 0.0)
    assert prediction["null_odds"] == -2.0 and prediction["answer"] == "red"


def test_no_span_is_no_answer():
    (prediction,) = predict_answers(
        [example("")], np.array([0]), [np.zeros((3, 2), int)], [window(null_score=1.5)], 20, None
    )
    assert prediction == {"id": "q", "answer": "", "n_best": [], "null_odds": 1.5}


def test_text_keeps_the_accents_of_its_last_letter():
    context = "le cafe\u0301 noir"
    assert text_of(context, 3, 7) == "cafe\u0301"
    assert text_of(context, 3, 6) == "caf"
    assert text_of("cafe\u0301", 0, 4) == "cafe\u0301"
