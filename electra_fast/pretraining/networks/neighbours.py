"""An initialization for runs of minutes: heads of the first layer that begin by looking at the tokens beside theirs.

A masked language model knows a token's neighbours through attention alone. Random heads average over the
whole sequence, and until they have found the neighbours both networks learn how frequent tokens are and little more.
Here positions begin as sinusoids (Vaswani et al. 2017, section 3.5), of which a rotation makes those of a place further
on. A head's queries are its pairs of sines and cosines turned by its distance d, its keys the same pairs as they are:

    score(i, j) = peak * mean over the head's frequencies w of cos(w (i + d - j)),

which is largest at j = i + d. Training goes on from there as from anywhere else, and files are as ever.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch.nn.utils import parametrize

from ...model.backbone import ElectraModel

# The score where a head looks first: e**4 times the weight of a place that it has nothing to do with.
_PEAK = 4.0
# Of the sinusoids, in standard deviations of the other embeddings; these three and the LayerNorm after them are such
# that the amplitude is then about 1.
_AMPLITUDE = 2.0
# Radians a token. Spread evenly, so that the score falls off at once, and irregularly (by the golden ratio), so that it
# does not rise again further away.
_LOWEST, _HIGHEST = 0.1, 2.9
_GOLDEN = (sqrt(5) - 1) / 2


@torch.no_grad()
def look_beside(model: ElectraModel) -> None:
    """Gives a fresh model such heads: of distances -1, 1, -2, 2, ... in order, with each an equal share of frequencies.

    Where embeddings are projected, half of the layers' width takes up sinusoids as they are. Models that share their
    position table may have this done to each, for it is overwritten with the same values.

    Raises:
        ValueError: heads of an odd size, or of less than 4.
    """
    config, table = model.config, model.embeddings.position_embeddings
    n_heads, head_size = config.num_attention_heads, config.head_size
    if head_size < 4 or head_size % 2:
        raise ValueError(f"neighbour_heads needs heads of an even size of at least 4, got {head_size}")
    n_pairs = config.embedding_size // 2
    spread = torch.arange(n_pairs, dtype=torch.float64) * _GOLDEN % 1
    frequencies = (_LOWEST + (_HIGHEST - _LOWEST) * spread).to(table.weight)
    # A table that is another one's plus a difference follows that one.
    if not parametrize.is_parametrized(table):
        angles = torch.arange(len(table.weight)).to(table.weight)[:, None] * frequencies
        sinusoids = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
        table.weight[:, : 2 * n_pairs] = _AMPLITUDE * config.initializer_range * sinusoids
    if config.embedding_size != config.hidden_size:
        n_pairs = min(config.embedding_size, config.hidden_size) // 4
        model.embeddings_project.weight[: 2 * n_pairs] = torch.eye(2 * n_pairs, config.embedding_size)

    query, key, _ = model.encoder.layer[0].attention.self.qkv.weight.view(3, n_heads, head_size, -1)
    n_pairs_each = n_pairs // n_heads
    gain = sqrt(_PEAK * sqrt(head_size) / n_pairs_each)
    for head in range(n_heads):
        distance = (head // 2 + 1) * (-1 if head % 2 == 0 else 1)
        for of_head in range(n_pairs_each):
            pair = head + of_head * n_heads
            rows, columns = slice(2 * of_head, 2 * of_head + 2), slice(2 * pair, 2 * pair + 2)
            angle = frequencies[pair] * distance
            turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()]).view(2, 2)
            query[head, rows], key[head, rows] = 0, 0
            query[head, rows, columns] = gain * turn
            key[head, rows, columns] = gain * torch.eye(2).to(turn)
