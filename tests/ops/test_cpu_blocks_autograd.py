"""The two halves of a layer in C++ under autograd, as in torch; and what is left to the reference."""

import pickle

import pytest
import torch
from block_cases import both, gradients
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from electra_fast.ops import registry
from electra_fast.ops.contracts import cpu_attention_block, cpu_feed_forward_block, cpu_library

pytestmark = pytest.mark.skipif(cpu_library.obstacle() is not None, reason=f"{cpu_library.obstacle()}")

IN_CPP = {"attention_block": cpu_attention_block.IN_CPP, "feed_forward_block": cpu_feed_forward_block.IN_CPP}
each = pytest.mark.parametrize("case", both(), ids=lambda case: case.op)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def assert_same(found, expected, atol=0.0):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


# Gradients that somebody wants, and others


@each
def test_frozen_tensors_get_no_gradient_and_change_no_other(case, served):
    case = case.dropping(0.1)
    expected = gradients(case.cpp, case.leaves(), **case.options)
    for frozen in (["hidden"], [name for name in case.tensors if "weight" in name], list(case.tensors)[:-1]):
        found = gradients(case.cpp, case.leaves(*frozen), **case.options)
        assert_same(found, {name: value for name, value in expected.items() if name not in frozen})
    assert len(served) == 4


@each
def test_unwanted_gradients_are_not_computed(case, monkeypatch):
    wanted, make_room = [], cpu_library.room_for_gradients
    for module in (cpu_attention_block, cpu_feed_forward_block):
        monkeypatch.setattr(module, "room_for_gradients", lambda *call: (wanted.append(call[1]), make_room(*call))[1])
    for asked in (["norm_bias"], ["hidden", "norm_weight"]):
        gradients(case.cpp, case.leaves(*set(case.tensors) - set(asked)), **case.options)
    assert [sum(some) for some in wanted] == [1, 2]


@each
def test_without_gradients_nothing_is_saved(case, served):
    expected = case.cpp(**case.leaves(), **case.options)
    assert expected.requires_grad
    with torch.no_grad():
        out = case.cpp(**case.leaves(), **case.options)
    assert not out.requires_grad and torch.equal(out, expected)
    with torch.inference_mode():
        assert torch.equal(case.cpp(**case.tensors, **case.options), expected)
    assert torch.equal(case.cpp(**case.tensors, **case.options), expected)
    assert len(served) == 4


@each
def test_a_graph_can_be_used_twice(case):
    case, given = case.dropping(0.1), case.leaves()
    out = case.cpp(**given, **case.options)
    once = torch.autograd.grad(out.square().sum(), list(given.values()), retain_graph=True)
    twice = torch.autograd.grad(out.square().sum(), list(given.values()))
    assert all(map(torch.equal, once, twice))
    with pytest.raises(RuntimeError, match="a second time"):
        torch.autograd.grad(out.sum(), list(given.values()))


@each
@pytest.mark.parametrize("p", [0.0, 0.3])
def test_gradients_of_gradients_are_the_references(case, p):
    case, results = case.dropping(p), []
    for op in (case.cpp, case.reference):
        given = case.leaves()
        with sdpa_kernel(SDPBackend.MATH):  # for the reference: torch's other attention knows no second derivative
            out = op(**given, **case.options).sin().sum()
        grads = torch.autograd.grad(out, list(given.values()), create_graph=True)
        penalty = sum(grad.square().sum() for grad in grads)
        results.append(dict(zip(given, torch.autograd.grad(penalty, list(given.values())), strict=True)))
    scale = max(value.abs().max().item() for value in results[1].values())
    assert_same(*results, atol=1e-4 * scale)


def test_one_tensor_given_twice_gets_both_gradients(served):
    case = both()[0]
    shared = nn.Parameter(case.tensors["q_weight"].clone())
    results = []
    for op in (case.cpp, case.reference):
        given = case.leaves() | {"q_weight": shared, "k_weight": shared}
        for create_graph in (False, True):
            out = op(**given, **case.options)
            results.append(torch.autograd.grad(out.sin().sum(), shared, create_graph=create_graph)[0].detach())
    for value in results[1:]:
        torch.testing.assert_close(value, results[0], rtol=1e-4, atol=1e-5)
    assert len(served) == 2


# What happens between forward and backward


@each
def test_a_tensor_changed_in_place_is_noticed(case):
    for name in case.tensors:
        given = case.leaves()
        out = case.cpp(**given, **case.options)
        with torch.no_grad():
            given[name].mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.sum().backward()


@each
def test_a_parameter_that_shrank_is_refused(case):
    given = case.leaves()
    out = case.cpp(**given, **case.options)
    given["norm_weight"].data = torch.ones(3)
    with pytest.raises(RuntimeError, match=r"changed since the forward: the LayerNorm's weight must have shape"):
        out.sum().backward()


@each
def test_strided_and_negated_gradients_of_the_result(case):
    given = case.leaves()
    shape = given["hidden"].shape
    out = case.cpp(**given, **case.options)
    weights = torch.randn(shape)
    expected = torch.autograd.grad(out, list(given.values()), weights, retain_graph=True)
    for other in (weights.t().contiguous().t(), torch._neg_view(-weights)):
        found = torch.autograd.grad(out, list(given.values()), other, retain_graph=True)
        assert all(map(torch.equal, found, expected))
    ones = torch.autograd.grad(out, list(given.values()), torch.ones(()).expand(shape), retain_graph=True)
    assert all(map(torch.equal, ones, torch.autograd.grad(out.sum(), list(given.values()))))


# Dropout


@each
def test_torchs_generator_governs_dropout(case, served):
    unseeded = case.dropping(0.1, seeded=False)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(gradients(case.cpp, case.leaves(), **unseeded.options))
    assert_same(results[1], results[0])
    assert not torch.equal(results[2]["out"], results[0]["out"])
    state = torch.get_rng_state()
    case.cpp(**case.tensors, **case.dropping(0.0).options)
    case.cpp(**case.tensors, **case.dropping(0.1).options)
    assert torch.equal(torch.get_rng_state(), state)  # nothing is drawn without dropout, nor where seeds are given
    assert len(served) == 5


@each
def test_checkpointing_draws_the_same_bits_again(case):
    unseeded = case.dropping(0.1, seeded=False)

    def again(**given):
        return checkpoint(case.cpp, **given, use_reentrant=False)

    results = []
    for op in (case.cpp, again):
        torch.manual_seed(3)
        results.append(gradients(op, case.leaves(), **unseeded.options))
    assert_same(*results)


@each
def test_a_rate_that_is_none_is_refused(case):
    for p in (-0.1, 1.1):
        with pytest.raises(ValueError, match=f"must be between 0 and 1, got {p}"):
            case.cpp(**case.tensors, **case.dropping(p).options)


def test_starts_that_mark_no_sequences_are_refused():
    case = both()[0]
    for starts in ([], [0, 29], [1, 30], [0, 31], [0, 20, 10, 30]):
        packed = {"cu_seqlens": torch.tensor(starts, dtype=torch.int32)}
        with pytest.raises(ValueError):
            case.cpp(**case.tensors, **case.options | packed)


# What the reference serves


def why_not(case, **changed):
    given = case.tensors | changed
    order = [f"{part}_{kind}" for kind in ("weight", "bias") for part in ("q", "k", "v", "out")]
    if case.op == "feed_forward_block":
        order = ["inner_weight", "outer_weight", "inner_bias", "outer_bias"]
    tensors = [given[name] for name in ("hidden", *order, "norm_weight", "norm_bias")]
    return IN_CPP[case.op].why_not(tensors, [case.options["cu_seqlens"]] if "cu_seqlens" in case.options else [])


class Derived(torch.Tensor):
    pass


@each
def test_tensors_that_cpp_cannot_read(case, served):
    x, weight = case.tensors["hidden"], case.tensors["norm_weight"]
    small = weight.clone()
    small.untyped_storage().resize_(8)
    for changed, reason in (
        ({"norm_weight": weight.repeat_interleave(2)[::2]}, "the LayerNorm's weight is not contiguous"),
        ({"norm_weight": weight.as_subclass(Derived)}, "a tensor is a Derived"),
        ({"norm_weight": weight.to("meta")}, "a tensor is on meta"),
        ({"norm_weight": weight.bfloat16()}, "must be in fp32 on the CPU, got torch.bfloat16"),
        ({"norm_weight": torch._neg_view(weight)}, "is not contiguous"),
        ({"norm_weight": weight[:1]}, "the LayerNorm's weight must have shape (60,), got (1,)"),
        ({"norm_weight": small}, "has less memory than its shape takes"),
        ({"hidden": x.t().contiguous().t()}, "hidden is not contiguous"),
    ):
        assert reason in why_not(case, **changed)
    assert why_not(case) is None
    strided = case.leaves() | {"hidden": x.t().contiguous().t().requires_grad_()}
    found = gradients(case.cpp, strided, **case.options)
    assert_same(found, gradients(case.reference, case.leaves(), **case.options), atol=1e-4)
    assert not served


@each
def test_other_dtypes_go_to_the_reference(case, served):
    given = {name: value.double() for name, value in case.tensors.items()}
    assert torch.equal(case.cpp(**given, **case.options), case.reference(**given, **case.options))
    with torch.autocast("cpu", torch.bfloat16):
        assert why_not(case) == "autocast is on"
        assert torch.equal(case.cpp(**case.tensors, **case.options), case.reference(**case.tensors, **case.options))
    with pytest.raises(RuntimeError):  # torch's own message: dtypes that do not fit
        case.cpp(**case.tensors | {"norm_weight": given["norm_weight"], "hidden": given["hidden"]}, **case.options)
    assert not served


@each
def test_transforms_go_to_the_reference(case, served):
    def loss(weight):
        return case.cpp(**case.tensors | {"norm_weight": weight}, **case.options).sin().sum()

    def expected(weight):
        return case.reference(**case.tensors | {"norm_weight": weight}, **case.options).sin().sum()

    weight = case.tensors["norm_weight"]
    torch.testing.assert_close(torch.func.grad(loss)(weight), torch.func.grad(expected)(weight))
    stacked = torch.stack([weight, 2 * weight])
    torch.testing.assert_close(torch.vmap(loss)(stacked), torch.stack([expected(w) for w in stacked]))
    tangent = torch.ones_like(weight)
    torch.testing.assert_close(
        torch.func.jvp(loss, (weight,), (tangent,)), torch.func.jvp(expected, (weight,), (tangent,))
    )
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(weight, tangent)
        found, right = (forward_ad.unpack_dual(f(dual)).tangent for f in (loss, expected))
    torch.testing.assert_close(found, right)
    assert not served


@each
def test_fake_tensors_and_compilers_go_to_the_reference(case, served):
    if "cu_seqlens" in case.options:  # rows of one length: no lengths are read
        case.options.update(cu_seqlens=torch.tensor([0, 15, 30], dtype=torch.int32), max_seqlen=15)
    expected = case.reference(**case.tensors, **case.options)
    compiled = torch.compile(case.cpp, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(**case.tensors, **case.options), expected)
    with FakeTensorMode() as mode:
        given = {name: mode.from_tensor(x).requires_grad_() for name, x in case.tensors.items()}
        packed = {name: mode.from_tensor(x) for name, x in case.options.items() if isinstance(x, torch.Tensor)}
        out = case.cpp(**given, **case.options | packed)
        out.sum().backward()
    assert out.shape == expected.shape and given["norm_weight"].grad.shape == given["norm_weight"].shape
    assert not served


class Seen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


@each
def test_who_watches_the_dispatcher_sees_both_ops(case, served):
    case = case.dropping(0.1)
    names = {f"electra_fast::{case.op}_cpu_{part}" for part in ("fwd", "bwd")}
    expected = gradients(case.cpp, case.leaves(), **case.options)
    with Seen() as seen:
        assert_same(gradients(case.cpp, case.leaves(), **case.options), expected)
    assert names <= seen.names
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        assert_same(gradients(case.cpp, case.leaves(), **case.options), expected)
    assert names <= {event.key for event in profile.key_averages()}
    assert len(served) == 3


def test_the_registry_binds_them():
    ops = registry.select("auto")
    assert ops.attention_block is cpu_attention_block.attention_block
    assert pickle.loads(pickle.dumps(ops)).feed_forward_block is cpu_feed_forward_block.feed_forward_block
