"""grad_norm, adamw and lamb: errors against fp64, many sizes and dtypes in one call, repeatability and refusals."""

import math

import pytest
import torch
from electra_fast.kernels import optim as kernels

from electra_fast.ops import reference_optim
from electra_fast.ops.contracts import optim
from electra_fast.ops.testing import assert_within_budget

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(1,), (3,), (100, 10), (0,), (70001,), (2, 1024), (4, 512)]
HYPER = dict(beta1=0.9, beta2=0.999, eps=1e-6, weight_decay=0.01)


def make(dtype, device, shapes=SHAPES):
    """params, masters, grads, exp_avgs, exp_avg_sqs: in the middle of a training."""
    masters = [torch.randn(shape, device=device) for shape in shapes]
    params = masters if dtype == torch.float32 else [x.to(dtype) for x in masters]
    grads = [0.1 * torch.randn(shape, device=device).to(dtype) for shape in shapes]
    moments = [0.01 * torch.randn(shape, device=device) for shape in shapes]
    return params, masters, grads, moments, [1e-3 * torch.rand(shape, device=device) for shape in shapes]


def clones(lists):
    params, masters, *rest = lists
    new = [x.clone() for x in masters]
    return (new if params is masters else [x.clone() for x in params], new, *([x.clone() for x in xs] for xs in rest))


def bits(lists):
    return torch.cat([x.float().flatten() for tensors in lists for x in tensors])


def updated(op):
    """The op as a function of four flat tensors that it leaves alone, the parameters being cut into uneven tensors."""

    def run(grad, master, exp_avg, exp_avg_sq, **options):
        cuts = [1, 3, 1000, 4096, len(grad) - 5100]
        lists = [list(x.clone().split(cuts)) for x in (grad, master, exp_avg, exp_avg_sq)]
        grads, masters, exp_avgs, exp_avg_sqs = lists
        params = masters if grad.dtype == master.dtype else [x.to(grad.dtype) for x in masters]
        op(params, masters, grads, exp_avgs, exp_avg_sqs, **HYPER, **options)
        return tuple(torch.cat(tensors) for tensors in (params, masters, exp_avgs, exp_avg_sqs))

    return run


@pytest.mark.parametrize("step", [None, 1, 7, 100_000])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", ["adamw", "lamb"])
def test_errors_are_within_the_budget(op, dtype, step, device):
    _, _, (grad,), (exp_avg,), (exp_avg_sq,) = make(dtype, device, [(10007,)])
    tensors = dict(grad=grad, master=torch.randn(10007, device=device), exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)
    options = dict(lr=0.0123, step=step, grad_scale=0.7)
    functions = (updated(getattr(module, op)) for module in (optim, reference_optim))
    assert_within_budget(*functions, tensors, backward=False, **options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("op", "options"), [("adamw", {}), ("lamb", {}), ("lamb", {"adapt": False})], ids=str)
def test_every_one_of_many_tensors_is_updated(op, options, dtype, device):
    ours = make(dtype, device)
    theirs = clones(ours)
    for step in (1, 2):
        for module, lists in ((optim, ours), (reference_optim, theirs)):
            getattr(module, op)(*lists, lr=0.01, step=step, **HYPER, **options)
    for got, expected in zip(ours[1:], theirs[1:], strict=True):
        for x, y in zip(got, expected, strict=True):
            torch.testing.assert_close(x, y, rtol=5e-6, atol=1e-6)
    for p, master in zip(*ours[:2], strict=True):
        assert torch.equal(p, master.to(dtype))


@pytest.mark.parametrize("module", [optim, reference_optim], ids=["triton", "torch"])
@pytest.mark.parametrize("op", ["adamw", "lamb"])
def test_each_tensor_may_have_its_own_rate_decay_and_count(op, module, device):
    ours, rate, count = make(torch.bfloat16, device), torch.tensor(0.5, device=device), torch.tensor(3, device=device)
    theirs = clones(ours)
    options = HYPER | {"grad_scale": 0.5}
    numbers = [(0.1, 0.3, 1), (rate, 0.0, count), (rate, 0.01, 7)] * 3
    rates, decays, counts = zip(*numbers[: len(SHAPES)], strict=True)
    getattr(module, op)(*ours, lr=rates, step=counts, **options | {"weight_decay": decays})
    for i, (lr, decay, step) in enumerate(numbers[: len(SHAPES)]):
        own = [tensors[i : i + 1] for tensors in theirs]
        getattr(module, op)(*own, lr=lr, step=step, **options | {"weight_decay": decay})
    assert torch.equal(bits(ours), bits(theirs))


@pytest.mark.parametrize("op", ["adamw", "lamb"])
def test_dtypes_may_be_mixed(op, device):
    each = [make(dtype, device, SHAPES[:3]) for dtype in DTYPES]
    expected = [clones(lists) for lists in each]
    getattr(optim, op)(*([x for xs in row for x in xs] for row in zip(*each, strict=True)), lr=0.1, **HYPER)
    for lists, alone in zip(each, expected, strict=True):
        getattr(optim, op)(*alone, lr=0.1, **HYPER)
        assert torch.equal(bits(lists), bits(alone))


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.98, 0.999, 0.9999])
@pytest.mark.parametrize("step", [1, 3, 50, 400, 10**6])
def test_corrections_do_not_cancel(beta, step, device):
    """With eps 0, m = v = 0 and lr 1, one step moves by sqrt(c2) / c1 times what the moments give."""
    (p,), *state = [[torch.zeros(1, device=device)] for _ in range(3)]
    grad = torch.ones(1, device=device)
    optim.adamw([p], [p], [grad], *state, 1.0, beta, 0.25, 0.0, 0.0, step)
    expected = -(1 - beta) / (1 - beta**step) / math.sqrt(0.75 / (1 - 0.25**step))
    assert float(p) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("grad_scale", [math.inf, math.nan, -math.inf])
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("op", ["adamw", "lamb"])
def test_a_scale_that_is_not_finite_changes_nothing(op, dtype, grad_scale, device):
    lists = make(dtype, device, SHAPES[:4])
    before = bits(lists)
    getattr(optim, op)(*lists, lr=0.1, grad_scale=torch.tensor(grad_scale, device=device), **HYPER)
    assert torch.equal(bits(lists), before)


@pytest.mark.parametrize("op", ["adamw", "lamb"])
def test_scalars_are_read_on_the_device(op, device):
    ours = make(torch.float32, device, SHAPES[:4])
    theirs = clones(ours)
    getattr(optim, op)(*ours, lr=0.25, step=3, grad_scale=0.5, **HYPER)
    lr, step, scale = (torch.tensor(x, device=device) for x in (0.25, 3, 0.5))
    getattr(optim, op)(*theirs, lr=lr.double(), step=step, grad_scale=scale, **HYPER)
    assert torch.equal(bits(ours), bits(theirs))


def test_lamb_leaves_zero_tensors_without_nan(device):
    lists = [[torch.zeros(5, device=device)] for _ in range(5)]
    lists[0] = lists[1]
    optim.lamb(*lists, lr=0.1, **HYPER)
    assert not bits(lists).any()
    lists[2][0].fill_(1.0)  # a zero weight moves by the rate alone
    optim.lamb(*lists, lr=0.1, **HYPER | {"eps": 0.0})
    torch.testing.assert_close(lists[0][0], torch.full_like(lists[0][0], -0.1 * 0.1 / math.sqrt(0.001)))


def test_lamb_without_eps(device):
    """What lies beyond a tensor's end counts for nothing, and not for 0 / 0."""
    ours = make(torch.float32, device, [(5,), (2050,)])
    theirs = clones(ours)
    for module, lists in ((optim, ours), (reference_optim, theirs)):
        module.lamb(*lists, lr=0.1, **HYPER | {"eps": 0.0})
    torch.testing.assert_close(bits(ours), bits(theirs), rtol=5e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_grad_norm(dtype, device):
    grads = make(dtype, device)[2]
    exact = reference_optim.grad_norm([x.double() for x in grads])
    norm = optim.grad_norm(grads)
    assert norm.dtype == torch.float32
    assert norm.shape == ()
    assert float(norm) == pytest.approx(float(exact), rel=1e-6)
    assert torch.equal(norm, optim.grad_norm(grads))


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_grad_norm_of_what_is_no_number(value, device):
    grads = make(torch.bfloat16, device)[2] + make(torch.float32, device)[2]
    grads[-3][-1] = value
    assert not optim.grad_norm(grads).isfinite()


def test_grad_norm_of_nothing(device):
    assert float(optim.grad_norm([])) == 0
    assert float(optim.grad_norm([torch.zeros(0, device=device)])) == 0


@pytest.mark.parametrize("op", ["adamw", "lamb"])
def test_two_runs_are_bit_equal(op, device):
    def run():
        torch.manual_seed(3)
        lists = make(torch.bfloat16, device)
        getattr(optim, op)(*lists, lr=0.1, grad_scale=1 / optim.grad_norm(lists[2]), **HYPER)
        return bits(lists)

    assert torch.equal(run(), run())


@pytest.mark.parametrize("op", ["adamw", "lamb"])
def test_tensors_that_start_anywhere(op, device):
    """Views that do not start at 16 bytes give the same, and nothing around them is touched."""
    lists = make(torch.bfloat16, device, [(5000,), (17,)])
    buffers = [[torch.full((len(x) + 2,), 7.0, dtype=x.dtype, device=device) for x in xs] for xs in lists]
    views = [[x[1:-1].copy_(y) for x, y in zip(*rows, strict=True)] for rows in zip(buffers, lists, strict=True)]
    getattr(optim, op)(*lists, lr=0.1, **HYPER)
    getattr(optim, op)(*views, lr=0.1, **HYPER)
    assert torch.equal(bits(lists), bits(views))
    assert all(x[0] == 7 and x[-1] == 7 for xs in buffers for x in xs)


@pytest.mark.parametrize("op", ["adamw", "lamb"])
def test_a_tensor_that_starts_anywhere_slows_down_no_other(op, device):
    lists = make(torch.bfloat16, device, [(5000,), (16,), (17,), (0,)])
    expected, moved = clones(lists), torch.empty(17, dtype=torch.bfloat16, device=device)[1:]
    lists[2][1] = moved.copy_(lists[2][1])
    launches = list(kernels._launches(lists[2], *lists[3:], lists[1], lists[0]))
    assert [(launch.n_tensors, launch.constants["ALIGNED"]) for launch in launches] == [(2, True), (1, False)]
    getattr(optim, op)(*lists, lr=0.1, **HYPER)
    getattr(optim, op)(*expected, lr=0.1, **HYPER)
    assert torch.equal(bits(lists), bits(expected))
    assert float(optim.grad_norm(lists[2])) == pytest.approx(float(optim.grad_norm(expected[2])), rel=1e-6)


def test_gradients_that_move_are_found(device, monkeypatch):
    """Eager training may give the gradients new memory at every step: more addresses than the cache holds."""
    monkeypatch.setattr(kernels, "_CACHE", kernels.Cache(4))
    ours = make(torch.float32, device, SHAPES[:3])
    theirs = clones(ours)
    gradients = [[torch.randn_like(x) for x in ours[2]] for _ in range(6)]
    for grads in gradients:
        for module, lists in ((optim, ours), (reference_optim, theirs)):
            module.adamw(*lists[:2], grads, *lists[3:], lr=0.01, **HYPER)
    assert len(kernels._CACHE._recent) == 4
    torch.testing.assert_close(bits(ours), bits(theirs))


def test_a_graph_that_saved_an_old_weight_notices(device):
    weight = torch.ones(3, device=device, requires_grad=True)
    loss = (weight * weight).sum()
    state = [[torch.zeros(3, device=device)] for _ in range(3)]
    with torch.no_grad():
        optim.adamw([weight], [weight], *state, lr=0.1, **HYPER)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_refusals_name_the_tensor(device):
    params, masters, grads, exp_avgs, exp_avg_sqs = make(torch.bfloat16, device, [(4, 3), (2, 3)])

    def update(*lists):
        optim.adamw(*lists, lr=0.1, **HYPER)

    with pytest.raises(ValueError, match=r"adamw: expected grads\[1\] of torch.bfloat16, .* got torch.float32"):
        update(params, masters, [grads[0], grads[1].float()], exp_avgs, exp_avg_sqs)
    with pytest.raises(ValueError, match=r"expected exp_avgs\[0\] of torch.float32, .* got torch.bfloat16"):
        update(params, masters, grads, params, exp_avg_sqs)
    with pytest.raises(ValueError, match=r"expected grads\[0\] .* shape \(4, 3\), contiguous.* with strides \(1, 4\)"):
        update(params, masters, [grads[0].T.contiguous().T, grads[1]], exp_avgs, exp_avg_sqs)
    with pytest.raises(ValueError, match=r"adamw: expected one lr, or 2 of them, got 3"):
        optim.adamw(params, masters, grads, exp_avgs, exp_avg_sqs, lr=[0.1] * 3, **HYPER)
    with pytest.raises(ValueError, match=r"expected 2 masters, got 1"):
        update(params, masters[:1], grads, exp_avgs, exp_avg_sqs)
    with pytest.raises(ValueError, match=r"expected exp_avg_sqs\[1\] .* on meta"):
        update(params, masters, grads, exp_avgs, [exp_avg_sqs[0], exp_avg_sqs[1].to("meta")])
    with pytest.raises(ValueError, match=r"expected masters\[0\] to be params\[0\]"):
        update(masters, exp_avgs, exp_avgs, exp_avgs, exp_avg_sqs)
    with pytest.raises(ValueError, match=r"grad_norm: .* got grads\[0\] of torch.float64"):
        optim.grad_norm([grads[0].double()])
