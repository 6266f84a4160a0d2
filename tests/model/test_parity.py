"""Against transformers: forward and every gradient, over random configurations and inputs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import CLASSES, SHAPE, TOLERANCE, Case, assert_close, exact_loss, gradients, transformers, twins

PER_TOKEN = {"last_hidden_state", "logits", "hidden_states"}
N_CASES = 24


def run(case: Case, model):
    """(output, loss to differentiate, inputs_embeds or None) of one model."""
    inputs = dict(case.inputs)
    embeds = inputs.get("inputs_embeds")
    if embeds is not None:
        inputs["inputs_embeds"] = embeds = embeds.clone().requires_grad_()
    output = model(**inputs)
    loss = output.get("loss")
    in_fp32 = case.name in ("ElectraForPreTraining", "ElectraForCausalLM")
    if loss is not None and case.dtype == torch.float64 and in_fp32:
        loss = exact_loss(case, output)
    if loss is None:
        first = output.get("last_hidden_state", output.get("logits", output.get("start_logits")))
        is_per_token = first.shape[:2] == case.is_real.shape
        loss = (first[case.is_real] if is_per_token else first).sin().mean()
    return output, loss, embeds


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("name", CLASSES)
def test_forward_and_every_gradient(name, dtype):
    for seed in range(N_CASES):
        case = Case(name, seed, dtype)
        theirs, ours = twins(name, dtype, case.attention, **case.shape)
        theirs.train(), ours.train()  # dropout is 0
        expected, their_loss, their_embeds = run(case, theirs)
        output, loss, embeds = run(case, ours)
        tolerance = TOLERANCE[dtype]

        assert set(output) == set(expected), case
        assert_close(f"{case} loss", loss, their_loss, tolerance)
        for key in set(output) - {"loss", "past_key_values"}:
            ours_values = output[key] if isinstance(output[key], tuple) else (output[key],)
            their_values = expected[key] if isinstance(expected[key], tuple) else (expected[key],)
            assert len(ours_values) == len(their_values), f"{case} {key}"
            for x, y in zip(ours_values, their_values, strict=True):
                if key == "attentions":  # [rows, heads, queries, keys]
                    x, y = x.transpose(1, 2)[case.is_real], y.transpose(1, 2)[case.is_real]
                elif x.shape[:2] == case.is_real.shape:
                    x, y = x[case.is_real], y[case.is_real]
                assert_close(f"{case} {key}", x, y, tolerance)

        if loss.isnan():  # no label counts: transformers gives NaN, and so do we
            continue
        their_loss.backward()
        loss.backward()
        their_gradients, our_gradients = gradients(theirs), gradients(ours)
        assert set(our_gradients) == set(their_gradients)
        for parameter, gradient in their_gradients.items():
            assert_close(f"{case} gradient of {parameter}", our_gradients[parameter], gradient, tolerance)
        if embeds is not None:
            assert_close(f"{case} gradient of inputs_embeds", embeds.grad, their_embeds.grad, tolerance)


@pytest.mark.parametrize("name", CLASSES)
def test_tuple_outputs_are_transformers(name):
    theirs, ours = twins(name, is_decoder=name == "ElectraForCausalLM", use_cache=False, attention="eager")
    ids = torch.randint(1, 97, (2, 3, 5) if name == "ElectraForMultipleChoice" else (2, 5))
    options = dict(return_dict=False, output_hidden_states=True, output_attentions=True)
    expected, got = theirs(ids, **options), ours(ids, **options)
    assert isinstance(got, tuple)
    assert len(got) == len(expected)
    flat = zip(torch.utils._pytree.tree_leaves(got), torch.utils._pytree.tree_leaves(expected), strict=True)
    for x, y in flat:
        assert_close(name, x, y, 1e-10)


@pytest.mark.parametrize("name", CLASSES)
def test_outputs_are_reached_by_name_key_index_and_slice(name):
    _, ours = twins(name, is_decoder=name == "ElectraForCausalLM")
    ids = torch.randint(1, 97, (2, 3, 5) if name == "ElectraForMultipleChoice" else (2, 5))
    output = ours(ids)
    first = next(iter(output))
    assert output[0] is output[first] is getattr(output, first) is output[:1][0] is output.to_tuple()[0]
    assert "loss" not in output
    assert getattr(output, "hidden_states", None) is None


@pytest.mark.parametrize("name", CLASSES)
def test_state_dict_and_parameter_count_are_transformers(name):
    theirs, ours = twins(name)
    expected = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == expected
    assert ours.num_parameters() == theirs.num_parameters()


@pytest.mark.parametrize("name", CLASSES)
def test_forward_takes_transformers_parameters_in_their_order(name):
    import inspect

    import electra_fast

    expected = list(inspect.signature(getattr(transformers, name).forward).parameters)
    assert list(inspect.signature(getattr(electra_fast, name).forward).parameters) == expected


def test_config_defaults_are_transformers():
    import electra_fast

    theirs, ours = transformers.ElectraConfig().to_dict(), electra_fast.ElectraConfig().to_dict()
    for key, value in theirs.items():
        if key not in ("transformers_version", "_name_or_path", "id2label"):
            assert ours[key] == value, key
    assert electra_fast.ElectraConfig().id2label == transformers.ElectraConfig().id2label


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.sampled_from(["right", "left"]))
def test_a_sentence_alone_padded_and_packed_is_the_same(lengths, side):
    _, model = twins("ElectraModel")
    longest = max(lengths) + 2
    ids = torch.zeros(len(lengths), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    positions = torch.zeros_like(ids)
    rows = [torch.randint(1, 97, (n,)) for n in lengths]
    for i, row in enumerate(rows):
        where = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
        ids[i, where], mask[i, where], positions[i, where] = row, 1, torch.arange(len(row))
    padded = model(ids, attention_mask=mask, position_ids=positions).last_hidden_state[mask.bool()]
    alone = torch.cat([model(row[None]).last_hidden_state[0] for row in rows])
    torch.testing.assert_close(padded, alone, rtol=0, atol=1e-12)

    row = torch.cat(rows)[None]
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).int()
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    packed = model(row, position_ids=positions, cu_seq_lens_q=cu_seqlens, max_length_q=max(lengths))
    torch.testing.assert_close(packed.last_hidden_state[0], alone, rtol=0, atol=1e-12)
    if len(lengths) > 1:
        flattened = model(row, position_ids=positions)
        torch.testing.assert_close(flattened.last_hidden_state[0], alone, rtol=0, atol=1e-12)


def test_an_empty_row_gives_zeros_and_disturbs_nobody():
    _, model = twins("ElectraModel")
    ids = torch.randint(1, 97, (3, 4))
    mask = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    out = model(ids, attention_mask=mask).last_hidden_state
    assert out[1].abs().sum() == 0
    torch.testing.assert_close(out[2], model(ids[2:]).last_hidden_state[0], rtol=0, atol=1e-12)


def test_fp16_of_a_zero_row_is_not_nan():
    import electra_fast

    model = electra_fast.ElectraModel(electra_fast.ElectraConfig(**SHAPE)).half().eval()
    out = model(inputs_embeds=torch.zeros(1, 3, 16, dtype=torch.float16)).last_hidden_state
    assert not out.isnan().any()
