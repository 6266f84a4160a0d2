"""What a pair of networks knows, on held-out text: `python -m bundled.measure TEXT RUN OUT.json`.

TEXT is the directory that `corpus` made, RUN one that has generator/ and discriminator/.
"""

from __future__ import annotations

import csv
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from electra_fast import ElectraConfig, ElectraForPreTraining, ElectraTokenizer
from electra_fast.inference.calibration import Calibration, of_words
from electra_fast.inference.detect import Detection, detect
from electra_fast.model.packing import PackedBatch
from electra_fast.pretraining.build import build_model
from electra_fast.pretraining.continued import fitted_recipe, load_pretrained
from electra_fast.pretraining.evaluate import MAX_TOKENS, auc, evaluate
from electra_fast.pretraining.networks.objective import ElectraPretrainingModel
from electra_fast.pretraining.recipes import preset
from electra_fast.pretraining.text.corpus import Corpus
from electra_fast.pretraining.text.stream import held_out_sequences
from electra_fast.pretraining.text.windows import word_start_table

from .wrong_words import WrongWords

_SENTENCES = Path(__file__).parent.parent / "tests" / "inference" / "wrong_words.tsv"
_FALSE_ALARMS = 0.05
_N_TEXTS, _SHARE = 1_000, 0.1


def shares(probabilities: Sequence[float], is_replaced: Sequence[bool], threshold: float) -> dict[str, float]:
    """Precision and recall of words at a threshold, the AUC, and the recall at 5 % false alarms."""
    p, y = torch.tensor(probabilities), torch.tensor(is_replaced)
    called = p > threshold
    return {
        "auc": auc(p, y),
        "precision": float(y[called].float().mean()),
        "recall": float(called[y].float().mean()),
        "false_alarms": float(called[~y].float().mean()),
        "recall_at_5_percent_false_alarms": float((p[y] > p[~y].quantile(1 - _FALSE_ALARMS)).float().mean()),
    }


@torch.no_grad()
def of_the_generator(
    model: ElectraPretrainingModel, sequences: torch.Tensor, word_starts: torch.Tensor, calibration: Calibration
) -> dict[str, float]:
    """Words that the generator replaced at temperature 1, whole words masked."""
    chance, p, y = torch.Generator().manual_seed(2), [], []
    for batch in sequences.split(16):
        ids = batch.flatten()
        starts = word_starts[ids]
        output = model(ids, PackedBatch.full(*batch.shape, ids.device), random=chance, word_starts=starts)
        is_word = of_words(output.is_candidate.float(), starts) > 0
        p += calibration.probabilities(of_words(output.logits, starts))[is_word].tolist()
        y += (of_words(output.is_replaced.float(), starts)[is_word] > 0).tolist()
    return shares(p, y, calibration.threshold)


def by_the_rule(model: ElectraForPreTraining, tokenizer: ElectraTokenizer, text: Corpus) -> dict[str, float]:
    """Words of held-out paragraphs, one in ten of which gave way to a random one about as frequent."""
    words, chance = WrongWords(text.training()), random.Random(0)
    paragraphs = [line for document in text.held_out() for line in document.splitlines() if 50 < len(line) < 150]
    texts, wrong = [], []
    for paragraph in chance.sample(paragraphs, _N_TEXTS):
        parts, end, changed = [], 0, set()
        for start, stop in words.places(paragraph):
            if chance.random() < _SHARE:
                other = words.instead_of(paragraph[start:stop], chance)
                parts += [paragraph[end:start], other]
                changed.add(sum(map(len, parts)) - len(other))
                end = stop
        texts.append("".join([*parts, paragraph[end:]]))
        wrong.append(changed)
    p, y = [], []
    for found, changed in zip(detect(model, tokenizer, texts), wrong, strict=True):
        p += [word.probability for word in found.words]
        y += [start in changed for start in starts_of(found)]
    return shares(p, y, Calibration.of(model.config).threshold)


def starts_of(found: Detection) -> list[int]:
    """The first character of each word in the text."""
    starts, end = [], 0
    for word in found.words:
        starts.append(found.text.index(word.text, end))
        end = starts[-1] + len(word.text)
    return starts


def in_sentences(model: ElectraForPreTraining, tokenizer: ElectraTokenizer) -> dict[str, float]:
    """The 200 sentences with one wrong word each."""
    with open(_SENTENCES, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    p, y = [], []
    for row, found in zip(rows, detect(model, tokenizer, [row["sentence"] for row in rows]), strict=True):
        p += [word.probability for word in found.words]
        y += [word.text == row["wrong"] for word in found.words]
    return shares(p, y, Calibration.of(model.config).threshold)


def measure(directory: Path, run: Path) -> dict[str, Any]:
    """All figures, by name."""
    text = Corpus([directory / "prose.txt.xz"])
    networks = run / "generator", run / "discriminator"
    tokenizer = ElectraTokenizer.from_pretrained(networks[1])
    length = ElectraConfig.from_pretrained(networks[1]).max_position_embeddings
    recipe = replace(fitted_recipe(preset("tiny"), *map(str, networks), {}), seq_length=length)
    model = build_model(recipe, tokenizer, "auto").eval()
    load_pretrained(model, recipe, tokenizer, generator=networks[0], discriminator=networks[1])
    discriminator = ElectraForPreTraining.from_pretrained(networks[1])
    sequences = held_out_sequences(text, tokenizer, length, MAX_TOKENS // length)
    figures: dict[str, Any] = {}
    for temperature in (2.0, 1.0):
        model.temperature = temperature
        found = evaluate(model, sequences)
        figures[f"temperature_{temperature:g}"] = {
            "generator_accuracy": found.generator_accuracy,
            "generator_loss": found.generator_loss,
            "discriminator_auc": found.discriminator_auc,
        }
    many = held_out_sequences(text, tokenizer, length, 8 * MAX_TOKENS // length)
    starts, calibration = torch.from_numpy(word_start_table(tokenizer)), Calibration.of(discriminator.config)
    figures["words_of_the_generator"] = of_the_generator(model, many, starts, calibration)
    figures["words_as_frequent"] = by_the_rule(discriminator, tokenizer, text)
    figures["sentences"] = in_sentences(discriminator, tokenizer)
    return figures


if __name__ == "__main__":
    found = measure(Path(sys.argv[1]), Path(sys.argv[2]))
    Path(sys.argv[3]).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
