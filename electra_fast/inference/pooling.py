"""One vector for each text from the hidden states of its tokens: the pooling modes of sentence-transformers.

Texts are packed: the tokens of all texts follow each other in one matrix, without padding. The command line has the
modes from here, so this file imports torch when it computes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Pooling = Literal["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


def pooled(hidden: Tensor, lengths: np.ndarray, mode: Pooling, n_skipped: int = 0) -> Tensor:
    """Pools the hidden states of packed texts.

    Args:
        hidden: [T, H], the texts one after the other, in any floating dtype.
        lengths: [texts] int64, the tokens of each text, at least 1.
        mode: "mean"; "cls", the first token; "max" of each number; "mean_sqrt_len_tokens", the sum divided by the root
            of the number of tokens; "weightedmean", token i of a text with weight i, from 1; "lasttoken".
        n_skipped: how many tokens at a text's beginning, those of a prompt, are left out. Later tokens keep their
            weights, and the last token of a text is never left out.

    Returns:
        fp32 [texts, H].
    """
    import torch
    from torch.nn.functional import embedding_bag

    from ..model.packing import ranges

    begins = lengths.cumsum() - lengths
    skipped = np.minimum(n_skipped, lengths - 1)
    n_read, first = lengths - skipped, begins + skipped

    def on_device(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(hidden.device)

    if mode == "cls":
        return hidden[on_device(first)].float()
    if mode == "lasttoken":
        return hidden[on_device(begins + lengths - 1)].float()
    # embedding_bag sums neighbouring rows: many times as fast as segment_reduce on a CPU, no atomics on a GPU.
    tokens, bags = on_device(ranges(first, n_read)), on_device(n_read.cumsum() - n_read)
    if mode in ("mean", "max"):
        return embedding_bag(tokens, hidden.float(), bags, mode=mode)
    if mode == "mean_sqrt_len_tokens":
        sums = embedding_bag(tokens, hidden.float(), bags, mode="sum")
        return sums / on_device(np.sqrt(n_read, dtype=np.float32))[:, None]
    assert mode == "weightedmean", mode
    weights = ranges(skipped + 1, n_read).astype(np.float32)
    sums = embedding_bag(tokens, hidden.float(), bags, mode="sum", per_sample_weights=on_device(weights))
    return sums / on_device(np.add.reduceat(weights, n_read.cumsum() - n_read))[:, None]
