"""The paper's heads against their formulas, and as models that are saved and loaded."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from questions import network

from electra_fast import ElectraConfig, ElectraForSequenceClassification
from electra_fast.finetuning.kinds.answers import best_starts
from electra_fast.finetuning.kinds.paper_heads import (
    ElectraPaperForQuestionAnswering,
    ElectraPaperForSequenceClassification,
    start_or_end_tokens,
)
from electra_fast.model.modeling import sequence_loss

HEADS = [ElectraPaperForSequenceClassification, ElectraPaperForQuestionAnswering]
LENGTHS = [14, 9]
STARTS, ENDS, IMPOSSIBLE = torch.tensor([6, 0]), torch.tensor([8, 0]), torch.tensor([0, 1])


def inputs():
    """Two rows, the second padded; the context starts at token 5."""
    ids = torch.randint(5, 80, (2, LENGTHS[0]), generator=torch.Generator().manual_seed(1))
    columns = torch.arange(LENGTHS[0])
    mask = (columns < torch.tensor(LENGTHS)[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": (columns >= 5).long() * mask}


def candidates_of(length):
    return [0, *range(5, length - 1)]


@pytest.mark.parametrize("model_class", HEADS)
def test_saved_models_load(tmp_path, model_class):
    model = network(model_class, num_labels=2)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [model_class.__name__]
    loaded = model_class.from_pretrained(tmp_path, impl="torch")
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for expected, output in zip(model(**inputs()).to_tuple(), loaded(**inputs()).to_tuple(), strict=True):
        assert torch.equal(expected, output)


@pytest.mark.parametrize("model_class", HEADS)
def test_heads_start_as_glorot_uniform(model_class):
    torch.manual_seed(0)
    model = model_class(ElectraConfig(hidden_size=256, num_hidden_layers=1, vocab_size=50, num_labels=3))
    model.init_weights()
    heads = {name: head for name, head in model.named_children() if isinstance(head, torch.nn.Linear)}
    assert len(heads) == (1 if "classifier" in heads else 5)
    for name, head in heads.items():
        weight = head.weight.detach()
        limit = math.sqrt(6 / (head.in_features + head.out_features))
        assert 0.9 * limit < weight.abs().max() <= limit, name
        assert weight.std() == pytest.approx(limit / math.sqrt(3), rel=0.12), name
        assert not head.bias.any()
    # As everywhere else: normal of std 0.02.
    assert model.electra.encoder.layer[0].output.dense.weight.detach().std() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("dropout, expected", [(None, 0.25), (0.4, 0.4)])
def test_classification_is_one_linear_layer(dropout, expected):
    fields = {"num_labels": 3, "classifier_dropout": dropout, "hidden_dropout_prob": 0.25}
    model = network(ElectraPaperForSequenceClassification, **fields)
    hidden = model.electra(**inputs()).last_hidden_state
    logits = model(**inputs()).logits
    torch.testing.assert_close(logits, hidden[:, 0] @ model.classifier.weight.T + model.classifier.bias)
    assert model.dropout.p == expected
    model.dropout.train()
    assert not torch.equal(model(**inputs()).logits, model(**inputs()).logits)


@pytest.mark.parametrize(
    "labels, num_labels",
    [(torch.tensor([2, 0]), 3), (torch.tensor([[0.5], [1.0]]), 1), (torch.tensor([[1.0, 0, 1], [0, 0, 1]]), 3)],
)
def test_classification_losses_are_those_of_transformers_class(labels, num_labels):
    model = network(ElectraPaperForSequenceClassification, num_labels=num_labels)
    output = model(**inputs(), labels=labels)
    other = network(ElectraForSequenceClassification, num_labels=num_labels)
    torch.testing.assert_close(output.loss, sequence_loss(other.config, output.logits, labels))
    assert model.config.problem_type == other.config.problem_type


def expected_logits(model, starts):
    """One row and one token at a time, from the concatenations of the paper: for each row all start logits, all end
    logits and the logit of no answer."""
    batch, rows = inputs(), []
    for row, length in enumerate(LENGTHS):
        hidden = model.electra(**{name: x[row : row + 1, :length] for name, x in batch.items()}).last_hidden_state[0]
        allowed = candidates_of(length)
        start = model.start_outputs(hidden).flatten()
        start_logits = {i: start[i] for i in allowed}
        shares = torch.stack([start_logits[i] for i in allowed]).softmax(0)
        ends = {}
        for i in allowed:
            pair = torch.cat([hidden[starts[row]], hidden[i]])
            ends[i] = model.end_outputs(F.gelu(model.end_dense(pair)))[0]
        summary = torch.cat([hidden[0], sum(p * hidden[i] for p, i in zip(shares, allowed, strict=True))])
        no_answer = model.no_answer_outputs(F.gelu(model.no_answer_dense(summary)))[0]
        rows.append((start_logits, ends, no_answer))
    return rows


@torch.no_grad()
def test_question_answering_follows_the_formula():
    model = network(ElectraPaperForQuestionAnswering, torch.float64)
    output = model(**inputs(), start_positions=STARTS, end_positions=ENDS, is_impossible=IMPOSSIBLE)
    losses = []
    for row, (starts, ends, no_answer) in enumerate(expected_logits(model, STARTS)):
        for logits, expected in ((output.start_logits[row], starts), (output.end_logits[row], ends)):
            assert (logits > torch.finfo(logits.dtype).min).nonzero().flatten().tolist() == list(expected)
            torch.testing.assert_close(logits[list(expected)], torch.stack(list(expected.values())))
        torch.testing.assert_close(output.no_answer_logits[row], no_answer)
        spans = 0
        for logits, position in ((starts, STARTS[row]), (ends, ENDS[row])):
            spans = spans - torch.stack(list(logits.values())).log_softmax(0)[list(logits).index(int(position))]
        sign = 1 if IMPOSSIBLE[row] else -1
        losses.append(spans / 2 - 0.5 * F.logsigmoid(sign * no_answer))
    torch.testing.assert_close(output.loss, sum(losses) / 2)


@torch.no_grad()
def test_ends_are_those_of_the_likeliest_start_where_none_is_given():
    model = network(ElectraPaperForQuestionAnswering, torch.float64)
    output = model(**inputs())
    starts = output.start_logits.argmax(1)
    assert output.loss is None
    torch.testing.assert_close(output.end_logits, model(**inputs(), start_positions=starts).end_logits)
    other = model(**inputs(), start_positions=(starts + 1) % 3).end_logits
    assert not torch.allclose(output.end_logits, other)


def test_impossible_are_those_that_start_at_0_unless_told():
    model = network(ElectraPaperForQuestionAnswering)
    positions = {"start_positions": STARTS, "end_positions": ENDS}
    losses = [model(**inputs(), **positions, is_impossible=x).loss for x in (None, IMPOSSIBLE, 1 - IMPOSSIBLE)]
    assert losses[0] == losses[1] != losses[2]


@torch.no_grad()
def test_beam_of_all_starts_finds_the_best_of_all_pairs():
    """Each row of the table of starts and ends is what teacher forcing with that start gives."""
    model = network(ElectraPaperForQuestionAnswering, torch.float64)
    batch = inputs()
    hidden = model.electra(**batch).last_hidden_state
    candidates = start_or_end_tokens(batch["token_type_ids"], batch["attention_mask"])
    start_logits = model.start_logits(hidden, candidates)
    starts, start_scores = best_starts(start_logits.log_softmax(-1), candidates, beam_size=LENGTHS[0])
    end_logits = model.end_logits(hidden, candidates, starts)
    joint = start_scores[:, :, None] + end_logits.log_softmax(-1)
    for row, length in enumerate(LENGTHS):
        table = {}
        for start in candidates_of(length):
            forced = model(**batch, start_positions=torch.tensor([start, start]))
            ends = forced.end_logits[row].log_softmax(0)
            for end in candidates_of(length):
                table[start, end] = float(forced.start_logits[row].log_softmax(0)[start] + ends[end])
        place = int(joint[row].argmax())
        found = int(starts[row, place // LENGTHS[0]]), place % LENGTHS[0]
        assert found == max(table, key=table.get)
        assert float(joint[row].max()) == pytest.approx(table[found])
        assert sum(math.exp(value) for value in table.values()) == pytest.approx(1)


def test_question_answering_needs_token_types():
    batch = inputs()
    del batch["token_type_ids"]
    with pytest.raises(ValueError, match="token_type_ids must be given"):
        network(ElectraPaperForQuestionAnswering)(**batch)


@pytest.mark.parametrize("model_class", HEADS)
def test_bf16_gives_logits_and_gradients(model_class):
    model = network(model_class, torch.bfloat16)
    labels = {"labels": IMPOSSIBLE}
    if model_class is ElectraPaperForQuestionAnswering:
        labels = {"start_positions": STARTS, "end_positions": ENDS, "is_impossible": IMPOSSIBLE}
    loss = model(**inputs(), **labels).loss
    loss.backward()
    assert loss.isfinite()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing
