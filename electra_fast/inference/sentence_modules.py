"""What a directory of sentence-transformers says about the way from hidden states to a text's vector.

Its modules.json lists modules that follow each other: a Transformer, a Pooling, then any number of Dense, Normalize,
LayerNorm and Dropout. All their options are honoured; a module, a file or an option that would change the vectors in a
way that is not known here is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..disk import read_json, read_json_object
from ..hub.files import find_file
from ..hub.weights import fit, read_state_dict
from ..tokenizer import ElectraTokenizer
from .pooling import POOLINGS, Pooling

MODEL_FILE = "config_sentence_transformers.json"
# Files that sentence-transformers writes beside a model, and that mean nothing without the list of modules.
_BESIDE_MODULES = ("sentence_bert_config.json", "1_Pooling/config.json")
# How earlier versions wrote a pooling's modes, in the order in which their vectors are joined.
_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_VECTOR = "sentence_embedding"
# The options of a Transformer that gives the last hidden states.
_STATES = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}


@dataclass(frozen=True, kw_only=True)
class SentenceModules:
    """The modules around the encoder, and the prompts.

    Attributes:
        subfolder: where encoder and tokenizer lie in the directory.
        max_length: the number of tokens that texts are cut to, [CLS] and [SEP] included; None is the tokenizer's.
        lowercases: whether texts are to be put into lower case, whatever the tokenizer does.
        pooling: the modes, whose vectors are joined.
        pools_prompt: whether the prompt's tokens are pooled, too.
        width: numbers of a hidden state, as the pooling expects them.
        head: what follows the pooling, from [texts, width * modes] to [texts, size].
        size: numbers in a text's vector.
        prompts: texts to put before a text, by name.
        default_prompt: the name of the one that is taken if a call names none.
    """

    subfolder: str
    max_length: int | None
    lowercases: bool
    pooling: tuple[Pooling, ...]
    pools_prompt: bool
    width: int
    head: nn.Sequential
    size: int
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None

    def prompt(self, prompt: str | None, name: str | None) -> str:
        """The text to put before every text: the given one, the named one, or else the default."""
        if prompt is not None:
            return prompt
        name = self.default_prompt if name is None else name
        if name is None:
            return ""
        if name not in self.prompts:
            raise ValueError(f"prompt_name must be one of {', '.join(self.prompts) or 'none'}, got {name!r}")
        return self.prompts[name]


def read_sentence_modules(name_or_path: str | os.PathLike) -> SentenceModules | None:
    """The modules of a directory of sentence-transformers or of the Hub; None where it is none.

    Raises:
        ValueError: a module, an option or a prompt that is not known here, modules that do not fit together, a file
            that is damaged or lacks its list of modules.
        FileNotFoundError: a module without its files.
    """
    listed = find_file(name_or_path, "modules.json", required=False)
    if listed is None:
        for filename in _BESIDE_MODULES:
            if find_file(name_or_path, filename, required=False) is not None:
                raise ValueError(
                    f"{name_or_path} must hold modules.json beside {filename}, which is of a model of "
                    f"sentence-transformers; or neither, and is then an encoder alone"
                )
        return None
    kinds = listed_modules(listed)
    if [kind for kind, _ in kinds[:2]] != ["Transformer", "Pooling"]:
        found = ", ".join(kind for kind, _ in kinds) or "nothing"
        raise ValueError(f"{listed} must list a Transformer and then a Pooling, got {found}")
    if unknown := [kind for kind, _ in kinds[2:] if kind not in _HEADS]:
        raise ValueError(
            f"{listed} must list, after its Pooling, only {', '.join(_HEADS)}, got {unknown[0]}: load this model with "
            f"sentence-transformers"
        )
    subfolder = kinds[0][1]
    max_length, lowercases = read_transformer(name_or_path, subfolder, _STATES)
    pooling, width, pools_prompt = _pooling(find_file(name_or_path, "config.json", subfolder=kinds[1][1]))
    layers, size = [], width * len(pooling)
    for kind, folder in kinds[2:]:
        layer, size = _HEADS[kind](name_or_path, folder, size)
        layers.append(layer)
    about = find_file(name_or_path, MODEL_FILE, required=False)
    prompts, default_prompt = read_prompts(about, "SentenceTransformer")
    return SentenceModules(
        subfolder=subfolder,
        max_length=max_length,
        lowercases=lowercases,
        pooling=pooling,
        pools_prompt=pools_prompt,
        width=width,
        head=nn.Sequential(*layers).eval().requires_grad_(False),
        size=size,
        prompts=prompts,
        default_prompt=default_prompt,
    )


def listed_modules(path: Path) -> list[tuple[str, str]]:
    """The class and the folder of each module, in order."""
    content = read_json(path)
    if not isinstance(content, list) or not all(isinstance(module, dict) for module in content):
        raise ValueError(f"{path} must hold a JSON list of objects")
    found = []
    for module in content:
        kind, folder = module.get("type"), module.get("path")
        if not isinstance(kind, str) or not kind.startswith("sentence_transformers."):
            raise ValueError(f"{path} must list modules of sentence-transformers, got the type {kind!r:.80}")
        if not isinstance(folder, str) or Path(folder).is_absolute() or ".." in Path(folder).parts:
            raise ValueError(f"{path} must give each module a path within the directory, got {folder!r:.80}")
        if module.get("kwargs"):
            raise ValueError(f"{path} must list modules without kwargs, got {module['kwargs']!r:.80} for {kind}")
        found.append((kind.rpartition(".")[2], folder))
    return found


def read_transformer(
    name_or_path: str | os.PathLike, folder: str, expected: Mapping[str, Any]
) -> tuple[int | None, bool]:
    """The length that texts are cut to, and whether they are put into lower case.

    Raises:
        ValueError: another option of the encoder that has a value which is not `expected`.
    """
    path = find_file(name_or_path, "sentence_bert_config.json", subfolder=folder, required=False)
    config = {} if path is None else read_json_object(path)
    for key, value in config.items():
        if key in ("max_seq_length", "do_lower_case", "unpad_inputs"):
            continue
        if value and value != expected.get(key):
            raise ValueError(f"{path} has {key} = {value!r:.80}, which is not supported")
    length, lowercases = config.get("max_seq_length"), config.get("do_lower_case", False)
    if length is not None and not _is_size(length, at_least=2):
        raise ValueError(f"{path} must have a max_seq_length of at least 2, got {length!r:.80}")
    return length, bool(lowercases)


def _pooling(path: Path) -> tuple[tuple[Pooling, ...], int, bool]:
    """(modes, numbers of a hidden state, whether the prompt is pooled)"""
    config = read_json_object(path)
    modes = config.get("pooling_mode", [mode for key, mode in _MODES.items() if config.get(key)] or "mean")
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes or any(mode not in POOLINGS for mode in modes):
        raise ValueError(f"{path} must have a pooling_mode of {', '.join(POOLINGS)}, got {modes!r:.80}")
    width = config.get("embedding_dimension", config.get("word_embedding_dimension"))
    if not _is_size(width):
        raise ValueError(f"{path} must have an embedding_dimension, got {width!r:.80}")
    return tuple(modes), width, config.get("include_prompt") is not False


def read_prompts(path: Path | None, model_type: str) -> tuple[dict[str, str], str | None]:
    """The prompts by name, and the name of the default one, of a config_sentence_transformers.json or of none."""
    config = {} if path is None else read_json_object(path)
    # Earlier versions write no type.
    if (found := config.get("model_type") or model_type) != model_type:
        raise ValueError(f"{path} must be of a {model_type}, got a {found!r:.80}")
    prompts, default = config.get("prompts") or {}, config.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str | None) for prompt in prompts.values()):
        raise ValueError(f"{path} must have prompts by name, got {prompts!r:.80}")
    prompts = {name: prompt for name, prompt in prompts.items() if prompt is not None}
    if default is not None and default not in prompts:
        raise ValueError(f"{path} must have the prompt that it names as default, {default!r:.80}")
    return prompts, default


def check_case(name_or_path: str | os.PathLike, lowercases: bool, tokenizer: ElectraTokenizer) -> None:
    """Raises ValueError if texts are to be put into lower case, which the tokenizer does not do."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    if lowercases and (normalizer is None or normalizer.normalize_str("A") != "a"):
        raise ValueError(
            f"{name_or_path} asks for texts in lower case, by do_lower_case in its sentence_bert_config.json; its "
            f"tokenizer must do that, and keeps capitals"
        )


def activation(path: Path, name: Any) -> nn.Module:
    """The activation of this name, such as torch.nn.modules.activation.Tanh, that the file asks for."""
    module, _, kind = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    found = getattr(nn, kind, None) if module.startswith("torch.nn") else None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f"{path} must have an activation function of torch.nn, got {name!r:.80}")
    try:
        return found()
    except TypeError as error:
        raise ValueError(f"{path} must have an activation function without arguments, got {name}: {error}") from error


class _Dense(nn.Module):
    """Linear layer, activation and, if there is a residual, the input or a product of it."""

    def __init__(self, n_in: int, n_out: int, bias: bool, activation: nn.Module, has_residual: bool):
        super().__init__()
        self.linear = nn.Linear(n_in, n_out, bias=bias)
        self.activation = activation
        self.residual: nn.Module | None = None
        if has_residual:
            self.residual = nn.Identity() if n_in == n_out else nn.Linear(n_in, n_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.linear(x))
        return y if self.residual is None else y + self.residual(x)


class _LayerNorm(nn.Module):
    def __init__(self, size: int):
        super().__init__()
        self.norm = nn.LayerNorm(size)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class _Normalize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, dim=1)


def _dense(name_or_path: str | os.PathLike, folder: str, size: int) -> tuple[nn.Module, int]:
    path = find_file(name_or_path, "config.json", subfolder=folder)
    config = read_json_object(path)
    _check_is_of_vectors(path, config)
    n_in, n_out = config.get("in_features"), config.get("out_features")
    if n_in != size or not _is_size(n_out):
        raise ValueError(f"{path} must take the {size} numbers that come before it, got {n_in!r:.20} -> {n_out!r:.20}")
    function = activation(path, config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    bias, has_residual = (bool(config.get(key, default)) for key, default in (("bias", True), ("use_residual", False)))
    return _loaded(_Dense(n_in, n_out, bias, function, has_residual), name_or_path, folder), n_out


def _layer_norm(name_or_path: str | os.PathLike, folder: str, size: int) -> tuple[nn.Module, int]:
    path = find_file(name_or_path, "config.json", subfolder=folder)
    if (dimension := read_json_object(path).get("dimension")) != size:
        raise ValueError(f"{path} must take the {size} numbers that come before it, got {dimension!r:.20}")
    return _loaded(_LayerNorm(size), name_or_path, folder), size


def _normalize(name_or_path: str | os.PathLike, folder: str, size: int) -> tuple[nn.Module, int]:
    path = find_file(name_or_path, "config.json", subfolder=folder, required=False)
    if path is not None:
        _check_is_of_vectors(path, read_json_object(path))
    return _Normalize(), size


def _dropout(name_or_path: str | os.PathLike, folder: str, size: int) -> tuple[nn.Module, int]:
    return nn.Identity(), size


# The modules after a pooling: each gives (module, numbers that come out) for the numbers that go in.
_HEADS: dict[str, Callable[[str | os.PathLike, str, int], tuple[nn.Module, int]]] = {
    "Dense": _dense,
    "Normalize": _normalize,
    "LayerNorm": _layer_norm,
    "Dropout": _dropout,
}


def _check_is_of_vectors(path: Path, config: Mapping[str, Any]) -> None:
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, _VECTOR):
            raise ValueError(f"{path} must read and write {_VECTOR}, got {key} = {config[key]!r:.80}")


def _loaded(module: nn.Module, name_or_path: str | os.PathLike, folder: str) -> nn.Module:
    """The module with the weights of its folder."""
    read = read_state_dict(lambda name: find_file(name_or_path, name, subfolder=folder, required=False))
    if read is None:
        raise FileNotFoundError(
            f"{folder} of {name_or_path} must hold weights, one of model.safetensors, pytorch_model.bin"
        )
    path, state = read
    found = fit(state, module.state_dict(), prefix="")
    found.check(path, folder, ignore_mismatched_sizes=False)
    if found.missing:
        raise ValueError(f"{path} must hold {', '.join(found.missing)}, which it lacks")
    module.load_state_dict(found.tensors)
    return module


def _is_size(value: Any, at_least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= at_least
