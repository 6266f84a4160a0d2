"""Addresses beyond 2^31 elements: the first and the last programs of every kernel, on tensors of so many rows.

Memory that nothing touches takes no room, and the launch checker knows whether an address lies in its tensor. So a
tensor may have any size, as long as few programs run and torch computes nothing of it.

Left out are the kernels of masking and placing, and what has one number for a token or a head and token: 2^31 of these
would be 2^27 tokens or more, whose ids alone take a gigabyte.
"""

import importlib
import pkgutil

import pytest
import torch
import triton
import triton.language as tl
from electra_fast.benchmarks.ops import resources_calls
from launch_checker import Fault, checking, untouched_memory
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from electra_fast import kernels
from electra_fast.ops.contracts.library import IS_INTERPRETED
from electra_fast.ops.registry import OPS

pytestmark = pytest.mark.skipif(not IS_INTERPRETED, reason="a GPU would have to run all programs")

LIMIT = 2**31
LARGE = 2**24  # elements of a tensor that torch does not compute
WIDTH = 1024  # of rows, in the widest preset
N_ROWS = LIMIT // WIDTH + 512
N_TOKENS = {
    "embed_norm_project": N_ROWS,
    "attention": N_ROWS,
    "dropout_add_norm": N_ROWS,
    "linear_gelu": N_ROWS,
    "attention_block": N_ROWS,
    "feed_forward_block": N_ROWS,
    "rtd_head": N_ROWS,
    "mlm_head": 8 * N_ROWS,  # a row for every eighth token
}


class Untouched(TorchDispatchMode):
    """A mode in which large floating tensors are memory that nothing touches, and nothing is computed of them."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with self:  # tensors that a launcher makes, and the parts of an op that is made of others
            if func.namespace == "electra_fast":
                return func.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), *args, **kwargs)
            if (result := func.decompose(*args, **kwargs)) is not NotImplemented:
                return result
        is_large_given = any(is_large(x) for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor))
        arguments = {argument.name for argument in func._schema.arguments}
        makes_memory = not func._schema.is_mutable and ("size" in arguments or "_like" in func.__name__)
        if func._schema.is_mutable and is_large_given:
            return args[0]
        if func.is_view or func._schema.is_mutable or not (is_large_given or makes_memory):
            return func(*args, **kwargs)
        meta_args, meta_kwargs = tree_map_only(torch.Tensor, lambda x: x.to("meta"), (args, kwargs))
        made = func(*meta_args, **meta_kwargs | ({"device": "meta"} if "device" in arguments else {}))
        if makes_memory and not is_large(made):
            made = func(*args, **kwargs)
            # Programs that do not run leave keys of tables unwritten: the lowest is the first row's.
            is_key = "empty" in func.__name__ and made.dtype in (torch.int16, torch.int32)
            return made.fill_(torch.iinfo(made.dtype).min) if is_key else made
        return tree_map_only(torch.Tensor, untouched, made)


def is_large(x):
    return x.is_floating_point() and x.numel() > LARGE


def untouched(x):
    n = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True)) if x.numel() else 0
    memory = torch.frombuffer(untouched_memory(max(n, 1) * x.itemsize), dtype=x.dtype)
    return memory.as_strided(x.shape, x.stride())


@pytest.fixture
def poisoned_memory():
    """Nothing: poison would touch all memory."""


@pytest.fixture
def checked_launches(monkeypatch):
    """The checker on the ends of all grids; kernels that loop over rows have many programs, so that each has few."""
    for found in pkgutil.iter_modules(kernels.__path__, f"{kernels.__name__}."):
        module = importlib.import_module(found.name)
        if hasattr(module, "n_programs"):
            monkeypatch.setattr(module, "n_programs", lambda device, waves=2: 2**17)
    with checking(0, n_ends=2) as checker:
        yield checker


def assert_large_tensors_were_touched_beyond_the_limit(checker):
    large = {place: ends for place, ends in checker.reached.items() if ends[1] > LIMIT}
    print(large)
    assert large
    assert {place: ends for place, ends in large.items() if ends[0] < LIMIT} == {}


# mlm_head has the most tiles, and takes a minute.
@pytest.mark.parametrize("op", [pytest.param(op, marks=[pytest.mark.slow] * (op == "mlm_head")) for op in N_TOKENS])
def test_rows_beyond(op, checked_launches):
    config = resources_calls.networks("large")["large"]
    assert config.hidden_size == config.embedding_size == WIDTH
    with Untouched():
        resources_calls.run(op, config, torch.bfloat16, N_TOKENS[op])
    assert_large_tensors_were_touched_beyond_the_limit(checked_launches)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", ["grad_norm", "adamw", "lamb"])
def test_one_parameter_beyond(op, dtype, checked_launches):
    numbers = dict(lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-6, weight_decay=0.01)
    with Untouched():
        params, grads = ([torch.zeros(LIMIT + 5000, dtype=dtype)] for _ in range(2))
        masters, exp_avgs, exp_avg_sqs = ([torch.zeros(LIMIT + 5000)] for _ in range(3))
        masters = params if dtype == torch.float32 else masters
        if op == "grad_norm":
            OPS[op].triton(grads)
        else:
            OPS[op].triton(params, masters, grads, exp_avgs, exp_avg_sqs, **numbers, step=1)
    assert_large_tensors_were_touched_beyond_the_limit(checked_launches)


@triton.jit
def double_kernel(x_ptr, n_rows, WIDE: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) if WIDE else tl.program_id(0)
    at = row * WIDTH + tl.arange(0, WIDTH)
    tl.store(x_ptr + at, 2 * tl.load(x_ptr + at))


def test_a_row_number_of_32_bits_is_found(checked_launches):
    with Untouched():
        x = torch.zeros(N_ROWS, WIDTH, dtype=torch.bfloat16)
        double_kernel[N_ROWS,](x, N_ROWS, WIDE=True, WIDTH=WIDTH)
        assert_large_tensors_were_touched_beyond_the_limit(checked_launches)
        with pytest.raises(Fault, match=r"double_kernel, program \(2097\d+, 0, 0\) .* loads at x_ptr-\d+ bytes"):
            double_kernel[N_ROWS,](x, N_ROWS, WIDE=False, WIDTH=WIDTH)
