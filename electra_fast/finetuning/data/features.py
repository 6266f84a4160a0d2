"""Examples as packed token ids, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ...model.packing import PackedBatch, ranges


@dataclass(frozen=True, kw_only=True)
class Batch:
    """I items of R rows of T tokens, packed.

    Attributes:
        input_ids, token_type_ids: [T] int64.
        packed: places of the rows; `cu_seqlens` is [R + 1].
        item_rows: [I + 1] int64, the first row of each item.
        targets: tensors of I items or of T tokens.
        n_targets: number of targets that the losses of the batch are sums over.
    """

    input_ids: Tensor
    token_type_ids: Tensor
    packed: PackedBatch
    item_rows: Tensor
    targets: dict[str, Tensor]
    n_targets: int

    @property
    def first_tokens(self) -> Tensor:
        """The place of each row's first token, which is [CLS]: [R] int64."""
        return self.packed.cu_seqlens[:-1].long()

    @property
    def row_lengths(self) -> list[int]:
        """The number of tokens of each row."""
        return self.packed.cu_seqlens.diff().tolist()


@dataclass(frozen=True, kw_only=True)
class Features:
    """The items that a network is trained on, one after the other: I items of R rows of T tokens in all.

    Each item gives one prediction; it is a row, or the rows of all choices. Each example gives one item or more: a long
    sentence is cut, a long context is read in windows.

    Attributes:
        input_ids: [T] int32.
        token_type_ids: [T] uint8.
        row_starts: [R + 1] int64, the first token of each row.
        item_rows: [I + 1] int64, the first row of each item.
        item_examples: [I] int64, rising, the example that each item belongs to.
        item_targets: arrays [I, ...].
        token_targets: arrays [T].
        n_targets: [I] int64, the number of targets of each item: a mean of losses divides by their sum.
    """

    input_ids: np.ndarray
    token_type_ids: np.ndarray
    row_starts: np.ndarray
    item_rows: np.ndarray
    item_examples: np.ndarray
    item_targets: dict[str, np.ndarray] = field(default_factory=dict)
    token_targets: dict[str, np.ndarray] = field(default_factory=dict)
    n_targets: np.ndarray

    def __len__(self) -> int:
        return len(self.item_rows) - 1

    @property
    def item_lengths(self) -> np.ndarray:
        """The number of tokens of each item: [I] int64."""
        return np.diff(self.row_starts[self.item_rows])

    def batch(self, items: Sequence[int] | np.ndarray, device: torch.device | str = "cpu") -> Batch:
        """The items with these numbers, at least one, in this order."""
        items = np.asarray(items)
        first_rows, end_rows = self.item_rows[items], self.item_rows[items + 1]
        rows = ranges(first_rows, end_rows - first_rows)
        lengths = np.diff(self.row_starts)[rows]
        tokens = ranges(self.row_starts[rows], lengths)
        cu_seqlens = torch.from_numpy(np.concatenate([[0], lengths.cumsum()]).astype(np.int32)).to(device)
        targets = {name: values[items] for name, values in self.item_targets.items()}
        targets |= {name: values[tokens] for name, values in self.token_targets.items()}
        return Batch(
            input_ids=torch.from_numpy(self.input_ids[tokens].astype(np.int64)).to(device),
            token_type_ids=torch.from_numpy(self.token_type_ids[tokens].astype(np.int64)).to(device),
            packed=PackedBatch.from_cu_seqlens(1, len(tokens), cu_seqlens, int(lengths.max())),
            item_rows=torch.from_numpy(np.concatenate([[0], (end_rows - first_rows).cumsum()])).to(device),
            targets={name: torch.from_numpy(values).to(device) for name, values in targets.items()},
            n_targets=int(self.n_targets[items].sum()),
        )


def flat_rows(encoded: dict[str, list[list[int]]]) -> dict[str, np.ndarray]:
    """The fields `input_ids`, `token_type_ids` and `row_starts`, from the lists that a tokenizer returned."""
    lengths = [len(row) for row in encoded["input_ids"]]
    return {
        "input_ids": _flat(encoded["input_ids"], np.int32),
        "token_type_ids": _flat(encoded["token_type_ids"], np.uint8),
        "row_starts": np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
    }


def _flat(rows: list[list[int]], dtype: type) -> np.ndarray:
    return np.fromiter((x for row in rows for x in row), dtype)
