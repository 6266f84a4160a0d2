"""An update of every recipe as a CUDA graph records it: nothing waits for the device, and no shape depends on data."""

import dataclasses

import pytest
import torch
from runs import RECIPE
from stand_in_gpu import GPU, NotRecordable, stand_in_gpu

from electra_fast.model.packing import PackedBatch
from electra_fast.pretraining.build import build_model
from electra_fast.pretraining.loop import TrainingLoop
from electra_fast.pretraining.networks.objective import ElectraPretrainingModel
from electra_fast.pretraining.run_options import PretrainingOptions
from electra_fast.pretraining.text.stream import Rows
from electra_fast.training.distributed import World
from electra_fast.training.precision import LossScale

ELECTRIC = dict(objective="electric", temperature=1.0)
APART = dict(generator_size=0.5, num_attention_heads=2)
# Options of the recipe, and of the run.
CASES = {
    "dense": ({}, {}),
    "google": (dict(packing="google"), {}),
    "google whole words": (dict(packing="google", whole_word=True), {}),
    "google electric": (dict(packing="google", **ELECTRIC), {}),
    "long sequences": (dict(seq_length=160, max_position_embeddings=160), {}),
    "whole words": (dict(whole_word=True), {}),
    "replacement": (dict(replacement=True), {}),
    "never label": (dict(never_label=True), {}),
    "no [MASK] kept": (dict(keep_prob=0.0), {}),
    "uniform": (dict(generator_kind="uniform"), {}),
    "uniform never label": (dict(generator_kind="uniform", never_label=True), {}),
    "frozen": (dict(embedding_sharing="gdes", frozen_generator=True), {}),
    "tied": (dict(generator_kind="tied", generator_layers=1.0), {}),
    "gdes": (dict(embedding_sharing="gdes"), {}),
    "nes": (dict(embedding_sharing="nes", generator_embedding_size=16), {}),
    "decoupled": (dict(embedding_sharing="nes", decoupled=True, discriminator_learning_rate=1e-3), {}),
    "electric": (ELECTRIC, {}),
    "frozen electric": (dict(**ELECTRIC, embedding_sharing="nes", frozen_generator=True), {}),
    "mlm": (dict(objective="mlm"), {}),
    "temperature": (dict(temperature=2.0, temperature_end=1.0), {}),
    "a smaller generator": (APART, {}),
    "no dropout": (dict(dropout=0.0), {}),
    "generator without dropout": (dict(generator_dropout=0.0), {}),
    "lamb": (dict(optimizer="lamb"), {}),
    "no bias correction": (dict(bias_correction=False), {}),
    "fp32": ({}, dict(precision="fp32")),
    "fp16": ({}, dict(precision="fp16")),
    "fp16 decoupled lamb": (
        dict(embedding_sharing="nes", decoupled=True, optimizer="lamb"),
        dict(precision="fp16"),
    ),
    "accumulation": ({}, dict(accumulate=2)),
    "gradient checkpointing": ({}, dict(gradient_checkpointing=True)),
}


class Tokenizer:
    """The part of a tokenizer that networks are built for."""

    n_ids, pad_token_id, cls_token_id, sep_token_id, mask_token_id = RECIPE.vocab_size, 0, 1, 2, 3


class Text:
    """A stream of rows, with lengths if the recipe packs as google-research/electra does."""

    def __init__(self, recipe):
        self.recipe = recipe

    def rows(self, first, count):
        shape = (count, self.recipe.seq_length)
        ids, starts = torch.randint(4, RECIPE.vocab_size, shape), torch.ones(shape, dtype=torch.bool)
        if self.recipe.packing == "dense":
            return Rows(ids, starts)
        return Rows(ids, starts, torch.zeros_like(ids), torch.randint(3, shape[1], (count,)))


def make_loop(recipe, **options):
    """A loop whose networks and optimizers are on the stand-in, to be made while it stands in."""
    model = build_model(recipe, Tokenizer()).to(GPU)
    if options.get("gradient_checkpointing"):
        model.discriminator.gradient_checkpointing_enable()
    options = PretrainingOptions(**{"n_steps": 20, "precision": "bf16", **options})
    loop = TrainingLoop(model, recipe, Text(recipe), World(0, 1, GPU), options)
    loop.world = World(0, 1, torch.device("cpu"))  # random numbers for a batch are drawn here
    model.train()
    return loop


def batches_of(loop):
    return [tuple(x.to(GPU) for x in batch) for batch in loop._batches()]


@pytest.mark.parametrize("case", CASES)
def test_an_update_can_be_recorded(case):
    recipe, options = CASES[case]
    with stand_in_gpu() as gpu:
        loop = make_loop(dataclasses.replace(RECIPE, **recipe), **options)
        batches = batches_of(loop)
        list(loop._step(batches))  # the first update is not recorded: it makes what later ones keep
        with gpu.recording():
            outputs = list(loop._step(batches))
    kernels = set(gpu.launched)
    assert {"embed_norm_project_fwd_kernel", "gelu_bwd_kernel", "dropout_add_norm_bwd_kernel"} <= kernels
    updates = {"lamb_sums_kernel"} if loop.recipe.optimizer == "lamb" else {"adamw_kernel"}
    assert updates | {"grad_norm_kernel", "clip_kernel"} <= kernels
    assert all(output["loss"].shape == () for output in outputs)


FAULTS = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "tolist": lambda x: x.tolist(),
    "a condition": lambda x: 1 if (x > 0).any() else 2,
    "nonzero": lambda x: x.nonzero(),
    "a mask that selects": lambda x: x[x > 0],
    "a mask that is written to": lambda x: x.clone().index_put_((x > 0,), x[:1]),
    "unique": lambda x: x.unique(),
    "repeats without their sum": lambda x: x.repeat_interleave(x),
    "a copy to the host": lambda x: x.cpu(),
    "a number of the host": lambda x: x * torch.tensor([2], device=GPU),
    "a tensor of the host": lambda x: x + torch.arange(len(x)).to(GPU),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault, monkeypatch):
    mask = ElectraPretrainingModel._mask

    def faulty(model, input_ids, *args):
        FAULTS[fault](input_ids)
        return mask(model, input_ids, *args)

    monkeypatch.setattr(ElectraPretrainingModel, "_mask", faulty)
    with stand_in_gpu() as gpu:
        loop = make_loop(RECIPE)
        (batch,) = batches_of(loop)
        with gpu.recording(), pytest.raises(NotRecordable):
            loop._compute(*batch)


def test_lengths_that_are_read_are_found(monkeypatch):
    """As they were read in `packing="google"` on a GPU."""
    monkeypatch.setattr(PackedBatch, "with_padding", PackedBatch.from_mask)
    with stand_in_gpu() as gpu:
        loop = make_loop(dataclasses.replace(RECIPE, packing="google"))
        (batch,) = batches_of(loop)
        with gpu.recording(), pytest.raises(NotRecordable, match="the host waits"):
            loop._compute(*batch)


def test_a_read_by_an_optimizer_is_found(monkeypatch):
    update = LossScale.update
    with stand_in_gpu() as gpu:
        loop = make_loop(RECIPE, precision="fp16")
        batches = batches_of(loop)
        list(loop._step(batches))
        monkeypatch.setattr(LossScale, "update", lambda scale, is_finite: is_finite and update(scale, is_finite))
        with gpu.recording(), pytest.raises(NotRecordable):
            list(loop._step(batches))
