"""Packed batches: padding is dropped once on entry and restored once on exit.

A padded batch of B rows of S columns with T real tokens becomes `[T, ...]` tokens in row order, and
`cu_seqlens [B + 1] int32` marks where each row starts. Everything between entry and exit costs T tokens, not B * S.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedBatch:
    """The places of the T real tokens of a padded [B, S] batch.

    Attributes:
        batch_size, seq_length: B and S of the padded form.
        cu_seqlens: [B + 1] int32, first token of each sequence; the last entry is T.
        max_seqlen: length of the longest sequence.
        indices: [T] int64, positions of the tokens in the flattened [B * S] form; None where nothing is padded:
            packing and unpacking are views then.
    """

    batch_size: int
    seq_length: int
    cu_seqlens: Tensor
    max_seqlen: int
    indices: Tensor | None

    @classmethod
    def full(cls, batch_size: int, seq_length: int, device: torch.device) -> PackedBatch:
        """A batch without padding."""
        ends = torch.arange(0, batch_size * seq_length + 1, max(seq_length, 1), dtype=torch.int32, device=device)
        return cls(batch_size, seq_length, ends, seq_length, None)

    @classmethod
    def from_mask(cls, mask: Tensor) -> PackedBatch:
        """Makes a batch from a mask [B, S]: nonzero at real tokens, anywhere in a row."""
        batch_size, seq_length = mask.shape
        mask = mask != 0
        lengths = mask.sum(1, dtype=torch.int32)
        on_host = lengths.tolist()  # the only wait for the device
        n_tokens = sum(on_host)
        if n_tokens == batch_size * seq_length:
            return cls.full(batch_size, seq_length, mask.device)
        cu_seqlens = torch.nn.functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
        indices = torch.nonzero_static(mask.flatten(), size=n_tokens).squeeze(1)
        return cls(batch_size, seq_length, cu_seqlens, max(on_host), indices)

    @classmethod
    def from_cu_seqlens(cls, batch_size: int, seq_length: int, cu_seqlens: Tensor, max_seqlen: int) -> PackedBatch:
        """Makes a batch of rows that are packed already: `cu_seqlens` marks the sequences in all B * S tokens."""
        # C++ and the kernels read it as an array.
        return cls(batch_size, seq_length, cu_seqlens.to(torch.int32).contiguous(), max_seqlen, None)

    def position_ids(self, n_tokens: int) -> Tensor:
        """Each token's place in its sequence, [T] int64."""
        # Giving the size saves a wait for the device.
        starts = self.cu_seqlens[:-1].long().repeat_interleave(self.cu_seqlens.diff(), output_size=n_tokens)
        return torch.arange(n_tokens, device=starts.device) - starts

    def pack(self, padded: Tensor) -> Tensor:
        """Drops padding: [B, S, ...] -> [T, ...]."""
        flat = padded.reshape(self.batch_size * self.seq_length, *padded.shape[2:])
        return flat if self.indices is None else flat.index_select(0, self.indices)

    def unpack(self, packed: Tensor, fill: float = 0.0) -> Tensor:
        """Restores padding: [T, ...] -> [B, S, ...], with `fill` at padding positions."""
        if self.indices is not None:
            flat = packed.new_full((self.batch_size * self.seq_length, *packed.shape[1:]), fill)
            packed = flat.index_copy(0, self.indices, packed)
        return packed.reshape(self.batch_size, self.seq_length, *packed.shape[1:])


def cu_seqlens_of(lengths: list[int], device: torch.device | str = "cpu") -> Tensor:
    """Starts of sequences from their lengths: [B] -> [B + 1] int32."""
    return torch.nn.functional.pad(torch.tensor(lengths, dtype=torch.int32, device=device).cumsum(0), (1, 0)).int()


def packed_row(position_ids: Tensor) -> PackedBatch | None:
    """Several sequences in one row, whose position ids [1, S] start again from 0; None for a single sequence.

    transformers' DataCollatorWithFlattening makes such rows.
    """
    row = position_ids[0]
    starts = row == 0
    is_continued = row[1:] == row[:-1] + 1
    if (
        row.numel() < 2
        or not bool(starts[0])
        or bool(starts[1:].sum() == 0)
        or not bool((starts[1:] | is_continued).all())
    ):
        return None
    first = starts.nonzero().squeeze(1)
    cu_seqlens = torch.cat([first, first.new_tensor([row.numel()])]).int()
    return PackedBatch.from_cu_seqlens(1, row.numel(), cu_seqlens, int(cu_seqlens.diff().max()))


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers starts[0], ..., starts[0] + lengths[0] - 1, starts[1], ...; all int64."""
    before = lengths.cumsum() - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())
