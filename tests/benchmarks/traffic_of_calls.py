"""Prints as JSON what each launch of some ops reads and writes, in bytes by argument.

With TRITON_INTERPRET=1 these are the addresses that the kernels touch, else what ttir.py derives from the compiled IR.
What a kernel reaches by addresses in a table is called "table".
"""

import json
import sys
from collections import defaultdict

import torch
import triton
from electra_fast.benchmarks.ops import resources_calls

from electra_fast.model.config import ElectraConfig

CONFIG = ElectraConfig(
    vocab_size=300, embedding_size=32, hidden_size=64, num_attention_heads=1, intermediate_size=128
)  # fmt: skip
N_TOKENS = 256


def run():
    resources_calls.LENGTHS = (64, N_TOKENS)  # of attention's short kernels and of its long ones
    for op in sys.argv[1:]:
        resources_calls.run(op, CONFIG, torch.float32, N_TOKENS)


def touched():
    from triton.runtime.interpreter import GridExecutor, interpreter_builder

    found, sides = [], ({}, {})  # bytes read and written, with the size of each access
    call, load, store = (
        GridExecutor.__call__,
        interpreter_builder.create_masked_load,
        (interpreter_builder.create_masked_store),
    )

    def note(side, pointers, mask):
        size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        side.update(dict.fromkeys(pointers.data[mask.data.astype(bool)].ravel().tolist(), size))

    def noting_load(pointers, mask, *args, **kwargs):
        note(sides[0], pointers, mask)
        return load(pointers, mask, *args, **kwargs)

    def noting_store(pointers, value, mask, *args, **kwargs):
        note(sides[1], pointers, mask)
        return store(pointers, value, mask, *args, **kwargs)

    def launch(self, *args, **kwargs):
        for side in sides:
            side.clear()
        call(self, *args, **kwargs)
        known = dict(zip(self.arg_names, args, strict=False))
        spans = [(x.data_ptr(), x.data_ptr() + x.nbytes, name) for name, x in known.items() if hasattr(x, "nbytes")]
        totals = [defaultdict(int), defaultdict(int)]
        for side, total in zip(sides, totals, strict=True):
            for address, size in side.items():
                total[next((name for begin, end, name in spans if begin <= address < end), "table")] += size
        found.append((self.fn.__name__, *totals))

    interpreter_builder.create_masked_load, interpreter_builder.create_masked_store = noting_load, noting_store
    GridExecutor.__call__ = launch
    run()
    return found


def derived():
    from electra_fast.benchmarks.ops.launches import compiling
    from electra_fast.benchmarks.ops.ttir import traffic

    found = []

    def note(launch):
        starts = launch.arguments.get("cu_seqlens_ptr")
        moved = traffic(launch, {"cu_seqlens_ptr": lambda i: starts[i].item()})
        totals = [defaultdict(int), defaultdict(int)]
        for of, total in zip((moved.reads, moved.writes), totals, strict=True):
            for name, n_bytes in of.items():
                total["table" if name.startswith("address of") else name] += n_bytes
        found.append((launch.name, *totals))

    with compiling(90, note):
        run()
    return found


print(json.dumps(touched() if triton.knobs.runtime.interpret else derived()))
