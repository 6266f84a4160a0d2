"""mlm_head: errors, what is sampled and how often, the ends of the distribution, memory, contracts and refusals."""

import math

import pytest
import torch
from electra_fast.kernels import mlm_head as kernels
from scipy.stats import chisquare
from torch.utils._python_dispatch import TorchDispatchMode

from electra_fast.ops import reference
from electra_fast.ops.contracts.mlm_head import mlm_head, mlm_head_bwd, mlm_head_fwd
from electra_fast.ops.testing import Error, assert_within_budget, compare

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(13, 128, 700), (131, 64, 256), (513, 64, 50), (3, 768, 257), (5, 1024, 129), (7, 100, 301)]
LAST_UNIFORM = 1 - 2**-24


def make(n_rows, hidden, vocab, dtype, device):
    """Logits of standard deviation 2; the first and the last token are labels, and every third label is the likeliest
    token of its row."""
    tensors = {
        "hidden": torch.randn(n_rows, hidden, device=device),
        "weight": 2 * torch.randn(vocab, hidden, device=device) / hidden**0.5,
        "bias": 0.5 * torch.randn(vocab, device=device),
    }
    tensors = {name: x.to(dtype) for name, x in tensors.items()}
    labels = torch.randint(0, vocab, (n_rows,), device=device)
    labels[:1], labels[1:2] = vocab - 1, 0
    labels[2::3] = logits_of(**tensors)[2::3].argmax(1)
    return tensors | {"labels": labels}


def logits_of(hidden, weight, bias, **_):
    return hidden.double() @ weight.double().T + bias.double()


def probabilities_of(tensors, temperature, never_label):
    """[N, V] fp64, to sample from."""
    scores = logits_of(**tensors) / temperature
    if never_label:
        scores.scatter_(1, tensors["labels"][:, None], float("-inf"))
    return scores.softmax(-1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_errors_are_within_the_budget(shape, dtype, device):
    assert_within_budget(mlm_head, reference.mlm_head, make(*shape, dtype, device))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_errors_of_one_row(dtype, device):
    """The rounding of one sum, that of the softmax, moves all gradients of a row: their errors are one draw, here of a
    kernel and there of torch, whose sums differ from processor to processor. Sixteen rows have a size of error."""
    draws = [compare(mlm_head, reference.mlm_head, make(1, 64, 50, dtype, device)) for _ in range(16)]
    for errors in zip(*draws, strict=True):
        sizes = (math.hypot(*(getattr(e, of) for e in errors)) for of in ("kernel", "eager", "rounding"))
        assert Error(errors[0].name, *sizes).is_within


@pytest.mark.parametrize("never_label", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_errors_and_samples_beside_the_reference(dtype, temperature, never_label, device):
    tensors, uniform = make(29, 64, 700, dtype, device), torch.rand(29, device=device)
    assert_within_budget(
        mlm_head, reference.mlm_head, tensors, uniform=uniform, temperature=temperature, never_label=never_label
    )


@pytest.mark.parametrize("never_label", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_temperature_on_the_device_draws_the_same(dtype, never_label, device):
    tensors, uniform = make(29, 64, 700, dtype, device), torch.rand(29, device=device)
    options, place = dict(uniform=uniform, never_label=never_label), torch.zeros((), device=device)
    samples = {}
    for temperature in (1.0, 0.3, 2.0):
        samples[temperature] = mlm_head(**tensors, **options, temperature=temperature)[2]
        assert torch.equal(
            mlm_head(**tensors, **options, temperature=place.fill_(temperature))[2], samples[temperature]
        )
    assert not torch.equal(samples[0.3], samples[2.0])


@pytest.mark.parametrize("label", [-100, -1, 150, 2**33 + 5])
def test_a_label_that_is_not_in_the_vocabulary_gives_nan(label, device):
    """A kernel cannot refuse it, as C++ and torch do on a CPU; losses and samples of other rows are what they were."""
    tensors, uniform = make(5, 64, 150, torch.float32, device), torch.rand(5, device=device)
    expected = mlm_head(**tensors, uniform=uniform)
    tensors["labels"][2] = label
    tensors["hidden"].requires_grad_()
    losses, is_correct, samples = mlm_head(**tensors, uniform=uniform)
    others = torch.tensor([0, 1, 3, 4], device=device)
    assert losses[2].isnan() and not is_correct[2] and 0 <= samples[2] < 150
    for found, value in zip((losses, is_correct, samples), expected, strict=True):
        assert torch.equal(found[others], value[others])
    losses.sum().backward()
    grad = tensors["hidden"].grad
    assert grad[2].isnan().all() and grad[others].isfinite().all()
    if abs(label) < 2**31 and device.type == "cpu":
        with pytest.raises((IndexError, RuntimeError)):
            reference.mlm_head(**tensors)


def test_without_rows(device):
    tensors = make(2, 64, 70, torch.float32, device)
    tensors |= {name: tensors[name][:0] for name in ("hidden", "labels")}
    tensors["weight"].requires_grad_(), tensors["bias"].requires_grad_()
    losses, is_correct, samples = mlm_head(**tensors, uniform=torch.rand(0, device=device))
    losses.sum().backward()
    assert losses.shape == is_correct.shape == samples.shape == (0,)
    assert (tensors["weight"].grad == 0).all() and (tensors["bias"].grad == 0).all()


def test_the_whole_vocabulary_of_bert(device):
    tensors = make(5, 16, 30522, torch.bfloat16, device)
    assert_within_budget(mlm_head, reference.mlm_head, tensors, uniform=torch.rand(5, device=device))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hidden", [100, 768])
def test_the_uniform_number_lies_in_the_interval_of_its_sample(hidden, dtype, device):
    tensors, uniform = make(31, hidden, 333, dtype, device), torch.rand(31, device=device)
    samples = mlm_head(**tensors, uniform=uniform)[2][:, None]
    probabilities = probabilities_of(tensors, 1, False)
    above = probabilities.cumsum(-1).gather(1, samples)[:, 0]
    assert (uniform <= above + 1e-5).all()
    assert (uniform >= above - probabilities.gather(1, samples)[:, 0] - 1e-5).all()


@pytest.mark.parametrize(
    "vocab, temperature, never_label", [(50, 1.0, False), (50, 2.0, True), (700, 1.0, True), (700, 2.0, False)]
)
def test_samples_are_as_frequent_as_likely(vocab, temperature, never_label, device):
    n_rows, n_groups = (100_000, 50) if device.type == "cuda" else (200, 10)
    tensors = make(1, 16, vocab, torch.float32, device)
    probabilities = probabilities_of(tensors, temperature, never_label)[0]
    rows = tensors | {name: tensors[name].expand(n_rows, *tensors[name].shape[1:]) for name in ("hidden", "labels")}
    uniform = torch.rand(n_rows, device=device)
    samples = mlm_head(**rows, uniform=uniform, temperature=temperature, never_label=never_label)[2]
    # Groups of neighbours, about as likely as each other; a token that is likelier than a group is one.
    group = (probabilities.cumsum(0) * n_groups).long().clamp(max=n_groups - 1)
    expected = torch.zeros(n_groups, device=device, dtype=torch.float64).index_add_(0, group, probabilities)
    found = group[samples].bincount(minlength=n_groups)
    is_filled = expected > 0
    assert chisquare(found[is_filled].cpu(), n_rows * expected[is_filled].cpu()).pvalue > 1e-3
    assert not never_label or (samples != tensors["labels"]).all()


@pytest.mark.parametrize("never_label", [False, True])
@pytest.mark.parametrize("vocab", [50, 129, 700])
def test_the_ends_of_the_distribution(vocab, never_label, device):
    tensors = make(4, 64, vocab, torch.float32, device)
    tensors["labels"][:] = torch.tensor([0, 0, vocab - 1, vocab - 1])
    uniform = torch.tensor([0, LAST_UNIFORM, 0, LAST_UNIFORM], device=device)
    samples = mlm_head(**tensors, uniform=uniform, never_label=never_label)[2].tolist()
    last = vocab - 1
    assert samples == ([1, last, 0, last - 1] if never_label else [0, last, 0, last])


@pytest.mark.parametrize("uniform", [0.0, 0.5, LAST_UNIFORM])
def test_tokens_without_mass_are_never_sampled(uniform, device):
    """All mass is on two tokens, in one strip or two; one is the label."""
    for first, second in ((3, 5), (3, 150), (127, 128)):
        tensors = make(2, 64, 200, torch.float32, device)
        tensors["bias"].fill_(-1e30)
        tensors["bias"][[first, second]] = 0
        tensors["labels"] = torch.tensor([first, second], device=device)
        tensors["weight"].zero_()
        uniforms = torch.full((2,), uniform, device=device)
        losses, is_correct, samples = mlm_head(**tensors, uniform=uniforms)
        assert samples.tolist() == 2 * [first if uniform < 0.5 else second]
        assert is_correct.all() and torch.allclose(losses.exp(), torch.full_like(losses, 2))
        assert mlm_head(**tensors, uniform=uniforms, never_label=True)[2].tolist() == [second, first]


def test_a_label_that_has_all_the_mass_is_still_left_out(device):
    tensors = make(3, 64, 130, torch.float32, device)
    tensors["bias"][7] = 1e4
    tensors["labels"][:] = 7
    uniform = torch.tensor([0, 0.5, LAST_UNIFORM], device=device)
    assert_within_budget(mlm_head, reference.mlm_head, tensors, uniform=uniform, never_label=True)


def test_a_row_without_a_gradient_adds_nothing(device):
    tensors = {name: x.requires_grad_(x.is_floating_point()) for name, x in make(9, 64, 200, DTYPES[0], device).items()}
    names = ("hidden", "weight", "bias")
    losses = mlm_head(**tensors)[0]
    grads = torch.autograd.grad(losses[:4].sum(), [tensors[name] for name in names])
    first = {name: tensors[name][:4] if name in ("hidden", "labels") else tensors[name] for name in tensors}
    expected = torch.autograd.grad(mlm_head(**first)[0].sum(), [tensors[name] for name in names])
    assert (grads[0][4:] == 0).all()
    for grad, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, other)


def test_only_the_losses_have_a_gradient(device):
    tensors = {name: x.requires_grad_(x.is_floating_point()) for name, x in make(3, 64, 70, DTYPES[0], device).items()}
    losses, is_correct, samples = mlm_head(**tensors, uniform=torch.rand(3, device=device))
    assert losses.requires_grad and not is_correct.requires_grad and not samples.requires_grad
    with torch.no_grad():
        for saved, alone in zip((losses, is_correct, samples), mlm_head(**tensors, uniform=torch.rand(3)), strict=True):
            assert alone.dtype == saved.dtype and not alone.requires_grad


@pytest.mark.parametrize("n_rows, n_chunks", [(300, 1), (2432, 4), (9728, 15), (10**6, 30)])
def test_chunks_of_dlogits_fit_into_l2_unless_rows_are_many(n_rows, n_chunks):
    columns = kernels.chunk_columns(n_rows, 2)
    assert columns == 1024 or (columns > 1024 and n_rows * columns * 2 <= 40 * 2**20)
    assert math.ceil(30522 / columns) == n_chunks


def test_no_tensor_is_a_twentieth_of_the_logits(monkeypatch, device):
    """Of all that the launchers allocate, at a size where parameters are smaller than that; no kernel runs."""

    class Launch:
        def __getitem__(self, grid):
            return lambda *args, **kwargs: None

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **kwargs or {})
            sizes.append(out.untyped_storage().nbytes())
            return out

    for name in ("mlm_head_strips_kernel", "mlm_head_rows_kernel", "mlm_head_bwd_kernel"):
        monkeypatch.setattr(kernels, name, Launch())
    n_rows, hidden, vocab = 16384, 16, 30522
    x, weight, bias = (torch.zeros(s, device=device) for s in ((n_rows, hidden), (vocab, hidden), (vocab,)))
    rows, labels, sizes = torch.zeros(n_rows, device=device), torch.zeros(n_rows, dtype=int, device=device), []
    with Sizes():
        kernels.mlm_head_fwd(x, weight, bias, labels, rows, torch.tensor(2.0), True)
        kernels.mlm_head_bwd(rows, rows, x, weight, bias, labels)
    assert 0.02 < max(sizes) / (4 * n_rows * vocab) < 0.05


def test_two_runs_are_bit_equal(device):
    def run():
        torch.manual_seed(3)
        tensors = make(70, 64, 150, torch.float32, device)
        floats = [x.requires_grad_() for x in tensors.values() if x.is_floating_point()]
        losses, is_correct, samples = mlm_head(**tensors, uniform=torch.rand(70, device=device), temperature=2.0)
        losses.sin().sum().backward()
        return [losses, is_correct, samples, *(x.grad for x in floats)]

    for one, other in zip(run(), run(), strict=True):
        assert torch.equal(one, other)


def test_strided_inputs_give_the_same_as_contiguous_ones(device):
    tensors = make(6, 64, 70, torch.float32, device) | {"uniform": torch.rand(6, device=device)}
    expected = mlm_head(**tensors)
    strided = {name: x.T.contiguous().T if x.dim() == 2 else x.repeat_interleave(2)[::2] for name, x in tensors.items()}
    for one, other in zip(mlm_head(**strided), expected, strict=True):
        assert torch.equal(one, other)


def test_contracts(device):
    tensors, rows = make(9, 64, 130, torch.float32, device), torch.rand(9, device=device)
    args = tuple(tensors.values())
    torch.library.opcheck(mlm_head_fwd, (*args, rows, torch.tensor(2.0, device=device), True))
    torch.library.opcheck(mlm_head_fwd, (*args, None, None, False))
    torch.library.opcheck(mlm_head_bwd, (rows, rows + 9, *args))


def test_refusals_name_the_tensor(device):
    tensors = make(2, 64, 70, torch.float32, device)
    with pytest.raises(ValueError, match=r"expected weight of torch.float32, as hidden is, got torch.bfloat16"):
        mlm_head(**tensors | {"weight": tensors["weight"].bfloat16()})
    with pytest.raises(ValueError, match=r"float32, bfloat16 and float16, got hidden of torch.float64"):
        mlm_head(**{name: x.double() if x.is_floating_point() else x for name, x in tensors.items()})
    for name in ("labels", "uniform"):
        wrong = tensors | {name: torch.zeros(2, dtype=torch.int64, device="meta")}
        with pytest.raises(ValueError, match=rf"{name} .*meta"):
            mlm_head(**wrong)
