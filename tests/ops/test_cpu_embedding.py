"""The embedding in C++: errors against fp64, bits of dropout, equal bits, contracts, and what it refuses."""

import pytest
import torch

from electra_fast.ops import reference, registry, testing
from electra_fast.ops.contracts import cpu_embedding, cpu_library

pytestmark = pytest.mark.skipif(cpu_library.obstacle() is not None, reason=f"{cpu_library.obstacle()}")

SEED = torch.tensor([2**62 + 12345])
# (shape of the ids, width, words)
SIZES = [
    ((1,), 8, 5),
    ((7,), 24, 70),
    ((3, 11), 64, 40),
    ((130,), 128, 3000),
    ((2, 3), 7, 9),
    ((600,), 16, 90),
    ((0,), 8, 9),
]


def case(shape, width, words, projected=None):
    """(ids by name, tables and parameters by name)."""
    generator = torch.Generator().manual_seed(width)
    draw = lambda *size: torch.randn(size, generator=generator)  # noqa: E731
    pick = lambda most: torch.randint(most, shape, generator=generator)  # noqa: E731
    ids = {"input_ids": pick(words), "token_type_ids": pick(2), "position_ids": pick(12)}
    tensors = {
        "word_table": draw(words, width),
        "position_table": draw(12, width),
        "token_type_table": draw(2, width),
        "norm_weight": draw(width),
        "norm_bias": draw(width),
    }
    if projected is not None:
        tensors |= {"project_weight": draw(projected, width), "project_bias": draw(projected)}
    return ids, tensors


@pytest.fixture(autouse=True)
def poisoned_memory():
    with testing.poisoned():
        yield


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_errors_are_within_the_budget(size, p):
    """One other bit of dropout would be an error of the size of the results."""
    ids, tensors = case(*size)
    options = ids | {"eps": 1e-12, "dropout_p": p, "seed": SEED, "padding_idx": 1}
    testing.assert_within_budget(cpu_embedding.embed_norm_project, reference.embed_norm_project, tensors, **options)


def test_errors_with_a_projection_are_within_the_budget():
    ids, tensors = case((5, 9), 16, 40, projected=24)
    options = ids | {"eps": 1e-12, "padding_idx": -1}
    testing.assert_within_budget(cpu_embedding.embed_norm_project, reference.embed_norm_project, tensors, **options)


def test_the_padding_row_gets_no_gradient_and_others_do():
    ids, tensors = case((50,), 16, 5)
    for padding_idx, row in ((None, None), (3, 3), (-1, 4)):
        leaves = {name: x.clone().requires_grad_() for name, x in tensors.items()}
        cpu_embedding.embed_norm_project(**ids, **leaves, eps=1e-12, padding_idx=padding_idx).square().sum().backward()
        assert [i for i, x in enumerate(leaves["word_table"].grad) if not x.any()] == [row] * (row is not None)


def test_bits_do_not_depend_on_threads():
    ids, tensors = case((700,), 96, 50)
    before, found = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2, 3, 1):
            torch.set_num_threads(n_threads)
            leaves = {name: x.clone().requires_grad_() for name, x in tensors.items()}
            out = cpu_embedding.embed_norm_project(**ids, **leaves, eps=1e-12, dropout_p=0.1, seed=SEED)
            out.square().sum().backward()
            found.append([out, *(x.grad for x in leaves.values())])
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


def test_frozen_parts_get_no_gradient_and_others_the_same():
    ids, tensors = case((33,), 24, 70)
    full = {name: x.clone().requires_grad_() for name, x in tensors.items()}
    cpu_embedding.embed_norm_project(**ids, **full, eps=1e-12).square().sum().backward()
    for name in tensors:
        leaves = {other: x.clone().requires_grad_(other != name) for other, x in tensors.items()}
        cpu_embedding.embed_norm_project(**ids, **leaves, eps=1e-12).square().sum().backward()
        assert leaves[name].grad is None
        assert all(torch.equal(x.grad, full[other].grad) for other, x in leaves.items() if other != name)


@pytest.mark.parametrize("name", ["input_ids", "token_type_ids", "position_ids"])
@pytest.mark.parametrize("bad", [-1, 70, 2**40])
def test_ids_outside_of_their_table_are_refused(name, bad):
    ids, tensors = case((7,), 24, 70)
    ids[name][3] = bad
    with pytest.raises(IndexError, match=rf"{name} must be in \[0, \d+\), got {bad}"):
        cpu_embedding.embed_norm_project(**ids, **tensors, eps=1e-12)


def test_ids_may_lie_anywhere():
    ids, tensors = case((6, 7), 24, 70)
    ids |= {"token_type_ids": torch.tensor(1).expand(6, 7), "position_ids": ids["position_ids"].t().contiguous().t()}
    ours = cpu_embedding.embed_norm_project(**ids, **tensors, eps=1e-12)
    torch.testing.assert_close(ours, reference.embed_norm_project(**ids, **tensors, eps=1e-12))


def test_what_cpp_cannot_read_goes_to_the_reference():
    ids, tensors = case((6, 7), 24, 70)
    for others in (
        {"input_ids": ids["input_ids"].int()},
        {"position_ids": ids["position_ids"][:1]},
        {"inputs_embeds": torch.randn(6, 7, 24)},
    ):
        given = ids | others
        ours = cpu_embedding.embed_norm_project(**given, **tensors, eps=1e-12)
        torch.testing.assert_close(ours, reference.embed_norm_project(**given, **tensors, eps=1e-12))


def test_contracts():
    ids, tensors = case((7,), 24, 70)
    words, *parameters = tensors.values()
    torch.library.opcheck(
        torch.ops.electra_fast.embed_norm_cpu_fwd.default,
        (words, parameters, *ids.values(), 1e-12, 0.1, -1, SEED.item(), True),
        test_utils=("test_schema", "test_faketensor"),
    )


def test_auto_takes_it_on_a_cpu():
    assert registry.OPS["embed_norm_project"].cpu is cpu_embedding.embed_norm_project
