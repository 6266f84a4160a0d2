"""rtd_head: errors, labels of every kind, gradients through loss and logits, contracts and refusals."""

import pytest
import torch

from electra_fast.ops import reference, testing
from electra_fast.ops.contracts.rtd_head import rtd_head, rtd_head_bwd, rtd_head_fwd

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(1, 64), (13, 256), (513, 64), (3, 768), (5, 1024), (7, 100)]


def make(n_tokens, hidden, dtype, device):
    tensors = {
        "hidden": torch.randn(n_tokens, hidden, device=device),
        "dense_weight": torch.randn(hidden, hidden, device=device) / hidden**0.5,
        "dense_bias": 0.1 * torch.randn(hidden, device=device),
        "prediction_weight": torch.randn(1, hidden, device=device) / hidden**0.5,
        "prediction_bias": 0.1 * torch.randn(1, device=device),
    }
    return {name: x.to(dtype) for name, x in tensors.items()}


def labels_of(n_tokens, device):
    """0 and 1, a third of them -100, the first counting."""
    labels = torch.randint(0, 2, (n_tokens,), device=device)
    labels[1::3] = -100
    return labels


def assert_within_budget(kernel, expected, tensors):
    """As in `testing`; but the loss and the gradient of c are one number each, which eager torch may hit by chance: the
    error of these may be what a sum in fp32 costs."""
    sum_error = 2 * torch.finfo(torch.float32).eps * max(1, len(tensors["hidden"])) ** 0.5
    for error in testing.compare(kernel, expected, tensors):
        is_number = error.name in ("out[0]", "dprediction_bias")
        assert error.is_within or (is_number and error.kernel <= sum_error), error


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_errors_are_within_the_budget(shape, dtype, device):
    tensors = make(*shape, dtype, device) | {"labels": labels_of(shape[0], device)}
    assert_within_budget(rtd_head, reference.rtd_head, tensors)


@pytest.mark.parametrize("kept", [(True, False), (False, True)], ids=["loss", "logits"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_gradient_through_one_result_alone(dtype, kept, device):
    def only(op):
        return lambda **x: tuple(out if keep else None for out, keep in zip(op(**x), kept, strict=True))

    tensors = make(37, 100, dtype, device) | {"labels": labels_of(37, device)}
    assert_within_budget(only(rtd_head), only(reference.rtd_head), tensors)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n_tokens", [0, 37])
def test_without_labels(n_tokens, dtype, device):
    tensors = make(n_tokens, 64, dtype, device)
    assert rtd_head(**tensors)[0] is None
    assert_within_budget(rtd_head, reference.rtd_head, tensors)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.int32, torch.int64, torch.float32], ids=str)
def test_labels_of_every_dtype(dtype, device):
    tensors, labels = make(130, 64, torch.float32, device), torch.randint(0, 2, (130,), device=device)
    expected = reference.rtd_head(**tensors, labels=labels)[0]
    torch.testing.assert_close(rtd_head(**tensors, labels=labels.to(dtype))[0], expected)


def test_labels_below_zero_do_not_count(device):
    tensors, labels = make(130, 64, torch.float32, device), labels_of(130, device)
    tensors["hidden"].requires_grad_()
    counts = labels >= 0
    loss = rtd_head(**tensors, labels=labels)[0]
    loss.backward()
    assert (tensors["hidden"].grad[~counts] == 0).all() and (tensors["hidden"].grad[counts] != 0).any(1).all()
    alone = tensors | {"hidden": tensors["hidden"].detach()[counts]}
    torch.testing.assert_close(loss.detach(), rtd_head(**alone, labels=labels[counts])[0])


def test_a_mean_over_nothing_is_nan(device):
    tensors = make(5, 64, torch.float32, device)
    for n_tokens, label in ((5, -1), (0, 1)):
        labels = torch.full((n_tokens,), label, device=device)
        assert rtd_head(**tensors | {"hidden": tensors["hidden"][:n_tokens]}, labels=labels)[0].isnan()


@pytest.mark.parametrize("logit", [-100.0, 100.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_extreme_logits_give_a_finite_loss(dtype, logit, device):
    tensors = make(4, 64, dtype, device)
    tensors["prediction_weight"].zero_()
    tensors["prediction_bias"].fill_(logit).requires_grad_()
    labels = torch.tensor([0, 1, 1, 1], device=device)
    loss, logits = rtd_head(**tensors, labels=labels)
    loss.backward()
    assert (logits == logit).all()
    assert loss.item() == (75.0 if logit < 0 else 25.0)
    assert tensors["prediction_bias"].grad.item() == (-0.75 if logit < 0 else 0.25)


def test_two_runs_are_bit_equal(device):
    def run():
        torch.manual_seed(3)
        tensors = {name: x.requires_grad_() for name, x in make(513, 64, torch.bfloat16, device).items()}
        loss, logits = rtd_head(**tensors, labels=labels_of(513, device))
        (loss + logits.sin().sum()).backward()
        return [loss, logits, *(x.grad for x in tensors.values())]

    for one, other in zip(run(), run(), strict=True):
        assert torch.equal(one, other)


@torch.no_grad()
def test_without_a_gradient_the_output_is_the_same(device):
    tensors, labels = make(131, 64, torch.bfloat16, device), labels_of(131, device)
    loss, logits = rtd_head(**tensors, labels=labels)
    saved = rtd_head_fwd(*tensors.values(), labels, True)
    assert torch.equal(loss, saved[0]) and torch.equal(logits, saved[1])
    assert saved[2].shape == (131,)


def test_strided_inputs_give_the_same_as_contiguous_ones(device):
    tensors, labels = make(6, 64, torch.float32, device), torch.tensor([[0, 1], [1, -1], [-1, 0]], device=device)
    expected = rtd_head(**tensors, labels=labels.T.flatten())
    strided = {name: x.T.contiguous().T if x.dim() == 2 else x for name, x in tensors.items()}
    strided["hidden"] = strided["hidden"].unflatten(0, (2, 3))
    loss, logits = rtd_head(**strided, labels=labels.T)
    assert torch.equal(loss, expected[0]) and torch.equal(logits, expected[1].view(2, 3))


def test_a_gradient_of_any_stride(device):
    tensors = {name: x.requires_grad_() for name, x in make(6, 64, torch.float32, device).items()}
    logits = rtd_head(**tensors)[1]
    dlogits = torch.randn(6, 2, device=device)[:, 0]
    one = torch.autograd.grad(logits, tensors.values(), dlogits, retain_graph=True)
    other = torch.autograd.grad(logits, tensors.values(), dlogits.contiguous())
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("with_labels", [True, False])
def test_contracts(with_labels, device):
    tensors = make(9, 64, torch.float32, device)
    labels = labels_of(9, device) if with_labels else None
    # Empty outputs share the null pointer, which test_schema takes for an alias.
    utils = ("test_schema", "test_faketensor") if with_labels else "test_faketensor"
    torch.library.opcheck(rtd_head_fwd, (*tensors.values(), labels, True), test_utils=utils)
    torch.library.opcheck(rtd_head_fwd, (*tensors.values(), labels, False), test_utils="test_faketensor")
    dloss, dlogits = torch.tensor(0.5, device=device) if with_labels else None, torch.randn(9, device=device)
    _, _, scores, sums = rtd_head_fwd(*tensors.values(), labels, True)
    *inputs, _ = tensors.values()
    torch.library.opcheck(rtd_head_bwd, (dloss, dlogits, *inputs, labels, scores, sums))


def test_refusals_name_the_tensor(device):
    tensors, labels = make(2, 64, torch.float32, device), torch.tensor([0, 1], device=device)
    with pytest.raises(ValueError, match=r"expected dense_bias of torch.float32, as hidden is, got torch.float16"):
        rtd_head(**tensors | {"dense_bias": tensors["dense_bias"].half()})
    with pytest.raises(ValueError, match=r"float32, bfloat16 and float16, got hidden of torch.float64"):
        rtd_head(**{name: x.double() for name, x in tensors.items()})
    with pytest.raises(ValueError, match=r"expected prediction_weight on .*, as hidden is, got meta"):
        rtd_head(**tensors | {"prediction_weight": tensors["prediction_weight"].to("meta")})
    with pytest.raises(ValueError, match=r"rtd_head: expected labels on .*, got meta"):
        rtd_head(**tensors, labels=labels.to("meta"))
    with pytest.raises(RuntimeError, match="shape"):
        rtd_head(**tensors, labels=labels[:1])
