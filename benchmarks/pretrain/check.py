"""Whether a pre-training step is right before its time is taken: its losses and gradients beside transformers'."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...model.packing import PackedBatch
from ...pretraining.build import build_model
from ...pretraining.networks.objective import ElectraPretrainingModel
from ...pretraining.recipes import Recipe
from ...tokenizer import ElectraTokenizer
from .. import OURS
from .peers import TransformersPretraining

PLAIN, PLAIN_GATHERED = "transformers-eager", "transformers-eager-gathered"
# Losses may differ by so much, and the norm of the gradients by such a share.
EXACT = 1e-4
# The means over the first updates may differ by such a share by chance, for masks and samples do.
LOOSE = 0.05


class Losses(NamedTuple):
    """Means over tokens, in nats."""

    generator: float
    discriminator: float

    def __str__(self) -> str:
        return f"{self.generator:.5f} and {self.discriminator:.5f}"


def check_losses(
    recipe: Recipe, tokenizer: ElectraTokenizer, ids: Tensor, model: ElectraPretrainingModel
) -> dict[str, str]:
    """Holds one step of ours and of the gathered peer against the plain one's.

    The step is without dropout, in fp32, at the same masks and samples.

    Args:
        ids: [B, S] int64, full sequences, on the device.
        model: the network whose weights all have.

    Returns:
        What is wrong, by provider: `OURS`, `PLAIN` and `PLAIN_GATHERED`. The plain one is wrong where its generator
        does not begin near a loss of ln V: it knows nothing yet.
    """
    sober = build_model(replace(recipe, dropout=0.0), tokenizer)
    sober.load_state_dict(model.state_dict())
    sober.to(ids.device).train()
    masked_ids, positions, samples, losses, norm = our_step(sober, ids)
    found = {OURS: (losses, norm)}
    for name, gathered in ((PLAIN, False), (PLAIN_GATHERED, True)):
        peer = TransformersPretraining(sober, gathered).to(ids.device).train()
        found[name] = peer_step(peer, ids, masked_ids, positions, samples)
    expected, expected_norm = found[PLAIN]
    wrong = {}
    for name, (losses, norm) in found.items():
        if is_far(losses, expected, 0, EXACT) or not abs(norm / expected_norm - 1) <= EXACT:
            wrong[name] = (
                f"is wrong: one step has losses {losses} and gradients of norm {norm:.6g}, "
                f"expected {expected} and {expected_norm:.6g}"
            )
    ceiling = math.log(len(tokenizer))
    if not abs(expected.generator / ceiling - 1) <= LOOSE:
        wrong[PLAIN] = f"is wrong: its generator begins at {expected.generator:.4f}, expected ln V {ceiling:.4f}"
    return wrong


def our_step(model: ElectraPretrainingModel, ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Losses, float]:
    """(masked ids [B, S], positions in a row [B, N], the samples there [B, N], losses, norm of the gradients)."""
    packed, flat = PackedBatch.full(*ids.shape, ids.device), ids.flatten()
    random = torch.Generator(ids.device).manual_seed(0)
    numbers = torch.rand(3, len(flat), generator=random, device=ids.device)
    masked_ids, positions, _, is_used = model.ops.mask_tokens(
        flat,
        packed.cu_seqlens,
        ~model.is_special[flat],
        numbers[:2],
        model.n_slots(packed),
        model.mask_token_id,
        model.mask_prob,
        1 - model.keep_prob,
        model.replacement,
    )
    assert is_used.all(), "full rows have as many candidates as slots"
    output = model(flat, packed, random=numbers)
    losses = Losses(output.generator_loss.item(), output.discriminator_loss.item())
    columns = (positions % ids.shape[1]).view(len(ids), -1)
    samples = output.corrupted_ids.view_as(ids).gather(1, columns)
    return masked_ids.view_as(ids), columns, samples, losses, _gradient_norm(model, output.loss)


def peer_step(
    peer: TransformersPretraining, ids: Tensor, masked_ids: Tensor, positions: Tensor, samples: Tensor
) -> tuple[Losses, float]:
    """(losses, norm of the gradients) of a peer at given masks and samples."""
    generator_loss, _ = peer.guess(ids, masked_ids, positions)
    discriminator_loss = peer.detect(ids, ids.scatter(1, positions, samples))
    losses = Losses(generator_loss.item(), discriminator_loss.item())
    return losses, _gradient_norm(peer, peer.gen_weight * generator_loss + peer.disc_weight * discriminator_loss)


def _gradient_norm(module: nn.Module, loss: Tensor) -> float:
    loss.backward()
    return nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None]).item()


def is_far(losses: Losses, expected: Losses, relative: float, absolute: float = 0.0) -> bool:
    """Whether a loss is no number, or off by more."""
    return not all(
        math.isclose(a, b, rel_tol=relative, abs_tol=absolute) for a, b in zip(losses, expected, strict=True)
    )
