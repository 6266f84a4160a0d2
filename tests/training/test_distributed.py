"""The processes that train together: alone, and two."""

import os
from datetime import timedelta

import pytest
import torch
from torch import distributed, nn
from torch.distributed.fsdp import FSDPModule

from electra_fast.training.distributed import join, parallelize
from electra_fast.training.optim import LAMB


def test_a_process_alone_leaves_no_group_behind():
    for _ in range(2):
        with join("cpu") as world:
            assert (world.rank, world.size, world.is_main, world.device) == (0, 1, True, torch.device("cpu"))
            assert distributed.get_backend() == "gloo"
            assert world.shared([1, "a"]) == [1, "a"]
            world.barrier()
        assert not distributed.is_initialized()
    with pytest.raises(KeyError), join("cpu"):
        raise KeyError
    assert not distributed.is_initialized()


def test_a_gpu_that_is_not_there_is_refused():
    n = torch.cuda.device_count()
    with (
        pytest.raises(ValueError, match=rf"^cuda:{n} must be a GPU of this machine, which has {n}$"),
        join(f"cuda:{n}"),
    ):
        pass
    assert not distributed.is_initialized()


def test_lamb_refuses_parameters_in_shards():
    """Its ratios are of the norms of whole tensors."""
    with join("cpu") as world:
        module = nn.Linear(4, 4)
        parallelize(module, world, "fsdp", torch.float32)
        assert isinstance(module, FSDPModule)
        with pytest.raises(ValueError, match="LAMB takes the norm of whole tensors, got parameters in shards"):
            LAMB(module.parameters())


def in_two(port, results, rank):
    """One group after another over one store, as under torchrun, which keeps it."""
    launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    launched |= {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}
    os.environ |= {name: str(value) for name, value in launched.items()}
    for name in ("a", "b"):
        with join("cpu", timedelta(seconds=30)) as world:
            results.put((name, world.rank, world.size, world.is_main, world.shared((name, rank))))
            world.barrier()
            module = nn.Linear(1, 1, bias=False)
            nn.init.constant_(module.weight, rank + 5)
            parallelize(module, world, "ddp", torch.float32)
            assert module.weight == 5, "the weights are the first one's"


def test_two_processes_share_the_values_of_the_first():
    store = distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    context = torch.multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=in_two, args=(store.port, results, rank)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
        process.kill()
    expected = [(name, rank, 2, rank == 0, (name, 0)) for name in ("a", "b") for rank in (0, 1)]
    assert sorted(results.get(timeout=5) for _ in expected) == expected
