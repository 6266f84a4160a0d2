"""Exact match and F1 on cases worked out by hand from the official script of SQuAD 2.0."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast.finetuning.kinds.squad_metrics import exact_match, f1, no_answer_scores, normalized, squad_scores


@pytest.mark.parametrize(
    "text, expected",
    [
        ("The  Cat,\tsat!", "cat sat"),
        ("an A the answer", "answer"),
        ("theatre another", "theatre another"),
        ("U.S.", "us"),
        ("the-end", "theend"),  # punctuation goes first and leaves no space
        ("“The” end", "“ ” end"),  # only ASCII punctuation goes, and an article between other signs
        ("5 – 7", "5 – 7"),
        ("$1,000", "1000"),
        ("a\u00a0b", "b"),  # any white space
        ("ÉTÉ", "été"),
        ("the", ""),
    ],
)
def test_normalized(text, expected):
    assert normalized(text) == expected


@pytest.mark.parametrize(
    "prediction, answers, expected_match, expected_f1",
    [
        ("the Eiffel Tower", ["Eiffel tower!"], 1, 1),
        ("Eiffel", ["Eiffel Tower"], 0, 2 / 3),  # precision 1, recall 1/2
        ("big red red dog", ["red dog"], 0, 2 * 0.5 * 1 / 1.5),  # 2 of 4 words are right
        ("red red", ["red"], 0, 2 / 3),  # bags, not sets
        ("red red", ["red red dog"], 0, 0.8),
        ("cat", ["dog", "the cat", "cat sat"], 1, 1),  # the best of the answers
        ("cat", ["dog", "cat sat"], 0, 2 / 3),
        ("dog", ["cat"], 0, 0),
        ("", [], 1, 1),  # no answer is right where there is none
        ("cat", [], 0, 0),
        ("", ["cat"], 0, 0),
        ("the", [], 1, 1),  # nothing is left of it
        ("the", ["cat"], 0, 0),
        ("", ["the"], 1, 1),  # answers of which nothing is left do not count, and there is no other
        ("cat", ["the", "cat"], 1, 1),
        ("", ["the", "cat"], 0, 0),
    ],
)
def test_scores_of_one_answer(prediction, answers, expected_match, expected_f1):
    assert exact_match(prediction, answers) == expected_match
    assert f1(prediction, answers) == pytest.approx(expected_f1)


def test_means_are_over_questions():
    scores = squad_scores([["cat"], ["red dog"], []], ["the cat", "dog", "fish"])
    assert list(scores) == ["f1", "exact_match"]
    assert scores == pytest.approx({"f1": (1 + 2 / 3 + 0) / 3, "exact_match": 1 / 3})


def test_scores_with_and_without_answers():
    scores = no_answer_scores(
        [["cat"], ["red dog"], [], []], ["cat", "", "fish", ""], ["cat", "dog", "fish", "bird"], [-3.0, 1.0, -2.0, 2.0]
    )
    # By rising odds: cat +1, fish -1, dog +2/3, bird -1, from the 2 that saying nothing gets.
    assert scores == pytest.approx(
        {
            "HasAns_exact": 0.5,
            "HasAns_f1": 0.5,
            "NoAns_exact": 0.5,
            "NoAns_f1": 0.5,
            "best_exact": 3 / 4,
            "best_exact_thresh": -3.0,
            "best_f1": 3 / 4,
            "best_f1_thresh": -3.0,
        }
    )


def test_groups_without_questions_are_left_out():
    scores = no_answer_scores([["cat"]], [""], ["cat"], [5.0])
    assert scores == {
        "HasAns_exact": 0,
        "HasAns_f1": 0,
        "best_exact": 1,
        "best_exact_thresh": 5,
        "best_f1": 1,
        "best_f1_thresh": 5,
    }
    assert no_answer_scores([[]], ["cat"], ["cat"], [5.0])["best_f1_thresh"] == 0.0


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([(), ("cat",), ("cat sat",)]), st.sampled_from(["cat", "sat", "dog"])), min_size=1
    ),
    st.randoms(use_true_random=False),
)
def test_best_threshold_is_the_best_there_is(questions, random):
    answers, texts = [list(known) for known, _ in questions], [text for _, text in questions]
    null_odds = random.sample(range(100), len(questions)) if len(questions) <= 100 else list(range(len(questions)))

    def score(threshold):
        return squad_scores(
            answers, [text if odds <= threshold else "" for text, odds in zip(texts, null_odds, strict=True)]
        )["f1"]

    best = max(score(threshold) for threshold in [-1, *null_odds])
    scores = no_answer_scores(answers, texts, texts, null_odds)
    assert scores["best_f1"] == pytest.approx(best)
    assert best in (pytest.approx(score(-1)), pytest.approx(score(scores["best_f1_thresh"])))
