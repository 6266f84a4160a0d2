"""Questions about short contexts, a tokenizer of single letters for them, and small networks."""

import string

import torch

from electra_fast import ElectraConfig, ElectraTokenizer
from electra_fast.finetuning.data.examples import QuestionExample

_SYMBOLS = string.ascii_lowercase + string.digits
_VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_SYMBOLS, *(f"##{x}" for x in _SYMBOLS), *".,?()-'"]
TOKENIZER = ElectraTokenizer({token: i for i, token in enumerate(_VOCAB)})

GARDEN = (
    "The garden (planted in 1895) lies behind Ána's house.\nIn June the pears are ripe, and wasps come from the wood."
)
MILL = "  A mill stood by the river. Miller Brandt ground rye there until 1912; then it burned."


def question(id, text, context, *answers):
    """answers: texts, each at its first place in the context."""
    return QuestionExample(
        id=id,
        line=int(id) + 1,
        question=text,
        context=context,
        answers=tuple((answer, context.index(answer)) for answer in answers),
    )


ANSWERABLE = [
    question("0", "When was the garden planted?", GARDEN, "1895", "in 1895"),
    question("1", "Whose house is it?", GARDEN, "Ána", "Ána's"),
    question("2", "Where do the wasps come from?", GARDEN, "the wood"),
    question("3", "Who ground rye?", MILL, "Miller Brandt"),
    question("4", "What stood there?", MILL, "A mill"),
]
MIXED = [*ANSWERABLE, question("5", "When was the mill sold?", MILL), question("6", "Who ate the pears?", GARDEN)]

SMALL = dict(
    vocab_size=len(_VOCAB),
    embedding_size=16,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=160,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)


def network(model_class, dtype=torch.float32, **fields):
    """Every parameter random, biases too, and large enough to matter."""
    torch.manual_seed(0)
    model = model_class(ElectraConfig(**{**SMALL, **fields}), impl="torch").eval().to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def encode(model, batch):
    return model.electra.encode_packed(batch.input_ids, batch.packed, batch.token_type_ids)
