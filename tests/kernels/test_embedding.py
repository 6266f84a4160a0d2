"""embed_norm_project and the segment sum: errors, bits of the dropout, repeatability, contracts and refusals."""

import pytest
import torch
from electra_fast.kernels.segments import KEY_OF_ROW_0, key_dtype, sum_segments

from electra_fast.ops import reference
from electra_fast.ops.contracts import embedding
from electra_fast.ops.testing import assert_within_budget

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [
    (1, 64, None),
    (13, 768, None),
    (5, 1024, None),
    (7, 100, None),
    (97, 64, 100),
    (513, 64, 64),
    (67, 128, 256),
    (11, 100, 70),
    (3, 768, 96),
    (0, 64, None),
    (0, 64, 32),
]
N_WORDS, N_POSITIONS, N_TYPES = 53, 19, 2


def make(n_tokens, e, hidden, dtype, device, n_words=N_WORDS):
    def draw(*shape, scale=1.0):
        return (scale * torch.randn(shape, device=device)).to(dtype)

    return {
        "word_table": draw(n_words, e),
        "position_table": draw(N_POSITIONS, e),
        "token_type_table": draw(N_TYPES, e),
        "norm_weight": 1 + draw(e, scale=0.1),
        "norm_bias": draw(e, scale=0.1),
        "project_weight": None if hidden is None else draw(hidden, e, scale=e**-0.5),
        "project_bias": None if hidden is None else draw(hidden, scale=0.1),
        "input_ids": torch.randint(n_words, (n_tokens,), device=device),
        "token_type_ids": torch.randint(N_TYPES, (n_tokens,), device=device),
        "position_ids": torch.arange(n_tokens, device=device) % N_POSITIONS,
    }


def run(tensors, **options):
    """[output, gradients by the name of the input]."""
    tensors = {
        name: x.detach().requires_grad_() if x is not None and x.is_floating_point() else x
        for name, x in tensors.items()
    }
    out = embedding.embed_norm_project(**tensors, eps=1e-12, **options)
    out.sin().sum().backward()
    return out, {name: x.grad for name, x in tensors.items() if x is not None and x.is_floating_point()}


@pytest.mark.parametrize("dropout_p", [0.0, 0.1])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_errors_are_within_the_budget(shape, dtype, dropout_p, device):
    seed = torch.tensor([2**62 + 12345], device=device)
    assert_within_budget(
        embedding.embed_norm_project,
        reference.embed_norm_project,
        make(*shape, dtype, device),
        eps=1e-12,
        padding_idx=3,
        dropout_p=dropout_p,
        seed=seed,
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hidden", [None, 40])
def test_vectors_in_place_of_ids(hidden, dtype, device):
    tensors = make(35, 64, hidden, dtype, device)
    tensors["input_ids"], tensors["inputs_embeds"] = None, torch.randn(35, 64, device=device).to(dtype)
    assert_within_budget(embedding.embed_norm_project, reference.embed_norm_project, tensors, eps=1e-12)


def zipf(n):
    return (torch.rand(n) ** 4 * N_WORDS).long()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "ids",
    [torch.full((700,), 7), zipf(600), torch.randperm(300), torch.arange(N_WORDS).repeat_interleave(16)],
    ids=["all the same", "zipf", "each once", "segments that end with a block of keys"],
)
def test_gradients_of_repeated_words(ids, dtype, device):
    tensors = make(len(ids), 64, None, dtype, device, n_words=max(N_WORDS, int(ids.max()) + 1))
    tensors["input_ids"] = ids.to(device)
    assert_within_budget(embedding.embed_norm_project, reference.embed_norm_project, tensors, eps=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "lengths",
    [
        [1],
        [256],
        [257],
        [64, 64, 128, 256, 512, 1],
        [255, 1, 256, 2, 254],
        [63, 65, 127, 129, 500, 3],
        [100, 256 * 66, 5],
        [300, 300, 300],
    ],
    ids=str,
)
def test_segments_at_every_border(lengths, dtype, device):
    """Small integers, whose sums are exact in fp32: any token that is lost or counted twice shows."""
    rows = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    shuffled = torch.randperm(len(rows))
    x = torch.randint(-4, 5, (len(rows), 20)).to(device, dtype)
    n_rows = len(lengths) + 2
    keys = (rows[shuffled] + KEY_OF_ROW_0.value).to(device, key_dtype(n_rows))
    expected = torch.zeros(n_rows, 20, dtype=torch.float64, device=device)
    expected.index_add_(0, rows[shuffled].to(device), x.double())
    out = torch.zeros(n_rows, 20, dtype=dtype, device=device)
    sum_segments(x, keys, out)
    assert torch.equal(out, expected.to(dtype))


def test_more_rows_than_16_bits_hold(device):
    x = torch.randn(40, 16, device=device)
    rows = torch.randint(70_000, (40,), device=device)
    keys = (rows + KEY_OF_ROW_0.value).to(key_dtype(70_000))
    expected, out = (torch.zeros(70_000, 16, device=device) for _ in range(2))
    sum_segments(x, keys, out)
    torch.testing.assert_close(out, expected.index_add_(0, rows, x))


def test_rows_without_a_token_and_the_padding_row_get_zero(device):
    tensors = make(80, 64, None, torch.bfloat16, device)
    tensors["input_ids"] = tensors["input_ids"] % 20
    grad = run(tensors, padding_idx=3)[1]["word_table"]
    assert (tensors["input_ids"] == 3).any()
    assert torch.equal(grad[3], torch.zeros_like(grad[3]))
    assert torch.equal(grad[20:], torch.zeros_like(grad[20:]))
    assert torch.equal(run(tensors, padding_idx=3 - N_WORDS)[1]["word_table"], grad)
    assert run(tensors)[1]["word_table"][3].abs().sum() > 0


@pytest.mark.parametrize("e", [64, 100, 768])
def test_dropout_draws_the_bits_of_the_reference(e, device):
    tensors = make(37, e, None, torch.float32, device)
    seed = torch.tensor([987654321 << 20], device=device)
    whole = embedding.embed_norm_project(**tensors, eps=1e-12)
    dropped = embedding.embed_norm_project(**tensors, eps=1e-12, dropout_p=0.3, seed=seed)
    # Compiled, the product may be contracted otherwise; which elements stay may not differ.
    assert torch.equal(dropped != 0, reference.dropout(whole, 0.3, seed) != 0)
    torch.testing.assert_close(dropped, reference.dropout(whole, 0.3, seed))


@pytest.mark.parametrize("hidden", [None, 48])
def test_two_runs_with_one_seed_are_bit_equal(hidden, device):
    tensors = make(600, 64, hidden, torch.bfloat16, device)
    tensors["input_ids"] = zipf(600).to(device)

    def once():
        torch.manual_seed(3)
        out, grads = run(tensors, dropout_p=0.1)
        return [out, *(x for x in grads.values() if x is not None)]

    for one, other in zip(once(), once(), strict=True):
        assert torch.equal(one, other)


def test_strided_and_expanded_inputs_give_the_same_as_contiguous_ones(device):
    tensors = make(12, 64, 40, torch.float32, device)
    tensors["token_type_ids"], tensors["position_ids"] = torch.zeros(2, 12, dtype=torch.long, device=device)
    expected, expected_grads = run(tensors)
    strided = {
        name: x.T.contiguous().T if x is not None and x.is_floating_point() and x.dim() == 2 else x
        for name, x in tensors.items()
    }
    strided["input_ids"] = tensors["input_ids"].int().repeat_interleave(2)[::2]
    strided["token_type_ids"] = torch.zeros(1, dtype=torch.long, device=device).expand(12)
    strided["position_ids"] = torch.zeros(24, dtype=torch.long, device=device)[::2]
    out, grads = run(strided)
    assert torch.equal(out, expected)
    for name, grad in grads.items():
        assert torch.equal(grad, expected_grads[name])
    batched = tensors | {"input_ids": tensors["input_ids"].view(3, 4).T.contiguous().T}
    for name in ("token_type_ids", "position_ids"):
        batched[name] = torch.zeros(1, 1, dtype=torch.long, device=device)
    assert torch.equal(embedding.embed_norm_project(**batched, eps=1e-12), expected.view(3, 4, 40))


def test_an_id_outside_its_table_is_loud_and_writes_nowhere(device):
    tensors = make(9, 64, None, torch.float32, device)
    tensors["input_ids"][4] = N_WORDS
    tensors["position_ids"][5] = -1
    out, _ = run(tensors)
    assert torch.equal(out.isnan().all(1).nonzero().flatten().cpu(), torch.tensor([4, 5]))
    assert not out[[0, 1, 2, 3, 6, 7, 8]].isnan().any()


@pytest.mark.parametrize("hidden", [None, 32])
@pytest.mark.parametrize("has_ids", [True, False])
def test_contracts(has_ids, hidden, device):
    tensors = make(9, 64, hidden, torch.bfloat16, device)
    seed = torch.tensor([1], device=device)
    ids, words = (tensors["input_ids"], tensors["word_table"]) if has_ids else (None, tensors["word_table"][:9].clone())
    inputs = (
        ids, tensors["token_type_ids"], tensors["position_ids"], words, tensors["position_table"],
        tensors["token_type_table"], tensors["norm_weight"],
    )  # fmt: skip
    project = tensors["project_weight"], tensors["project_bias"]
    forward = (*inputs, tensors["norm_bias"], *project, seed, 1e-12, 0.1)
    # Empty outputs share the null pointer, which test_schema takes for an alias.
    fake_only = {"test_utils": "test_faketensor"}
    saved_rows = {} if hidden else fake_only
    torch.library.opcheck(embedding.embed_norm_project_fwd, (*forward, True), **saved_rows)
    torch.library.opcheck(embedding.embed_norm_project_fwd, (*forward, False), **fake_only)
    out, rows, mean, rstd = embedding.embed_norm_project_fwd(*forward, True)
    backward = (torch.ones_like(out), *inputs, project[0], rows, mean, rstd, seed, 0.1, 3)
    torch.library.opcheck(embedding.embed_norm_project_bwd, backward, **saved_rows)


def test_refusals_name_the_tensor(device):
    tensors = make(2, 64, None, torch.float32, device)
    op = embedding.embed_norm_project
    with pytest.raises(ValueError, match=r"position_table of torch.float32, as word_table is, got torch.bfloat16"):
        op(**tensors | {"position_table": tensors["position_table"].bfloat16()}, eps=1e-12)
    with pytest.raises(ValueError, match=r"embed_norm_project: .*float16, got word_table of torch.float64"):
        op(**{name: x.double() if x is not None else x for name, x in tensors.items()}, eps=1e-12)
    for name in ("input_ids", "token_type_ids", "position_ids"):
        with pytest.raises(ValueError, match=rf"{name} on .*, got meta|got {name} on meta"):
            op(**tensors | {name: tensors[name].to("meta")}, eps=1e-12)
    with pytest.raises(ValueError, match=r"dropout_p must be between 0 and 1, got 1\.5"):
        op(**tensors, eps=1e-12, dropout_p=1.5)
