"""The encoder in C++ against the reference in torch: results, what it serves, and that it notices changes."""

from __future__ import annotations

import copy
import pickle
import platform
import subprocess
import sys
import threading

import pytest
import torch
from cpu_pairs import NAMES, SMALL, limit_to, pair, tokens
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast import (
    ElectraConfig,
    ElectraModel,
)
from electra_fast.model import cpu_encoder
from electra_fast.model.packing import PackedBatch
from electra_fast.model.precision import warn_if_slow

pytestmark = pytest.mark.skipif(cpu_encoder.obstacle() is not None, reason=f"{cpu_encoder.obstacle()}")


@pytest.fixture(params=NAMES)
def instruction_set(request, monkeypatch):
    limit_to(request.param, monkeypatch)
    return request.param


@pytest.mark.parametrize(
    ("hidden_size", "heads", "embedding_size", "intermediate_size"),
    [(48, 2, 24, 72), (64, 1, 64, 128), (40, 5, 40, 33), (96, 3, 16, 200), (256, 2, 128, 64), (6, 2, 3, 5)],
)
@torch.inference_mode()
def test_sizes_that_fill_no_register(instruction_set, hidden_size, heads, embedding_size, intermediate_size):
    served, reference = pair(
        hidden_size=hidden_size,
        num_attention_heads=heads,
        embedding_size=embedding_size,
        intermediate_size=intermediate_size,
    )
    ids, packed = tokens([1, 2, 7, 70, 13, 64, 1])
    assert served.cpu_encoder.serves(served, ids)
    torch.testing.assert_close(
        served.encode_packed(ids, packed), reference.encode_packed(ids, packed), rtol=0, atol=2e-5
    )


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=30), st.integers(1, 5), st.integers(0, 2**31))
def test_any_lengths_on_any_number_of_threads(lengths, n_threads, seed):
    served, reference = pair(seed)
    ids, packed = tokens(lengths)
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        with torch.inference_mode():
            found, expected = served.encode_packed(ids, packed), reference.encode_packed(ids, packed)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 150), min_size=2, max_size=12), st.integers(1, 4))
def test_a_sequence_has_the_same_bits_in_any_batch_on_any_number_of_threads(lengths, n_threads):
    served, _ = pair(hidden_size=64, num_attention_heads=4)
    ids, packed = tokens(lengths)
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        with torch.inference_mode():
            together = served.encode_packed(ids, packed)
    finally:
        torch.set_num_threads(before)
    with torch.inference_mode():
        for part, states in zip(ids.split(lengths), together.split(lengths), strict=True):
            alone = served.encode_packed(part, PackedBatch.full(1, len(part), ids.device))
            torch.testing.assert_close(alone, states, rtol=0, atol=0)


@torch.inference_mode()
def test_a_batch_of_many_chunks(instruction_set):
    served, reference = pair()
    ids, packed = tokens([300, 5, 512, 90, 511, 1, 256, 400, 33, 120, 512])
    torch.testing.assert_close(
        served.encode_packed(ids, packed), reference.encode_packed(ids, packed), rtol=0, atol=2e-5
    )


@torch.inference_mode()
def test_error_against_fp64_is_within_twice_that_of_torch(instruction_set):
    served, reference = pair(hidden_size=128, num_attention_heads=4, intermediate_size=512, num_hidden_layers=6)
    ids, packed = tokens([100, 17, 64, 200])
    oracle = copy.deepcopy(reference).double().encode_packed(ids, packed)
    found, theirs = (model.encode_packed(ids, packed).double() - oracle for model in (served, reference))
    assert found.norm() <= 2 * theirs.norm()
    assert found.abs().max() <= 2 * theirs.abs().max()


@torch.inference_mode()
def test_padding_on_either_side_and_states_of_all_layers():
    served, reference = pair()
    ids, mask = torch.randint(50, (3, 20)), torch.ones(3, 20, dtype=torch.long)
    mask[0, :15], mask[1, 4:] = 0, 0
    for inputs in ({"input_ids": ids}, {"inputs_embeds": torch.randn(3, 20, 24)}):
        options = dict(inputs, attention_mask=mask, token_type_ids=torch.randint(2, (3, 20)), output_hidden_states=True)
        found, expected = served(**options), reference(**options)
        assert len(found.hidden_states) == len(expected.hidden_states) == 3
        for a, b in zip(found.hidden_states, expected.hidden_states, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=2e-5)
        torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state, rtol=0, atol=2e-5)


@torch.inference_mode()
def test_a_decoder_sees_no_later_token():
    served, reference = pair(is_decoder=True)
    ids, packed = tokens([3, 40, 1, 17])
    torch.testing.assert_close(
        served.encode_packed(ids, packed), reference.encode_packed(ids, packed), rtol=0, atol=2e-5
    )


@torch.inference_mode()
def test_ids_outside_of_their_tables_are_refused():
    served, _ = pair()
    ids, packed = tokens([4, 4])
    ids[5] = 50
    with pytest.raises(IndexError, match=r"input_ids must be in \[0, 50\), got 50"):
        served.encode_packed(ids, packed)


def changed_by(model: ElectraModel, change) -> bool:
    """Whether a change shows in the result, which is compared with the reference's."""
    ids, packed = tokens([9, 5])
    with torch.inference_mode():
        before = model.encode_packed(ids, packed)
    change(model)
    reference = ElectraModel(model.config, impl="torch").eval()
    reference.load_state_dict(model.state_dict())
    with torch.inference_mode():
        after = model.encode_packed(ids, packed)
        torch.testing.assert_close(after, reference.encode_packed(ids, packed), rtol=0, atol=2e-5)
    return not torch.equal(before, after)


@torch.no_grad()
def test_changed_weights_are_noticed():
    def in_place(model):
        model.encoder.layer[1].output.dense.weight[3, 5] += 1

    def behind_torchs_back(model):
        model.encoder.layer[0].intermediate.dense.weight.data.mul_(1.5)

    def other_data(model):
        weight = model.encoder.layer[0].attention.self.key.weight
        weight.data = weight.data * 1.5

    def other_parameter(model):
        old = model.encoder.layer[0].output.LayerNorm
        old.weight = torch.nn.Parameter(old.weight * 1.5)

    def other_module(model):
        size = model.config.hidden_size
        model.encoder.layer[1].attention.output.dense = torch.nn.Linear(size, size)

    def table(model):
        model.embeddings.word_embeddings.weight.mul_(1.5)

    def loaded(model):
        model.load_state_dict(pair(seed=5)[0].state_dict())

    for change in (in_place, behind_torchs_back, other_data, other_parameter, other_module, table, loaded):
        assert changed_by(pair()[0], change), change.__name__
    assert not changed_by(pair()[0], lambda model: None)


def why(model: ElectraModel, change=lambda model: None) -> str | None:
    change(model)
    return model.cpu_encoder.why_not(model, torch.zeros(1, dtype=torch.long))


@torch.inference_mode()
def test_what_is_not_served_says_why():
    def hooked(model):
        model.encoder.layer[0].output.register_forward_hook(lambda *_: None)

    def dropping(model):
        model.encoder.layer[0].output.dropout.train()

    def replaced(model):
        class Adapter(torch.nn.Linear): ...

        model.encoder.layer[0].output.dense = Adapter(72, 48)

    def with_forward(model):
        model.encoder.layer[0].forward = lambda *args: args

    assert why(pair()[0]) is None
    assert "hooks" in why(pair()[0], hooked)
    assert "training" in why(pair()[0], dropping)
    assert "Adapter" in why(pair()[0], replaced)
    assert "forward" in why(pair()[0], with_forward)
    assert "fp32" in why(pair()[0], lambda model: model.bfloat16())
    assert "relu" in why(pair(hidden_act="relu")[0])
    # The same after it has served.
    for change in (hooked, dropping, replaced, with_forward):
        model = pair()[0]
        assert why(model) is None
        assert why(model, change) is not None, change.__name__
    with torch.autocast("cpu"):
        assert "autocast" in why(pair()[0])
    with torch.inference_mode(False), torch.enable_grad():
        assert "gradients" in why(pair()[0])
    assert ElectraModel(ElectraConfig(**SMALL), impl="torch").cpu_encoder is None


def test_hooks_run_and_gradients_flow():
    served, _ = pair()
    seen = []
    served.encoder.layer[0].register_forward_hook(lambda *_: seen.append(1))
    with torch.inference_mode():
        served(torch.ones(1, 4, dtype=torch.long))
    assert seen == [1]
    served(torch.ones(1, 4, dtype=torch.long)).last_hidden_state.sum().backward()
    assert served.embeddings.word_embeddings.weight.grad is not None


def test_copies_are_apart_from_each_other():
    served, reference = pair()
    ids, packed = tokens([8, 3])
    with torch.inference_mode():
        expected = served.encode_packed(ids, packed)
    for other in (copy.deepcopy(served), pickle.loads(pickle.dumps(served))):
        with torch.no_grad():
            served.encoder.layer[0].output.dense.weight.zero_()
            torch.testing.assert_close(other.encode_packed(ids, packed), expected, rtol=0, atol=0)
            assert not torch.equal(served.encode_packed(ids, packed), expected)
            served.load_state_dict(reference.state_dict())


def test_calls_from_many_threads():
    served, _ = pair()
    inputs = [tokens([n, 2 * n, 30]) for n in range(1, 13)]
    with torch.inference_mode():
        expected = [served.encode_packed(*x) for x in inputs]
    wrong = []

    def work(i):
        with torch.inference_mode():
            for _ in range(20):
                if not torch.equal(served.encode_packed(*inputs[i]), expected[i]):
                    wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_first_call_opens_torchs_library_and_importing_does_not():
    code = """
import sys, torch
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "ctypes.dlopen" else None)
from electra_fast import ElectraConfig, ElectraModel
model = ElectraModel(ElectraConfig(vocab_size=50, hidden_size=48, num_attention_heads=2)).eval()
print(len(opened))
with torch.inference_mode():
    model(torch.ones(1, 4, dtype=torch.long))
    model(torch.ones(1, 4, dtype=torch.long))
print(*opened)
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    before, after = run.stdout.splitlines()
    assert before == "0"
    assert after.split("/")[-1] == "libtorch_cpu.so"


def test_the_first_call_may_be_a_forked_childs():
    """A child has none of OpenMP's threads. torch's own ops may wait for them forever: the encoder alone runs in it."""
    code = """
import os, signal, torch
from electra_fast import ElectraConfig, ElectraModel
from electra_fast.model.packing import PackedBatch
torch.set_num_threads(4)
torch.ones(1000, 1000).exp()  # begins OpenMP's threads
model = ElectraModel(ElectraConfig(vocab_size=50, hidden_size=256, num_attention_heads=4)).eval()
ids, packed = torch.ones(400, dtype=torch.long), PackedBatch.full(1, 400, torch.device("cpu"))
with torch.inference_mode():
    child = os.fork()
    if child == 0:
        signal.alarm(120)
        assert model.cpu_encoder.serves(model, ids)
        model.cpu_encoder(packed, ids, ids, ids, None, False)
        os._exit(0)
    print(os.waitpid(child, 0)[1])
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "0"


def test_threads_of_our_own_give_the_same_bits():
    """They serve without OpenMP, and on a busy machine: also several calls at once, each on any number of them."""
    code = """
import threading, torch
from electra_fast import ElectraConfig, ElectraModel
from electra_fast.ops import cpu
cpu.share_threads = lambda: None
torch.manual_seed(0)
model = ElectraModel(ElectraConfig(vocab_size=50, num_hidden_layers=3)).eval()
ids, found = torch.randint(50, (3, 77)), []
def call(n_threads):
    torch.set_num_threads(n_threads)
    with torch.inference_mode():
        found.extend(model(ids).last_hidden_state for _ in range(5))
call(1)
for _ in range(2):
    threads = [threading.Thread(target=call, args=(n,)) for n in (2, 3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(len(found), all(torch.equal(found[0], one) for one in found))
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.split() == ["35", "True"]


@torch.inference_mode()
def test_not_a_number_stays_one():
    served, _ = pair()
    served.embeddings.word_embeddings.weight[7] = torch.nan
    ids, packed = tokens([5, 6])
    ids[:] = 1
    ids[2] = 7
    found = served.encode_packed(ids, packed).isnan()
    assert found[:5].all()
    assert not found[5:].any()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="torch tells of x86's instructions only")
def test_a_slow_dtype_is_said_once(recwarn, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_fp16_supported", lambda: False)
    warn_if_slow.cache_clear()
    model = pair()[0].half()
    with torch.inference_mode():
        for _ in range(2):
            model(torch.ones(1, 4, dtype=torch.long))
    assert [str(w.message) for w in recwarn] == [
        "this processor does not multiply torch.float16: a model in float32 is several times as fast"
    ]


@settings(max_examples=25, deadline=None)
@given(
    st.data(),
    st.lists(st.integers(1, 90), min_size=1, max_size=12),
    st.integers(1, 4),
    st.sampled_from([6, 40, 64]),
    st.sampled_from(["fp32", "int8"]),
    st.booleans(),
)
def test_tokens_that_are_read_have_the_bits_of_a_call_for_all(
    data, lengths, n_threads, hidden_size, precision, is_decoder
):
    served, _ = pair(hidden_size=hidden_size, num_attention_heads=2, is_decoder=is_decoder)
    served.quantize(precision)
    ids, packed = tokens(lengths)
    read = torch.tensor(data.draw(st.lists(st.integers(0, sum(lengths) - 1), max_size=40)), dtype=torch.long)
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        with torch.inference_mode():
            found, whole = served.encode_packed(ids, packed, read=read), served.encode_packed(ids, packed)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found, whole[read])


@pytest.mark.parametrize("token", [-1, 9])
@torch.inference_mode()
def test_a_token_to_read_that_is_not_there_is_refused(token):
    served, _ = pair()
    ids, packed = tokens([5, 4])
    with pytest.raises(IndexError, match=rf"tokens to read must be in \[0, 9\), got {token}"):
        served.encode_packed(ids, packed, read=torch.tensor([0, token]))


@pytest.mark.parametrize(
    "read",
    [torch.ones(9, dtype=torch.bool), torch.zeros(2, dtype=torch.int32), torch.zeros(1, 2).long()],
    ids=["mask", "int32", "rows"],
)
@pytest.mark.parametrize("is_graded", [False, True], ids=["inference", "gradients"])
def test_what_is_no_list_of_tokens_is_refused(read, is_graded):
    served, _ = pair()
    ids, packed = tokens([5, 4])
    with torch.set_grad_enabled(is_graded), pytest.raises(ValueError, match=r"read must be int64 \[N\], got torch"):
        served.encode_packed(ids, packed, read=read)
