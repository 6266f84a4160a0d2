"""What the files of the Flax and the TensorFlow classes share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

import huggingface_hub
import torch
from torch import Tensor

from ..hub.files import push_directory
from ..hub.names import TRANSPOSED
from ..model.pretrained import PUSH_OPTIONS
from .parameters import Path


class PushMixin:
    """`push_to_hub` for a class that has `save_pretrained`."""

    def push_to_hub(
        self, repo_id: str, *, token: str | bool | None = None, **kwargs: Any
    ) -> huggingface_hub.CommitInfo:
        """Uploads the model to a repository of the Hub.

        Args:
            **kwargs: `private`, `revision`, `commit_message` and `create_pr` of `push_directory`, and the arguments of
                `save_pretrained`.
        """
        push = {name: kwargs.pop(name) for name in PUSH_OPTIONS if name in kwargs}
        with TemporaryDirectory() as directory:
            self.save_pretrained(directory, **kwargs)
            return push_directory(directory, repo_id, token=token, files=os.listdir(directory), **push)


def on_paper(path: Path, shape: Sequence[int]) -> Tensor:
    """A tensor of PyTorch for a parameter, without values."""
    return torch.empty(shape[::-1] if path[-1] == TRANSPOSED else shape, device="meta")
