"""Trainer, accelerate and PEFT beside themselves under `enable()`."""

import pytest
import torch
from electra_calls import N_LABELS, VOCAB, labels_for, padded_batch, tiny, transformers
from served import layers, on_and_off  # noqa: F401  the fixture

from electra_fast.integrations.transformers import patch, unpatch, why_not


@pytest.fixture(autouse=True)
def own_accelerator():
    """accelerate's precision is one for the whole process."""
    yield
    pytest.importorskip("accelerate").state.AcceleratorState._reset_state(reset_partial_state=True)


class Rows(torch.utils.data.Dataset):
    """Right-padded rows with a label each, whether the first token is in the upper half of the vocabulary."""

    def __init__(self, n_rows: int, seed: int):
        self.batch = padded_batch(n_rows, 12, seed=seed)

    def __len__(self) -> int:
        return len(self.batch["input_ids"])

    def __getitem__(self, i: int) -> dict:
        row = {name: x[i] for name, x in self.batch.items()}
        return row | {"labels": int(row["input_ids"][0] > VOCAB // 2), "a column of the corpus": "unused"}


def weights_of(model) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("more", [{}, {"gradient_checkpointing": True}, {"bf16": True}])
def test_trainer_with_accumulation_and_evaluation(more, layers, tmp_path):  # noqa: F811
    def work():
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path / "run"),
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            num_train_epochs=2,
            eval_strategy="epoch",
            learning_rate=0.05,
            optim="sgd",  # Adam makes whole steps of rounding where a gradient is 0, as those of the keys' biases are
            report_to=[],
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
            seed=0,
            **more,
        )
        model = tiny("ElectraForSequenceClassification", num_labels=2)
        trainer = transformers.Trainer(model, arguments, train_dataset=Rows(24, 0), eval_dataset=Rows(9, 1))
        trainer.train()
        metrics = trainer.evaluate()
        predicted = torch.from_numpy(trainer.predict(Rows(9, 1)).predictions)
        return weights_of(model), torch.tensor(metrics["eval_loss"]), predicted

    tolerance = 5e-2 if more.get("bf16") else 1e-4
    for theirs, ours in zip(*on_and_off(work, layers), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


def test_accelerate(layers):  # noqa: F811
    accelerate = pytest.importorskip("accelerate")

    def work():
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
        model = tiny("ElectraForTokenClassification").train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model, optimizer = accelerator.prepare(model, optimizer)
        for seed in range(4):
            call = padded_batch(seed=seed)
            with accelerator.accumulate(model):
                accelerator.backward(model(**call, **labels_for("ElectraForTokenClassification", call)).loss)
                optimizer.step(), optimizer.zero_grad()
        return weights_of(accelerator.unwrap_model(model))

    theirs, ours = on_and_off(work, layers)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("targets", [["query", "value"], ["query", "key", "value", "dense"], ["word_embeddings"]])
def test_lora_trains_and_merges(targets, layers):  # noqa: F811
    peft = pytest.importorskip("peft")

    def work():
        torch.manual_seed(0)
        config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=targets, r=4, lora_dropout=0.0)
        model = peft.get_peft_model(tiny("ElectraForSequenceClassification", num_labels=2), config).train()
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=0.5)
        call = padded_batch() | {"labels": torch.tensor([0, 1, 1])}
        losses = []
        for _ in range(4):
            loss = model(**call).loss
            loss.backward()
            optimizer.step(), optimizer.zero_grad()
            losses.append(loss.detach())
        adapted = model.eval()(**call).logits
        merged = model.merge_and_unload()
        torch.testing.assert_close(merged(**call).logits, adapted, rtol=0, atol=1e-5)
        assert losses[-1] < losses[0] - 1e-3
        return torch.stack(losses), adapted.detach(), weights_of(merged)

    for theirs, ours in zip(*on_and_off(work, layers), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-5)


def test_one_peft_model_is_patched():
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(
        tiny("ElectraForTokenClassification"), peft.LoraConfig(task_type="TOKEN_CLS", target_modules=["query"])
    ).eval()
    call = padded_batch()
    own = model(**call).logits[call["attention_mask"].bool()]
    patch(model)
    assert why_not(model.get_base_model(), **call) is None
    ours = model(**call).logits[call["attention_mask"].bool()]
    torch.testing.assert_close(ours, own, rtol=0, atol=1e-5)
    assert ours.shape[-1] == N_LABELS
    assert torch.equal(unpatch(model)(**call).logits[call["attention_mask"].bool()], own)


def test_prefix_tuning_is_left_to_transformers(layers):  # noqa: F811
    peft = pytest.importorskip("peft")
    config = peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3)
    model = tiny("ElectraForSequenceClassification")
    prefixed, call = peft.get_peft_model(model, config).eval(), padded_batch()
    own = prefixed(**call).logits
    patch(prefixed)
    assert torch.equal(prefixed(**call).logits, own) and layers.read() == 0


def test_dynamically_quantised_layers_are_called(layers):  # noqa: F811
    quantised = torch.ao.quantization.quantize_dynamic(tiny("ElectraForTokenClassification"), {torch.nn.Linear})
    call = padded_batch(padding="full")
    own = quantised(**call).logits
    patch(quantised)
    torch.testing.assert_close(quantised(**call).logits, own, rtol=0, atol=5e-5)
    assert layers.read() > 0
    # A layer's scale follows from all the rows it gets, and there are fewer of them without padding.
    padded = padded_batch()
    is_real = padded["attention_mask"].bool()
    ours, own = quantised(**padded).logits[is_real], unpatch(quantised)(**padded).logits[is_real]
    assert (ours - own).abs().max() < 0.1 * own.abs().max()
