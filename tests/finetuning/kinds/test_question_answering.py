"""Windows, losses and answers of question answering, from text to text."""

import math
from types import SimpleNamespace

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from questions import ANSWERABLE, GARDEN, MIXED, SMALL, TOKENIZER, encode, network, question

from electra_fast import ElectraConfig
from electra_fast.finetuning.data.examples import QuestionExample
from electra_fast.finetuning.kinds.question_answering import QuestionAnswering, windows

MAX_LENGTH = 80
KIND = QuestionAnswering(has_unanswerable=True, stride=12, max_question_length=24)
HEADS = ["transformers", "paper"]


def rows_of(features):
    return np.split(features.input_ids, features.row_starts[1:-1])


# Windows


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(1, 25), st.integers(1, 30))
@hypothesis.example(330, 250, 240)  # lengths that differ by a hundred outweigh a token of context
def test_windows_and_their_best_tokens_are_googles(n_tokens, size, stride):
    """finetune/qa/qa_tasks.py, one window and one token at a time."""
    expected, begin = [], 0
    while begin < n_tokens:
        length = min(n_tokens - begin, size)
        expected.append((begin, begin + length))
        if begin + length == n_tokens:
            break
        begin += min(length, stride)
    begins, ends, is_best = windows(n_tokens, size, stride)
    assert list(zip(begins.tolist(), ends.tolist(), strict=True)) == (expected or [(0, 0)])
    for token in range(n_tokens):
        best, best_score = None, None
        for number, (begin, end) in enumerate(expected):
            if begin <= token < end:
                score = min(token - begin, end - 1 - token) + 0.01 * (end - begin)
                if best_score is None or score > best_score:
                    best, best_score = number, score
        assert is_best[:, token].nonzero()[0].tolist() == [best]


def test_rows_are_those_of_the_tokenizer():
    kind = QuestionAnswering(stride=12, max_question_length=60)
    features = kind.features(ANSWERABLE[:1], TOKENIZER, MAX_LENGTH)
    room = MAX_LENGTH - len(TOKENIZER.tokenize(ANSWERABLE[0].question)) - 3
    expected = TOKENIZER(
        [ANSWERABLE[0].question],
        [GARDEN],
        truncation="only_second",
        max_length=MAX_LENGTH,
        stride=room - 12,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    assert [row.tolist() for row in rows_of(features)] == expected["input_ids"]
    assert [x.tolist() for x in np.split(features.token_type_ids, features.row_starts[1:-1])] == (
        expected["token_type_ids"]
    )
    is_context = [index == 1 for row in range(len(expected["input_ids"])) for index in expected.sequence_ids(row)]
    offsets = np.concatenate([np.array(row) for row in expected["offset_mapping"]])
    np.testing.assert_array_equal(features.spans, np.where(np.array(is_context)[:, None], offsets, 0))
    assert len(features) > 1
    assert (features.input_ids.dtype, features.token_type_ids.dtype) == (np.int32, np.uint8)


def test_long_questions_are_cut_and_items_point_to_examples():
    features = KIND.features(MIXED, TOKENIZER, MAX_LENGTH)
    assert features.item_lengths.max() == MAX_LENGTH
    for row, number in zip(rows_of(features), features.item_examples, strict=True):
        cut = TOKENIZER.encode(MIXED[number].question, add_special_tokens=False)[:24]
        assert row[: len(cut) + 2].tolist() == [TOKENIZER.cls_token_id, *cut, TOKENIZER.sep_token_id]
    assert sorted(set(features.item_examples)) == list(range(len(MIXED)))
    # Each token of a context is the best in exactly one window.
    for number, example in enumerate(MIXED):
        n_tokens = len(TOKENIZER.encode(example.context, add_special_tokens=False))
        items = (features.item_examples == number).nonzero()[0]
        assert features.batch(items).targets["is_max_context"].sum() == n_tokens


TEXTS = st.text(
    st.sampled_from("abz AÉ한字ﬁ.,'()-\n\u0301\u200b\U0001f600") | st.characters(codec="utf-8"), max_size=60
)


@settings(deadline=None, max_examples=200)
@given(TEXTS, TEXTS, st.integers(13, 30), st.integers(1, 20), st.data())
def test_windows_find_the_answer(question_text, context, max_length, stride, data):
    """A span of whole tokens is found as exactly its text, through every window that holds it."""
    kind = QuestionAnswering(stride=stride, max_question_length=9, max_answer_length=100)
    offsets = TOKENIZER(context, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    if not offsets:
        return
    first = data.draw(st.integers(0, len(offsets) - 1))
    last = data.draw(st.integers(first, len(offsets) - 1))
    begin, end = offsets[first][0], offsets[last][1]
    # Several tokens may stand for the same character.
    first = min(i for i in range(len(offsets)) if offsets[i][1] > begin)
    last = max(i for i in range(len(offsets)) if offsets[i][0] < end)
    example = QuestionExample("q", 1, question_text, context, ((context[begin:end], begin),))
    features = kind.features([example], TOKENIZER, max_length)
    targets = features.item_targets
    n_question = min(9, len(TOKENIZER.encode(question_text, add_special_tokens=False)))
    room = max_length - n_question - 3
    begins, ends, _ = windows(len(offsets), room, stride)
    for i, (window_begin, window_end) in enumerate(zip(begins, ends, strict=True)):
        row = slice(features.row_starts[i], features.row_starts[i + 1])
        start, stop = targets["start"][i], targets["end"][i]
        if window_begin <= first and last < window_end:
            span = features.spans[row][start][0], features.spans[row][stop][1]
            assert span == (begin, end)
            score = {"starts": [start], "ends": [stop], "scores": [1.0], "null_score": 0.0}
            nothing = {"starts": [], "ends": [], "scores": [], "null_score": 0.0}
            scores = [score if k == i else nothing for k in range(len(features))]
            (prediction,) = kind.predictions([example], features, scores)
            assert prediction["answer"].startswith(context[begin:end])
            assert kind.metrics([example], [prediction | {"answer": context[begin:end]}])["exact_match"] == 1
        else:
            assert (start, stop) == (0, 0)
    assert features.item_lengths.max() <= max_length


def test_windows_hold_an_answer_with_both_ends():
    """Every span of whole tokens of a context, in every window."""
    context = "abc def ghi jkl mno pqr"
    begins = [i for i, letter in enumerate(context) if letter != " "]
    spans = [(first, last) for first in range(len(begins)) for last in range(first, len(begins))]
    texts = [(context[begins[first] : begins[last] + 1], begins[first]) for first, last in spans]
    questions = [QuestionExample(str(i), 1, "q", context, (text,)) for i, text in enumerate(texts)]
    kind = QuestionAnswering(stride=3, max_question_length=5)
    features = kind.features(questions, TOKENIZER, 11)  # [CLS] q [SEP], 7 tokens, [SEP]
    expected = []
    for first, last in spans:
        for begin in range(0, 13, 3):
            is_inside = begin <= first and last < begin + 7
            expected.append((3 + first - begin, 3 + last - begin) if is_inside else (0, 0))
    targets = features.item_targets
    assert list(zip(targets["start"], targets["end"], strict=True)) == expected
    assert not targets["is_impossible"].any()


@pytest.mark.parametrize(
    "answer, expected",
    [
        ("1895", "1895"),
        (" 1895) ", "1895)"),  # white space is in no token
        ("lie", "lie"),  # single letters are tokens here
        ("\u0301s", "s"),
    ],
)
def test_targets_are_the_fewest_tokens_that_cover_the_answer(answer, expected):
    context = "planted in 1895) it lie\u0301s"
    if answer not in context:
        context = context.replace("1895) ", " 1895) ")
    features = QuestionAnswering().features([question("0", "?", context, answer)], TOKENIZER, MAX_LENGTH)
    start, end = (int(features.item_targets[name][0]) for name in ("start", "end"))
    assert context[features.spans[start][0] : features.spans[end][1]] == expected


@pytest.mark.parametrize(
    ("max_length", "longest"), [(7, 3), (32, 16), (64, 32), (67, 33), (127, 63), (128, 64), (129, 64), (512, 64)]
)
def test_a_short_row_takes_a_short_question(max_length, longest):
    long = question("0", "where " * 100, GARDEN, GARDEN.split()[0])
    features = QuestionAnswering().features([long], TOKENIZER, max_length)
    given = QuestionAnswering(max_question_length=longest).features([long], TOKENIZER, max_length)
    assert [row.tolist() for row in rows_of(features)] == [row.tolist() for row in rows_of(given)]
    n_before = int((np.split(features.token_type_ids, features.row_starts[1:-1])[0] == 0).sum())
    assert n_before == longest + 2


# Mistakes


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="max_length must be over max_question_length \\+ 3 = 67, got 67"):
        QuestionAnswering(max_question_length=64).features(ANSWERABLE, TOKENIZER, 67)
    with pytest.raises(ValueError, match="max_length must be over max_question_length \\+ 3 = 6, got 6"):
        QuestionAnswering().features(ANSWERABLE, TOKENIZER, 6)
    with pytest.raises(ValueError, match="line 6: question '5' must have an answer, got none"):
        QuestionAnswering().features(MIXED, TOKENIZER, MAX_LENGTH)
    blank = question("3", "?", "a  b", "  ")
    with pytest.raises(ValueError, match="line 4: answer '  ' of question '3' covers no token"):
        QuestionAnswering().features([blank], TOKENIZER, MAX_LENGTH)
    for name in ("stride", "max_question_length", "n_best", "max_answer_length", "beam_size"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            QuestionAnswering(**{name: 0})
    QuestionAnswering(null_threshold=-2.75)


# Losses


def padded(batch):
    """[R, S] columns of a batch, for models' own forward."""
    lengths = batch.row_lengths
    columns = {
        name: torch.nn.utils.rnn.pad_sequence(getattr(batch, name).split(lengths), batch_first=True)
        for name in ("input_ids", "token_type_ids")
    }
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return {**columns, "attention_mask": mask.long()}


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
def test_packed_loss_is_that_of_rows_one_by_one(head):
    model = network(KIND.model_class(head), torch.float64)
    features = KIND.features(MIXED, TOKENIZER, MAX_LENGTH)
    # Every third window with an answer, and the last of each example, which is shorter.
    last = np.flatnonzero(np.diff(features.item_examples, append=-1))
    chosen = [*np.flatnonzero(features.item_targets["start"])[::3], *last]
    assert len(set(features.item_lengths[chosen])) > 1
    batch = features.batch(chosen)
    loss = KIND.loss(model, encode(model, batch), batch)
    expected = 0.0
    for i in chosen:
        row = features.batch([i])
        names = {"start_positions": "start", "end_positions": "end"}
        names |= {"is_impossible": "is_impossible"} if head == "paper" else {}
        expected += model(**padded(row), **{name: row.targets[target] for name, target in names.items()}).loss
    torch.testing.assert_close(loss, expected)
    assert batch.n_targets == len(chosen)


@torch.no_grad()
def test_logits_are_those_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    model = network(KIND.model_class("transformers"))
    model.save_pretrained(tmp_path)
    peer = transformers.ElectraForQuestionAnswering.from_pretrained(tmp_path).eval()
    features = KIND.features(MIXED, TOKENIZER, MAX_LENGTH)
    batch = features.batch(range(len(features)))
    logits = model.qa_outputs(encode(model, batch))
    expected = peer(**padded(batch))
    is_real = padded(batch)["attention_mask"].bool()
    for ours, theirs in zip(logits.unbind(1), (expected.start_logits, expected.end_logits), strict=True):
        torch.testing.assert_close(ours, theirs[is_real], rtol=1e-4, atol=1e-4)
    # Rows of one length have no padding, and then the losses are the same too.
    same = np.flatnonzero(features.item_lengths == MAX_LENGTH)
    batch = features.batch(same)
    positions = {"start_positions": batch.targets["start"], "end_positions": batch.targets["end"]}
    loss = KIND.loss(model, encode(model, batch), batch) / len(same)
    torch.testing.assert_close(loss, peer(**padded(batch), **positions).loss, rtol=1e-4, atol=1e-4)


def test_constant_loss_is_that_of_the_guess():
    """[CLS] with its share of the windows, and else a token of the context."""
    features = KIND.features(MIXED, TOKENIZER, MAX_LENGTH)
    starts = features.item_targets["start"]
    share = (starts == 0).mean()
    losses = []
    for start, row in zip(starts, np.split(features.token_type_ids, features.row_starts[1:-1]), strict=True):
        losses.append(-math.log(share) if start == 0 else -math.log((1 - share) / (row.sum() - 1)))
    assert 0 < share < 1
    assert KIND.constant_loss(features) == pytest.approx(np.mean(losses))
    short = QuestionAnswering(max_question_length=5).features(ANSWERABLE[:1], TOKENIZER, 160)
    n_tokens = len(TOKENIZER.encode(GARDEN, add_special_tokens=False))
    assert QuestionAnswering().constant_loss(short) == pytest.approx(math.log(n_tokens))


# Answers


def oracle(features, batch_items):
    """A network whose hidden states are its logits, 1 at the gold start and end."""
    batch = features.batch(batch_items)
    hidden = torch.zeros(len(batch.input_ids), 2)
    for column, name in enumerate(("start", "end")):
        hidden[batch.first_tokens + batch.targets[name], column] = 1
    return SimpleNamespace(qa_outputs=torch.nn.Identity()), hidden, batch


@pytest.mark.parametrize("max_length, stride", [(160, 128), (70, 30), (40, 12)])
def test_an_oracle_is_always_right(max_length, stride):
    kind = QuestionAnswering(has_unanswerable=True, stride=stride, max_question_length=10)
    features = kind.features(MIXED, TOKENIZER, max_length)
    scores = []
    for items in np.array_split(np.arange(len(features)), 3):
        scores += kind.scores(*oracle(features, items))
    predictions = kind.predictions(MIXED, features, scores)
    assert [prediction["id"] for prediction in predictions] == [example.id for example in MIXED]
    metrics = kind.metrics(MIXED, predictions)
    assert list(metrics)[:2] == ["f1", "exact_match"]
    assert metrics.pop("best_f1_thresh") == metrics.pop("best_exact_thresh") < 0
    assert set(metrics.values()) == {1.0} and len(metrics) == 8
    for example, prediction in zip(MIXED, predictions, strict=True):
        assert prediction["answer"] == (example.answers[0][0] if example.answers else "")
        assert (prediction["null_odds"] > 0) == (not example.answers)
        assert len(prediction["n_best"]) == 20
        assert all(best["text"] == best["text"].strip() for best in prediction["n_best"])


def test_all_questions_are_answered_where_all_have_answers():
    kind = QuestionAnswering(max_question_length=10, null_threshold=-1e9)
    unlabelled = [QuestionExample(e.id, e.line, e.question, e.context) for e in MIXED]
    features = kind.features(unlabelled, TOKENIZER, MAX_LENGTH)
    assert features.item_targets == {} and features.n_targets.sum() == 0
    model = network(kind.model_class("transformers"))
    batch = features.batch(range(len(features)))
    with torch.no_grad():
        scores = kind.scores(model, encode(model, batch), batch)
    predictions = kind.predictions(unlabelled, features, scores)
    assert all(prediction["answer"] == prediction["n_best"][0]["text"] != "" for prediction in predictions)
    assert list(kind.metrics(ANSWERABLE, predictions[: len(ANSWERABLE)])) == ["f1", "exact_match"]


def test_a_context_without_tokens_has_no_answer():
    example = QuestionExample("q", 1, "who?", " ")
    features = KIND.features([example, ANSWERABLE[0]], TOKENIZER, MAX_LENGTH)
    for head in HEADS:
        model = network(KIND.model_class(head))
        batch = features.batch(range(len(features)))
        with torch.no_grad():
            scores = KIND.scores(model, encode(model, batch), batch)
        prediction = KIND.predictions([example, ANSWERABLE[0]], features, scores)[0]
        assert prediction["answer"] == "" and prediction["n_best"] == []


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("beam_size", [3, 200])
def test_scores_are_those_of_a_search_through_each_window(head, beam_size):
    kind = QuestionAnswering(stride=12, max_question_length=24, beam_size=beam_size, n_best=7, max_answer_length=9)
    model = network(kind.model_class(head), torch.float64)
    features = kind.features(ANSWERABLE[:1] + ANSWERABLE[3:4], TOKENIZER, MAX_LENGTH)
    batch = features.batch(range(len(features)))
    found = kind.scores(model, encode(model, batch), batch)
    for i, window in enumerate(found):
        row = features.batch([i])
        inputs = padded(row)
        context = range(int((inputs["token_type_ids"] == 0).sum()), batch.row_lengths[i] - 1)
        output = model(**inputs)
        start_scores = output.start_logits[0]
        if head == "paper":
            start_scores = start_scores.log_softmax(0)
        may_start = [k for k in context if row.targets["is_max_context"][k]]
        tried = sorted(may_start, key=lambda k: -start_scores[k])[:beam_size]
        spans = []
        for start in tried:
            end_scores = output.end_logits[0]
            if head == "paper":
                end_scores = model(**inputs, start_positions=torch.tensor([start])).end_logits[0].log_softmax(0)
            ends = [k for k in context if start <= k < start + 9]
            spans += [(float(start_scores[start] + end_scores[k]), start, k) for k in ends]
        expected = sorted(spans, reverse=True)[:7]
        assert list(zip(window["starts"], window["ends"], strict=True)) == [span[1:] for span in expected]
        np.testing.assert_allclose(window["scores"], [span[0] for span in expected], rtol=1e-5)
        null = (
            output.start_logits[0, 0] + output.end_logits[0, 0] if head == "transformers" else output.no_answer_logits
        )
        np.testing.assert_allclose(window["null_score" if head == "transformers" else "no_answer_logit"], null, 1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_a_small_network_learns_its_questions(head):
    kind = QuestionAnswering(has_unanswerable=True, stride=30, max_question_length=20)
    features = kind.features(MIXED, TOKENIZER, 100)
    torch.manual_seed(0)
    model = kind.model_class(head)(ElectraConfig(**SMALL), impl="torch").train()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    batch = features.batch(range(len(features)))
    losses = []
    while not losses or losses[-1] > 0.1:
        assert len(losses) < 400
        loss = kind.loss(model, encode(model, batch), batch) / batch.n_targets
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    # At first it knows nothing: every token alike, and of no answer a coin's toss.
    assert 0.1 < kind.constant_loss(features) < losses[0]
    model.eval()
    with torch.no_grad():
        scores = kind.scores(model, encode(model, batch), batch)
    metrics = kind.metrics(MIXED, kind.predictions(MIXED, features, scores))
    assert metrics["exact_match"] == 1.0


def test_config_has_the_two_outputs_of_transformers():
    assert KIND.labels == ()
    changes = KIND.config_changes()
    assert len(changes["id2label"]) == 2 and changes["label2id"] == {v: k for k, v in changes["id2label"].items()}
