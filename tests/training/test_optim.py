"""The optimizers against the papers' updates and torch's own; the schedule against its definition.

Tests of both impls run on the GPU if there is one, else in Triton's interpreter.
"""

import copy
import math

import pytest
import torch

from electra_fast.ops import reference_optim
from electra_fast.training.optim import LAMB, AdamW, decay_groups
from electra_fast.training.precision import LossScale
from electra_fast.training.schedule import warmup_decay

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
both_impls = pytest.mark.parametrize("impl", ["torch", "triton"])
both_optimizers = pytest.mark.parametrize("optimizer_class", [AdamW, LAMB])


def parameters(n=3):
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(4, n, dtype=torch.float64)) for n in range(1, n + 1)]


def give_gradients(params, step, scale=1.0):
    generator = torch.Generator().manual_seed(step)
    for p in params:
        p.grad = scale * torch.randn(p.shape, generator=generator, dtype=p.dtype)


def test_the_update_is_the_originals():
    (p,) = params = parameters(1)
    expected, m, v = p.detach().clone(), torch.zeros_like(p), torch.zeros_like(p)
    optimizer = AdamW(params, lr=0.1, weight_decay=0.02, max_grad_norm=None)
    for step in range(4):
        give_gradients(params, step)
        m, v = 0.9 * m + 0.1 * p.grad, 0.999 * v + 0.001 * p.grad**2
        expected = expected - 0.1 * (m / (v.sqrt() + 1e-6) + 0.02 * expected)
        optimizer.step()
        torch.testing.assert_close(p.detach(), expected, rtol=0, atol=1e-12)


def test_with_bias_correction_it_is_torchs_adamw():
    ours, theirs = parameters(), parameters()
    optimizers = [
        AdamW(ours, lr=0.1, eps=1e-8, weight_decay=0.02, bias_correction=True, max_grad_norm=None),
        torch.optim.AdamW(theirs, lr=0.1, eps=1e-8, weight_decay=0.02),
    ]
    for step in range(5):
        for params, optimizer in zip((ours, theirs), optimizers, strict=True):
            give_gradients(params, step)
            optimizer.step()
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_all_gradients_are_clipped_together(scale):
    ours, theirs = parameters(), parameters()
    first = AdamW([{"params": ours[:1]}, {"params": ours[1:]}], lr=0.1, max_grad_norm=1.0)
    second = AdamW(theirs, lr=0.1, max_grad_norm=None)
    give_gradients(ours, 0, scale)
    give_gradients(theirs, 0, scale)
    norm = torch.stack([p.grad.norm() for p in theirs]).norm()
    for p in theirs:
        p.grad /= max(1.0, norm.item())
    first.step(), second.step()
    torch.testing.assert_close(first.grad_norm, norm)
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)


def test_dtypes_may_be_mixed_in_a_group():
    first, second = parameters(2)
    mixed = [torch.nn.Parameter(first.detach().float()), second]
    apart = [torch.nn.Parameter(p.detach().clone()) for p in mixed]
    optimizer, *others = AdamW(mixed, lr=0.1), *(AdamW([p], lr=0.1, max_grad_norm=None) for p in apart)
    give_gradients(mixed, 0), give_gradients(apart, 0)
    optimizer.step()
    for p, other in zip(apart, others, strict=True):
        p.grad /= optimizer.grad_norm.to(p.dtype).clamp(min=1)
        other.step()
    for x, y in zip(mixed, apart, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-6)


def test_state_survives_saving():
    ours, theirs = parameters(), parameters()
    first, second = AdamW(ours, bias_correction=True), AdamW(theirs, bias_correction=True)
    for step in range(3):
        give_gradients(ours, step)
        first.step()
    for x, y in zip(theirs, ours, strict=True):
        x.data.copy_(y.data)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for params, optimizer in ((ours, first), (theirs, second)):
        give_gradients(params, 9)
        optimizer.step()
    for x, y in zip(ours, theirs, strict=True):
        assert torch.equal(x, y)


def uneven(dtype=torch.float32):
    """Parameters of sizes that fill no block, and of all shapes."""
    torch.manual_seed(0)
    return [
        torch.nn.Parameter(torch.randn(shape, device=DEVICE).to(dtype)) for shape in [(1,), (3,), (1000,), (77, 91)]
    ]


def give_device_gradients(params, step, scale=1.0):
    generator = torch.Generator().manual_seed(step)
    for p in params:
        p.grad = (scale * torch.randn(p.shape, generator=generator)).to(p)


def gradients_of(params, step):
    give_device_gradients(params, step)
    return [p.grad for p in params]


def train(optimizer, params, steps):
    for step in steps:
        give_device_gradients(params, step)
        optimizer.step()
    return [p.detach().clone() for p in params]


@both_impls
def test_both_impls_are_torchs_adamw(impl):
    ours, theirs = uneven(), uneven()
    options = dict(lr=0.01, eps=1e-8, weight_decay=0.02)
    first = AdamW(ours, bias_correction=True, max_grad_norm=None, impl=impl, **options)
    for x, y in zip(
        train(first, ours, range(5)), train(torch.optim.AdamW(theirs, **options), theirs, range(5)), strict=True
    ):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


@both_impls
@both_optimizers
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_masters_are_the_weights_of_a_run_in_fp32(optimizer_class, dtype, impl):
    """From the same rounded weights by the same rounded gradients; steps too small for the dtype are not lost."""
    low, high = uneven(dtype), uneven(dtype)
    high = [torch.nn.Parameter(p.detach().float()) for p in high]
    first, second = (optimizer_class(params, lr=1e-5, impl=impl) for params in (low, high))
    for step in range(4):
        give_device_gradients(low, step)
        for p, q in zip(low, high, strict=True):
            q.grad = p.grad.float()
        first.step(), second.step()
    for p, q in zip(low, high, strict=True):
        master = first.master_of(p)
        assert master.dtype == torch.float32
        torch.testing.assert_close(master, q.detach(), rtol=1e-6, atol=1e-7)
        assert ((p.detach().float() - master).abs() <= torch.finfo(dtype).eps * master.abs() + 1e-7).all()
        assert second.master_of(q) is q


@both_impls
@both_optimizers
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_gradient_that_is_not_finite_leaves_everything_as_it_was(optimizer_class, value, impl):
    params = uneven(torch.bfloat16)
    optimizer = optimizer_class(params, bias_correction=True, impl=impl)
    before = train(optimizer, params, [0])
    state = copy.deepcopy(optimizer.state_dict())
    give_device_gradients(params, 1)
    params[2].grad[5] = value
    optimizer.step()
    assert not optimizer.grad_norm.isfinite()
    assert optimizer.param_groups[0]["step"] == 1
    for x, y in zip(params, before, strict=True):
        assert torch.equal(x, y)
    for index, values in optimizer.state_dict()["state"].items():
        for name, x in values.items():
            assert torch.equal(x, state["state"][index][name]), name


@both_impls
@both_optimizers
def test_the_state_of_rounded_weights_survives_saving(optimizer_class, impl, tmp_path):
    ours, theirs = uneven(torch.bfloat16), uneven(torch.bfloat16)
    first, second = (optimizer_class(params, bias_correction=True, impl=impl) for params in (ours, theirs))
    train(first, ours, range(2))
    torch.save([first.state_dict(), ours], tmp_path / "state.pt")
    state, weights = torch.load(tmp_path / "state.pt", weights_only=False)
    for x, y in zip(theirs, weights, strict=True):
        x.data.copy_(y.data)
    second.load_state_dict(state)
    for p, q in zip(ours, theirs, strict=True):
        assert {x.dtype for x in second.state[q].values()} == {torch.float32}
        assert torch.equal(first.master_of(p), second.master_of(q))
    for x, y in zip(train(first, ours, [7]), train(second, theirs, [7]), strict=True):
        assert torch.equal(x, y)


def test_counts_saved_as_numbers_are_read():
    params = uneven()
    optimizer = AdamW(params, bias_correction=True)
    train(optimizer, params, [0])
    state = optimizer.state_dict()
    state["param_groups"][0]["step"] = 41
    optimizer.load_state_dict(state)
    train(optimizer, params, [1])
    assert optimizer.param_groups[0]["step"] == 42


@both_impls
def test_the_rate_may_be_a_number_or_a_tensor_and_may_change(impl):
    ours, theirs = uneven(), uneven()
    rate = torch.tensor(0.0, device=DEVICE)
    first, second = AdamW(ours, lr=0.5, impl=impl), AdamW(theirs, lr=rate, impl=impl)
    for step, lr in enumerate((0.1, 0.02, 0.3)):
        first.param_groups[0]["lr"] = lr
        rate.fill_(lr)
        train(first, ours, [step]), train(second, theirs, [step])
    assert first.param_groups[0]["lr"] == 0.3
    for x, y in zip(ours, theirs, strict=True):
        assert torch.equal(x, y)


@both_optimizers
@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
def test_a_loss_scale_falls_at_overflow_and_knows_no_step_without_gradients(optimizer_class, max_grad_norm):
    p = torch.nn.Parameter(torch.ones(4, device=DEVICE))
    optimizer = optimizer_class([p], max_grad_norm=max_grad_norm, impl="torch")
    optimizer.loss_scale = LossScale(DEVICE, 1024.0)
    p.grad = torch.full_like(p, math.inf)
    optimizer.step()
    p.grad = None
    optimizer.step()
    assert optimizer.loss_scale.value == 512 and torch.equal(p, torch.ones_like(p))


@both_optimizers
def test_groups_without_parameters_are_nothing_to_update(optimizer_class):
    optimizer = optimizer_class([{"params": []}, {"params": [], "weight_decay": 0.0}], impl="torch")
    assert optimizer.step() is None


@both_impls
@pytest.mark.parametrize("max_grad_norm", [1.0, None])
def test_the_loss_scale_is_divided_out(max_grad_norm, impl):
    ours, theirs = uneven(), uneven()
    first, second = (AdamW(params, max_grad_norm=max_grad_norm, impl=impl) for params in (ours, theirs))
    first.loss_scale = LossScale(DEVICE, 1024.0)
    give_device_gradients(ours, 0, 1024.0)
    give_device_gradients(theirs, 0)
    first.step(), second.step()
    if max_grad_norm is not None:
        torch.testing.assert_close(first.grad_norm, second.grad_norm)
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-7)


@both_impls
@both_optimizers
def test_two_runs_are_bit_equal(optimizer_class, impl):
    def run():
        params = uneven(torch.bfloat16)
        return train(optimizer_class(params, bias_correction=True, impl=impl), params, range(3))

    for x, y in zip(run(), run(), strict=True):
        assert torch.equal(x, y)


@both_impls
@pytest.mark.parametrize("adapt", [None, True, False])
def test_lamb_adapts_where_there_is_decay_unless_told(adapt, impl):
    ours, theirs = uneven(), uneven()
    groups = [{"params": ours[2:]}, {"params": ours[:2], "weight_decay": 0.0}]
    if adapt is not None:
        groups[1]["adapt"] = adapt
    train(LAMB(groups, lr=0.1, max_grad_norm=None, impl=impl), ours, [0])
    give_device_gradients(theirs, 0)
    for params, decay, adapts in ((theirs[2:], 0.01, True), (theirs[:2], 0.0, bool(adapt))):
        values, grads = [p.detach() for p in params], [p.grad for p in params]
        moments = [[torch.zeros_like(p) for p in values] for _ in range(2)]
        reference_optim.lamb(values, values, grads, *moments, 0.1, 0.9, 0.999, 1e-6, decay, step=1, adapt=adapts)
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


@both_impls
def test_groups_that_are_empty_or_without_gradients(impl):
    params = uneven()
    optimizer = AdamW([{"params": []}, {"params": params[:2]}, {"params": params[2:]}], impl=impl)
    before = [p.detach().clone() for p in params]
    optimizer.step()
    give_device_gradients(params[2:], 0)
    optimizer.step()
    assert [torch.equal(x, y) for x, y in zip(params, before, strict=True)] == [True, True, False, False]


@pytest.mark.parametrize(("optimizer_class", "n_updates"), [(AdamW, 1), (LAMB, 2)])
def test_groups_that_differ_in_rate_and_decay_share_an_update(optimizer_class, n_updates):
    """LAMB's need one for those that it adapts and one for the others."""
    params, alone, calls = uneven(), uneven(), []
    options = [{"lr": 0.1 / (i + 1), "weight_decay": 0.01 * (i % 2)} for i in range(len(params))]
    groups = [{"params": [p], **own} for p, own in zip(params, options, strict=True)]
    optimizer = optimizer_class(groups, max_grad_norm=None)
    others = [optimizer_class([p], max_grad_norm=None, **own) for p, own in zip(alone, options, strict=True)]
    apply = optimizer._apply
    optimizer._apply = lambda *args, **kwargs: (calls.append(len(args[0])), apply(*args, **kwargs))
    for step in (0, 1):
        give_device_gradients(params, step), give_device_gradients(alone, step)
        for each in (optimizer, *others):
            each.step()
    assert len(calls) == 2 * n_updates
    assert sum(calls) == 2 * len(params)
    for x, y in zip(params, alone, strict=True):
        assert torch.equal(x, y)


@both_impls
def test_a_group_counts_the_steps_in_which_it_has_gradients(impl):
    params = uneven()
    optimizer = AdamW([{"params": params[:2]}, {"params": params[2:]}], bias_correction=True, impl=impl)
    optimizer.create_state()
    train(optimizer, params[:2], [0, 1])
    train(optimizer, params, [2])
    assert [group["step"].item() for group in optimizer.param_groups] == [3, 1]


@pytest.mark.gpu
@both_optimizers
def test_a_recorded_step_replays_with_new_rates_counts_and_gradients(optimizer_class):
    ours, theirs = uneven(torch.bfloat16), uneven(torch.bfloat16)
    options = dict(bias_correction=True, impl="triton")
    first, second = (optimizer_class(params, **options) for params in (ours, theirs))
    train(first, ours, [0]), train(second, theirs, [0])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        first.update()
    for step, lr in ((1, 0.1), (2, 0.03), (3, 0.2)):
        for optimizer in (first, second):
            optimizer.param_groups[0]["lr"] = lr
        for p, grad in zip(ours, gradients_of(theirs, step), strict=True):
            p.grad.copy_(grad)
        first.write_lr()
        graph.replay()
        second.step()
    for x, y in zip(ours, theirs, strict=True):
        assert torch.equal(x, y)


@pytest.mark.gpu
def test_a_step_recorded_together_with_the_backward_replays():
    """Its gradients lie where no step before had them: their addresses are copied to the device by the graph."""
    ours, theirs = uneven(), uneven()
    first, second = (AdamW(params, impl="triton") for params in (ours, theirs))

    def step(params, optimizer):
        optimizer.zero_grad()
        sum(p.square().sum() for p in params).backward()
        optimizer.update()

    first.write_lr(), second.write_lr()
    step(ours, first), step(theirs, second)
    first.zero_grad()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(ours, first)
    for _ in range(3):
        graph.replay()
        step(theirs, second)
    for x, y in zip(ours, theirs, strict=True):
        assert torch.equal(x, y)


def test_norms_and_biases_do_not_decay():
    layer = torch.nn.Module()
    layer.dense, layer.LayerNorm = torch.nn.Linear(3, 3), torch.nn.LayerNorm(3)
    layer.tied = layer.dense
    decayed, kept = decay_groups(layer, 0.01)
    assert decayed["weight_decay"] == 0.01
    assert kept["weight_decay"] == 0
    assert [id(p) for p in decayed["params"]] == [id(layer.dense.weight)]
    assert {id(p) for p in kept["params"]} == {id(p) for p in (layer.dense.bias, *layer.LayerNorm.parameters())}


@pytest.mark.parametrize(
    ("options", "message"),
    [(dict(lr=-1), "lr"), (dict(betas=(0.9, 1.0)), "betas"), (dict(max_grad_norm=0), "max_grad_norm")],
)
def test_settings_that_cannot_be_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        AdamW(parameters(), **options)


@pytest.mark.parametrize(
    ("step", "progress", "warmup", "expected"),
    [
        (0, 0.0, 10, 0.0),
        (5, 0.05, 10, 0.475),
        (10, 0.1, 10, 0.9),
        (50, 0.5, 10, 0.5),
        (100, 1.0, 10, 0.0),
        (0, 0.0, 0, 1.0),
    ],
)
def test_warm_up_and_decay_are_multiplied(step, progress, warmup, expected):
    assert warmup_decay(step, progress, warmup) == pytest.approx(expected)


def test_the_decay_may_start_later_and_have_a_power():
    factors = [warmup_decay(step, step / 100, 20, power=0.5, decay_start=0.2) for step in (10, 20, 60, 100)]
    assert factors == pytest.approx([0.5, 1.0, 0.5**0.5, 0.0])
