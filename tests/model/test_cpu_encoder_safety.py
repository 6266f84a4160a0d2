"""The encoder in C++ where something is wrong: arguments, threads that change the model, no memory, Ctrl-C."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from itertools import count

import pytest
import torch
from cpu_pairs import pair, tokens

from electra_fast.model import cpu_encoder
from electra_fast.model.packing import PackedBatch

pytestmark = pytest.mark.skipif(cpu_encoder.obstacle() is not None, reason=f"{cpu_encoder.obstacle()}")


def with_starts(starts: torch.Tensor) -> PackedBatch:
    return PackedBatch(1, 8, starts, 8, None)


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        (torch.tensor([0, 4, 9], dtype=torch.int32), "must rise from 0 to 8 tokens, got 3 entries from 0 to 9"),
        (torch.tensor([0, 4, 7], dtype=torch.int32), "must rise from 0 to 8"),
        (torch.tensor([1, 4, 8], dtype=torch.int32), "must rise from 0 to 8"),
        (torch.tensor([-4, 4, 8], dtype=torch.int32), "must rise from 0 to 8"),
        (torch.tensor([0, 6, 4, 8], dtype=torch.int32), "not in order"),
        (torch.tensor([0, 2**31 - 1, 8], dtype=torch.int32), "not in order"),
        (torch.tensor([0], dtype=torch.int32), "got 1 entries"),
        (torch.tensor([], dtype=torch.int32), "got no entry"),
        (torch.tensor(8, dtype=torch.int32), "must have shape"),
        (torch.tensor([[0, 4, 8]], dtype=torch.int32), "must have shape"),
        (torch.tensor([0, 4, 8]), r"must be in torch.int32 on the CPU, got torch.int64 on cpu"),
        (torch.tensor([0, 4, 8.0]), "must be in torch.int32"),
        (torch.tensor([0, 4, 8], dtype=torch.int32, device="meta"), "got torch.int32 on meta"),
    ],
)
@torch.inference_mode()
def test_starts_that_are_none_are_refused(starts, message):
    served, _ = pair()
    ids, packed = tokens([4, 4])
    assert served.cpu_encoder.serves(served, ids)
    with pytest.raises(ValueError, match=f"cu_seqlens .*{message}|cu_seqlens {message}"):
        served.cpu_encoder(with_starts(starts), ids, ids * 0, packed.position_ids(8), None, False)


@torch.inference_mode()
def test_views_with_strides_are_served():
    served, reference = pair()
    ids, packed = tokens([3, 4, 1])
    expected = reference.encode_packed(ids, packed)
    columns = torch.stack([packed.cu_seqlens, torch.full((4,), 10**9, dtype=torch.int32)], 1)
    strided = replace(packed, cu_seqlens=columns[:, 0])
    assert not strided.cu_seqlens.is_contiguous()
    torch.testing.assert_close(served.encode_packed(ids, strided), expected, rtol=0, atol=2e-5)
    every_other = torch.stack([ids, ids + 10**9], 1)[:, 0]
    types = torch.zeros(1, dtype=torch.long).expand(8)
    torch.testing.assert_close(served.encode_packed(every_other, packed, types), expected, rtol=0, atol=2e-5)
    small = ids.to(torch.uint8)
    torch.testing.assert_close(served.encode_packed(small, packed, types), expected, rtol=0, atol=2e-5)


@torch.inference_mode()
def test_tensors_of_other_sizes_are_refused():
    served, _ = pair()
    ids, packed = tokens([4, 4])
    positions, call = packed.position_ids(8), served.cpu_encoder
    for wrong in (
        (ids[:7], ids, None),
        (ids, ids[:7], None),
        (ids[:, None], ids, None),
        (None, ids, torch.ones(8, 47)),
    ):
        assert call.serves(served, ids)
        with pytest.raises(ValueError, match="must have shape"):
            call(packed, wrong[0], wrong[1], positions, wrong[2], False)
    assert call.serves(served, ids)
    with pytest.raises(ValueError, match="embedded must be in fp32 on the CPU"):
        call(packed, None, ids, positions, torch.ones(8, 48, dtype=torch.float64), False)


@pytest.mark.parametrize("value", [-1, 50, 2**31, 2**62, -(2**63)])
@torch.inference_mode()
def test_ids_outside_of_their_tables(value):
    served, _ = pair()
    ids, packed = tokens([4, 4])
    for name in ("input_ids", "token_type_ids", "position_ids"):
        given = {"input_ids": ids, "token_type_ids": ids * 0, "position_ids": packed.position_ids(8)}
        given[name] = given[name].clone()
        given[name][7] = value if value != 50 or name == "input_ids" else 512
        assert served.cpu_encoder.serves(served, ids)
        with pytest.raises(IndexError, match=rf"{name} must be in \[0, \d+\), got {given[name][7]}"):
            served.cpu_encoder(packed, *given.values(), None, False)


@pytest.mark.parametrize("lengths", [[0, 2000], [0, 0, 1100, 0, 0, 900, 0], [2000, 0], [0, 0], [1, 0, 1]])
@torch.inference_mode()
def test_sequences_without_a_token(lengths):
    served, reference = pair(max_position_embeddings=2000)
    ids, packed = tokens(lengths)
    found = served.encode_packed(ids, packed)
    filled = tokens([n for n in lengths if n])[1] if any(lengths) else packed
    expected = reference.encode_packed(ids, filled) if any(lengths) else torch.empty(0, 48)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@torch.inference_mode()
def test_no_layers_are_the_embedding():
    served, reference = pair()
    served.encoder.layer = served.encoder.layer[:0].eval()
    ids, packed = tokens([4, 4])
    positions = packed.position_ids(8)
    expected = reference.embeddings(ids, ids * 0, positions, None, reference.embeddings_project)
    for keep_states in (False, True):
        assert served.cpu_encoder.serves(served, ids)
        last, states = served.cpu_encoder(packed, ids, ids * 0, positions, None, keep_states)
        for found in (last, *states):
            torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
        assert len(states) == keep_states


@torch.inference_mode()
def test_layers_are_counted_where_they_are_and_not_in_the_config():
    served, _ = pair(num_hidden_layers=3)
    ids, packed = tokens([4, 4])
    served.encoder.layer.append(served.encoder.layer[0])
    del served.encoder.layer[1]
    del served.encoder.layer[1]
    assert served.cpu_encoder.serves(served, ids)
    last, states = served.cpu_encoder(packed, ids, ids * 0, packed.position_ids(8), None, True)
    assert len(states) == 3
    assert torch.equal(states[2], last)


def test_weights_that_do_not_fit_are_not_copied():
    """The config and the parameters disagree, or a parameter has no memory: C++ would read beyond it."""

    def smaller(model):
        model.encoder.layer[0].output.dense = torch.nn.Linear(72, 47).eval()

    def without_bias(model):
        model.encoder.layer[0].intermediate.dense.bias = None

    def other_norm(model):
        model.encoder.layer[1].output.LayerNorm = torch.nn.LayerNorm(12).eval()

    def narrow_table(model):
        model.embeddings.position_embeddings.weight = torch.nn.Parameter(torch.ones(512, 23))

    def transposed(model):
        dense = model.encoder.layer[0].attention.output.dense
        dense.weight.data = dense.weight.data.t()

    def expanded(model):
        model.encoder.layer[0].output.LayerNorm.weight = torch.nn.Parameter(torch.ones(1).expand(48))

    def other_config(model):
        model.config.intermediate_size = 73

    def freed(model):
        model.encoder.layer[0].intermediate.dense.weight.untyped_storage().resize_(16)

    def on_meta(model):
        model.encoder.layer[1].to("meta")

    for change, message in (
        (smaller, "output.dense.weight must have shape (48, 72), got (47, 72)"),
        (without_bias, "intermediate.dense.bias is missing"),
        (other_norm, "output.LayerNorm.weight must have shape (48,), got (12,)"),
        (narrow_table, "position_embeddings.weight must have shape (512, 24), got (512, 23)"),
        (transposed, "dense.weight is not contiguous"),
        (expanded, "LayerNorm.weight is not contiguous"),
        (other_config, "must have shape (73, 48)"),
        (freed, "has less memory than its shape takes"),
        (on_meta, "fp32 on the CPU, got torch.float32 on meta"),
    ):
        for has_served in (False, True):
            model, _ = pair()
            ids, packed = tokens([3, 2])
            with torch.inference_mode():
                if has_served:
                    model.encode_packed(ids, packed)
                change(model)
                if has_served and change is other_config:
                    continue  # the copy is of what the config was
                assert message in (model.cpu_encoder.why_not(model, ids) or ""), change.__name__


def other_memory(model):
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


def set_memory(model):
    for parameter in model.parameters():
        parameter.set_(parameter.detach().clone())


def shared_memory(model):
    other_memory(model)
    model.share_memory()


def other_dtype(model):
    model.half()
    model.float()


def assigned(model):
    model.load_state_dict({name: value.clone() for name, value in model.state_dict().items()}, assign=True)


def other_parameter(model):
    words = model.embeddings.word_embeddings
    words.weight = torch.nn.Parameter(words.weight.detach().clone())


@pytest.mark.parametrize(
    "change", [other_memory, set_memory, shared_memory, assigned, other_parameter], ids=lambda change: change.__name__
)
def test_threads_infer_while_one_gives_the_parameters_other_memory(change):
    """Values stay, so every result is right; what is freed is large, so that the system takes it back at once."""
    served, _ = pair(hidden_size=128, num_attention_heads=4, embedding_size=128, vocab_size=20000)
    batches = [tokens([7, 30, 2], 20000), tokens([100, 3], 20000)]
    with torch.inference_mode():
        expected = [served.encode_packed(*batch) for batch in batches]
    is_over, wrong = threading.Event(), []

    def infer(i):
        try:
            with torch.inference_mode():
                while not is_over.is_set():
                    torch.testing.assert_close(served.encode_packed(*batches[i]), expected[i], rtol=0, atol=1e-4)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=infer, args=(i % 2,)) for i in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        with torch.no_grad():
            for _ in range(60):
                change(served)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert wrong == []


def test_threads_that_find_a_copy_outdated_make_one(monkeypatch):
    made, make = count(), cpu_encoder._Copy.__init__

    def counted(copy, *args):
        next(made)
        make(copy, *args)

    monkeypatch.setattr(cpu_encoder._Copy, "__init__", counted)
    served, _ = pair(hidden_size=256, num_attention_heads=4)
    ids, packed = tokens([5, 9])
    start, results = threading.Barrier(8), []

    def infer():
        start.wait()
        with torch.inference_mode():
            results.append(served.encode_packed(ids, packed))

    threads = [threading.Thread(target=infer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert next(made) == 1
    assert len(results) == 8
    assert all(torch.equal(result, results[0]) for result in results)


def run(code: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, **options)


NO_MEMORY = """
import resource, sys, threading, torch
from electra_fast import ElectraConfig, ElectraModel
from electra_fast.model.packing import PackedBatch
torch.set_num_threads({threads})
config = ElectraConfig(hidden_size=256, num_attention_heads=4, num_hidden_layers=2, max_position_embeddings=60000)
model = ElectraModel(config).eval()
ids = torch.ones({tokens}, dtype=torch.long)
packed = PackedBatch.full(1, len(ids), ids.device)

def limit(megabytes):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20, resource.RLIM_INFINITY))

@torch.inference_mode()
def call():
    small = PackedBatch.full(1, 4, ids.device)
    if {is_copied}:
        model.encode_packed(ids[:4], small)
    types, positions = torch.zeros_like(ids), packed.position_ids(len(ids))
    limit({megabytes})
    try:
        assert model.cpu_encoder.serves(model, ids)
        model.cpu_encoder(packed, ids, types, positions, None, {keep_states})
    except MemoryError as error:
        print("MemoryError", type(error) is MemoryError)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(model.encode_packed(ids[:4], small).isfinite().all().item())

{start}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS")
@pytest.mark.parametrize(
    ("tokens", "is_copied", "keep_states", "megabytes"),
    [(50000, True, False, 20), (50000, True, False, 150), (50000, True, True, 70), (40, False, False, 1)],
    ids=["embedded", "workspace", "states", "copy"],
)
def test_no_memory_is_an_error_and_the_next_call_is_served(tokens, is_copied, keep_states, megabytes):
    start = "thread = threading.Thread(target=call); thread.start(); thread.join()" if keep_states else "call()"
    code = NO_MEMORY.format(threads=4, **{name: value for name, value in locals().items()})
    found = run(code)
    assert (found.returncode, found.stdout.split()) == (0, ["MemoryError", "True", "True"]), found


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS")
def test_no_memory_for_threads_is_a_smaller_team():
    """OpenMP's runtime ends the process where it cannot start its threads."""
    code = NO_MEMORY.format(
        tokens=400, is_copied=True, keep_states=False, megabytes=40, threads=64, start="call()"
    ).replace("model.encode_packed(ids[:4], small)", "model.cpu_encoder.why_not(model, ids)")
    found = run(code.replace("print(model.cpu_encoder.why_not(model, ids).isfinite().all().item())", "print(1)"))
    assert (found.returncode, found.stdout.split()) == (0, ["1"]), found


CTRL_C = """
import os, signal, sys, threading, time, torch
from electra_fast import ElectraConfig, ElectraModel
from electra_fast.model.packing import PackedBatch
torch.set_num_threads({threads})
config = ElectraConfig(hidden_size=768, num_attention_heads=12, intermediate_size=3072, num_hidden_layers=2,
                       max_position_embeddings=100000)
model = ElectraModel(config).eval()
ids = torch.ones({length} * {n}, dtype=torch.long)
packed = PackedBatch.full({n}, {length}, ids.device)
with torch.inference_mode():
    small = model.encode_packed(ids[:4], PackedBatch.full(1, 4, ids.device))
    sent = []
    def interrupt():
        time.sleep(0.3)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
    try:
        model.encode_packed(ids, packed)
        print("it was not stopped")
    except KeyboardInterrupt:
        print(time.perf_counter() - sent[0])
    print(torch.equal(small, model.encode_packed(ids[:4], PackedBatch.full(1, 4, ids.device))))
"""


@pytest.mark.parametrize(("threads", "n", "length"), [(1, 60, 512), (2, 1, 30000)])
def test_ctrl_c_is_noticed_within_a_call(threads, n, length):
    found = run(CTRL_C.format(threads=threads, n=n, length=length))
    seconds, is_same = found.stdout.split()
    assert is_same == "True", found
    assert float(seconds) < 10  # 0.2 where nothing else runs
