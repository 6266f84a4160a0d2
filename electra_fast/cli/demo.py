"""A demo of ELECTRA from raw text in a few minutes on a CPU: `python -m electra_fast.cli.demo`, or `make demo`.

The demo logs every figure it prints to OUT/log.jsonl.
"""

from __future__ import annotations

import importlib.util
import random
import re
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from ..disk import check_apart
from ..inference.detect import Detection, detect, format_table
from ..model.modeling import ElectraForPreTraining
from ..pretraining import preset, pretrain
from ..pretraining.evaluate import auc
from ..pretraining.run import new_tokenizer
from ..pretraining.run_directory import RunDirectory
from ..pretraining.text.builtin import builtin_documents
from ..pretraining.text.corpus import Corpus
from ..pretraining.text.documents import take
from ..processor import cpu_threads
from ..tokenizer import ElectraTokenizer
from ..training.progress import JsonLines, format_duration, read_records
from .console import exit_code

# Most characters to train on: more would take time to read and tokenize, and two minutes do not get through them.
_MAX_CHARS = 20_000_000
_N_SENTENCES = 200
_N_SHOWN = 4
_SPEED_SECONDS = 8.0


@dataclass(kw_only=True)
class Demo:
    """Pre-train ELECTRA from raw text for two minutes, and see what it has learned.

    Trains a vocabulary and the preset `tiny`, evaluates on held-out text, and shows which replaced words are found.
    """

    data: tuple[Path, ...] = ()
    """Text files (plain, .gz or .xz) or directories of them; blank lines separate documents. Default: the documentation
    that comes with Python."""
    out: Path = Path("demo")
    """Directory to write to; a new demo replaces an earlier one in it."""
    minutes: float = 2.0
    """Minutes of training."""
    seed: int = 0
    """Seed of everything random."""

    def run(self) -> None:
        start = time.perf_counter()
        directory = RunDirectory(self.out)
        directory.check(overwrite=False)
        check_apart(self.out, *self.data)
        recipe = preset("tiny")

        print("1. Text and vocabulary")
        source = Corpus(self.data) if self.data else Corpus.from_texts(builtin_documents())
        training, held_out = take(source.training(), _MAX_CHARS), take(source.held_out(), _MAX_CHARS // 10)
        documents = training + held_out
        corpus = Corpus.from_texts(documents)
        tokenizer = new_tokenizer(training, recipe)
        origin = " ".join(map(str, self.data)) or "Python's own documentation: language reference and docstrings"
        print(f"   {origin}")
        print(f"   {sum(map(len, documents)) / 1e6:.1f} MB in {len(documents)} documents, {len(held_out)} held out")
        print(f"   {len(tokenizer)} WordPiece entries")

        print(f"\n2. Pre-training: preset tiny, {recipe.num_hidden_layers} layers of {recipe.hidden_size}, ", end="")
        print(f"{self.minutes:g} minutes", flush=True)
        pretrain(
            recipe,
            corpus,
            self.out,
            tokenizer=tokenizer,
            seed=self.seed,
            minutes=self.minutes,
            overwrite=True,
            device="cpu",
        )
        records = read_records(directory.log, "evaluation")
        print(f"\n3. Held-out text, {records[0]['n_tokens']:,} tokens\n\n{_before_and_after(records[0], records[-1])}")

        tokenizer = ElectraTokenizer.from_pretrained(self.out / "discriminator")
        model = ElectraForPreTraining.from_pretrained(self.out / "discriminator").eval()
        sentences = find_sentences(held_out, self.seed)
        with JsonLines(directory.log) as log:
            self._show_detection(model, tokenizer, sentences, training, log)
            self._show_speed(model, tokenizer, sentences, log)
        thresholds = [record["threshold"] for record in read_records(directory.log, "demo_detection")]
        print(_CLOSING.format(command=_command(), out=self.out, threshold=thresholds[0] if thresholds else 0.5))
        print(f"This took {format_duration(time.perf_counter() - start)} minutes. All figures: {directory.log}")

    def _show_detection(
        self,
        model: ElectraForPreTraining,
        tokenizer: ElectraTokenizer,
        sentences: Sequence[str],
        training: Sequence[str],
        log: JsonLines,
    ) -> None:
        print("\n4. Words replaced by random ones in held-out sentences")
        if len(sentences) < 2 * _N_SHOWN:
            print("   skipped: the held-out text has too few plain sentences of 6 to 14 words")
            return
        chance = random.Random(self.seed)
        words = re.findall(r"\b[a-z]{3,}\b", "\n".join(chance.sample(training, min(50, len(training)))))
        altered = [replace_words(sentence, words, tokenizer, chance) for sentence in sentences]
        detections = detect(model, tokenizer, [text for text, _ in altered])
        scores = torch.tensor([p for detection in detections for p in detection.probabilities])
        truth = torch.tensor([flag for _, flags in altered for flag in flags])
        # The threshold marks 1 in 10 original tokens of the sentences that are not shown.
        n_shown = sum(len(flags) for _, flags in altered[:_N_SHOWN])
        rest, rest_truth = scores[n_shown:], truth[n_shown:]
        threshold = float(rest[~rest_truth].quantile(0.9))
        log.write(
            "demo_detection",
            n_sentences=len(sentences),
            threshold=threshold,
            auc=auc(rest, rest_truth),
            found_share=float((rest[rest_truth] > threshold).float().mean()),
        )
        record = read_records(RunDirectory(self.out).log, "demo_detection")[-1]
        print("   [brackets]: the truth, a replaced word. 1 below: the discriminator's guess, where it gives more than")
        print(f"   {record['threshold']:.3f}, a threshold that marks 1 in 10 original tokens of other sentences.\n")
        for detection, (_, flags) in zip(detections[:_N_SHOWN], altered, strict=False):
            print(f"{format_table(marked(detection, flags, record['threshold']))}\n")
        print(f"   On {len(sentences) - _N_SHOWN} other sentences, with 10% false alarms, it finds ", end="")
        print(f"{record['found_share']:.0%} of the replaced tokens (chance: 10%); AUC {record['auc']:.3f}")

    def _show_speed(
        self, model: ElectraForPreTraining, tokenizer: ElectraTokenizer, sentences: Sequence[str], log: JsonLines
    ) -> None:
        print("\n5. Speed beside transformers")
        if importlib.util.find_spec("transformers") is None:
            print("   skipped: transformers is not installed")
            return
        if not sentences:
            print("   skipped: no held-out sentences")
            return
        from ..integrations.peer import load_theirs

        theirs = load_theirs(self.out / "discriminator")
        texts = [" ".join(sentences[i : i + 1 + i % 4]) for i in range(min(32, len(sentences)))]
        limit = model.config.max_position_embeddings
        batch = dict(tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt"))
        # One thread, because on a busy machine waiting for a second one would dominate the measurement.
        with cpu_threads(1):
            log.write("demo_speed", **compare_speed(model, theirs, batch))
        record = read_records(RunDirectory(self.out).log, "demo_speed")[-1]
        lengths = f"{record['shortest']} to {record['longest']} tokens"
        print(f"   {record['n_texts']} held-out texts of {lengths}, one padded batch, one thread")
        print(f"   electra_fast  {record['ours_ms']:7.1f} ms")
        print(f"   transformers  {record['theirs_ms']:7.1f} ms")
        print(f"   {record['ratio']:.2f} x as fast (median of {record['n_rounds']} rounds, turn by turn); ", end="")
        print(f"largest difference of a logit {record['max_difference']:.0e}")


def _before_and_after(before: dict[str, Any], after: dict[str, Any]) -> str:
    rows = [
        ("generator: loss", "generator_loss", "{:.3f}", ""),
        ("generator: accuracy", "generator_accuracy", "{:.1%}", f"unigram guess {after['unigram_accuracy']:.1%}"),
        ("discriminator: loss", "discriminator_loss", "{:.4f}", ""),
        ("discriminator: AUC", "discriminator_auc", "{:.3f}", "chance 0.500"),
    ]
    lines = [f"   {'':<22}{'step 0':>9}{'step ' + str(after['step']):>12}"]
    lines += [f"   {t:<22}{f.format(before[k]):>9}{f.format(after[k]):>12}   {note}".rstrip() for t, k, f, note in rows]
    ratio = after["generator_accuracy"] / after["unigram_accuracy"]
    return "\n".join([*lines, "", f"   The generator is right {ratio:.1f} times as often as the unigram guess."])


def find_sentences(documents: Sequence[str], seed: int) -> list[str]:
    """Up to 200 different plain sentences of 6 to 14 words, in random order."""
    text = "\n".join(" ".join(document.split()) for document in documents)
    found = re.findall(r"(?<=[.!?] )[A-Z][a-z]*(?: [A-Za-z]+,?){5,13}[.!?](?=\s)", text)
    sentences = sorted(set(found))
    return random.Random(seed).sample(sentences, min(_N_SENTENCES, len(sentences)))


def replace_words(
    sentence: str, words: Sequence[str], tokenizer: ElectraTokenizer, chance: random.Random
) -> tuple[str, list[bool]]:
    """Replaces one word in six by random others; returns the text, and for each token whether it is replaced."""
    parts = sentence.split(" ")
    places = set(chance.sample(range(len(parts)), max(1, len(parts) // 6)))
    flags: list[bool] = []
    for place in range(len(parts)):
        if place in places:
            bare = parts[place].rstrip(",.!?")
            other = chance.choice([word for word in words if word != bare.lower()])
            n_tokens = len(tokenizer.tokenize(other))
            parts[place] = other + parts[place][len(bare) :]
            flags += [True] * n_tokens + [False] * (len(tokenizer.tokenize(parts[place])) - n_tokens)
        else:
            flags += [False] * len(tokenizer.tokenize(parts[place]))
    return " ".join(parts), flags


def marked(detection: Detection, flags: Sequence[bool], threshold: float) -> list[tuple[str, str, bool]]:
    """Cells of a table: tokens, those that were replaced in brackets, and 1 below those that are taken for it, or 0."""
    rows = zip(detection.tokens, flags, detection.probabilities, strict=True)
    return [(f"[{token}]" if flag else token, str(int(p > threshold)), flag) for token, flag, p in rows]


@torch.inference_mode()
def compare_speed(ours: torch.nn.Module, theirs: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, float]:
    """Times two models on one padded batch, turn by turn, so that other work on the machine slows both alike."""
    is_real = batch["attention_mask"] != 0
    difference = (ours(**batch).logits - theirs(**batch).logits)[is_real].abs().max()
    seconds: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + _SPEED_SECONDS
    while time.perf_counter() < end or len(seconds[0]) < 5:
        for model, times in zip((ours, theirs), seconds, strict=True):
            start = time.perf_counter()
            model(**batch)
            times.append(time.perf_counter() - start)
    lengths = is_real.sum(1)
    return {
        "n_texts": len(lengths),
        "shortest": int(lengths.min()),
        "longest": int(lengths.max()),
        "n_rounds": len(seconds[0]),
        "ours_ms": 1000 * statistics.median(seconds[0]),
        "theirs_ms": 1000 * statistics.median(seconds[1]),
        "ratio": statistics.median(b / a for a, b in zip(*seconds, strict=True)),
        "max_difference": float(difference),
    }


_CLOSING = """
What two minutes teach: the generator knows frequent words and phrases of this text, and beats the best constant guess.
The discriminator tells unlikely words from likely ones, hardly more. The preset makes it easy: it samples replacements
at temperature 2, stranger ones than the paper's temperature 1 gives. There two minutes would leave the AUC close to
chance: to beat a generator at its own game takes hours. The paper's small model took four days on one GPU.

Where to go next:
   {command} detect --model {out}/discriminator --threshold {threshold:.2f} "Return the fox of the list."
   {command} fill-mask --model {out}/generator "Return the [MASK] of the list."
   {command} pretrain --preset small --data YOUR_TEXT --out runs/small
"""


def _command() -> str:
    """The command to type here: electra-fast, or its path if it is not on PATH, as in make's .venv."""
    if shutil.which("electra-fast"):
        return "electra-fast"
    path, here = Path(sys.executable).with_name("electra-fast"), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def main() -> int:
    """Runs the demo; returns the exit code."""
    return exit_code("demo", lambda: tyro.cli(Demo, prog="python -m electra_fast.cli.demo").run())


if __name__ == "__main__":
    sys.exit(main())
