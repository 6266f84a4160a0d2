"""Loading and saving in local directories: what transformers writes, what we write, and what is broken."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import TINY, assert_same_weights, edit, random_model

import electra_fast
from electra_fast import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining, ElectraModel
from electra_fast.hub.weights import file_names

CLASSES = (
    "ElectraModel",
    "ElectraForPreTraining",
    "ElectraForMaskedLM",
    "ElectraForCausalLM",
    "ElectraForSequenceClassification",
    "ElectraForTokenClassification",
    "ElectraForMultipleChoice",
    "ElectraForQuestionAnswering",
)
NO_DECODER = "ignore:ElectraForCausalLM sees the tokens"
# How a directory may hold the weights, as arguments of our save_pretrained.
FORMATS = {
    "safetensors": {},
    "safetensors shards": {"max_shard_size": 8000},
    "bin": {"safe_serialization": False},
    "bin shards": {"safe_serialization": False, "max_shard_size": 8000},
    "variant": {"variant": "fp16"},
    "variant shards": {"variant": "fp16", "max_shard_size": 8000},
}


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


@pytest.fixture
def discriminator() -> ElectraForPreTraining:
    return random_model(ElectraForPreTraining)


@pytest.fixture
def generator() -> ElectraForMaskedLM:
    return random_model(ElectraForMaskedLM)


def inputs_for(class_name: str) -> dict[str, torch.Tensor]:
    ids = torch.arange(5, 26).reshape(3, 7)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    if class_name == "ElectraForMultipleChoice":
        ids, mask = ids[None], mask[None]
    return {"input_ids": ids, "attention_mask": mask}


def assert_same_output(ours, theirs) -> None:
    inputs = inputs_for(type(ours).__name__)
    with torch.no_grad():
        expected, got = theirs(**inputs), ours(**inputs)
    valid = inputs["attention_mask"].bool()
    for name, value in expected.items():
        there, here = (v[valid] if v.shape[:2] == valid.shape else v for v in (value, got[name]))
        torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


# With transformers


@pytest.mark.filterwarnings(NO_DECODER)
@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("shard_size", ["50GB", "8KB"])
def test_loads_what_transformers_saves(transformers, tmp_path, name, shard_size):
    theirs = getattr(transformers, name)(transformers.ElectraConfig(**TINY)).eval()
    theirs.save_pretrained(tmp_path, max_shard_size=shard_size)
    ours, info = getattr(electra_fast, name).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert not ours.training
    assert_same_output(ours, theirs)


@pytest.mark.filterwarnings(NO_DECODER)
@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("shard_size", ["50GB", 8000])
def test_transformers_loads_what_we_save(transformers, tmp_path, name, shard_size):
    ours = random_model(getattr(electra_fast, name))
    ours.save_pretrained(tmp_path, max_shard_size=shard_size)
    theirs, info = getattr(transformers, name).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert theirs.config.architectures == [name]
    assert_same_output(ours, theirs.eval())


def test_transformers_loads_our_bin(transformers, tmp_path, generator):
    generator.save_pretrained(tmp_path, safe_serialization=False)
    assert_same_output(generator, transformers.ElectraForMaskedLM.from_pretrained(tmp_path).eval())


def test_configs_go_both_ways(transformers, tmp_path):
    theirs = transformers.ElectraConfig(**TINY, num_labels=3, hidden_act="relu", classifier_dropout=0.3)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = ElectraConfig.from_pretrained(tmp_path / "theirs")
    assert (ours.num_labels, ours.hidden_act, ours.classifier_dropout) == (3, "relu", 0.3)
    ours.save_pretrained(tmp_path / "ours")
    back = transformers.ElectraConfig.from_pretrained(tmp_path / "ours")
    for key, value in theirs.to_dict().items():
        if key not in ("transformers_version", "_name_or_path"):
            assert back.to_dict()[key] == value, key


def test_a_config_of_transformers_is_accepted(transformers, tmp_path, discriminator):
    discriminator.save_pretrained(tmp_path)
    config = transformers.ElectraConfig.from_pretrained(tmp_path)
    assert_same_output(ElectraForPreTraining.from_pretrained(tmp_path, config=config), discriminator)


# Round trips and formats


@pytest.mark.filterwarnings(NO_DECODER)
@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("name", ["ElectraForPreTraining", "ElectraForMaskedLM", "ElectraForCausalLM"])
def test_round_trip(tmp_path, name, options):
    model = random_model(getattr(electra_fast, name))
    model.save_pretrained(tmp_path, **options)
    single, index = file_names(
        "safetensors" if options.get("safe_serialization", True) else "bin", options.get("variant")
    )
    assert (index if "max_shard_size" in options else single) in files(tmp_path)
    again = type(model).from_pretrained(tmp_path, variant=options.get("variant"))
    assert_same_weights(again, model.state_dict())
    assert again.config.architectures == [name]


def test_a_save_replaces_the_last_one_whole(tmp_path, generator):
    for options in (*FORMATS.values(), *reversed(FORMATS.values())):
        with torch.no_grad():
            generator.generator_lm_head.bias.add_(1)
        generator.save_pretrained(tmp_path, **options)
        again = ElectraForMaskedLM.from_pretrained(tmp_path, variant=options.get("variant"))
        assert_same_weights(again, generator.state_dict())
    assert not [name for name in files(tmp_path) if name.startswith(".")]
    assert files(tmp_path) == {"config.json", "model.safetensors", "model.fp16.safetensors"}


@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)
def test_a_save_that_fails_leaves_the_last_one(tmp_path, discriminator, monkeypatch, options):
    discriminator.save_pretrained(tmp_path, **options)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr("electra_fast.hub.weights.save_file", full)
    monkeypatch.setattr("torch.save", full)
    with pytest.raises(OSError, match="no space"):
        random_model(ElectraForPreTraining, hidden_size=64).save_pretrained(tmp_path, **options)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("old", ["safetensors", "safetensors shards"])
@pytest.mark.parametrize("new", ["safetensors", "safetensors shards"])
def test_a_killed_save_never_mixes_two_checkpoints(tmp_path, discriminator, monkeypatch, old, new):
    ones, twos = ({k: torch.full_like(v, n) for k, v in discriminator.state_dict().items()} for n in (1, 2))
    replace, left = os.replace, 0

    def replace_some(source, target):
        nonlocal left
        if left == 0:
            raise OSError("killed")
        left -= 1
        replace(source, target)

    for steps in range(1, 8):
        discriminator.save_pretrained(tmp_path, state_dict=ones, **FORMATS[old])
        with monkeypatch.context() as patch, contextlib.suppress(OSError):
            left = steps
            patch.setattr("os.replace", replace_some)
            discriminator.save_pretrained(tmp_path, state_dict=twos, **FORMATS[new])
        try:
            loaded = ElectraForPreTraining.from_pretrained(tmp_path).state_dict()
        except FileNotFoundError:
            continue  # none is better than a mixture
        assert len({value.flatten()[0].item() for value in loaded.values()}) == 1


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)
def test_files_have_the_mode_that_the_umask_asks_for(tmp_path, discriminator, options):
    umask = os.umask(0o027)
    try:
        discriminator.save_pretrained(tmp_path, **options)
    finally:
        os.umask(umask)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o640}


def test_only_the_main_process_saves(tmp_path, discriminator):
    discriminator.save_pretrained(tmp_path / "model", is_main_process=False)
    assert not (tmp_path / "model").exists()


def test_saves_a_given_state_dict(tmp_path, discriminator):
    state = {key: torch.zeros_like(value) for key, value in discriminator.state_dict().items()}
    discriminator.save_pretrained(tmp_path, state_dict=state)
    assert_same_weights(ElectraForPreTraining.from_pretrained(tmp_path), state)


def test_save_refuses_unknown_arguments(tmp_path, discriminator):
    with pytest.raises(TypeError, match="max_shard_sise"):
        discriminator.save_pretrained(tmp_path, max_shard_sise=1)
    with pytest.warns(UserWarning, match="save_function"):
        discriminator.save_pretrained(tmp_path, save_function=torch.save)


def test_use_safetensors_chooses_the_format(tmp_path, discriminator):
    discriminator.save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"pytorch_model\.bin, pytorch_model\.bin\.index\.json"):
        ElectraForPreTraining.from_pretrained(tmp_path, use_safetensors=False)
    torch.save({k: torch.zeros_like(v) for k, v in discriminator.state_dict().items()}, tmp_path / "pytorch_model.bin")
    assert not ElectraForPreTraining.from_pretrained(tmp_path, use_safetensors=False).dtype.is_complex
    assert (
        ElectraForPreTraining.from_pretrained(tmp_path, use_safetensors=False).get_input_embeddings().weight.sum() == 0
    )
    assert ElectraForPreTraining.from_pretrained(tmp_path).get_input_embeddings().weight.sum() != 0


# Keys


def test_base_and_task_models_load_each_other(tmp_path, discriminator):
    discriminator.save_pretrained(tmp_path / "task")
    with pytest.warns(UserWarning, match=r"no part of ElectraModel, left out: discriminator_predictions\.dense"):
        base = ElectraModel.from_pretrained(tmp_path / "task")
    assert_same_weights(base, discriminator.electra.state_dict())
    base.save_pretrained(tmp_path / "base")
    with pytest.warns(UserWarning, match="newly initialised, train before use: discriminator_predictions") as caught:
        task, info = ElectraForPreTraining.from_pretrained(tmp_path / "base", output_loading_info=True)
    assert len(caught) == 1
    assert info["missing_keys"] == {key for key in task.state_dict() if key.startswith("discriminator_predictions.")}
    assert info["unexpected_keys"] == info["mismatched_keys"] == set()
    assert_same_weights(task.electra, base.state_dict())


def test_the_wrong_network_is_named(tmp_path, discriminator, generator):
    discriminator.save_pretrained(tmp_path / "d")
    generator.save_pretrained(tmp_path / "g")
    with pytest.warns(UserWarning, match="this is a discriminator: it tells replaced tokens and cannot fill masks"):
        ElectraForMaskedLM.from_pretrained(tmp_path / "d")
    with pytest.warns(UserWarning, match="this is a generator: it fills masks and cannot tell replaced tokens"):
        ElectraForPreTraining.from_pretrained(tmp_path / "g")


def test_names_of_old_checkpoints(tmp_path, generator):
    generator.save_pretrained(tmp_path)

    def age(state):
        def old(key):
            return key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

        state = {old(key): value for key, value in state.items()}
        state["electra.embeddings.position_ids"] = torch.arange(64)[None]
        state["electra.embeddings.token_type_ids"] = torch.zeros(1, 64, dtype=torch.long)
        return state

    edit(tmp_path, age)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same_weights(ElectraForMaskedLM.from_pretrained(tmp_path), generator.state_dict())


def test_one_of_query_key_value_may_be_missing(tmp_path, discriminator):
    discriminator.save_pretrained(tmp_path)
    gone = "electra.encoder.layer.0.attention.self.key.weight"
    edit(tmp_path, lambda state: {key: value for key, value in state.items() if key != gone})
    with pytest.warns(UserWarning, match=gone):
        state = ElectraForPreTraining.from_pretrained(tmp_path).state_dict()
    for key, value in discriminator.state_dict().items():
        assert torch.equal(state[key], value) == (key != gone), key


def test_two_names_for_one_tensor_are_refused(tmp_path, discriminator):
    discriminator.save_pretrained(tmp_path)
    name = "electra.embeddings.LayerNorm"
    edit(tmp_path, lambda state: {**state, f"{name}.gamma": state[f"{name}.weight"].clone()})
    with pytest.raises(ValueError, match=rf"{name}\.weight twice"):
        ElectraForPreTraining.from_pretrained(tmp_path)


def test_key_mapping(tmp_path, discriminator):
    discriminator.save_pretrained(tmp_path)
    edit(tmp_path, lambda state: {key.replace("electra.", "bert."): value for key, value in state.items()})
    again = ElectraForPreTraining.from_pretrained(tmp_path, key_mapping={r"^bert\.": "electra."})
    assert_same_weights(again, discriminator.state_dict())


# Tied weights


def test_tied_weights_are_saved_once_and_loaded_from_either_name(tmp_path, generator):
    head, table = "generator_lm_head.weight", "electra.embeddings.word_embeddings.weight"
    generator.save_pretrained(tmp_path)
    assert head not in load_file(tmp_path / "model.safetensors")
    for change in (
        lambda state: state,
        lambda state: {**state, head: state[table].clone()},
        lambda state: {head if key == table else key: value for key, value in state.items()},
    ):
        edit(tmp_path, change)
        model, info = ElectraForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(info.values())
        assert model.generator_lm_head.weight is model.get_input_embeddings().weight
        assert_same_weights(model, generator.state_dict())


def test_untied_weights_are_saved_and_loaded(tmp_path):
    model = random_model(ElectraForMaskedLM, tie_word_embeddings=False)
    model.save_pretrained(tmp_path)
    assert_same_weights(ElectraForMaskedLM.from_pretrained(tmp_path), model.state_dict())


def test_a_config_that_ties_what_differs_is_not_believed(transformers, tmp_path):
    model = random_model(ElectraForMaskedLM, tie_word_embeddings=False)
    model.save_pretrained(tmp_path)
    model.config.tie_word_embeddings = True
    model.config.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"not tied to the word table, since it differs: generator_lm_head\.weight"):
        again = ElectraForMaskedLM.from_pretrained(tmp_path)
    assert again.config.tie_word_embeddings is False
    assert_same_weights(again, model.state_dict())
    assert_same_output(again, transformers.ElectraForMaskedLM.from_pretrained(tmp_path).eval())


# Options


def test_dtype(tmp_path, discriminator):
    discriminator.half().save_pretrained(tmp_path)
    load = ElectraForPreTraining.from_pretrained
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"
    assert load(tmp_path).dtype == torch.float16
    assert load(tmp_path, dtype=None).dtype == torch.float32
    assert load(tmp_path, dtype="bfloat16").dtype == torch.bfloat16
    assert load(tmp_path, torch_dtype=torch.float64).dtype == torch.float64
    assert load(tmp_path, dtype="bfloat16").config.dtype == torch.bfloat16
    ElectraConfig(**TINY).save_pretrained(tmp_path)
    assert load(tmp_path).dtype == torch.float16, "without a dtype in the config, that of the weights"
    ElectraConfig(**TINY, torch_dtype="bfloat16").save_pretrained(tmp_path)
    assert load(tmp_path).dtype == torch.bfloat16
    for wrong in ("int4", "float33", 16):
        with pytest.raises(ValueError, match="dtype must be 'auto', 'int8' or a floating type"):
            load(tmp_path, dtype=wrong)


def test_double_precision_is_not_rounded(tmp_path):
    model = random_model(ElectraForPreTraining).double()
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(1e-12)
    model.save_pretrained(tmp_path)
    assert_same_weights(ElectraForPreTraining.from_pretrained(tmp_path), model.state_dict())


def test_device_map(tmp_path, discriminator):
    discriminator.save_pretrained(tmp_path)
    load = ElectraForPreTraining.from_pretrained
    for device in ("cpu", torch.device("cpu"), {"": "cpu"}):
        assert load(tmp_path, device_map=device).device.type == "cpu"
    assert load(tmp_path, device_map="auto").device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="device_map must name a device"):
        load(tmp_path, device_map="gpu")
    with pytest.raises(ValueError, match="device_map must place the whole model"):
        load(tmp_path, device_map={"electra": "cpu"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_device_map_without_cuda(tmp_path, discriminator):
    discriminator.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'cuda', but torch sees no CUDA device"):
        ElectraForPreTraining.from_pretrained(tmp_path, device_map="cuda")


def test_mismatched_shapes(tmp_path):
    model = random_model(electra_fast.ElectraForTokenClassification, num_labels=3)
    model.save_pretrained(tmp_path)
    load = electra_fast.ElectraForTokenClassification.from_pretrained
    with pytest.raises(ValueError, match=r"classifier\.weight must be \[5, 32\], got \[3, 32\]"):
        load(tmp_path, num_labels=5)
    with pytest.warns(UserWarning, match=r"classifier\.weight \(\[3, 32\] there, \[5, 32\] here\)"):
        loaded, info = load(tmp_path, num_labels=5, ignore_mismatched_sizes=True, output_loading_info=True)
    assert info["mismatched_keys"] == {("classifier.weight", (3, 32), (5, 32)), ("classifier.bias", (3,), (5,))}
    assert loaded.config.num_labels == 5
    assert_same_weights(loaded.electra, model.electra.state_dict())


def test_fields_override_the_config_and_others_are_refused(tmp_path, discriminator):
    discriminator.config.mission = "kept"
    discriminator.save_pretrained(tmp_path)
    model = ElectraForPreTraining.from_pretrained(tmp_path, hidden_dropout_prob=0.4, mission="changed", num_labels=3)
    assert (model.config.hidden_dropout_prob, model.config.mission, model.config.num_labels) == (0.4, "changed", 3)
    config = ElectraConfig(**TINY)
    model = ElectraForPreTraining.from_pretrained(tmp_path, config=config, hidden_dropout_prob=0.2)
    assert (model.config.hidden_dropout_prob, config.hidden_dropout_prob) == (0.2, 0.1)
    with pytest.raises(TypeError, match="no fields of the config: hiden_dropout_prob"):
        ElectraForPreTraining.from_pretrained(tmp_path, hiden_dropout_prob=0.4)


def test_a_state_dict_in_place_of_a_file(discriminator):
    state = discriminator.state_dict()
    again = ElectraForPreTraining.from_pretrained(None, config=ElectraConfig(**TINY), state_dict=state)
    assert_same_weights(again, state)
    with pytest.raises(ValueError, match="got None and no config"):
        ElectraForPreTraining.from_pretrained(None, state_dict=state)


def test_settings_without_effect_are_told_once(tmp_path, discriminator):
    discriminator.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="no effect here: attn_implementation, trust_remote_code") as caught:
        ElectraForPreTraining.from_pretrained(tmp_path, attn_implementation="sdpa", trust_remote_code=True)
    assert len(caught) == 1


def test_loading_draws_no_values_that_it_would_overwrite(tmp_path, discriminator, monkeypatch):
    discriminator.save_pretrained(tmp_path)
    drawn, normal = [], torch.nn.init.normal_

    def recording(*tensors, std=1.0, **more):
        drawn.append(std)
        return normal(*tensors, std=std, **more)

    monkeypatch.setattr(torch.nn.init, "normal_", recording)
    type(discriminator).from_pretrained(tmp_path)
    assert set(drawn) <= {1.0}  # torch's own tables
