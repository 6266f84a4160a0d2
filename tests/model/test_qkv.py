"""Queries, keys and values: three parameters by transformers' names, side by side in memory, by one product."""

import copy
import io
import pickle
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from parity import CLASSES, SHAPE, transformers, twins
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize, prune

import electra_fast
from electra_fast import ElectraConfig, ElectraModel
from electra_fast.model.qkv import NAMES, project
from electra_fast.ops.contracts import cpu_library
from electra_fast.ops.joining import are_side_by_side
from electra_fast.training.distributed import join

IDS = torch.arange(1, 13).reshape(2, 6)
# Modules without parameters that transformers has and we have not: the ops compute activations.
ACTIVATIONS = ("intermediate_act_fn", "activation")


def model(**shape) -> ElectraModel:
    torch.manual_seed(0)
    return ElectraModel(ElectraConfig(**SHAPE | shape))


def attention(network, layer=1):
    return network.encoder.layer[layer].attention.self


def linears(part):
    return [getattr(part, name) for name in NAMES]


def is_joined(network) -> bool:
    return all(
        are_side_by_side([getattr(linear, kind) for linear in linears(attention(network, i))])
        for i in range(2)
        for kind in ("weight", "bias")
    )


def n_products(network, **call) -> int:
    """The number of products that the queries, keys and values of a forward with gradients take."""
    size = network.config.hidden_size
    in_torch = patch.object(cpu_library, "obstacle", return_value="torch's products are counted")
    with patch.object(F, "linear", wraps=F.linear) as linear, in_torch:
        network(IDS, **call)
    shapes = [tuple(call.args[1].shape) for call in linear.call_args_list]
    return shapes.count((3 * size, size))


# Names


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("more", [{}, {"is_decoder": True, "add_cross_attention": True}, {"embedding_size": 48}])
def test_names_shapes_and_their_order_are_transformers(name, more):
    theirs, ours = (
        getattr(library, name)(library.ElectraConfig(**SHAPE | more)) for library in (transformers, electra_fast)
    )
    for listed in ("named_parameters", "state_dict"):
        expected, found = (
            [(key, tuple(x.shape)) for key, x in dict(getattr(network, listed)()).items()] for network in (theirs, ours)
        )
        assert found == expected, listed
    expected = [key for key, _ in theirs.named_modules() if not key.endswith(ACTIVATIONS)]
    assert [key for key, _ in ours.named_modules()] == expected
    kinds = (nn.Linear, nn.LayerNorm, nn.Embedding)
    expected, found = (
        [(key, type(part)) for key, part in network.named_modules() if isinstance(part, kinds)]
        for network in (theirs, ours)
    )
    assert found == expected


@pytest.mark.parametrize("name", CLASSES)
def test_the_same_layers_are_frozen_by_name(name):
    theirs, ours = twins(name)
    for network in (theirs, ours):
        for key, p in network.named_parameters():
            p.requires_grad_(".key." in key or "layer.1.attention.self.value.bias" in key)
        network(IDS[:, None] if "Choice" in name else IDS)[0].square().sum().backward()
    expected = {key: p.grad for key, p in theirs.named_parameters() if p.grad is not None}
    found = {key: p.grad for key, p in ours.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys() and len(found) == 2 * theirs.config.num_hidden_layers + 1
    for key, gradient in found.items():
        torch.testing.assert_close(gradient, expected[key], rtol=0, atol=1e-10, msg=key)


# One storage


def saved_and_loaded(network):
    buffer = io.BytesIO()
    torch.save(network, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def loaded(network, tmp_path=None, **options):
    network = copy.deepcopy(network)
    network.load_state_dict({key: x.clone() for key, x in network.state_dict().items()}, **options)
    return network


WAYS = {
    "made": lambda network: network,
    "deepcopy": copy.deepcopy,
    "pickle": lambda network: pickle.loads(pickle.dumps(network)),
    "torch.save": saved_and_loaded,
    "bfloat16": lambda network: network.to(torch.bfloat16),
    "double": lambda network: network.double(),
    "and back": lambda network: network.half().float(),
    "memory format": lambda network: network.to(memory_format=torch.preserve_format),
    "to_empty": lambda network: network.to("meta").to_empty(device="cpu"),
    "meta": lambda network: network.to("meta"),
    "share_memory": lambda network: network.share_memory(),
    "load_state_dict": loaded,
    "assign": lambda network: loaded(network, assign=True),
    "requires_grad_": lambda network: network.requires_grad_(False),
}


@pytest.mark.parametrize("way", WAYS)
def test_they_lie_side_by_side(way):
    before = model().double()
    expected = {key: x.clone() for key, x in before.state_dict().items()}
    network = WAYS[way](before)
    assert is_joined(network)
    if way not in ("to_empty", "meta"):
        for key, x in network.state_dict().items():
            torch.testing.assert_close(
                x.double(), expected[key], rtol=0, atol=1e-2 if "float" in way or "and" in way else 0
            )
        assert n_products(network) == 2
    weights = [linear.weight for linear in linears(attention(network))]
    assert weights[0].untyped_storage().nbytes() == 3 * weights[0].nbytes, "and nothing else lies there"


def test_in_inference_mode_too(tmp_path):
    network = model().eval()
    network.save_pretrained(tmp_path)
    expected = network(IDS).last_hidden_state.detach()
    with torch.inference_mode():
        for made in (ElectraModel.from_pretrained(tmp_path), copy.deepcopy(network).to(torch.float64)):
            assert is_joined(made)
            torch.testing.assert_close(made(IDS).last_hidden_state.float(), expected, rtol=0, atol=1e-5)


def test_an_optimizer_holds_the_same_parameters_after_a_move():
    network = model()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    before = attention(network).key.weight
    network.to(torch.float64)
    assert attention(network).key.weight is before
    network(IDS).last_hidden_state.square().sum().backward()
    old = before.detach().clone()
    optimizer.step()
    assert (before != old).all() and is_joined(network)


@pytest.mark.parametrize("library", ["safetensors", "huggingface_hub", "accelerate", "torch"])
def test_files_of_all_libraries_hold_all_three(library, tmp_path):
    network, fresh = model(), model(initializer_range=0.5)
    state = network.state_dict()
    if library == "safetensors":
        save_file(state, tmp_path / "model.safetensors")
    elif library == "huggingface_hub":
        import huggingface_hub

        huggingface_hub.save_torch_state_dict(state, tmp_path)
    elif library == "accelerate":
        accelerate = pytest.importorskip("accelerate")
        accelerate.Accelerator(cpu=True).save_model(network, tmp_path)
    else:
        torch.save(state, tmp_path / "all.pt")
        # A file of some of the tensors is as large as they are.
        torch.save({"key": state["encoder.layer.0.attention.self.key.weight"]}, tmp_path / "one.pt")
        assert (tmp_path / "one.pt").stat().st_size < 32 * 32 * 4 + 2000
    found = torch.load(tmp_path / "all.pt") if library == "torch" else load_file(tmp_path / "model.safetensors")
    assert found.keys() == state.keys()
    fresh.load_state_dict(found)
    assert all(torch.equal(x, state[key]) for key, x in fresh.state_dict().items()) and is_joined(fresh)


def test_a_state_dict_of_variables_holds_the_parameters():
    network = model()
    state = network.state_dict(keep_vars=True)
    assert all(state[key] is p for key, p in network.named_parameters())


# The product


def test_one_product_serves_what_is_plain():
    network = model().train()
    assert n_products(network) == 2
    heard = []
    handle = attention(network).key.register_forward_hook(lambda *given: heard.append(given[0]))
    assert n_products(network) == 1, "a layer that somebody listens to is called"
    assert heard == [attention(network).key]
    handle.remove()
    attention(network).query = nn.Sequential(attention(network).query)
    assert n_products(network) == 1
    with torch.no_grad():
        everyone = nn.modules.module.register_module_forward_hook(lambda *given: heard.append(given[0]))
        assert n_products(network) == 0
        everyone.remove()
    assert attention(network, 0).value in heard


@pytest.mark.parametrize("inner", ["lonely", "pruned", "parametrized", "bias-free", "frozen"])
def test_whatever_becomes_of_one_of_them_the_result_is_right(inner):
    part = attention(model().double().train())
    if inner == "lonely":
        part.key.weight = nn.Parameter(part.key.weight.detach().clone())
    elif inner == "pruned":
        prune.random_unstructured(part.value, "weight", 0.5)
    elif inner == "parametrized":
        parametrize.register_parametrization(part.query, "weight", nn.Tanh())
    elif inner == "bias-free":
        part.key.bias = None
    else:
        part.query.weight.requires_grad_(False)
    hidden = torch.randn(5, 32, dtype=torch.float64, requires_grad=True)
    parameters = [hidden, *(p for p in part.parameters() if p.requires_grad)]
    found, expected = project(linears(part), hidden), torch.cat([linear(hidden) for linear in linears(part)], -1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    factor = torch.randn_like(found)
    gradients = (torch.autograd.grad((x * factor).sum(), parameters) for x in (found, expected))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_gradients_of_any_order_and_kept_graphs():
    part = attention(model().double())
    hidden = torch.randn(3, 32, dtype=torch.float64, requires_grad=True)

    def product(hidden, *parameters):
        return project(linears(part), hidden).pow(3)

    inputs = (hidden, part.key.weight, part.value.bias)
    assert torch.autograd.gradcheck(product, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(product, inputs, fast_mode=True)
    total = product(hidden).sum()
    first = torch.autograd.grad(total, part.key.weight, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(total, part.key.weight)[0], first)


def test_gradients_add_up_as_views_of_one():
    network, part = (made := model().double()), attention(made)
    network(IDS).last_hidden_state.square().sum().backward()
    once = part.value.weight.grad.clone()
    assert len({getattr(part, name).weight.grad.untyped_storage().data_ptr() for name in NAMES}) == 1
    network(IDS).last_hidden_state.square().sum().backward()
    torch.testing.assert_close(part.value.weight.grad, 2 * once, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_change_between_forward_and_backward_is_noticed(name):
    """As by torch itself; after a cast the three do not share a version any more."""
    network = model().double()
    total = network(IDS).last_hidden_state.square().sum()
    with torch.no_grad():
        getattr(attention(network), name).weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_function_transforms():
    network = model().double().eval()
    parameters = dict(network.named_parameters())

    def total(parameters, ids):
        return torch.func.functional_call(network, parameters, (ids,)).last_hidden_state.square().sum()

    found = torch.func.grad(total)(parameters, IDS)
    total(parameters, IDS).backward()
    for key, p in network.named_parameters():
        torch.testing.assert_close(found[key], p.grad, rtol=0, atol=1e-9, msg=key)
    embeds = torch.randn(2, 6, network.config.embedding_size, dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda x: network(inputs_embeds=x).last_hidden_state.sum())(embeds)
    assert jacobian.shape == embeds.shape


def test_compiled_and_under_autocast():
    network = model().eval()
    expected = network(IDS).last_hidden_state
    torch.testing.assert_close(torch.compile(network, backend="aot_eager")(IDS).last_hidden_state, expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(network(IDS).last_hidden_state.float(), expected, rtol=0, atol=0.1)


# Training in processes


@pytest.fixture
def world():
    with join("cpu") as world:
        yield world


@pytest.mark.parametrize("as_views", [True, False])
def test_ddp(world, as_views):
    alone, network = model().double(), model().double()
    module = DistributedDataParallel(network, gradient_as_bucket_view=as_views)
    for _ in range(2):  # DDP makes its buckets anew after the first step
        for each in (alone, module):
            each.zero_grad()
            each(IDS).last_hidden_state.square().sum().backward()
    assert is_joined(network) and n_products(network) == 2
    for p, expected in zip(network.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(p.grad, expected.grad, rtol=0, atol=1e-10)


def test_fsdp(world):
    """Its parameters are in shards, gathered into memory of their own: the product takes a copy."""
    alone, network = model().double(), model().double()
    for layer in network.encoder.layer:
        fully_shard(layer)
    fully_shard(network)
    for each in (alone, network):
        each(IDS).last_hidden_state.square().sum().backward()
    names = [key for key, _ in alone.named_parameters()]
    assert [key for key, _ in network.named_parameters()] == names
    assert list(network.state_dict()) == names
    for p, expected in zip(network.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(p.grad.full_tensor(), expected.grad, rtol=0, atol=1e-10)
        torch.testing.assert_close(p.full_tensor(), expected)
