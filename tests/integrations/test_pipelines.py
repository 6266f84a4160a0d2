"""transformers' Auto classes and pipelines, and sentence-transformers, beside themselves under `enable()`."""

import pytest
import torch
from electra_calls import transformers
from served import layers, on_and_off  # noqa: F401  the fixture

from electra_fast.bundled import bundled

TEXTS = ["The cat sat on the mat.", "A much longer sentence about the weather in the mountains of the north.", "No."]
TASKS = {
    "fill-mask": ("AutoModelForMaskedLM", [text.replace("the", "[MASK]", 1) + " [MASK]" for text in TEXTS], {}),
    "text-classification": ("AutoModelForSequenceClassification", TEXTS, {"top_k": None}),
    "token-classification": ("AutoModelForTokenClassification", TEXTS, {"aggregation_strategy": "simple"}),
    "zero-shot-classification": ("AutoModelForSequenceClassification", TEXTS, {"candidate_labels": ["a", "b c"]}),
    "feature-extraction": ("AutoModel", TEXTS, {}),
}
LABELS = {"id2label": {0: "entailment", 1: "neutral", 2: "contradiction"}, "num_labels": 3}


TOLERANCE = 5e-5  # hidden states of the bundled model reach 10 and more


def assert_alike(ours, theirs) -> None:
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        ours, theirs = list(ours.values()), list(theirs.values())
    if isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs)
        for x, y in zip(ours, theirs, strict=True):
            assert_alike(x, y)
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, abs=TOLERANCE, rel=1e-5)
    elif isinstance(theirs, torch.Tensor):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=TOLERANCE)
    else:
        assert ours == theirs or abs(float(ours) - float(theirs)) < 1e-5


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_pipelines(task, batch_size, layers):  # noqa: F811
    auto_class, texts, options = TASKS[task]
    network = "generator" if task == "fill-mask" else "discriminator"
    torch.manual_seed(0)
    more = {} if auto_class in ("AutoModel", "AutoModelForMaskedLM") else LABELS
    model = getattr(transformers, auto_class).from_pretrained(bundled(network), **more)
    tokenizer = transformers.AutoTokenizer.from_pretrained(bundled(network))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "classifier" in name:
                parameter.mul_(4)  # so that answers differ; scores whose exp is infinite would be NaN in transformers
    pipe = transformers.pipeline(task, model=model, tokenizer=tokenizer, batch_size=batch_size, device="cpu")
    theirs, ours = on_and_off(lambda: pipe(texts, **options), layers)
    if task == "feature-extraction":  # padding positions are zeros here, and are not told apart in the result
        n_tokens = [len(tokenizer(text)["input_ids"]) for text in texts]
        theirs, ours = ([x[0][:n] for x, n in zip(rows, n_tokens, strict=True)] for rows in (theirs, ours))
    assert_alike(ours, theirs)


@pytest.mark.parametrize(
    "auto_class",
    [
        "AutoModel",
        "AutoModelForPreTraining",
        "AutoModelForMaskedLM",
        "AutoModelForCausalLM",
        "AutoModelForSequenceClassification",
        "AutoModelForTokenClassification",
        "AutoModelForMultipleChoice",
        "AutoModelForQuestionAnswering",
    ],
)
def test_auto_classes(auto_class, layers):  # noqa: F811
    model = getattr(transformers, auto_class).from_pretrained(bundled("discriminator"))
    batch = transformers.AutoTokenizer.from_pretrained(bundled("discriminator"))(
        TEXTS, padding=True, return_tensors="pt"
    )
    is_real = batch["attention_mask"].bool()
    call = {name: x[:, None] for name, x in batch.items()} if "Choice" in auto_class else batch
    with torch.no_grad():
        theirs, ours = on_and_off(lambda: model(**call), layers)
    for x, y in zip(ours[:2], theirs[:2], strict=True):
        x, y = (x[is_real], y[is_real]) if x.shape[:2] == is_real.shape else (x, y)
        torch.testing.assert_close(x, y, rtol=1e-4, atol=TOLERANCE)


@pytest.fixture(scope="module")
def sentence_transformers():
    return pytest.importorskip("sentence_transformers")


def test_sentence_transformer(sentence_transformers, layers, tmp_path):  # noqa: F811
    model = sentence_transformers.SentenceTransformer(str(bundled("discriminator")), device="cpu")
    for pooling in ("mean", "cls", "max"):
        model[1] = type(model[1])(model.get_embedding_dimension(), pooling_mode=pooling)
        theirs, ours = on_and_off(lambda: torch.from_numpy(model.encode(TEXTS)), layers)
        assert_alike(ours, theirs)


def test_cross_encoder(sentence_transformers, layers):  # noqa: F811
    torch.manual_seed(0)
    model = sentence_transformers.CrossEncoder(str(bundled("discriminator")), num_labels=1, device="cpu")
    pairs = [(first, second) for first in TEXTS for second in TEXTS]
    assert_alike(*reversed(on_and_off(lambda: torch.from_numpy(model.predict(pairs)), layers)))
    ranks = on_and_off(lambda: [x["corpus_id"] for x in model.rank(TEXTS[0], TEXTS)], layers)
    assert ranks[0] == ranks[1]
