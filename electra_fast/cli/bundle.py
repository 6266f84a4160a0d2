"""Makes the package's small model from a finished pre-training run: `python -m electra_fast.cli.bundle --help`."""

from __future__ import annotations

import csv
from dataclasses import dataclass, fields
from pathlib import Path

import tyro

from ..bundled import DIRECTORY
from ..disk import check_apart, read_json_object, replaced
from .console import exit_code

_MAX_BYTES = 16_000_000
# Either file holds the whole vocabulary, so each network has one, and the package each of them once.
_LEFT_OUT = {"generator": "tokenizer.json", "discriminator": "vocab.txt"}


@dataclass(kw_only=True)
class MakeBundled:
    """Put the networks of a finished run into the package: weights in fp16, and a model card that lists the texts."""

    run_directory: Path
    """A directory written by `pretrain`."""
    sources: Path
    """The table of the texts, with the columns text, package, licence and megabytes, divided by tabs."""
    figures: Path
    """A JSON file of figures for the card, a table for each of its names."""

    def run(self) -> None:
        from ..model.config import ElectraConfig
        from ..model.modeling import ElectraForMaskedLM, ElectraForPreTraining
        from ..pretraining.evaluate import Evaluation
        from ..pretraining.model_card import write_model_card
        from ..pretraining.recipes import Recipe
        from ..pretraining.run_directory import RunDirectory
        from ..tokenizer import ElectraTokenizer
        from ..training.progress import read_records

        check_apart(DIRECTORY, self.run_directory)
        with open(self.sources, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        texts = {f"{row['text']} ({row['package']})": f"{row['licence']}, {row['megabytes']} MB" for row in rows}
        figures = read_json_object(self.figures)
        source = RunDirectory(self.run_directory)
        if not source.is_done:
            raise ValueError(f"{self.run_directory} must be a finished run")
        begun = read_records(source.log, "run")[0]
        lengths: dict[int, int] = {}  # and the steps from which they counted: a run may be given others on its way
        for resumed in (begun, *read_records(source.log, "resume")):
            lengths.setdefault(resumed["n_steps"], resumed["step"])
        record = begun | {
            "n_steps": ", ".join(f"{n} from step {step} on" for n, step in lengths.items()),
            "initial": {network: _beginning(Path(path)) for network, path in begun["initial"].items()},
        }
        found = read_records(source.log, "evaluation")[-1]
        evaluation = Evaluation(**{field.name: found[field.name] for field in fields(Evaluation)})
        recipe = Recipe(**record["recipe"])
        classes = {"generator": ElectraForMaskedLM, "discriminator": ElectraForPreTraining}
        with replaced(DIRECTORY) as temporary:
            for network, model_class in classes.items():
                target = temporary / network
                model = model_class.from_pretrained(source.path / network)
                state = {name: tensor.half() for name, tensor in model.state_dict().items()}
                model.save_pretrained(target, state_dict=state)
                # Weights are stored as fp16 to be small, but loaded and computed as fp32.
                config = ElectraConfig.from_pretrained(target)
                config.dtype = "float32"
                config.save_pretrained(target)
                ElectraTokenizer.from_pretrained(source.path / network).save_pretrained(target)
                (target / _LEFT_OUT[network]).unlink()
                write_model_card(
                    target,
                    network,
                    recipe,
                    {**texts, "fingerprint": record["text"]},
                    evaluation,
                    record | {"step": found["step"]},
                    plot=source.plot if network == "discriminator" else None,
                    figures=figures,
                    license="apache-2.0",
                    language="en",
                )
            size = sum(file.stat().st_size for file in temporary.rglob("*") if file.is_file())
            if size > _MAX_BYTES:
                raise ValueError(
                    f"the bundled model must be at most {_MAX_BYTES / 1e6:.0f} MB, got {size / 1e6:.1f} MB"
                )
        print(f"wrote {DIRECTORY}, {size / 1e6:.1f} MB")


def _beginning(network: Path) -> str:
    """What a network began with, in the words of a reader who does not have that directory."""
    from ..pretraining.run_directory import RunDirectory
    from ..training.progress import read_records

    steps = read_records(RunDirectory(network.parent).log, "end")[-1]["step"]
    return f"the {network.name} of a run of {steps:,} steps"


def main() -> int:
    """Makes the bundled model; returns the exit code."""
    config = (tyro.conf.PositionalRequiredArgs,)
    return exit_code(
        "bundled", lambda: tyro.cli(MakeBundled, prog="python -m electra_fast.cli.bundle", config=config).run()
    )


if __name__ == "__main__":
    raise SystemExit(main())
