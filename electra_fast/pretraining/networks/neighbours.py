"""An initialization for runs of minutes: heads of the first layer begin by looking at neighbouring tokens.

A masked language model knows a token's neighbours through attention alone. Random heads average over the whole
sequence, and until they have found the neighbours both networks learn how frequent tokens are and little more. Here
positions begin as sinusoids (Vaswani et al. 2017, section 3.5), and a rotation turns the sinusoids of one place into
those of another. A head's keys are its pairs of sines and cosines, and its queries the same pairs rotated by its
distance d:

    score(i, j) = peak * mean over the head's frequencies w of cos(w (i + d - j))

This score is largest at j = i + d. Training and file formats do not change.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch.nn.utils import parametrize

from ...model.backbone import ElectraModel

# The score at the place a head looks at: e**4 times the attention weight of an unrelated place.
_PEAK = 4.0
# The sinusoids' amplitude, in standard deviations of the other embeddings. After the sum of the three embeddings and
# the LayerNorm it is about 1.
_AMPLITUDE = 2.0
# Frequencies in radians per token. An even spread makes the score fall off quickly, and an irregular order (by the
# golden ratio) keeps it from rising again further away.
_LOWEST, _HIGHEST = 0.1, 2.9
_GOLDEN = (sqrt(5) - 1) / 2


@torch.no_grad()
def look_beside(model: ElectraModel) -> None:
    """Gives a fresh model neighbour heads: at distances -1, 1, -2, 2, ..., with an equal share of frequencies each.

    If embeddings are projected, half of the layers' width receives the sinusoids unchanged. Models that share a
    position table may each be passed here: the table is overwritten with the same values.

    Raises:
        ValueError: a head size that is odd or below 4.
    """
    config, table = model.config, model.embeddings.position_embeddings
    n_heads, head_size = config.num_attention_heads, config.head_size
    if head_size < 4 or head_size % 2:
        raise ValueError(f"neighbour_heads needs heads of an even size of at least 4, got {head_size}")
    n_pairs = config.embedding_size // 2
    spread = torch.arange(n_pairs, dtype=torch.float64) * _GOLDEN % 1
    frequencies = (_LOWEST + (_HIGHEST - _LOWEST) * spread).to(table.weight)
    # A table parametrized as another table plus a difference follows that table.
    if not parametrize.is_parametrized(table):
        angles = torch.arange(len(table.weight)).to(table.weight)[:, None] * frequencies
        sinusoids = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
        table.weight[:, : 2 * n_pairs] = _AMPLITUDE * config.initializer_range * sinusoids
    if config.embedding_size != config.hidden_size:
        n_pairs = min(config.embedding_size, config.hidden_size) // 4
        model.embeddings_project.weight[: 2 * n_pairs] = torch.eye(2 * n_pairs, config.embedding_size)

    attention = model.encoder.layer[0].attention.self
    query, key = (linear.weight.view(n_heads, head_size, -1) for linear in (attention.query, attention.key))
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
