"""A small pre-training model of each kind, and text for it."""

import torch

from electra_fast import ElectraConfig
from electra_fast.model.packing import PackedBatch, cu_seqlens_of
from electra_fast.pretraining.networks.objective import ElectraPretrainingModel

PAD, CLS, SEP, MASK, VOCAB = 0, 1, 2, 3, 50
SPECIAL = (PAD, CLS, SEP, MASK)
LENGTHS = [9, 16, 3]
SAME = dict(
    vocab_size=VOCAB,
    embedding_size=12,
    num_hidden_layers=2,
    max_position_embeddings=16,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
SMALL = dict(SAME, hidden_size=8, num_attention_heads=1, intermediate_size=16)
FULL = dict(SAME, hidden_size=24, num_attention_heads=2, intermediate_size=37)
# The options, and the shapes of generator and discriminator, of one model of each kind.
KINDS = {
    "electra": (SMALL, FULL, {}),
    "mlm": (FULL, None, dict(objective="mlm")),
    "electric": (SMALL, FULL, dict(objective="electric")),
    "tied": (FULL, FULL, dict(generator_kind="tied")),
    "uniform": (None, FULL, dict(generator_kind="uniform")),
    "gdes": (SMALL, FULL, dict(embedding_sharing="gdes")),
    "nes": (dict(SMALL, embedding_size=8), FULL, dict(embedding_sharing="nes")),
    "frozen": (SMALL, FULL, dict(embedding_sharing="gdes", frozen_generator=True)),
    "frozen electric": (SMALL, FULL, dict(objective="electric", embedding_sharing="nes", frozen_generator=True)),
}


def make(kind="electra", seed=0, **more) -> ElectraPretrainingModel:
    torch.manual_seed(seed)
    *shapes, options = KINDS[kind]
    configs = [None if shape is None else ElectraConfig(**shape) for shape in shapes]
    options = {"mask_token_id": MASK, "special_token_ids": SPECIAL, "impl": "torch", **options, **more}
    model = ElectraPretrainingModel(*configs, **options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5).add_(torch.randn_like(parameter) * 0.05)
    return model


def batch(lengths=LENGTHS, seed=1):
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, VOCAB, (sum(lengths),), generator=random)
    packed = PackedBatch.from_cu_seqlens(1, sum(lengths), cu_seqlens_of(lengths), max(lengths))
    starts = packed.cu_seqlens.long()
    ids[starts[:-1]], ids[starts[1:] - 1] = CLS, SEP
    return ids, packed


def forward(model, seed=5, **more):
    ids, packed = batch()
    return model(ids, packed, random=torch.Generator().manual_seed(seed), **more)
