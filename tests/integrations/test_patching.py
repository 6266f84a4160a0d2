"""enable, disable, patch, unpatch: what they change, what they leave, and what stays transformers' own."""

import copy
import inspect
import pickle
import subprocess
import sys
import threading

import pytest
import torch
from electra_calls import CLASSES, assert_same, padded_batch, results, tiny, transformers

import electra_fast.integrations.transformers as integration
from electra_fast.integrations import limits, packed_electra
from electra_fast.integrations.transformers import disable, enable, patch, unpatch, why_not
from electra_fast.model import cpu_encoder


@pytest.fixture
def enabled():
    enable()
    yield
    disable()


def is_served(model) -> bool:
    """Whether the encoder in it gives zeros at padding."""
    call = padded_batch()
    return bool((model.base_model(**call).last_hidden_state[call["attention_mask"] == 0] == 0).all())


def contents(model) -> list:
    return [(type(part), list(part.__dict__), part.__dict__.get("forward")) for part in model.modules()]


@pytest.mark.parametrize("name", CLASSES)
def test_patching_changes_no_more_than_forward_and_unpatching_that(name):
    model = tiny(name)
    before, state, signature = contents(model), copy.deepcopy(model.state_dict()), inspect.signature(model.forward)
    assert patch(patch(model)) is model and is_served(model)
    assert type(model) is getattr(transformers, name)
    assert inspect.signature(model.forward) == signature
    after = model.state_dict()
    assert after.keys() == state.keys() and all(torch.equal(after[key], x) for key, x in state.items())
    unpatch(unpatch(model))
    assert contents(model) == before and not is_served(model)


def test_enabling_serves_models_of_before_and_after():
    forwards = {name: getattr(transformers, name).forward for name in CLASSES}
    before = tiny("ElectraForMaskedLM")
    enable(), enable()
    assert is_served(before) and is_served(tiny("ElectraForMaskedLM"))
    for name, forward in forwards.items():
        assert inspect.signature(getattr(transformers, name).forward) == inspect.signature(forward)
    disable(), disable()
    assert not is_served(before)
    assert forwards == {name: getattr(transformers, name).forward for name in CLASSES}


def test_one_model_and_all_are_independent():
    model = patch(tiny("ElectraModel"))
    enable()
    unpatch(model)
    assert is_served(model)
    patch(model)
    disable()
    assert is_served(model) and not is_served(unpatch(model))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_and_pickles_of_a_patched_model_are_patched_and_their_own(copied):
    model, call = patch(tiny("ElectraForSequenceClassification")), padded_batch()
    expected = model(**call).logits
    twin = copied(model)
    with torch.no_grad():
        model.electra.embeddings.word_embeddings.weight.zero_()
    assert is_served(twin) and torch.equal(twin(**call).logits, expected)
    assert not is_served(unpatch(twin)) and is_served(model)


def test_resizing_and_dtypes_after_patching():
    model, call = patch(tiny("ElectraForMaskedLM")), padded_batch()
    model.resize_token_embeddings(120)
    call["input_ids"][0, 1] = 110
    assert why_not(model, **call) is None
    ours = model(**call).logits[call["attention_mask"].bool()]
    torch.testing.assert_close(ours, unpatch(model)(**call).logits[call["attention_mask"].bool()], rtol=0, atol=2e-5)
    for changed in (model.half(), model.to(torch.bfloat16), model.double().to("cpu")):
        assert is_served(patch(changed)) and changed(**call).logits.dtype == changed.dtype


def test_threads_turn_it_on_and_off_while_others_call():
    model, call, errors = tiny("ElectraForSequenceClassification"), padded_batch(), []
    expected = model(**call).logits

    def work(change):
        try:
            for _ in range(40):
                change()
                torch.testing.assert_close(model(**call).logits, expected, rtol=0, atol=1e-5)
        except Exception as error:  # shown below; a thread's own is lost
            errors.append(error)

    changes = (enable, disable, lambda: patch(model), lambda: unpatch(model))
    threads = [threading.Thread(target=work, args=(change,)) for change in changes]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    disable(), unpatch(model)
    assert not errors and not is_served(model)


def derived():
    class Derived(transformers.ElectraModel):
        pass

    return Derived(tiny("ElectraModel").config).eval()


def decoder():
    return tiny("ElectraForCausalLM", is_decoder=True)


def hooked():
    model = tiny("ElectraModel")
    model.encoder.layer[1].attention.self.query.register_forward_hook(lambda module, args, output: 2 * output)
    return model


def with_forward():
    model = tiny("ElectraModel")
    layer = model.encoder.layer[0]
    layer.forward = lambda *args, own=layer.forward, **kwargs: 2 * own(*args, **kwargs)
    return model


def other_part():
    model = tiny("ElectraModel")
    model.encoder.layer[0].output.dropout = torch.nn.Identity()
    return model


def two_dtypes():
    model = tiny("ElectraModel")
    model.encoder.layer[0].intermediate.dense.double()
    return model


CASES = {
    "derived class": (derived, {}),
    "decoder": (decoder, {}),
    "attentions": (lambda: tiny("ElectraModel", attn_implementation="eager"), {"output_attentions": True}),
    "keyword": (lambda: tiny("ElectraModel"), {"is_causal": False}),
    "shape": (lambda: tiny("ElectraModel"), {"attention_mask": torch.ones(3, 1, 9, 9, dtype=torch.bool).tril()}),
    "hook": (hooked, {}),
    "hook ": (with_forward, {}),
    "part": (other_part, {}),
    "padding read": (
        lambda: tiny("ElectraForQuestionAnswering"),
        {"start_positions": torch.zeros(3, dtype=torch.long), "end_positions": torch.ones(3, dtype=torch.long)},
    ),
}


@pytest.mark.parametrize("key", CASES)
def test_what_cannot_be_packed_is_named_and_bit_equal(key, enabled):
    make, more = CASES[key]
    model, call = make(), padded_batch() | more
    assert why_not(model, **call).startswith(key.strip())
    ours = model(**call)
    disable()
    theirs = model(**call)
    for name in ours.keys() - {"past_key_values"}:
        for x, y in zip(*(x[name] if isinstance(x[name], tuple) else [x[name]] for x in (ours, theirs)), strict=True):
            assert x is y is None or torch.equal(x, y), name


def test_several_dtypes_are_left_to_transformers(enabled):
    assert why_not(two_dtypes(), **padded_batch()).startswith("dtypes: torch.float32 on cpu, torch.float64 on cpu")


def test_every_limit_has_a_case():
    assert {key.strip() for key in CASES} | {"dtypes", "recorded"} == set(limits.LIMITS)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ({}, ValueError),
        ({"input_ids": torch.zeros(1, 4, dtype=torch.long), "inputs_embeds": torch.zeros(1, 4, 16)}, ValueError),
        ({"input_ids": torch.full((1, 4), 97)}, IndexError),
        ({"input_ids": torch.zeros(1, 25, dtype=torch.long)}, Exception),
    ],
)
def test_mistakes_are_answered_as_by_transformers(call, error, enabled):
    with pytest.raises(error):
        tiny("ElectraModel")(**call)


def test_what_has_no_electra_is_refused():
    for refused in (lambda: patch(torch.nn.Linear(2, 2)), lambda: why_not(torch.nn.Linear(2, 2))):
        with pytest.raises(ValueError, match="transformers' ELECTRA"):
            refused()
    model = tiny("ElectraModel")
    model.forward = model.forward
    with pytest.raises(ValueError, match="forward of its own"):
        patch(model)


def test_a_forward_of_another_library_is_refused(monkeypatch):
    monkeypatch.setattr(transformers.ElectraModel, "forward", lambda self: None)
    with pytest.raises(ImportError, match=r"ElectraModel\.forward was replaced by test_patching"):
        enable()


@pytest.mark.parametrize(("version", "is_known"), [("4.57.6", 0), ("5.0.0", 1), ("5.23.9", 1), ("5.24.0.dev0", 0)])
def test_releases(version, is_known, monkeypatch):
    monkeypatch.setattr(limits, "installed_version", lambda name: version)
    assert (limits.version_obstacle() is None) == is_known
    assert is_known or f"transformers {version}" in limits.version_obstacle()
    if not is_known:
        with pytest.raises(ImportError, match=version):
            exec(inspect.getsource(integration), {"__name__": integration.__name__, "__package__": "electra_fast.integrations"})  # fmt: skip  # noqa: E501


def test_importing_the_package_imports_no_transformers():
    code = (
        "import sys, electra_fast, electra_fast.integrations, electra_fast.integrations.limits; "
        "print({'transformers'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"


def test_importing_the_integration_changes_no_class():
    code = (
        "import transformers as t, electra_fast.integrations.transformers as e; "
        "print(t.ElectraModel.forward is e._OWN[t.ElectraModel], 'electra_fast' in t.AttentionInterface())"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert found == "True False\n"


def test_outputs_collected_once_leave_hooks_that_do_no_harm():
    model, call = tiny("ElectraModel", attn_implementation="eager"), padded_batch()
    expected = results(model, call)
    model(**call, output_attentions=True)
    assert why_not(patch(model), **call) is None
    assert_same(results(model, call), expected)


@pytest.mark.skipif(cpu_encoder.obstacle() is not None, reason=f"{cpu_encoder.obstacle()}")
@pytest.mark.parametrize("states", [False, True])
def test_inference_on_a_cpu_is_that_of_the_c_plus_plus_encoder(states):
    model, call = tiny("ElectraModel").eval(), padded_batch() | {"output_hidden_states": states}
    mask = call["attention_mask"] != 0
    with torch.inference_mode():
        # Of a copy: transformers leaves hooks on a model that was asked for states, and hooked layers go through torch.
        expected = copy.deepcopy(model)(**call)
        patch(model)
        found = model(**call)
        assert packed_electra._ON_CPU[model].why_not(model, call["input_ids"]) is None
        for a, b in zip(found.hidden_states or (), expected.hidden_states or (), strict=True):
            torch.testing.assert_close(a[mask], b[mask], rtol=0, atol=2e-5)
        torch.testing.assert_close(found[0][mask], expected[0][mask], rtol=0, atol=2e-5)
        model.encoder.layer[0].output.dense.weight.mul_(2)  # which is noticed
        changed = model(**call)[0]
        unpatch(model)
        torch.testing.assert_close(changed[mask], model(**call)[0][mask], rtol=0, atol=2e-5)
