"""generate of FlaxElectraForCausalLM beside the PyTorch class, and loops of one's own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from tiny_models import random_model

from electra_fast import ElectraForCausalLM, FlaxElectraForCausalLM
from electra_fast.flax.generation import Chooser
from electra_fast.flax.outputs import FlaxGreedySearchOutput, FlaxSampleOutput

PROMPTS = np.array([[0, 0, 11, 12, 13], [21, 22, 23, 24, 25]])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    directory = tmp_path_factory.mktemp("decoder")
    model = random_model(ElectraForCausalLM, is_decoder=True, initializer_range=0.5, num_hidden_layers=1)
    model.save_pretrained(directory)
    return model, FlaxElectraForCausalLM.from_pretrained(directory)


def padded(sequences: torch.Tensor, length: int) -> np.ndarray:
    return np.pad(sequences.numpy(), ((0, 0), (0, length - sequences.shape[1])))


def test_greedy_search_is_that_of_the_pytorch_class(models):
    model, flax = models
    prompts = torch.from_numpy(PROMPTS)
    expected = model.generate(prompts, max_new_tokens=8)
    found = flax.generate(PROMPTS, max_new_tokens=8)
    assert type(found) is FlaxGreedySearchOutput
    np.testing.assert_array_equal(found.sequences, expected)
    end = int(expected[1, 9])
    expected = model.generate(prompts, max_new_tokens=8, eos_token_id=end)
    found = flax.generate(PROMPTS, max_length=13, eos_token_id=end)
    np.testing.assert_array_equal(found.sequences, padded(expected, 13))


def test_sampling_follows_its_key(models):
    _, flax = models
    draw = dict(max_new_tokens=8, do_sample=True, top_k=50, temperature=2.0)
    first, again, other = (flax.generate(PROMPTS, prng_key=jax.random.PRNGKey(seed), **draw) for seed in (0, 0, 1))
    assert type(first) is FlaxSampleOutput and first.sequences.shape == (2, 13)
    assert (first.sequences == again.sequences).all() and (first.sequences != other.sequences).any()
    assert flax._loop._cache_size() == 2  # this one, and that of greedy search: nothing is compiled again


@pytest.mark.parametrize("cut, kept", [({"top_k": 2}, {0, 3}), ({"top_p": 0.6}, {0, 3}), ({"top_p": 1e-6}, {3}),
                                       ({"top_k": 9}, {0, 1, 2, 3}), ({"temperature": 0.01}, {3})],
                         ids=["top_k", "top_p", "first", "all", "cold"])  # fmt: skip
def test_what_is_drawn_from(cut, kept):
    logits = jnp.log(jnp.array([[0.3, 0.15, 0.1, 0.45]]))
    draws = Chooser(True, **cut)(jnp.repeat(logits, 300, 0), jax.random.PRNGKey(0))
    assert set(np.unique(draws)) == kept


def test_a_loop_of_ones_own(models):
    _, flax = models
    mask = (PROMPTS != 0).astype(int)
    call = jax.jit(lambda ids, given: flax(ids, **given))
    given = flax.prepare_inputs_for_generation(PROMPTS, 8, mask)
    ids, sequences = PROMPTS, PROMPTS
    for _ in range(3):
        output = call(ids, given)
        ids = np.asarray(output.logits[:, -1:].argmax(-1))
        sequences = np.concatenate([sequences, ids], 1)
        given = flax.update_inputs_for_generation(output, given)
    np.testing.assert_array_equal(sequences, flax.generate(PROMPTS, mask, max_new_tokens=8).sequences[:, :8])


@pytest.mark.parametrize("arguments, message", [
    ({"max_new_tokens": 0}, "nothing to generate: the prompt has 5 tokens, max_new_tokens is 0"),
    ({"max_length": 5}, "nothing to generate: the prompt has 5 tokens, max_length is 5"),
    ({"max_length": 65}, "max_length must be at most max_position_embeddings 64, got 65"),
    ({"input_ids": PROMPTS[0]}, r"needs input_ids \[batch, length\] with at least one token, got \(5,\)"),
    ({"input_ids": PROMPTS[:, ::-1]}, "prompts must be padded on the left"),
    ({"input_ids": PROMPTS + 90}, r"input_ids must be in \[0, 99\)"),
    ({"do_sample": True, "temperature": 0}, "sampling needs temperature > 0"),
], ids=["none_new", "short", "long", "1d", "right", "ids", "temperature"])  # fmt: skip
def test_wrong_arguments(models, arguments, message):
    with pytest.raises(ValueError, match=message):
        models[1].generate(**{"input_ids": PROMPTS, **arguments})


def test_keywords_that_are_not_there(models):
    with pytest.raises(TypeError, match="num_beams"):
        models[1].generate(PROMPTS, num_beams=3)
