"""Packed batches: padding is dropped once on entry and restored once on exit.

A padded batch of B rows of S columns with T real tokens becomes `[T, ...]` tokens in row order, and
`cu_seqlens [B + 1] int32` marks where each row starts. Everything between entry and exit costs T tokens, not B * S.

T depends on the mask, so the host has to wait for it, and a CUDA graph could not be replayed with another one. For
graphs there is `PackedBatch.with_padding`: it keeps the padding, behind the text and in sequences of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedBatch:
    """The places of the T tokens of a padded [B, S] batch: of the real ones or, in a `with_padding`, of all.

    Attributes:
        batch_size, seq_length: B and S of the padded form.
        cu_seqlens: [B + 1] int32, or [2 B + 1] in a `with_padding`: first token of each sequence; the last entry is T.
        max_seqlen: length of the longest sequence.
        indices: [T] int64, positions of the tokens in the flattened [B * S] form; None where nothing is padded:
            packing and unpacking are views then.
        n_padding: number of sequences, the last ones, that hold padding or nothing.
    """

    batch_size: int
    seq_length: int
    cu_seqlens: Tensor
    max_seqlen: int
    indices: Tensor | None
    n_padding: int = 0

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
    def with_padding(cls, mask: Tensor) -> PackedBatch:
        """Makes a batch from a mask as `from_mask` does, but of all B * S tokens: real ones in row order, then padding.

        Padding lies in up to B sequences of up to S tokens. So no shape depends on the mask, the host waits for
        nothing, and every op computes finite numbers for padding; `is_text` tells what counts.
        """
        batch_size, seq_length = mask.shape
        is_token, size = (mask != 0).flatten(), mask.numel()
        tokens = torch.arange(size, device=mask.device)
        lengths = is_token.view(mask.shape).sum(1)
        ends = torch.cat([lengths, lengths.new_full((batch_size,), seq_length)]).cumsum(0).clamp(max=size)
        cu_seqlens = torch.nn.functional.pad(ends, (1, 0)).int()
        n_before = is_token.cumsum(0)
        place = torch.where(is_token, n_before - 1, tokens - n_before + n_before[-1:])
        indices = torch.empty_like(tokens).scatter(0, place, tokens)
        return cls(batch_size, seq_length, cu_seqlens, seq_length, indices, batch_size)

    @classmethod
    def from_cu_seqlens(cls, batch_size: int, seq_length: int, cu_seqlens: Tensor, max_seqlen: int) -> PackedBatch:
        """Makes a batch of rows that are packed already: `cu_seqlens` marks the sequences in all B * S tokens."""
        # C++ and the kernels read it as an array.
        return cls(batch_size, seq_length, cu_seqlens.to(torch.int32).contiguous(), max_seqlen, None)

    @property
    def n_sequences(self) -> int:
        """The number of sequences of text."""
        return len(self.cu_seqlens) - 1 - self.n_padding

    @property
    def first_tokens(self) -> Tensor:
        """The places of the rows' first columns, which are real tokens, [B] int64."""
        if self.indices is None:
            return torch.arange(self.batch_size, device=self.cu_seqlens.device) * self.seq_length
        return self.cu_seqlens[: self.batch_size].long()

    def is_text(self, n_tokens: int) -> Tensor:
        """Marks the tokens that are no padding, [T] bool."""
        return torch.arange(n_tokens, device=self.cu_seqlens.device) < self.cu_seqlens[self.n_sequences]

    def position_ids(self, n_tokens: int) -> Tensor:
        """Each token's place in its sequence, [T] int64."""
        tokens = torch.arange(n_tokens, device=self.cu_seqlens.device)
        sequence = torch.bucketize(tokens, self.cu_seqlens[1:], right=True)
        return tokens - self.cu_seqlens.index_select(0, sequence)

    def pack(self, padded: Tensor) -> Tensor:
        """Drops padding: [B, S, ...] -> [T, ...]."""
        flat = padded.reshape(self.batch_size * self.seq_length, *padded.shape[2:])
        return flat if self.indices is None else flat.index_select(0, self.indices)

    def unpack(self, packed: Tensor, fill: float = 0.0) -> Tensor:
        """Restores padding: [T, ...] -> [B, S, ...], with `fill` at padding positions."""
        if self.indices is not None:
            if self.n_padding:
                is_text = self.is_text(len(packed)).view(-1, *[1] * (packed.dim() - 1))
                packed = torch.where(is_text, packed, fill)
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
