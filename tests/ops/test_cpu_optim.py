"""The optimizer's ops in C++: errors against fp64, equal bits, and what goes to the reference."""

import pytest
import torch

from electra_fast.ops import reference_optim, registry
from electra_fast.ops.contracts import cpu_library, cpu_optim

pytestmark = pytest.mark.skipif(cpu_library.obstacle() is not None, reason=f"{cpu_library.obstacle()}")

# Pieces of a task full and broken, a number alone, none.
SHAPES = [(40_000,), (7, 5), (1,), (), (0, 3), (64, 33), (16_384,), (5, 1, 9)]


def draw(scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(round(1000 * scale))
    return [scale * torch.randn(shape, generator=generator) for shape in SHAPES]


def state() -> list[list[torch.Tensor]]:
    """Parameters, first and second moments."""
    return [draw(), draw(0.01), [x.square() for x in draw(0.02)]]


def run(op, steps=3, dtype=torch.float32, **options) -> list[list[torch.Tensor]]:
    params, exp_avgs, exp_avg_sqs = ([x.to(dtype) for x in tensors] for tensors in state())
    for i in range(steps):
        grads = [x.to(dtype) for x in draw(0.1 + i)]
        step = {} if options.get("step") is None else {"step": i + 1}
        op(params, params, grads, exp_avgs, exp_avg_sqs, **options | step)
    return [params, exp_avgs, exp_avg_sqs]


OPTIONS = {
    "plain": dict(lr=1e-2, beta1=0.9, beta2=0.999, eps=1e-6, weight_decay=0.01),
    "corrected": dict(lr=1e-2, beta1=0.9, beta2=0.98, eps=1e-8, weight_decay=0.1, step=1, grad_scale=0.3),
    "no-first-moment": dict(lr=1e-2, beta1=0.0, beta2=0.9, eps=1e-6, weight_decay=0.0, step=1),
    "of-each": dict(
        lr=[torch.tensor(1e-2 * i) for i in range(len(SHAPES))], beta1=0.9, beta2=0.999, eps=1e-6,
        weight_decay=[0.1 * (i % 2) for i in range(len(SHAPES))], grad_scale=torch.tensor(0.5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_errors_of_an_update_are_no_larger_than_torchs(options):
    exact = run(reference_optim.adamw, dtype=torch.float64, **options)
    for name, ours, theirs, right in zip(
        ("params", "exp_avgs", "exp_avg_sqs"),
        run(cpu_optim.adamw, **options), run(reference_optim.adamw, **options), exact, strict=True,
    ):  # fmt: skip
        ours, theirs, right = (torch.cat([x.double().flatten() for x in tensors]) for tensors in (ours, theirs, right))
        budget = 2 * (theirs - right).abs().max() + 1e-7 * right.abs().max()
        assert (ours - right).abs().max() <= budget, name


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e15])
def test_the_norm_is_that_of_exact_sums(scale):
    grads = [x * scale for x in draw()]
    expected = torch.cat([x.double().flatten() for x in grads]).norm().item()
    found = cpu_optim.grad_norm(grads)
    assert found.dtype == torch.float32 and found.shape == ()
    assert found.item() == pytest.approx(expected, rel=2e-7)


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_a_norm_that_is_not_finite_shows(number):
    grads = draw()
    grads[0][39_999] = number
    assert not cpu_optim.grad_norm(grads).isfinite()


def test_bits_do_not_depend_on_threads():
    before, found = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2, 3, 1):
            torch.set_num_threads(n_threads)
            grads = [x.repeat(40) for x in (y.flatten() for y in draw())]
            params, exp_avgs, exp_avg_sqs = run(cpu_optim.adamw, **OPTIONS["corrected"])
            found.append([cpu_optim.grad_norm(grads), *params, *exp_avgs, *exp_avg_sqs])
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


def test_gradients_stay_and_versions_grow():
    params, exp_avgs, exp_avg_sqs = state()
    params = [torch.nn.Parameter(p) for p in params]
    grads = draw(0.1)
    versions, kept = [p._version for p in params], [grad.clone() for grad in grads]
    with torch.no_grad():
        cpu_optim.adamw(params, params, grads, exp_avgs, exp_avg_sqs, **OPTIONS["corrected"])
    assert all(torch.equal(a, b) for a, b in zip(grads, kept, strict=True))
    assert all(p._version > version for p, version in zip(params, versions, strict=True))


@pytest.mark.parametrize("scale", [torch.nan, torch.inf])
def test_a_scale_that_is_not_finite_changes_nothing(scale):
    params, exp_avgs, exp_avg_sqs = state()
    options = OPTIONS["plain"] | {"grad_scale": torch.tensor(scale)}
    cpu_optim.adamw(params, params, draw(0.1), exp_avgs, exp_avg_sqs, **options)
    for found, expected in zip((params, exp_avgs, exp_avg_sqs), state(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_parameters_in_bf16_are_rounded_from_their_masters():
    masters, exp_avgs, exp_avg_sqs = state()
    params, grads = [x.bfloat16() for x in masters], [x.bfloat16() for x in draw(0.1)]
    expected, *moments = state()
    cpu_optim.adamw(params, masters, grads, exp_avgs, exp_avg_sqs, **OPTIONS["plain"])
    cpu_optim.adamw(expected, expected, [x.float() for x in grads], *moments, **OPTIONS["plain"])
    for p, master, other in zip(params, masters, expected, strict=True):
        assert torch.equal(master, other) and torch.equal(p, master.bfloat16())


def strided(x: torch.Tensor) -> torch.Tensor:
    return x.repeat_interleave(2, -1)[..., ::2]


def cut(x: torch.Tensor) -> torch.Tensor:
    x = x.clone()
    x.untyped_storage().resize_(0)
    return x


@pytest.mark.parametrize("which", ["param", "grad", "exp_avg", "exp_avg_sq"])
@pytest.mark.parametrize("change", [strided, torch.Tensor.double], ids=["strided", "double"])
def test_what_cpp_cannot_read_goes_to_the_reference(which, change):
    found, expected = [], []
    for op, to in ((cpu_optim.adamw, found), (reference_optim.adamw, expected)):
        tensors = dict(zip(("param", "exp_avg", "exp_avg_sq"), (x[5] for x in state()), strict=True)) | {
            "grad": draw()[5]
        }
        if which == "grad" or change is strided:
            tensors[which] = change(tensors[which])
        else:
            tensors = {name: change(x) for name, x in tensors.items()}
        p, grad, m, v = ([tensors[name]] for name in ("param", "grad", "exp_avg", "exp_avg_sq"))
        op(p, p, grad, m, v, **OPTIONS["plain"])
        to += [p[0], m[0], v[0]]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_memory_that_is_gone_is_not_touched():
    params, exp_avgs, exp_avg_sqs = state()
    with pytest.raises(RuntimeError):
        cpu_optim.adamw(params, params, [cut(x) for x in draw()], exp_avgs, exp_avg_sqs, **OPTIONS["plain"])
    with pytest.raises(RuntimeError):
        cpu_optim.grad_norm([cut(x) for x in draw()])


def test_lists_that_do_not_fit_are_refused():
    params, exp_avgs, exp_avg_sqs = state()
    grads = draw()
    grads[5] = grads[5][:30]
    with pytest.raises(ValueError, match="must have the shapes of their gradients, number 5 has another one"):
        cpu_optim.adamw(params, params, grads, exp_avgs, exp_avg_sqs, **OPTIONS["plain"])


def test_torchs_defaults_do_not_matter():
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        assert cpu_optim.grad_norm([torch.ones(4, dtype=torch.float32)]).dtype == torch.float32
    finally:
        torch.set_default_dtype(before)


def test_auto_takes_them_on_a_cpu():
    assert registry.OPS["adamw"].cpu is cpu_optim.adamw
    assert registry.OPS["grad_norm"].cpu is cpu_optim.grad_norm
    assert torch.equal(cpu_optim.grad_norm([]), reference_optim.grad_norm([]))
