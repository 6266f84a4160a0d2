"""The fields of a config: what each may hold, in a file or set later, and the dtype."""

import json

import pytest
import torch
from parity import SHAPE, transformers

from electra_fast import ElectraConfig, ElectraForMultipleChoice, ElectraForSequenceClassification, ElectraModel
from electra_fast.model.fields import KINDS

SIZES = [
    "vocab_size",
    "embedding_size",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
]
FLAGS = ["summary_use_proj", "use_cache", "is_decoder", "add_cross_attention", "tie_word_embeddings"]
RATES = ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "summary_last_dropout"]
WRONG = {
    **{name: ["12", 12.0, True, None, [12], {}, -1, 0, float("nan"), 10**30] for name in SIZES},
    "num_hidden_layers": ["2", 2.0, True, None, [2], -1, 10**30],
    "chunk_size_feed_forward": ["2", 2.0, -1],
    **{name: ["0.1", True, [0.1], {}, -0.1, 1.5, float("nan"), float("inf")] for name in RATES},
    **{
        name: ["1e-12", None, True, [], -1e-12, float("nan"), float("inf"), 10**400]
        for name in ["layer_norm_eps", "initializer_range"]
    },
    **{name: ["true", None, 1, 0, []] for name in FLAGS},
    **{name: ["true", 1, []] for name in ["output_attentions", "output_hidden_states", "return_dict"]},
    "hidden_act": ["gleu", None, 1, ["gelu"], {}],
    "summary_activation": [1, ["gelu"], True],
    "summary_type": [1, None, ["first"]],
    "problem_type": [1, True, ["regression"]],
    "pad_token_id": ["0", 0.0, True, [0], 97, 10**30, -98],
    "bos_token_id": ["0", 0.0, True, [0]],
    "eos_token_id": ["0", 0.0, True, ["0"]],
    "id2label": ["A", ["A", "B"], 2, {"x": "A"}, {"0.5": "A"}],
    "label2id": ["A", ["A", "B"], 2],
    "num_labels": ["2", 2.0, True, -1, [2]],
    "architectures": ["ElectraModel", [1]],
    "dtype": ["foo", "auto", "nn", 32, True, ["float32"], {}],
    "torch_dtype": ["foo", 32],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_field_of_another_kind_is_named_when_it_is_read(tmp_path, name, value):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "electra", **SHAPE, name: value}))
    with pytest.raises(ValueError, match=rf"^{name.removeprefix('torch_')} must be .*, got "):
        ElectraConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", KINDS)
def test_a_field_of_another_kind_is_named_when_it_is_set_later(name):
    config = ElectraConfig(**SHAPE)
    before = config.to_dict()
    for change in (lambda: setattr(config, name, object()), lambda: config.update({name: object()})):
        with pytest.raises(ValueError, match=f"^{name} must be "):
            change()
    assert config.to_dict() == before


def test_an_override_is_checked_like_the_file(tmp_path):
    ElectraModel(ElectraConfig(**SHAPE)).save_pretrained(tmp_path)
    for load in (ElectraConfig.from_pretrained, ElectraModel.from_pretrained):
        with pytest.raises(ValueError, match=r"layer_norm_eps must be a finite number of at least 0, got '1e-12'"):
            load(tmp_path, layer_norm_eps="1e-12")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(hidden_size=30), "multiple of num_attention_heads, got 30 and 4"),
        (dict(num_attention_heads=5), "multiple of num_attention_heads, got 32 and 5"),
        (dict(vocab_size=5, pad_token_id=5), r"pad_token_id must be in \[-5, 5\), by vocab_size, got 5"),
        (dict(hidden_act="gleu"), "hidden_act must be one of gelu, .*, got 'gleu'"),
        (dict(add_cross_attention=True), "is_decoder=True"),
        (dict(num_labels=1, problem_type="single_label_classification"), "needs num_labels of at least 2, got 1"),
    ],
)
def test_fields_that_were_set_later_and_do_not_fit_make_no_model(changes, message):
    config = ElectraConfig(**SHAPE)
    for name, value in changes.items():
        setattr(config, name, value)
    with pytest.raises(ValueError, match=message):
        ElectraModel(config)
    with pytest.raises(ValueError, match=message):
        ElectraConfig(**{**SHAPE, **changes})


def test_an_unknown_summary_activation_is_named():
    config = ElectraConfig(**SHAPE, summary_activation="tahn")  # of no interest to seven of eight classes
    ElectraForSequenceClassification(config)
    with pytest.raises(ValueError, match=r"summary_activation must be one of .*, got 'tahn'"):
        ElectraForMultipleChoice(config)


@pytest.mark.parametrize(
    "fields",
    [
        dict(id2label={"0": "A", "5": "B"}),
        dict(id2label={"0": 0, "1": None}),
        dict(num_labels=0),
        dict(pad_token_id=-1),
        dict(pad_token_id=None),
        dict(classifier_dropout=1),
        dict(hidden_dropout_prob=0),
        dict(eos_token_id=[1, 2]),
        dict(problem_type="guess"),
        dict(dtype="half"),
        dict(a_key_of_another_model=["x"]),
    ],
    ids=str,
)
def test_what_transformers_takes_is_taken(tmp_path, fields):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "electra", **SHAPE, **fields}))
    theirs, ours = transformers.ElectraConfig.from_pretrained(tmp_path), ElectraConfig.from_pretrained(tmp_path)
    for name in {*fields, "num_labels", "id2label"}:
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize(
    "given",
    [
        dict(dtype="bfloat16"),
        dict(torch_dtype="bfloat16"),
        dict(dtype=torch.bfloat16),
        dict(torch_dtype=torch.bfloat16),
        dict(dtype="torch.bfloat16"),
        dict(dtype={"": "bfloat16"}),
        dict(dtype=None, torch_dtype="bfloat16"),
        dict(dtype="bfloat16", torch_dtype="float32"),
    ],
    ids=str,
)
def test_dtype_is_a_torch_dtype_and_a_name_in_json(given):
    config = ElectraConfig(**SHAPE, **given)
    assert config.dtype is config.torch_dtype is torch.bfloat16
    assert config.to_dict()["dtype"] == json.loads(config.to_json_string())["dtype"] == "bfloat16"
    assert "torch_dtype" not in config.to_dict()
    assert ElectraConfig.from_dict(config.to_dict()) == config
    config.torch_dtype = "float16"
    assert config.dtype is torch.float16
    config.update({"dtype": "float64"})
    assert config.dtype is torch.float64


def test_dtypes_within_other_keys_are_written_by_name():
    config = ElectraConfig(**SHAPE, quantization={"compute": torch.float16, "parts": [{"dtype": torch.bfloat16}]})
    written = json.loads(config.to_json_string())["quantization"]
    assert written == {"compute": "float16", "parts": [{"dtype": "bfloat16"}]}


@pytest.mark.parametrize("asked", [None, "auto", "float64", torch.float64], ids=str)
def test_dtype_of_a_loaded_model_is_transformers(tmp_path, asked):
    ElectraModel(ElectraConfig(**SHAPE)).half().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    for name in ("dtype", "torch_dtype"):
        content["dtype"], content["torch_dtype"] = None, None
        content[name] = "float16"
        (tmp_path / "config.json").write_text(json.dumps(content))
        options = {} if asked is None else dict(dtype=asked)
        theirs = transformers.ElectraModel.from_pretrained(tmp_path, **options)
        assert ElectraModel.from_pretrained(tmp_path, **options).config.dtype is theirs.config.dtype
        expected = torch.float64 if asked in ("float64", torch.float64) else torch.float16
        assert ElectraConfig.from_pretrained(tmp_path, **options).dtype is expected


def test_a_cast_leaves_the_config_and_saving_writes_what_is_saved(tmp_path):
    model = ElectraModel(ElectraConfig(**SHAPE, dtype="float32")).to(torch.bfloat16)
    assert model.config.dtype is torch.float32
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert ElectraModel.from_pretrained(tmp_path).config.dtype is torch.bfloat16
