"""An initialization for runs of minutes: heads of the first layer that begin by looking at the tokens beside theirs.

To a masked language model a token's neighbours are where they are by attention alone. Random heads average over the
whole sequence, and until they have found the neighbours both networks learn how frequent tokens are and little more.
Here positions begin as sinusoids (Vaswani et al. 2017, section 3.5), of which a rotation makes those of a place further
on. A head's queries are its pairs of sines and cosines turned by its distance d, its keys the same pairs as they are:

    score(i, j) = peak * mean over the head's frequencies w of cos(w (i + d - j)),

which is largest at j = i + d. Training goes on from there as from anywhere else, and files are as ever.
"""

from __future__ import annotations

from math import sqrt

import torch

from ..backbone import ElectraModel

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

    Embeddings must be as wide as the layers. The position table is overwritten with the same values each time, so
    two models may share it.
    """
    config, attention = model.config, model.encoder.layer[0].attention.self
    width, n_heads = config.hidden_size, config.num_attention_heads
    assert config.embedding_size == width
    positions = model.embeddings.position_embeddings.weight
    spread = torch.arange(width // 2, dtype=torch.float64) * _GOLDEN % 1
    frequencies = (_LOWEST + (_HIGHEST - _LOWEST) * spread).to(positions)
    angles = torch.arange(len(positions)).to(positions)[:, None] * frequencies
    sinusoids = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
    positions.copy_(_AMPLITUDE * config.initializer_range * sinusoids)

    query, key, _ = attention.qkv.weight.view(3, n_heads, -1, width)
    gain = sqrt(2 * _PEAK / sqrt(config.head_size))
    for head in range(n_heads):
        distance = (head // 2 + 1) * (-1 if head % 2 == 0 else 1)
        query[head], key[head] = 0, 0
        for row, pair in enumerate(range(head, width // 2, n_heads)):
            rows, columns = slice(2 * row, 2 * row + 2), slice(2 * pair, 2 * pair + 2)
            angle = frequencies[pair] * distance
            turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()]).view(2, 2)
            query[head, rows, columns] = gain * turn
            key[head, rows, columns] = gain * torch.eye(2).to(turn)
