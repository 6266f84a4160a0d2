"""From features to a process's part of an update: nothing lost, nothing twice, the same loss in any number of parts."""

import numpy as np
import pytest
import torch
from finetuning_runs import GOOD, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_in_gpu import GPU, stand_in_gpu

from electra_fast.finetuning.data.features import Features, flat_rows
from electra_fast.finetuning.kinds.table import make_kind
from electra_fast.finetuning.loop import FinetuningLoop, ItemOrder
from electra_fast.finetuning.networks import load_networks
from electra_fast.finetuning.recipe import Recipe
from electra_fast.finetuning.run_options import FinetuningOptions
from electra_fast.training.distributed import World


def features(lengths, rows_per_item=1):
    """Items whose tokens are numbered through; token n of type n % 2."""
    n_tokens, starts = sum(lengths), np.concatenate([[0], np.cumsum(lengths)])
    n_items = len(lengths) // rows_per_item
    return Features(
        input_ids=np.arange(n_tokens, dtype=np.int32),
        token_type_ids=(np.arange(n_tokens) % 2).astype(np.uint8),
        row_starts=starts.astype(np.int64),
        item_rows=np.arange(0, len(lengths) + 1, rows_per_item),
        item_examples=np.arange(n_items),
        item_targets={"labels": np.arange(n_items) * 10},
        token_targets={"tags": np.arange(n_tokens) + 5},
        n_targets=np.arange(n_items) + 1,
    )


@given(st.lists(st.integers(1, 5), min_size=2, max_size=12), st.sampled_from([1, 2]), st.randoms())
def test_a_batch_has_its_items_in_order(lengths, rows_per_item, source):
    lengths = lengths[: len(lengths) // rows_per_item * rows_per_item]
    whole = features(lengths, rows_per_item)
    items = source.choices(range(len(whole)), k=source.randint(1, 6))
    batch = whole.batch(items)
    rows = [item * rows_per_item + i for item in items for i in range(rows_per_item)]
    tokens = [token for row in rows for token in range(sum(lengths[:row]), sum(lengths[: row + 1]))]
    assert batch.input_ids.tolist() == tokens
    assert batch.token_type_ids.tolist() == [token % 2 for token in tokens]
    assert batch.row_lengths == [lengths[row] for row in rows]
    assert [tokens[first] for first in batch.first_tokens.tolist()] == [sum(lengths[:row]) for row in rows]
    assert batch.item_rows.tolist() == list(range(0, len(rows) + 1, rows_per_item))
    assert batch.targets["labels"].tolist() == [10 * item for item in items]
    assert batch.targets["tags"].tolist() == [token + 5 for token in tokens]
    assert batch.n_targets == sum(item + 1 for item in items)
    assert batch.packed.max_seqlen == max(batch.row_lengths)


def test_rows_of_a_tokenizer_become_flat():
    flat = flat_rows({"input_ids": [[1, 2], [], [3]], "token_type_ids": [[0, 1], [], [0]]})
    assert flat["input_ids"].tolist() == [1, 2, 3] and flat["row_starts"].tolist() == [0, 2, 2, 3]
    assert flat["token_type_ids"].tolist() == [0, 1, 0]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 16), st.integers(0, 5), st.booleans())
def test_every_epoch_sees_every_item_once_in_an_order_of_its_own(n_first, n_second, batch_size, seed, grouped):
    train = {"a": features([1] * n_first), "b": features([1] * n_second)}
    order = ItemOrder(train, batch_size, seed, grouped)
    epochs = []
    for epoch in range(2):
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        batches = [order.items(step) for step in steps]
        for name, n in (("a", n_first), ("b", n_second)):
            assert sorted(item for batch in batches for item in batch[name]) == list(range(n))
        sizes = [sum(map(len, batch.values())) for batch in batches]
        assert set(sizes[:-1]) <= {batch_size} and 1 <= sizes[-1] <= batch_size
        epochs.append([(batch["a"].tolist(), batch["b"].tolist()) for batch in batches])
    if n_first + n_second > 20:
        assert epochs[0] != epochs[1]
    again = ItemOrder(train, batch_size, seed, grouped)
    assert again.items(order.steps_per_epoch)["a"].tolist() == epochs[1][0][0], "from any step on"


def test_grouped_batches_have_items_of_similar_lengths():
    lengths = np.random.default_rng(0).integers(1, 60, 1003)
    order = ItemOrder({"a": features(lengths.tolist())}, 16, 0, group_by_length=True)
    batches = [lengths[order.items(step)["a"]] for step in range(order.steps_per_epoch)]
    assert max(batch.max() - batch.min() for batch in batches) <= 4
    assert len(batches[-1]) == 1003 % 16, "the small batch is the last"
    longest = [batch.max() for batch in batches]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True), "batches come in any order"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("batches")) / "checkpoint"


def two_tasks(checkpoint):
    """Their kinds, their features and a tokenizer."""
    from electra_fast import ElectraTokenizer
    from electra_fast.finetuning.data.examples import TaggedExample, TextExample

    tokenizer = ElectraTokenizer.from_pretrained(checkpoint)
    kinds = {"verdict": make_kind("classification", ("bad", "good")), "tags": make_kind("tagging", ("O", "GOOD"))}
    texts = ["a good film", "the book was awful", "it is a lovely song and fine", "dull", "great", "a poor poor film"]
    train = {
        "verdict": kinds["verdict"].features(
            [
                TextExample(id=str(i), line=i, text=t, label="good" if set(GOOD) & set(t.split()) else "bad")
                for i, t in enumerate(texts)
            ],
            tokenizer,
            32,
        ),
        "tags": kinds["tags"].features(
            [
                TaggedExample(
                    id=str(i),
                    line=i,
                    words=tuple(t.split()),
                    tags=tuple("GOOD" if w in GOOD else "O" for w in t.split()),
                )
                for i, t in enumerate(texts[:5])
            ],
            tokenizer,
            32,
        ),
    }
    return kinds, train, tokenizer


def loss_and_gradients(checkpoint, n_processes, accumulate, step):
    """Of two tasks on one encoder, as all processes together see them, one after the other."""
    kinds, train, tokenizer = two_tasks(checkpoint)
    torch.manual_seed(0)
    recipe = Recipe(learning_rate=1e-3, layer_decay=0.8, batch_size=8, dropout=0.0)
    total, gradients = 0.0, None
    model = load_networks(str(checkpoint), kinds, recipe, len(tokenizer)).double()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for rank in range(n_processes):
        model.load_state_dict(state)
        loop = FinetuningLoop(
            model,
            recipe,
            train,
            World(0, 1, torch.device("cpu")),
            FinetuningOptions(seed=3, log_every=1, precision="fp32"),
        )
        loop.world, loop.accumulate, loop.step = World(rank, n_processes, torch.device("cpu")), accumulate, step
        model.zero_grad()
        parts = loop._batches()
        assert len(parts) == accumulate
        outputs = [loop._compute(*part) for part in parts]
        total += sum(float(output["loss"]) for output in outputs)
        found = {name: p.grad / n_processes for name, p in model.named_parameters()}  # as averaging does
        gradients = found if gradients is None else {name: gradients[name] + found[name] for name in found}
    return total, gradients


@pytest.mark.parametrize("step", [0, 1])  # the second batch is what is left of the epoch: 3 items
@pytest.mark.parametrize("n_processes, accumulate", [(2, 1), (1, 3), (2, 2), (4, 1)])
def test_an_update_is_the_same_in_any_number_of_parts(checkpoint, n_processes, accumulate, step):
    loss, gradients = loss_and_gradients(checkpoint, 1, 1, step)
    found, parted = loss_and_gradients(checkpoint, n_processes, accumulate, step)
    assert found == pytest.approx(loss, rel=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(parted[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_an_update_does_not_wait_for_a_gpu(checkpoint, precision):
    """Batches have as many tokens as their items, so it is no CUDA graph; but the host can run ahead."""
    kinds, train, tokenizer = two_tasks(checkpoint)
    recipe = Recipe(learning_rate=1e-3, layer_decay=0.8, batch_size=8)
    with stand_in_gpu() as gpu:
        model = load_networks(str(checkpoint), kinds, recipe, len(tokenizer)).to(GPU).train()
        loop = FinetuningLoop(
            model, recipe, train, World(0, 1, GPU), FinetuningOptions(seed=3, log_every=1, precision=precision)
        )
        batches = loop._batches()
        list(loop._step(batches))
        with gpu.recording():
            outputs = list(loop._step(batches))
    assert outputs[0]["loss"].shape == ()
    assert {"short_bwd_kernel", "adamw_kernel"} <= set(gpu.launched)


@settings(max_examples=20)
@given(st.integers(1, 7))
def test_parts_are_of_about_as_many_tokens(n_parts):
    lengths = np.random.default_rng(0).integers(1, 100, 64).tolist()
    loop = object.__new__(FinetuningLoop)
    loop._train, loop.world = {"a": features(lengths)}, World(0, 1, torch.device("cpu"))
    parts = [loop._part({"a": np.arange(64)}, number, n_parts)["a"] for number in range(n_parts)]
    sizes = [len(part.input_ids) for part in parts]
    assert sum(sizes) == sum(lengths) and max(sizes) - min(sizes) <= 100
