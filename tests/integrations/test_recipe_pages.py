"""The snippets of docs/recipes.md: they run, on our code, and give what they give on transformers'.

`make test-recipes` makes the environments that have these libraries.
"""

import json
import random
import re
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from served import layers, on_and_off  # noqa: F401

from electra_fast.bundled import bundled

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
SNIPPETS = dict(re.findall(r"^## (\w+)\n\n```python\n(.*?)```", PAGE, flags=re.DOTALL | re.MULTILINE))
# For each recipe: the package that it needs, and the numbers that it makes.
RECIPES = {
    "SetFit": ("setfit", lambda made: made["probabilities"]),
    "txtai": ("txtai", lambda made: [score for _, score in made["found"]]),
    "Haystack": ("haystack_integrations", lambda made: [document.score for document in made["found"]]),
    "PyLate": (
        "pylate",
        lambda made: [*made["queries"], *made["documents"], [found["score"] for found in made["ranking"][0]]],
    ),
    "GLiNER": ("gliner", lambda made: [entity["score"] for entity in made["entities"]]),
    "model2vec": ("model2vec", lambda made: made["vectors"]),
}
# Largest difference, as a share of the largest number. model2vec rounds to float16.
BOUNDS = dict.fromkeys(RECIPES, 1e-4) | {"model2vec": 5e-3}


@pytest.fixture
def checkpoint(tmp_path):
    """The bundled discriminator without dropout, whose bits are drawn otherwise."""
    shutil.copytree(bundled("discriminator"), tmp_path / "checkpoint")
    config = tmp_path / "checkpoint" / "config.json"
    without = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config.write_text(json.dumps(json.loads(config.read_text()) | without))
    return tmp_path / "checkpoint"


def test_every_snippet_has_a_test():
    assert SNIPPETS.keys() == RECIPES.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_served_and_gives_the_same(name, checkpoint, layers, tmp_path, monkeypatch):  # noqa: F811
    package, numbers = RECIPES[name]
    pytest.importorskip(package, reason=f"{package} is not installed in this environment")
    monkeypatch.chdir(tmp_path)
    code = SNIPPETS[name].replace("google/electra-small-discriminator", str(checkpoint))
    imports, call, rest = code.partition("\nenable()\n")
    assert call
    exec(imports, {})  # imports may draw random numbers

    def work():
        made = {}
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(0)
        exec(f"{imports}\n{rest}", made)
        return np.concatenate([np.ravel(value) for value in numbers(made)])

    theirs, ours = on_and_off(work, layers)
    assert theirs.size > 0
    assert np.abs(ours - theirs).max() <= BOUNDS[name] * np.abs(theirs).max()


@pytest.mark.parametrize("name", RECIPES)
def test_the_page_has_the_versions_that_are_tested(name):
    pytest.importorskip(RECIPES[name][0], reason="the library is not installed in this environment")
    row = re.search(rf"^\| {name} \| (.*?) \|", PAGE, flags=re.MULTILINE)[1]
    for distribution in row.split(", "):
        distribution, found = distribution.split()
        assert found == version(distribution), distribution
