"""ElectraPreTrainedModel: everything that the model classes share besides their forwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .. import ops
from ..ops import Impl
from .captured import CapturedEncoder
from .config import ElectraConfig
from .cpu_encoder import CpuEncoder, Precision
from .cpu_parameters import why_not_for
from .layers import checkpoint_activations
from .outputs import ModelOutput
from .pretrained import HubMixin


class ElectraPreTrainedModel(HubMixin, nn.Module):
    """Base of all classes: `from_pretrained`, `save_pretrained` and `push_to_hub` come from HubMixin.

    Args:
        config: the model's shape.
        impl: which code serves the ops, "auto", "triton" or "torch"; fixed at construction.
    """

    config_class = ElectraConfig
    base_model_prefix = "electra"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ("ElectraLayer", "ElectraEmbeddings")
    _tied_weights_keys: dict[str, str] = {}  # noqa: RUF012 - replaced, never changed, by subclasses

    def __init__(self, config: ElectraConfig, impl: Impl = "auto"):
        super().__init__()
        if not isinstance(config, ElectraConfig):
            raise TypeError(f"config must be an electra_fast.ElectraConfig, got {type(config).__name__}")
        config.validate()
        config.check_memory()
        self.config = config
        self.ops = ops.select(impl)

    @classmethod
    def from_config(cls, config: ElectraConfig, dtype: torch.dtype | None = None, impl: Impl = "auto"):
        """A model with fresh weights."""
        model = cls(config, impl=impl)
        return model if dtype is None else model.to(dtype)

    _from_config = from_config

    # Weights

    def post_init(self) -> None:
        """Gives the model fresh weights and ties; each constructor calls it last."""
        self.apply(self._init_weights)
        self.tie_weights()

    def init_weights(self) -> None:
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Draws matrices and tables with std `initializer_range`; biases and padding row are 0, LayerNorm 1 and 0."""
        if any(parameter.is_meta for parameter in module.parameters(recurse=False)):
            return  # there are no values, and torch takes milliseconds a table to draw none
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding) and module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)

    def tie_weights(self) -> None:
        """Makes the output embeddings the same Parameter as the word table, where the config ties them."""
        head = self.get_output_embeddings()
        if head is not None and self.config.tie_word_embeddings:
            head.weight = self.get_input_embeddings().weight

    # Embeddings

    @property
    def base_model(self) -> nn.Module:
        return getattr(self, self.base_model_prefix, self)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.base_model.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.base_model.embeddings.word_embeddings = value

    def get_output_embeddings(self) -> nn.Linear | None:
        return getattr(self, "generator_lm_head", None)

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.generator_lm_head = new_embeddings

    def get_position_embeddings(self) -> nn.Embedding:
        return self.base_model.embeddings.position_embeddings

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Changes the number of rows of the word table, and of the vocabulary head with it.

        Old rows keep their values; new ones are the mean of the old, or fresh where `mean_resizing` is false. Sets
        `config.vocab_size`; returns the table.
        """
        old = self.get_input_embeddings()
        n_rows = old.num_embeddings if new_num_tokens is None else new_num_tokens
        if pad_to_multiple_of is not None:
            n_rows = -(-n_rows // pad_to_multiple_of) * pad_to_multiple_of
        if n_rows < 1:
            raise ValueError(f"new_num_tokens must be at least 1, got {new_num_tokens}")
        if n_rows == old.num_embeddings:
            return old
        padding_idx = old.padding_idx if old.padding_idx is not None and old.padding_idx < n_rows else None
        new = nn.Embedding(n_rows, old.embedding_dim, padding_idx, device=old.weight.device, dtype=old.weight.dtype)
        self._init_weights(new)
        _copy_rows(new.weight, old.weight, mean_resizing)
        self.set_input_embeddings(new.requires_grad_(old.weight.requires_grad))

        head = self.get_output_embeddings()
        if head is not None:
            new_head = nn.Linear(head.in_features, n_rows, device=head.weight.device, dtype=head.weight.dtype)
            self._init_weights(new_head)
            _copy_rows(new_head.weight, head.weight, mean_resizing)
            _copy_rows(new_head.bias, head.bias, mean_resizing)
            new_head.weight.requires_grad_(head.weight.requires_grad)
            new_head.bias.requires_grad_(head.bias.requires_grad)
            self.set_output_embeddings(new_head)
        self.config.vocab_size = n_rows
        self.tie_weights()
        return new

    # Facts

    @property
    def dtype(self) -> torch.dtype:
        return next(p.dtype for p in self.parameters() if p.is_floating_point())

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def name_or_path(self) -> str:
        return getattr(self.config, "_name_or_path", "")

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        return {"input_ids": torch.tensor([[1, 2, 3], [1, 2, 0]], device=self.device)}

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Number of parameters, tied ones counted once; `exclude_embeddings` leaves out the three tables."""
        tables = {id(m.weight) for m in self.modules() if isinstance(m, nn.Embedding)} if exclude_embeddings else set()
        return sum(
            p.numel() for p in self.parameters() if (p.requires_grad or not only_trainable) and id(p) not in tables
        )

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes of the parameters, and of the buffers unless told otherwise."""
        return sum(t.nbytes for t in [*self.parameters(), *(self.buffers() if return_buffers else ())])

    def can_generate(self) -> bool:
        return hasattr(self, "generate")

    # CUDA graphs

    def capture(self, max_tokens: int = 8192) -> ElectraPreTrainedModel:
        """Makes inference replay CUDA graphs from now on; returns self.

        Launching is most of the time of a small batch, and a replay saves it. Graphs serve calls in eval mode under
        `torch.no_grad()` or `torch.inference_mode()` with at most `max_tokens` tokens. The first call in each bucket of
        sizes takes a moment longer: it records the graph.

        Raises:
            ValueError: a model that is not on a CUDA device.
        """
        if self.device.type != "cuda":
            raise ValueError(
                f"capture() records CUDA graphs: the model must be on a CUDA device, it is on {self.device}"
            )
        self.base_model.captured = CapturedEncoder(max_tokens)
        return self

    # Eight bits

    def quantize(self, precision: Precision = "int8") -> ElectraPreTrainedModel:
        """Makes the encoder compute its linear layers in eight bits, for inference on a CPU; returns self.

        Weights are rounded per output column and activations per token, when they are used: nothing is calibrated. The
        parameters stay as they are, so the model is saved as it was; "fp32" undoes it. A call that cannot be served in
        eight bits (gradients, attentions as an output) raises RuntimeError.

        Raises:
            ValueError: an unknown precision, a processor without kernels for it, or a model that only torch computes.
        """
        if precision != "fp32" and (reason := why_not_for(self.config)):
            raise ValueError(f"{precision} is not for this model: {reason}")
        self.unpack_weights()
        self.base_model.cpu_encoder = CpuEncoder(precision)
        return self

    # Weights held once

    def prepack_weights(self) -> ElectraPreTrainedModel:
        """Keeps the encoder's weights in the order in which the C++ encoder reads them, and in no other; returns self.

        For inference on a CPU, in fp32 or eight bits, where they are held twice otherwise: as parameters, and in that
        order. A call that the C++ encoder cannot serve (gradients, training mode, attentions as an output) raises
        RuntimeError. `state_dict`, `save_pretrained`, copies and pickles have the weights as before; `unpack_weights`,
        moves, casts and `load_state_dict` bring the parameters back, to the last bit. Eight bits have no way back, and
        all of these raise ValueError. Gradients are not kept. A parameter that something else holds, an optimizer or
        another model, stays in memory and is the one that comes back.

        Raises:
            ValueError: a model that the C++ encoder does not serve as it is.
        """
        encoder = self.base_model.cpu_encoder
        reason = "its impl is not 'auto'" if encoder is None else encoder.prepack(self.base_model)
        if reason is not None:
            raise ValueError(f"weights are prepacked for inference by the C++ encoder, which cannot serve it: {reason}")
        return self

    def unpack_weights(self) -> ElectraPreTrainedModel:
        """Undoes `prepack_weights`; returns self.

        Raises:
            ValueError: weights in eight bits, which have no way back.
        """
        if self.base_model.cpu_encoder is not None:
            self.base_model.cpu_encoder.unpack(self.base_model)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ElectraPreTrainedModel:
        # All of torch's casts and moves of modules come here.
        self.unpack_weights()
        return super()._apply(fn, recurse)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self.unpack_weights()
        return super().load_state_dict(*args, **kwargs)

    # Activation checkpointing, and transformers' older name for it

    @property
    def is_gradient_checkpointing(self) -> bool:
        return self.base_model.encoder.gradient_checkpointing

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: dict[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Recomputes each layer in the backward instead of keeping its activations: `checkpoint_activations`."""
        checkpoint_activations(self, activation_checkpointing_kwargs, every_n_layers, offload)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs)

    def gradient_checkpointing_disable(self) -> None:
        self.base_model.encoder.gradient_checkpointing = False

    def enable_input_require_grads(self) -> None:
        """Makes the embeddings' output require gradients, for training adapters on frozen weights."""
        embeddings = self.base_model.embeddings
        self._input_grads_hook = embeddings.register_forward_hook(lambda _m, _i, output: output.requires_grad_(True))

    def disable_input_require_grads(self) -> None:
        self._input_grads_hook.remove()

    # Forward

    def _result(self, kind: type[ModelOutput], encoded, options: dict[str, Any], **values: Any) -> ModelOutput | tuple:
        """The named result, or a tuple of its values that are not None where `return_dict` is false."""
        output = kind(**values, hidden_states=encoded.hidden_states, attentions=encoded.attentions)
        return_dict = options.get("return_dict")
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()


def prepack_if_served(model: ElectraPreTrainedModel) -> None:
    """Prepacks the weights of a model that is there for inference alone, if the C++ encoder serves it as it is."""
    if model.base_model.cpu_encoder is not None:
        model.base_model.cpu_encoder.prepack(model.base_model)


@torch.no_grad()
def _copy_rows(new: Tensor, old: Tensor, mean_resizing: bool) -> None:
    n_rows = min(len(new), len(old))
    new[:n_rows] = old[:n_rows]
    if mean_resizing:
        new[n_rows:] = old.mean(0)
