"""ElectraConfig: the Hub's config.json as a Python object.

Field names, defaults and meaning are those of transformers 5's ElectraConfig. Keys that ELECTRA does not know are kept
as attributes and written back, so that a config from the wild survives a round trip.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import torch

from ..disk import made, read_json_object, written
from ..ops.reference import ACTIVATIONS
from ..processor import memory
from .fields import as_dtype, check_field, json_value

# Read and written by every config of the transformers family; left out of the file while they hold these values.
_COMMON_DEFAULTS: dict[str, Any] = {
    "output_attentions": False,
    "output_hidden_states": False,
    "return_dict": True,
    "chunk_size_feed_forward": 0,
    "is_encoder_decoder": False,
    "problem_type": None,
    "architectures": None,
    "dtype": None,
}
# Fields that decide how many weights a model has.
_SIZES = (
    "vocab_size",
    "max_position_embeddings",
    "type_vocab_size",
    "embedding_size",
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
)


class ElectraConfig:
    """Shape and behaviour of an ELECTRA model.

    Each field is checked whenever it is set, by `fields.check_field`; how fields fit together is checked by `validate`.

    Args:
        vocab_size: rows of the word table.
        embedding_size: width E of the embedding tables; a projection E -> H is added where it differs from the hidden
            size.
        hidden_size: width H of the encoder; a multiple of `num_attention_heads`.
        num_hidden_layers, num_attention_heads, intermediate_size: the encoder's shape.
        hidden_act: name of the activation (see `electra_fast.ops.reference.ACTIVATIONS`) or a function on tensors.
        hidden_dropout_prob, attention_probs_dropout_prob: dropout rates in training.
        max_position_embeddings: the longest sequence.
        num_labels, id2label, label2id: the labels of a task head (default: two, `LABEL_0` and `LABEL_1`).
        dtype: the dtype of the weights, as a torch dtype or its name; kept as a torch dtype. `torch_dtype` is its name
            in transformers 4.
        **kwargs: any other key of a config.json; kept as an attribute and written back.

    Raises:
        ValueError: a field of a wrong kind, a size that is not positive or out of all reason, a hidden size that the
            heads do not divide, a key that is the name of a method.
    """

    model_type = "electra"

    def __init__(
        self,
        /,
        vocab_size: int = 30522,
        embedding_size: int = 128,
        hidden_size: int = 256,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 4,
        intermediate_size: int = 1024,
        hidden_act: str = "gelu",
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        summary_type: str = "first",
        summary_use_proj: bool = True,
        summary_activation: str | None = "gelu",
        summary_last_dropout: float = 0.1,
        pad_token_id: int | None = 0,
        use_cache: bool = True,
        classifier_dropout: float | None = None,
        is_decoder: bool = False,
        add_cross_attention: bool = False,
        bos_token_id: int | None = None,
        eos_token_id: int | list[int] | None = None,
        tie_word_embeddings: bool = True,
        num_labels: int | None = None,
        id2label: dict[int, str] | None = None,
        label2id: dict[str, int] | None = None,
        **kwargs: Any,
    ):
        self.vocab_size = vocab_size
        self.embedding_size = embedding_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.summary_type = summary_type
        self.summary_use_proj = summary_use_proj
        self.summary_activation = summary_activation
        self.summary_last_dropout = summary_last_dropout
        self.pad_token_id = pad_token_id
        self.use_cache = use_cache
        self.classifier_dropout = classifier_dropout
        self.is_decoder = is_decoder
        self.add_cross_attention = add_cross_attention
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.tie_word_embeddings = tie_word_embeddings
        self.__dict__.update(copy.deepcopy(_COMMON_DEFAULTS))
        torch_dtype = kwargs.pop("torch_dtype", None)  # the name in transformers 4
        if kwargs.get("dtype") is None:
            kwargs["dtype"] = torch_dtype
        kwargs.pop("model_type", None)
        for name, labels in (("id2label", id2label), ("label2id", label2id)):
            if labels is not None:
                check_field(name, labels)
        if id2label is not None:
            self.id2label = {int(k): v for k, v in id2label.items()}
            self.label2id = dict(label2id) if label2id else {v: k for k, v in self.id2label.items()}
            if num_labels is not None and num_labels != len(self.id2label):
                self.num_labels = num_labels
        else:
            self.num_labels = 2 if num_labels is None else num_labels
        for key, value in kwargs.items():
            setattr(self, key, value)
        self.validate()

    def __setattr__(self, name: str, value: Any) -> None:
        check_field(name, value)
        own = getattr(type(self), name, None)
        if callable(own) or name.startswith("__"):
            raise ValueError(f"{name} must be no field of a config, since {type(self).__name__} has a method of that "
                             f"name, got {value!r:.80}")  # fmt: skip
        if isinstance(own, property) and own.fset is None:
            if value != getattr(self, name):
                raise ValueError(
                    f"{name} must be {getattr(self, name)}, which follows from the other fields, got {value!r:.80}"
                )
            return
        super().__setattr__(name, as_dtype(value) if name == "dtype" else value)

    def validate(self) -> None:
        """Raises ValueError for fields that do not fit together; each model calls it when it is made."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size must be a multiple of num_attention_heads, got {self.hidden_size} and "
                f"{self.num_attention_heads}"
            )
        if isinstance(self.hidden_act, str) and self.hidden_act not in ACTIVATIONS:
            raise ValueError(f"hidden_act must be one of {', '.join(ACTIVATIONS)}, got {self.hidden_act!r}")
        if self.pad_token_id is not None and not -self.vocab_size <= self.pad_token_id < self.vocab_size:
            size = self.vocab_size
            raise ValueError(f"pad_token_id must be in [{-size}, {size}), by vocab_size, got {self.pad_token_id}")
        if self.add_cross_attention and not self.is_decoder:
            raise ValueError("add_cross_attention needs is_decoder=True")
        if self.problem_type == "single_label_classification" and self.num_labels == 1:
            raise ValueError(
                "problem_type 'single_label_classification' needs num_labels of at least 2, got 1: every text would be "
                "of that class; 'regression' predicts one number"
            )
        position = getattr(self, "position_embedding_type", "absolute")
        if position not in (None, "absolute"):
            raise ValueError(f"position_embedding_type must be 'absolute', got {position!r}: relative positions of "
                             "transformers 4 are not supported")  # fmt: skip

    def check_memory(self) -> None:
        """Raises ValueError where the weights of any model of this config are larger than `processor.memory`."""
        tables = (self.vocab_size + self.max_position_embeddings + self.type_vocab_size) * self.embedding_size
        layers = self.num_hidden_layers * self.hidden_size * (4 * self.hidden_size + 2 * self.intermediate_size)
        needed = (tables + layers) * torch.get_default_dtype().itemsize
        if needed > memory():
            sizes = ", ".join(f"{name} {getattr(self, name):,}" for name in _SIZES)
            raise ValueError(
                f"a model must fit into the memory that this process may use, {memory() / 2**30:,.1f} GiB, one of this "
                f"config needs {needed / 2**30:,.1f} GiB: {sizes}"
            )

    @property
    def torch_dtype(self) -> torch.dtype | None:
        """The name of `dtype` in transformers 4."""
        return self.dtype

    @torch_dtype.setter
    def torch_dtype(self, dtype: str | torch.dtype | None) -> None:
        self.dtype = dtype

    # Labels: the size of id2label is their number, as in transformers.

    @property
    def num_labels(self) -> int:
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, num_labels: int) -> None:
        self.id2label = {i: f"LABEL_{i}" for i in range(num_labels)}
        self.label2id = {label: i for i, label in self.id2label.items()}

    @property
    def use_return_dict(self) -> bool:
        return self.return_dict

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_attention_heads

    # Reading

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> ElectraConfig:
        """Reads config.json from a directory, a file or the Hub; keyword arguments that are fields override it.

        Accepts the Hub options of `electra_fast.hub.files.find_file` (revision, token, cache_dir, subfolder, ...).
        """
        from ..hub.files import HUB_OPTIONS, find_file

        options = {name: kwargs.pop(name) for name in HUB_OPTIONS if name in kwargs}
        source = Path(pretrained_model_name_or_path)
        path = source if source.is_file() else find_file(pretrained_model_name_or_path, "config.json", **options)
        for name in ("dtype", "torch_dtype"):
            if kwargs.get(name) == "auto":  # the file's own
                del kwargs[name]
        return cls.from_dict({**read_json_object(path), **kwargs})

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> ElectraConfig:
        """Builds a config from a dictionary; raises ValueError where the dictionary is another model's."""
        model_type = config_dict.get("model_type", "electra")
        if model_type != "electra":
            raise ValueError(
                f"config.json must have model_type 'electra', got {model_type!r}: this is another model's config"
                + ("; `electra-fast convert` makes an ElectraModel of a BERT" if model_type == "bert" else "")
            )
        return cls(**{**config_dict, **kwargs})

    @classmethod
    def from_json_file(cls, json_file: str | os.PathLike) -> ElectraConfig:
        return cls.from_dict(read_json_object(json_file))

    # Writing

    def to_dict(self) -> dict[str, Any]:
        """Every field, as JSON values."""
        output = {k: json_value(copy.deepcopy(v)) for k, v in self.__dict__.items() if k != "_name_or_path"}
        output["model_type"] = self.model_type
        return output

    def to_diff_dict(self) -> dict[str, Any]:
        """`to_dict` without the keys common to all models that hold their defaults."""
        output = self.to_dict()
        default_labels = {i: f"LABEL_{i}" for i in range(2)}
        common = {**_COMMON_DEFAULTS, "id2label": default_labels, "label2id": {v: k for k, v in default_labels.items()}}
        return {k: v for k, v in output.items() if k not in common or v != common[k]}

    def to_json_string(self, use_diff: bool = True) -> str:
        return json.dumps(self.to_diff_dict() if use_diff else self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike, use_diff: bool = True) -> None:
        with written(json_file_path) as file:
            file.write(self.to_json_string(use_diff))

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Writes config.json into a directory, and creates it if need be."""
        from ..hub.files import push_directory

        made(save_directory)
        self.to_json_file(Path(save_directory) / "config.json")
        if push_to_hub:
            repo_id = kwargs.pop("repo_id", Path(save_directory).name)
            push_directory(save_directory, repo_id, files=["config.json"], **kwargs)

    def update(self, config_dict: dict[str, Any]) -> None:
        for key, value in config_dict.items():
            setattr(self, key, value)
        self.validate()

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> ElectraConfig:
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ElectraConfig) and self.to_dict() == other.to_dict()

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"
