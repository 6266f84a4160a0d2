"""The model card of a fine-tuned network: what the Hub reads of it, what a person reads, and that its examples run."""

import ast
import contextlib
import html
import io
import re
from pathlib import Path

import pytest
from finetuned_models import KINDS, MAX_LENGTH, tokenizer, write_finetuned
from huggingface_hub import ModelCard

from electra_fast.finetuning.data.examples import ChoiceExample, QuestionExample, Split, TaggedExample, TextExample
from electra_fast.finetuning.data.tasks import custom_task, task
from electra_fast.finetuning.model_card import model_card
from electra_fast.finetuning.recipe import Recipe
from electra_fast.finetuning.summary import summarize
from electra_fast.finetuning.task_data import TaskData

RUN = {"kind": "run", "step": 0, "data": {}, "seed": 3, "n_steps": 18, "device": "cpu", "versions": {"torch": "2.13"}}
COLUMNS = {
    "tagging": {"tags": -1},
    "choice": {"text": "a", "endings": ("b", "c"), "label": "d"},
    "qa": {"has_unanswerable": True},
}
EXAMPLES = {
    "classification": TextExample("0", 1, "a", None, "no"),
    "regression": TextExample("0", 1, "a", None, 0.5),
    "multilabel": TextExample("0", 1, "a", None, ("news",)),
    "tagging": TaggedExample("0", 1, ("a",), ("O",)),
    "choice": ChoiceExample("0", 1, "a", "b", ("c", "d"), 1),
    "qa": QuestionExample("0", 1, "a", "b", (("b", 0),)),
}


def task_data(a_task, head="transformers", labels=None):
    """The task with an example to train on and others to measure on, held out and not."""
    example, train = EXAMPLES[a_task.kind], Path("folder/train.tsv")
    splits = {
        "train": Split("train", train, [example] * 1200),
        "dev": Split("dev", train, [example] * 30),
        "test": Split("test", Path("folder/test.tsv"), [example]),
    }
    labels = KINDS[a_task.kind][0] if labels is None else labels
    recipe = Recipe(learning_rate=1e-4, layer_decay=0.8, head=head, max_length=MAX_LENGTH)
    return TaskData(a_task, splits, labels, tokenizer(), recipe), recipe


def card_of(a_task, *, values=(0.75,), source="google/electra-small-discriminator", **options):
    """The card after runs with these values of accuracy."""
    data, recipe = task_data(a_task)
    results = [
        {"seed": seed, "metrics": {split: {"accuracy": value, "matthews": 0.5} for split in ("dev", "test")}}
        for seed, value in enumerate(values)
    ]
    summary = summarize([*results, {"seed": 9, "failure": "why"}]) | {"best": 0, "results": results}
    return model_card(a_task.name, source, {a_task.name: data}, recipe, summary, RUN, **options)


def test_the_hub_reads_the_header():
    card = ModelCard(card_of(task("sst2"))).data
    assert (card.library_name, card.pipeline_tag) == ("transformers", "text-classification")
    assert (card.base_model, card.datasets) == ("google/electra-small-discriminator", ["nyu-mll/glue"])
    assert card.metrics == ["accuracy", "matthews_correlation"]
    assert card.model_name == "ELECTRA sst2"
    found = {(result.dataset_split, result.metric_type): result for result in card.eval_results}
    assert set(found) == {(split, metric) for split in ("dev", "test") for metric in card.metrics}
    result = found["dev", "matthews_correlation"]
    assert (result.dataset_type, result.dataset_config, result.dataset_name) == ("nyu-mll/glue", "sst2", "sst2")
    assert (result.metric_name, result.metric_value, result.task_type) == ("matthews", 0.5, card.pipeline_tag)


def test_files_of_ones_own_claim_no_data_set_and_directories_no_base_model(tmp_path):
    own = custom_task("classification", name="reviews", text="text", label="label")
    text = card_of(own, source=tmp_path)
    card = ModelCard(text).data
    assert (card.base_model, card.datasets, card.get("license")) == (None, None, None)
    assert {result.dataset_type for result in card.eval_results} == {"reviews"}
    assert f"from `{tmp_path.name}`." in text and str(tmp_path) not in text


def test_figures_are_this_networks_and_of_several_seeds_statistics():
    one, several = card_of(task("sst2")), card_of(task("sst2"), values=(0.875, 0.5, 0.75))
    assert "| dev | accuracy | 0.75 |\n" in one and "median" not in one
    assert "| split | metric | this network | median | mean | std | min | max | runs |" in several
    assert "| dev | accuracy | 0.875 | 0.75 | 0.7083 | 0.1909 | 0.5 | 0.875 | 3 |" in several
    assert "that of seed 0, the best of 3" in several and "1 of 4 runs did not learn" in several


def test_data_recipe_and_run_are_in_it():
    text = card_of(task("sst2"))
    for row in ("train | 1,200 | train.tsv", "dev | 30 | held out of train.tsv", "test | 1 | test.tsv"):
        assert f"| {row} |" in text
    rows = dict(re.findall(r"^\| (\w+) \| (.*) \|$", text, flags=re.MULTILINE))
    assert (rows["layer_decay"], rows["seed"], rows["device"]) == ("0.8", "3", "cpu")
    assert "Labels: `no`, `maybe`, `yes`." in text and re.search("Fingerprint of all examples: `[0-9a-f]{32}`", text)


def test_names_are_shown_as_they_are():
    """Markdown's own characters end neither code nor cells, in names of labels, tasks, metrics and checkpoints."""
    markdown = pytest.importorskip("markdown_it").MarkdownIt().enable("table")
    odd, shown = "a`b``|*c* \\| <d> &amp;\n\ne", "a`b``|*c* \\| <d> &amp; e"
    own = custom_task("classification", name=odd, text="text", label="label")
    data, recipe = task_data(own, labels=[odd, "``", "plain"])
    results = [{"seed": 0, "metrics": {"dev": {odd: 0.5}, "test": {odd: 0.5}}}]
    summary = summarize(results) | {"best": 0, "results": results}
    text = model_card(odd, odd, {odd: data}, recipe, summary, {**RUN, "device": odd})
    body = text.partition("\n---\n")[2]
    spans = [token for block in markdown.parse(body) for token in block.children or ()]
    code = [token.content for token in spans if token.type == "code_inline"]
    assert code[:5] == [shown, shown, shown, "``", "plain"]
    rendered = html.unescape(markdown.render(body))
    assert f"<h1>ELECTRA {shown}</h1>" in rendered and rendered.count(f"<td>{shown}</td>") == 3


def test_of_several_tasks_each_has_its_own_figures():
    tasks = {name: task_data(task(name))[0] for name in ("sst2", "cola")}
    metrics = {"sst2 dev": {"accuracy": 0.75}, "cola dev": {"matthews": 0.25}}
    metrics |= {"sst2 test": {"accuracy": 0.5}, "cola test": {"matthews": 0.125}}
    results = [{"seed": seed, "metrics": metrics} for seed in (0, 1)]
    summary = summarize(results) | {"best": 1, "results": results}
    text = model_card("cola", "x/y", tasks, task_data(task("cola"))[1], summary, RUN)
    assert "on the task `cola`, together with `sst2`" in text
    assert "| dev | matthews | 0.25 | 0.25 |" in text and "accuracy" not in text


OF_TEXT = ("classification", "regression", "multilabel")
CASES = [(kind, "transformers", None) for kind in KINDS]
CASES += [*((kind, "transformers", "other") for kind in OF_TEXT), *((kind, "paper", None) for kind in (*OF_TEXT, "qa"))]


@pytest.mark.parametrize(("kind", "head", "pair"), CASES, ids=["-".join(map(str, case)) for case in CASES])
def test_its_examples_run(kind, head, pair, tmp_path):
    pytest.importorskip("transformers")
    columns = COLUMNS.get(kind, {"text": "text", "label": "label", "pair": pair})
    columns |= {"label": None, "labels": KINDS[kind][0]} if kind == "multilabel" else {}
    a_task = custom_task(kind, **columns)
    data, recipe = task_data(a_task, head)
    write_finetuned(tmp_path, kind, head)
    results = [{"seed": 0, "metrics": {"dev": {"f1": 0.5}, "test": {"f1": 0.5}}}]
    summary = summarize(results) | {"best": 0, "results": results}
    text = model_card("custom", "x/y", {"custom": data}, recipe, summary, RUN, path=str(tmp_path))
    outputs = {}
    for library, code in re.findall(r"With (\w+):\n\n```python\n(.*?)```", text, flags=re.DOTALL):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, "README.md", "exec"), {})
        outputs[library] = printed.getvalue()
    assert list(outputs) == [*(["transformers"] if head == "transformers" else []), "electra_fast"]
    ours = ast.literal_eval(outputs["electra_fast"])
    assert ours["id"] == "0"
    if kind in OF_TEXT and head == "transformers":
        theirs = ast.literal_eval(outputs["transformers"])
        scores = {found["label"]: found["score"] for found in theirs}
        expected = {"LABEL_0": ours["value"]} if kind == "regression" else ours["probabilities"]
        assert scores == pytest.approx(expected, abs=1e-5)
