"""Pre-training under transformers' Trainer and under accelerate: the same objective, on padded batches."""

import doctest
import random
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretraining_models import CLS, KINDS, SEP, VOCAB, make
from safetensors.torch import load_file, save_file
from torch import nn

from electra_fast import ElectraTokenizer
from electra_fast.model.packing import PackedBatch
from electra_fast.pretraining import joint as joint_module
from electra_fast.pretraining.collator import PretrainingCollator
from electra_fast.pretraining.evaluate import auc
from electra_fast.pretraining.joint import ElectraForJointPreTraining
from electra_fast.training.optim import AdamW

transformers = pytest.importorskip("transformers")
accelerate = pytest.importorskip("accelerate")

TOKENIZER = ElectraTokenizer({name: i for i, name in enumerate(["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"])})


@pytest.fixture(autouse=True)
def a_thread_of_its_own():
    """Networks this small only wait for a second one; and accelerate starts anew in every test."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    yield
    torch.set_num_threads(before)


def examples(n, seed=0):
    """Sequences that count upwards: what is masked can be told from its neighbours."""
    chance = random.Random(seed)
    starts = [(chance.randrange(5, 30), chance.randint(3, 14)) for _ in range(n)]
    return [{"input_ids": [CLS, *range(first, first + length), SEP]} for first, length in starts]


def joint(kind="electra", seed=0, **options):
    return ElectraForJointPreTraining(make(kind, seed, **options)).float()


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def trainer(model, directory, **options):
    extra = {name: options.pop(name) for name in ("optimizers",) if name in options}
    arguments = transformers.TrainingArguments(
        str(directory),
        **{
            **dict(max_steps=30, per_device_train_batch_size=16, learning_rate=3e-3, lr_scheduler_type="constant"),
            **dict(use_cpu=True, report_to="none", disable_tqdm=True, logging_steps=5, save_steps=20, seed=3),
            **options,
        },
    )
    return transformers.Trainer(
        model,
        arguments,
        data_collator=PretrainingCollator(TOKENIZER),
        train_dataset=examples(200),
        eval_dataset=examples(24, seed=1),
        compute_metrics=model.compute_metrics,
        **extra,
    )


@given(
    st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4).filter(
        lambda m: any(map(any, m))
    ),
    st.sampled_from(sorted(KINDS)),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_a_forward_is_the_packed_models(mask, kind, whole_word, is_training):
    mask = torch.tensor(mask)
    ids = torch.randint(VOCAB, mask.shape, generator=torch.Generator().manual_seed(1))
    ids[:, 0] = CLS
    types, starts = ids % 2, ids % 3 == 0
    model = ElectraForJointPreTraining(make(kind)).train(is_training)
    torch.manual_seed(5)
    output = model(ids, mask.long(), types, starts if whole_word else None)

    packed = PackedBatch.from_mask(mask)
    torch.manual_seed(5)
    drawn = None if is_training else torch.Generator().manual_seed(int(ids[mask].sum()))
    starts = starts[mask] if whole_word else None
    expected = model.pretraining(ids[mask], packed, types[mask], drawn, starts)
    assert output.loss == output["loss"] == output[0] == expected.loss
    for name in ("generator_loss", "generator_accuracy", "discriminator_loss"):
        mean = getattr(expected, name)
        assert getattr(output, name) is mean is None or output[name].tolist() == [mean.item()] * len(ids)
    assert (output.logits is None) == (expected.logits is None) == (output.labels is None)
    if output.logits is not None:
        assert torch.equal(output.logits[mask], expected.logits) and not output.logits[~mask].any()
        labels = torch.where(expected.is_candidate, expected.is_replaced.long(), -100)
        assert torch.equal(output.labels[mask], labels) and (output.labels[~mask] == -100).all()


def test_evaluation_depends_on_the_batch_alone():
    model = joint().eval()
    collate, wide = PretrainingCollator(TOKENIZER), PretrainingCollator(TOKENIZER, pad_to_multiple_of=16)
    torch.manual_seed(1)
    losses = [
        model(**collate(examples(5))).loss,
        model(**wide(examples(5))).loss,
        model(**collate(examples(5, 1))).loss,
    ]
    torch.manual_seed(2)
    assert losses[0] == losses[1] == model(**collate(examples(5))).loss != losses[2]
    full = torch.tensor([examples(1)[0]["input_ids"]] * 2)
    assert model(full).loss == model(full, torch.ones_like(full)).loss
    assert "loss" not in model(full, return_loss=False)
    model.train()
    assert model(**collate(examples(5))).loss != model(**collate(examples(5))).loss


def test_trainer_learns_resumes_and_evaluates(tmp_path):
    whole = trainer(joint(), tmp_path / "whole")
    before = whole.evaluate()
    whole.train()
    after = whole.evaluate()
    losses = [record["loss"] for record in whole.state.log_history if "loss" in record]
    assert len(losses) == 6 and losses[-1] < 0.9 * losses[0]
    assert all(after[f"eval_{name}"] < 0.8 * before[f"eval_{name}"] for name in ("loss", "generator_loss"))
    again = whole.evaluate()
    assert all(after[name] == again[name] for name in after if name.endswith(("loss", "auc", "accuracy")))

    resumed = trainer(joint(seed=9), tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-20"))
    assert same(whole.model, resumed.model)
    assert resumed.state.log_history[-2]["loss"] == losses[-1]
    table = resumed.model.pretraining.discriminator.electra.embeddings.word_embeddings
    assert resumed.model.pretraining.generator.electra.embeddings.word_embeddings is table


@pytest.mark.parametrize("precision", [{}, {"bf16": True}], ids=["fp32", "bf16"])
def test_metrics_are_of_all_tokens_and_rows(tmp_path, precision):
    model = joint()
    run = trainer(model, tmp_path, per_device_eval_batch_size=9, max_steps=2, save_strategy="no", **precision)
    run.train()
    metrics = run.evaluate()
    model.eval()
    rows, collate = run.eval_dataset, run.data_collator
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bool(precision)):
        outputs = [model(**collate(rows[i : i + 9])) for i in range(0, len(rows), 9)]
    tokens = [(output.logits[output.labels >= 0], output.labels[output.labels >= 0]) for output in outputs]
    logits, labels = (torch.cat(part) for part in zip(*tokens, strict=True))
    assert metrics["eval_discriminator_auc"] == pytest.approx(auc(logits, labels), abs=1e-12)
    for name in ("generator_loss", "generator_accuracy", "discriminator_loss"):
        expected = torch.cat([output[name] for output in outputs]).float().mean().item()
        assert metrics[f"eval_{name}"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["mlm", "uniform", "electric", "gdes"])
def test_other_objectives_train_and_evaluate(kind, tmp_path):
    run = trainer(joint(kind), tmp_path, max_steps=4, save_steps=4, gradient_accumulation_steps=2)
    run.train()
    metrics = run.evaluate()
    has = {name: name in run.model.pretraining.networks for name in ("generator", "discriminator")}
    assert ("eval_generator_accuracy" in metrics) == has["generator"]
    assert ("eval_discriminator_auc" in metrics) == has["discriminator"]
    loaded = joint(kind, seed=9)
    loaded.load_state_dict(load_file(tmp_path / "checkpoint-4" / "model.safetensors"))
    assert same(run.model, loaded)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_state_dict_has_shared_tensors_once(kind, tmp_path):
    model, loaded, from_aliases = joint(kind), joint(kind, seed=9), joint(kind, seed=9)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    assert len(model.state_dict()) <= len(model.pretraining.state_dict())
    assert not loaded.load_state_dict(load_file(tmp_path / "model.safetensors")).missing_keys
    from_aliases.load_state_dict({f"pretraining.{name}": x for name, x in model.pretraining.state_dict().items()})
    assert same(model, loaded) and same(model, from_aliases)
    # Inside another module too.
    outer, other = nn.ModuleList([model, joint()]), nn.ModuleList([joint(kind, seed=9), joint(seed=9)])
    other.load_state_dict(outer.state_dict())
    assert same(outer, other)
    twice = nn.ModuleList([model, model]).state_dict()
    assert len(twice) == 2 * len(model.state_dict())
    short = dict(list(model.state_dict().items())[1:])
    with pytest.raises(RuntimeError, match="Missing key"):
        loaded.load_state_dict(short)


def test_transformers_loads_what_is_saved(tmp_path):
    model = joint().eval()
    model.save_pretrained(tmp_path)
    ids = torch.tensor([example["input_ids"] for example in examples(1)])
    pairs = (("generator", transformers.AutoModelForMaskedLM), ("discriminator", transformers.AutoModelForPreTraining))
    for name, auto in pairs:
        theirs = auto.from_pretrained(tmp_path / name).eval()
        ours = getattr(model.pretraining, name)
        torch.testing.assert_close(theirs(ids).logits, ours(ids).logits)


@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
def test_accelerate_trains_saves_and_loads(mixed_precision, tmp_path):
    accelerator = accelerate.Accelerator(mixed_precision=mixed_precision, cpu=True)
    accelerate.utils.set_seed(1)
    model = joint()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loader = torch.utils.data.DataLoader(examples(320), 16, collate_fn=PretrainingCollator(TOKENIZER))
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    losses = []
    for batch in loader:
        output = model(**batch)
        accelerator.backward(output.loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(output.loss.item())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    accelerator.save_state(tmp_path)
    expected = [p.clone() for p in model.parameters()]
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    accelerator.load_state(tmp_path)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), expected, strict=True))


def test_the_recipes_optimizer_serves_and_resumes(tmp_path):
    def run(directory, seed):
        model = joint(seed=seed)
        optimizer = AdamW(model.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        return trainer(model, tmp_path / directory, max_steps=6, save_steps=3, optimizers=(optimizer, schedule))

    whole, resumed = run("whole", 0), run("resumed", 9)
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert same(whole.model, resumed.model)


@pytest.mark.parametrize("name", ["activation_checkpointing_enable", "gradient_checkpointing_enable"])
@pytest.mark.parametrize("kind", ["electra", "electric", "tied"])
def test_activation_checkpointing_has_the_same_gradients(kind, name):
    batch = PretrainingCollator(TOKENIZER)(examples(6))
    gradients = []
    for is_on in (False, True):
        model = joint(kind).train()
        calls = []
        for layer in (module for module in model.modules() if type(module).__name__ == "ElectraLayer"):
            layer.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        if is_on:
            getattr(model, name)({"use_reentrant": False})
        torch.manual_seed(2)
        model(**batch).loss.backward()
        gradients.append(([p.grad for p in model.parameters()], len(calls)))
    (plain, n_plain), (checkpointed, n_checkpointed) = gradients
    assert n_checkpointed == 2 * n_plain > 0
    torch.testing.assert_close(checkpointed, plain)


def test_trainer_asks_for_activation_checkpointing(tmp_path):
    trainer(joint(), tmp_path, max_steps=1, save_strategy="no", activation_checkpointing=True).train()
    for options in ({"offload": True}, {"every_n_layers": 2}, {"use_reentrant": True}):
        arguments = dict(max_steps=1, activation_checkpointing=True, activation_checkpointing_kwargs=options)
        with pytest.raises(ValueError, match="activation checkpointing is of every layer"):
            trainer(joint(), tmp_path, **arguments).train()


def test_what_does_not_fit_is_refused():
    model, ids = joint(), torch.full((2, 8), 7)
    for message, arguments in (
        ("sequence length 17 is over max_position_embeddings 16", dict(input_ids=torch.full((1, 17), 7))),
        (r"input_ids must be in \[0, 50\)", dict(input_ids=ids + VOCAB)),
        ("attention_mask must have shape", dict(input_ids=ids, attention_mask=ids[:, :4])),
        ("word_starts must have shape", dict(input_ids=ids, word_starts=ids[:1] > 0)),
        ("expected input_ids", dict(input_ids=ids[0])),
    ):
        with pytest.raises(ValueError, match=message):
            model(**arguments)


RANKS = """
import os, sys
sys.path.insert(0, sys.argv[2])
import torch
from test_joint import joint, trainer
torch.set_num_threads(1)
run = trainer(joint(), sys.argv[1], max_steps=3, save_steps=3, per_device_train_batch_size=4, ddp_backend="gloo",
              per_device_eval_batch_size=4, ddp_find_unused_parameters=False)
run.train()
metrics = run.evaluate()
torch.save([run.model.state_dict(), metrics], f"{sys.argv[1]}/rank{os.environ['RANK']}.pt")
"""


def test_two_processes_train_and_evaluate_together(tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    here = __file__.rpartition("/")[0]
    result = subprocess.run([*launch, str(tmp_path), here], capture_output=True, text=True, timeout=150)
    assert result.returncode == 0, result.stderr[-2000:]
    (weights, metrics), (others, other_metrics) = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert metrics["eval_loss"] == other_metrics["eval_loss"] and metrics["eval_discriminator_auc"] > 0
    # What one process finds on the batches of both.
    model = joint()
    model.load_state_dict(weights)
    alone = trainer(model, tmp_path, per_device_eval_batch_size=4).evaluate()
    names = [f"eval_{name}" for name in ("loss", "discriminator_loss", "generator_accuracy", "discriminator_auc")]
    assert [metrics[name] for name in names] == pytest.approx([alone[name] for name in names], rel=1e-6)


def test_examples_of_the_documentation_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(joint_module)
    assert result.attempted > 8 and result.failed == 0
    assert {path.name for path in (tmp_path / "electra").iterdir()} == {"generator", "discriminator"}
