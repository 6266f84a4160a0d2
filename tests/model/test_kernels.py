"""The models on the Triton kernels: beside torch, under torch.compile, in buckets and in CUDA graphs.

The kernels run on the GPU if there is one, else in Triton's interpreter.
"""

import copy

import pytest
import torch
from tiny_models import TINY, random_model

import electra_fast
from electra_fast import ElectraConfig, ElectraModel
from electra_fast.model.captured import Bucket, CapturedEncoder
from electra_fast.model.packing import PackedBatch, cu_seqlens_of

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FIELDS = {"embedding_size": 16, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 40}
CLASSES = (
    "ElectraModel ElectraForPreTraining ElectraForMaskedLM ElectraForSequenceClassification "
    "ElectraForTokenClassification ElectraForQuestionAnswering"
).split()


def twins(name="ElectraModel", **fields):
    """(on kernels, on torch): one model twice."""
    reference = random_model(getattr(electra_fast, name), **{**FIELDS, **fields}).to(DEVICE)
    ours = type(reference)(reference.config, impl="triton").to(DEVICE)
    ours.load_state_dict(reference.state_dict())
    return ours.eval(), reference


def batch(lengths, width=None):
    torch.manual_seed(1)
    mask = torch.arange(width or max(lengths)) < torch.tensor(lengths)[:, None]
    return {
        "input_ids": torch.randint(1, TINY["vocab_size"], mask.shape).masked_fill(~mask, 0).to(DEVICE),
        "attention_mask": mask.long().to(DEVICE),
    }


@pytest.mark.parametrize("name", CLASSES)
def test_outputs_and_gradients_are_those_of_torch(name):
    ours, reference = twins(name)
    inputs = batch([7, 12, 3])
    got, expected = ours(**inputs)[0], reference(**inputs)[0]
    mask = inputs["attention_mask"].bool()
    if got.shape[:2] == mask.shape:
        got, expected = got[mask], expected[mask]
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-5)
    got.sin().sum().backward()
    expected.sin().sum().backward()
    for (key, p), q in zip(ours.named_parameters(), reference.parameters(), strict=True):
        if q.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-4, msg=key)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_is_as_close_to_fp32_as_torch_is(dtype):
    ours, reference = twins()
    inputs = batch([7, 12, 3])
    mask = inputs["attention_mask"].bool()
    exact = reference(**inputs).last_hidden_state[mask]
    errors = [
        (model.to(dtype)(**inputs).last_hidden_state[mask].float() - exact).square().mean().sqrt()
        for model in (ours, reference)
    ]
    assert errors[0] <= 2 * errors[1]


def test_dropout_is_repeated_by_the_seed_and_differs_between_layers():
    ours, _ = twins(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2)
    inputs = batch([9, 12])
    ours.train()

    def hidden(seed):
        torch.manual_seed(seed)
        return ours(**inputs, output_hidden_states=True).hidden_states

    for one, same, other in zip(hidden(0), hidden(0), hidden(1), strict=True):
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


def test_gradient_checkpointing_draws_the_same_dropout_again():
    ours, _ = twins(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2)
    inputs = batch([9, 12])
    gradients = []
    for enable in (False, True):
        model = copy.deepcopy(ours).train()
        if enable:
            model.gradient_checkpointing_enable()
        torch.manual_seed(3)
        model(**inputs).last_hidden_state.sin().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_a_decoder_is_causal_in_packed_form():
    ours, reference = twins("ElectraForCausalLM", is_decoder=True)
    inputs = batch([6, 11])
    got = ours(**inputs, use_cache=False)[0]
    mask = inputs["attention_mask"].bool()
    torch.testing.assert_close(got[mask], reference(**inputs, use_cache=False)[0][mask], rtol=0, atol=2e-5)


@pytest.mark.parametrize("training", [False, True])
def test_compiles_without_a_break(training):
    ours, _ = twins(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    ours.train(training)
    packed = PackedBatch.from_cu_seqlens(1, 15, cu_seqlens_of([4, 11], DEVICE), 11)
    ids = torch.randint(1, TINY["vocab_size"], (15,), device=DEVICE)

    def run(ids, packed):
        return ours.encode_packed(ids, packed).sin().sum()

    compiled = torch.compile(run, fullgraph=True, backend="inductor" if DEVICE == "cuda" else "aot_eager")
    results = []
    for call in (run, compiled):
        ours.zero_grad()
        torch.manual_seed(5)
        loss = call(ids, packed)
        if training:
            loss.backward()
        results.append([loss.detach(), *(p.grad for p in ours.parameters() if p.grad is not None)])
    if training and DEVICE == "cuda":
        return  # inductor draws the seeds in its own way: that it compiles and runs is what can be asked
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


class EagerBuckets(CapturedEncoder):
    """The buckets of a captured model without its graphs: a recording that is run anew at every call."""

    def _record(self, run):
        out = run()
        return out, lambda: out.copy_(run())


@pytest.mark.parametrize("lengths", [[1], [5, 2], [16, 16], [3, 9, 14, 7, 1]], ids=str)
def test_a_batch_in_a_larger_bucket_keeps_its_results(lengths):
    ours, _ = twins()
    ours.captured = EagerBuckets(max_tokens=64)
    inputs = batch(lengths)
    with torch.inference_mode():
        got = ours(**inputs).last_hidden_state
        assert len(ours.captured._records) == 1
        again = ours(**inputs).last_hidden_state
        shorter = ours(**batch([max(1, n - 1) for n in lengths])).last_hidden_state
        ours.captured = None
        torch.testing.assert_close(got, ours(**inputs).last_hidden_state, rtol=0, atol=1e-6)
        expected = ours(**batch([max(1, n - 1) for n in lengths])).last_hidden_state
        torch.testing.assert_close(shorter, expected, rtol=0, atol=1e-6)
    assert torch.equal(got, again)


def test_buckets_hold_their_batch_and_are_few():
    for n_tokens in range(1, 3000):
        packed = PackedBatch.from_cu_seqlens(1, n_tokens, cu_seqlens_of([n_tokens]), n_tokens)
        bucket = Bucket.of(n_tokens, packed)
        assert bucket.n_tokens >= n_tokens
        assert bucket.n_tokens <= max(n_tokens + 15, 1.125 * n_tokens)
        assert bucket.max_seqlen >= n_tokens
    sizes = {Bucket.of(n, PackedBatch.full(1, n, torch.device("cpu"))).n_tokens for n in range(1, 8193)}
    assert len(sizes) < 70


def test_capture_serves_only_what_it_can():
    ours, _ = twins()
    ours.captured = EagerBuckets(max_tokens=20)
    inputs = batch([9, 9])
    ours(**inputs)  # with gradients
    with torch.no_grad():
        ours(**inputs, output_hidden_states=True)
        ours(**batch([20, 5]))
        ours.train()(**inputs)
        assert not ours.captured._records
        ours.eval()(**inputs)
        assert len(ours.captured._records) == 1
        assert not copy.deepcopy(ours).captured._records


@pytest.mark.skipif(DEVICE == "cuda", reason="needs a machine without a GPU")
def test_capture_without_a_gpu_is_refused():
    with pytest.raises(ValueError, match="must be on a CUDA device, it is on cpu"):
        ElectraModel(ElectraConfig(**TINY)).capture()
    with pytest.raises(ValueError, match="max_tokens must be at least 1, got 0"):
        CapturedEncoder(0)


@pytest.mark.gpu
def test_captured_inference_is_bit_equal():
    ours, _ = twins()
    expected = []
    batches = [batch(lengths) for lengths in ([5], [5, 2], [16, 16], [5], [9, 14, 3])]
    with torch.inference_mode():
        for inputs in batches:
            expected.append(ours(**inputs).last_hidden_state)
        ours.capture(max_tokens=64)
        for _ in range(2):
            for inputs, hidden in zip(batches, expected, strict=True):
                torch.testing.assert_close(ours(**inputs).last_hidden_state, hidden, rtol=0, atol=1e-6)
    assert ours.captured._records
