"""Sharing of embeddings between the two networks: the same tables, tables plus a learned difference, or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...model.base import ElectraPreTrainedModel
from ...model.config import ElectraConfig
from ...model.layers import ElectraEmbeddings
from ...model.modeling import ElectraForPreTraining
from .options import EmbeddingSharing

_TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")
_SIZES = ("vocab_size", "embedding_size", "max_position_embeddings", "type_vocab_size")
# Fields that must agree in both configs.
_AGREE = {"es": (*_SIZES, "layer_norm_eps"), "gdes": _SIZES, "nes": ("vocab_size",)}
_DIFFERENCE = "parametrizations.weight.original"


class _AddedTo(nn.Module):
    """A parametrization weight = base + difference that gives the base no gradient."""

    def __init__(self, base: nn.Embedding):
        super().__init__()
        # A tuple hides the base, so that its parameters do not become this module's.
        self._base = (base,)

    def forward(self, difference: Tensor) -> Tensor:
        return self._base[0].weight.detach() + difference

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight - self._base[0].weight.detach()


def check_embeddings(generator: ElectraConfig, discriminator: ElectraConfig, sharing: EmbeddingSharing) -> None:
    """Raises ValueError for configs that disagree about shared embeddings."""
    for name in _AGREE[sharing]:
        ours, theirs = getattr(generator, name), getattr(discriminator, name)
        if ours != theirs:
            what = "have one vocabulary" if sharing == "nes" else "share their embeddings"
            raise ValueError(
                f"the networks {what}, so {name} must agree: got {ours} for the generator and "
                f"{theirs} for the discriminator"
            )


def check_same_shape(generator: ElectraConfig, discriminator: ElectraConfig) -> None:
    """Raises ValueError for configs that cannot belong to one network."""
    ours, theirs = generator.to_dict(), discriminator.to_dict()
    if differing := [name for name in ours if ours[name] != theirs.get(name)]:
        name = differing[0]
        raise ValueError(
            f"a tied generator is the discriminator's network, so {name} must agree: got {ours[name]} for the "
            f"generator and {theirs.get(name)} for the discriminator"
        )


def share_embeddings(generator: nn.Module, discriminator: ElectraForPreTraining, sharing: EmbeddingSharing) -> None:
    """Joins the embeddings of two networks; `generator.tie_weights()` passes those of its first tower to the second.

    With es they become the same Parameters. With gdes the discriminator's tables become the generator's plus a
    difference, zero at first, and its LayerNorm stays its own. With nes nothing changes.
    """
    theirs = next(module for module in generator.modules() if isinstance(module, ElectraEmbeddings))
    own = discriminator.electra.embeddings
    if sharing == "es":
        for name in (*_TABLES, "LayerNorm"):
            setattr(theirs, name, getattr(own, name))
        generator.tie_weights()
    elif sharing == "gdes":
        for name in _TABLES:
            table = getattr(own, name)
            parametrize.register_parametrization(table, "weight", _AddedTo(getattr(theirs, name)))
            nn.init.zeros_(table.parametrizations.weight.original)


def merged_state(network: ElectraPreTrainedModel) -> dict[str, Tensor]:
    """A network's state dict in the Hub's form: tables that are sums become plain weights."""
    state = network.state_dict()
    for name, table in _sums(network):
        del state[f"{name}.{_DIFFERENCE}"]
        state[f"{name}.weight"] = table.weight.detach()
    return state


@torch.no_grad()
def load_merged(network: ElectraPreTrainedModel, state: Mapping[str, Tensor]) -> None:
    """Loads a state dict in the Hub's form; differences are set so that the sums equal its tables."""
    state = dict(state)
    for name, table in _sums(network):
        weight = state.pop(f"{name}.weight").to(table.weight)
        state[f"{name}.{_DIFFERENCE}"] = table.parametrizations.weight[0].right_inverse(weight)
    network.load_state_dict(state)


def _sums(network: ElectraPreTrainedModel) -> Iterator[tuple[str, nn.Embedding]]:
    """The tables that are sums, by their names on the Hub."""
    for name in _TABLES:
        table = getattr(network.electra.embeddings, name)
        if parametrize.is_parametrized(table):
            yield f"electra.embeddings.{name}", table
