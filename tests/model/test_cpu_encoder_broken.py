"""The encoder in C++ on broken weights: NaN and infinity show where transformers' eager attention shows them."""

from __future__ import annotations

import pytest
import torch
import transformers
from cpu_pairs import NAMES, SMALL, limit_to, pair

from electra_fast.model import cpu_encoder

pytestmark = pytest.mark.skipif(cpu_encoder.obstacle() is not None, reason=f"{cpu_encoder.obstacle()}")

NAN, INF = float("nan"), float("inf")
LENGTHS = [1, 5, 16, 17, 35, 70]


@pytest.fixture(params=[f"{name} {precision}" for name in NAMES for precision in ("fp32", "int8")])
def precision(request, monkeypatch):
    instructions, precision = request.param.split()
    limit_to(instructions, monkeypatch)
    return precision


class Both:
    """A model of ours and transformers' with the same weights, on the same sentences."""

    def __init__(self, precision: str):
        sizes = {**SMALL, "hidden_size": 64, "num_attention_heads": 4}
        self.ours = pair(**sizes)[0].quantize(precision)
        config = transformers.ElectraConfig(**sizes, attn_implementation="eager")
        self.theirs = transformers.ElectraModel(config).eval()
        self.clean = {name: value.clone() for name, value in self.ours.state_dict().items()}
        self.ids = torch.randint(2, 50, (len(LENGTHS), max(LENGTHS)))
        self.ids[3, 9] = 1  # the only one
        self.mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()

    def finite(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Which of the last hidden states are finite, [T, H] each: ours, theirs."""
        self.theirs.load_state_dict(self.ours.state_dict(), strict=False)
        assert self.ours.cpu_encoder.serves(self.ours, self.ids)
        ours = self.ours(self.ids, attention_mask=self.mask).last_hidden_state[self.mask.bool()]
        theirs = [self.theirs(ids[None, :n]).last_hidden_state[0] for ids, n in zip(self.ids, LENGTHS, strict=True)]
        return ours.isfinite(), torch.cat(theirs).isfinite()

    def mend(self) -> None:
        self.ours.load_state_dict(self.clean)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@torch.inference_mode()
def test_a_weight_that_is_no_number_shows_where_it_shows_in_eager(precision, value):
    both = Both(precision)
    for name, parameter in both.ours.named_parameters():
        for place in (slice(1, 2), slice(-1, None), slice(None)):
            both.mend()
            parameter.view(len(parameter), -1)[place, -1] = value
            ours, theirs = both.finite()
            assert torch.equal(ours, theirs), (name, place)


@torch.inference_mode()
def test_one_broken_word_breaks_its_sequence_alone(precision):
    both = Both(precision)
    both.ours.embeddings.word_embeddings.weight[1, 3] = NAN
    ours, _ = both.finite()
    assert [part.float().mean().item() for part in ours.split(LENGTHS)] == [1, 1, 1, 0, 1, 1]


@torch.inference_mode()
def test_one_broken_row_of_embedded_tokens_breaks_its_sequence_alone(precision):
    both = Both(precision)
    for value in (NAN, INF, -INF):
        embedded = torch.randn(3, 20, 24)
        embedded[1, 7, 5] = value
        finite = both.ours(inputs_embeds=embedded).last_hidden_state.isfinite()
        assert [part.all().item() for part in finite] == [True, False, True]
        assert not finite[1].any()


@pytest.mark.parametrize("value", [1e30, -1e30, 3e38])
@torch.inference_mode()
def test_numbers_that_overflow_show(precision, value):
    """In sums of squares (LayerNorm) and products; no hidden states of a good model come out."""
    both = Both(precision)
    for name in (
        "embeddings.token_type_embeddings.weight",
        "encoder.layer.0.attention.self.value.weight",
        "encoder.layer.0.attention.output.dense.weight",
        "encoder.layer.0.attention.output.dense.bias",
        "encoder.layer.1.output.dense.bias",
        "encoder.layer.1.output.dense.weight",
    ):
        both.mend()
        both.ours.get_parameter(name)[:1] = value
        ours, theirs = both.finite()
        assert not ours.any(), name
        assert not theirs.any(), name


@pytest.mark.parametrize("size", [1e4, 1e7, 1e10, 1e14])
@torch.inference_mode()
def test_large_scores_choose_one_token(size):
    """Scores far beyond those of any model are no error: attention is to the largest alone."""
    served, reference = pair(num_hidden_layers=1, hidden_size=64, num_attention_heads=1)
    own = served.encoder.layer[0].attention.self
    own.query.weight.mul_(size)
    own.query.bias.mul_(size)
    reference.load_state_dict(served.state_dict())
    ids = torch.arange(50)[None, :37]
    found, expected = (model(ids).last_hidden_state for model in (served, reference))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [-6.0, -100.0, -1e4, -1e10, -1e30])
@torch.inference_mode()
def test_gelu_of_large_negative_numbers_is_zero(precision, size):
    both = Both(precision)
    both.ours.encoder.layer[1].intermediate.dense.bias.fill_(size)
    both.theirs.load_state_dict(both.ours.state_dict(), strict=False)
    found, expected = (model(both.ids).last_hidden_state for model in (both.ours, both.theirs))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3 if precision == "fp32" else 0.5)


@pytest.mark.parametrize("size", [1e-38, 1e-42, 0.0])
@torch.inference_mode()
def test_numbers_next_to_zero_are_rounded_to_bytes(precision, size):
    both = Both(precision)
    for dense in (both.ours.encoder.layer[0].attention.output.dense, both.ours.encoder.layer[1].output.dense):
        dense.weight.sign_().mul_(size)
    both.theirs.load_state_dict(both.ours.state_dict(), strict=False)
    found, expected = (model(both.ids).last_hidden_state for model in (both.ours, both.theirs))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 if precision == "fp32" else 0.5)
