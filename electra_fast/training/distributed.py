"""The processes that train together: torchrun's, or this one alone.

A process that torchrun did not launch joins a group of one, so that training code has a single path.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from ..model.layers import ElectraLayer
from .options import Parallel

# Number of groups this process has joined: each needs its own prefix, for torchrun's store keeps the keys of old ones.
_joins = itertools.count()


@dataclass(frozen=True)
class World:
    """This process's place among all.

    Attributes:
        rank, size: its number, and the number of processes.
        device: device it computes on.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @contextmanager
    def warning_once(self) -> Iterator[None]:
        """Silences warnings in all processes but the first, about what all of them read."""
        with warnings.catch_warnings():
            if not self.is_main:
                warnings.simplefilter("ignore")
            yield

    def barrier(self) -> None:
        """Waits for all processes."""
        distributed.barrier()

    def shared(self, value: object) -> object:
        """The first process's value, in every process."""
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]


@contextmanager
def join(device: str = "auto", timeout: timedelta = timedelta(minutes=30)) -> Iterator[World]:
    """Joins the processes that torchrun started, or a group of one; leaves the group at the end.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:1"; with torchrun each process takes the GPU of its local rank.
        timeout: time to wait for another process before giving up.

    Raises:
        ValueError: a GPU that this machine does not have.
    """
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    local_rank, is_launched = int(os.environ.get("LOCAL_RANK", 0)), "RANK" in os.environ
    place = torch.device(kind)
    if place.type == "cuda":
        place = torch.device("cuda", local_rank if is_launched or place.index is None else place.index)
        if place.index >= torch.cuda.device_count():
            raise ValueError(f"{place} must be a GPU of this machine, which has {torch.cuda.device_count()}")
        torch.cuda.set_device(place)
    backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
    if is_launched:
        store, rank, size = next(distributed.rendezvous("env://", timeout=timeout))
    else:
        store, rank, size = distributed.HashStore(), 0, 1
    store = distributed.PrefixStore(f"join-{next(_joins)}", store)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    try:
        yield World(distributed.get_rank(), distributed.get_world_size(), place)
    finally:
        distributed.destroy_process_group()


def parallelize(model: nn.Module, world: World, parallel: Parallel, dtype: torch.dtype) -> None:
    """Prepares a model for training by all processes, in place; `gradients_of` says what becomes of its gradients.

    Args:
        model: the model, with the same weights in every process. Under FSDP its parameters become shards, and its
            encoders' layers are gathered and freed one after the other.
        parallel: "ddp": every process has all weights, in the beginning those of the first; "fsdp": every process has
            a share of the weights, of their gradients and of the optimizer's state.
        dtype: type in which FSDP gathers weights.
    """
    if parallel == "fsdp":
        mesh = distributed.init_device_mesh(world.device.type, (world.size,))
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
        layers = [module for module in model.modules() if isinstance(module, ElectraLayer)]
        for part in (*layers, model):
            fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    elif world.size > 1:
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                distributed.broadcast(tensor, src=0)
