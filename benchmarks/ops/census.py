"""Launches of one whole pre-training step and the bytes that they move, counted where no GPU is.

The step is the training loop's own, forward, backward and optimizer, on tensors that have shapes and no numbers
(device meta of torch). Each launch of a Triton kernel is compiled and recorded, and each of torch's operations is seen
by a dispatch mode. So the count needs no list of kernels or operations.

Rules:

- A view or an allocation is no launch. Any other operation of torch is one, but for a product that adds a matrix: torch
  copies the matrix first, unless the product is in place. A sort is one, whatever it launches inside; so is a product
  that splits its sums. What works on the CPU alone is none.
- An operation reads its operands and writes its results, each byte once; broadcast dimensions count once. What it
  changes in place, it also reads, unless it fills or copies. Triton's launches: see ttir.py.
- A part is a layer, or another module of a network, that made the operation, or whose forward the backward's node
  belongs to; what belongs to no module of a network is the objective's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ...pretraining.build import build_model
from ...pretraining.loop import Batch, TrainingLoop
from ...pretraining.recipes import Recipe
from ...pretraining.run_options import PretrainingOptions
from ...training.distributed import World
from ...training.guard import Guard
from ...training.optim import Adam
from ..pretrain.bench import numbered_tokenizer
from ..training import ElectraFastTraining
from . import sass
from .launches import Launch, compiling
from .ttir import Traffic, traffic

META = torch.device("meta")
MULTIPROCESSORS = 132  # of an H100 or H200: grids of kernels that loop depend on it
OPTIMIZER, OBJECTIVE, REST = "optimizer", "objective", "rest of the step"
_LAYER = re.compile(r"^.*?\.layer\.\d+")

_aten = torch.ops.aten
_NO_LAUNCH = {
    _aten.empty, _aten.empty_like, _aten.empty_strided, _aten.new_empty, _aten.new_empty_strided, _aten.detach,
    _aten._unsafe_view, _aten._reshape_alias, _aten.lift_fresh, _aten.set_, _aten.resize_,
}  # fmt: skip
_WRITES_ONLY = {_aten.fill_, _aten.zero_, _aten.copy_}
_PRODUCTS = {_aten.mm, _aten.addmm, _aten.addmm_, _aten.bmm, _aten.baddbmm, _aten.mv, _aten.addmv}


@dataclass(frozen=True)
class Event:
    """One operation of a step, a launch or more.

    Attributes:
        name: name of the Triton kernel, or of torch's operation.
        part: name of the module that it belongs to.
        is_backward: whether it belongs to the backward.
        n_launches: launches; two where torch copies first.
        n_bytes: bytes that are read and written.
        product: (rows, columns, inner) of a product of matrices by the vendor's library, (0, 0, 0) for others.
        launch, traffic: the launch of a Triton kernel and its traffic; None for torch's operations.
    """

    name: str
    part: str
    is_backward: bool
    n_launches: int
    n_bytes: int
    product: tuple[int, int, int] = (0, 0, 0)
    launch: Launch | None = None
    traffic: Traffic | None = None


@dataclass(frozen=True)
class Step:
    """All operations of one update.

    Attributes:
        unit: U, the bytes of one [T, H] tensor of the discriminator in 16 bits.
    """

    recipe: Recipe
    events: tuple[Event, ...]
    unit: int

    @property
    def n_tokens(self) -> int:
        return self.recipe.batch_size * self.recipe.seq_length

    @property
    def n_launches(self) -> int:
        return sum(event.n_launches for event in self.events)

    def layer(self, network: str = "discriminator") -> list[Event]:
        """The operations of a layer in the middle of a network, forward and backward."""
        parts = dict.fromkeys(event.part for event in self.events)
        layers = [part for part in parts if part.startswith(network) and _LAYER.search(part)]
        return [event for event in self.events if event.part == layers[len(layers) // 2]]


def take(recipe: Recipe) -> Step:
    """The census of a recipe's step in bf16 with all kernels.

    Raises:
        ValueError: TRITON_INTERPRET=1 is set.
    """
    recorder = Recorder(recipe.seq_length)
    with _like_a_gpu(), compiling(sass.ARCH, recorder.note):
        loop = _OneStep(recipe)
        training = ElectraFastTraining(loop, Guard())
        with recorder.listening(loop.model):
            training.train(1)  # makes what later steps find: the optimizer's states, tables of addresses
            recorder.events.clear()
            training.train(1)
    width = loop.model.discriminator.config.hidden_size
    return Step(recipe, tuple(recorder.events), 2 * recipe.batch_size * recipe.seq_length * width)


class _OneStep(TrainingLoop):
    """The training loop on tensors without numbers."""

    def __init__(self, recipe: Recipe):
        model = build_model(recipe, numbered_tokenizer(recipe), impl="triton").to(META)
        never = 10**6
        options = PretrainingOptions(
            n_steps=never, log_every=never, checkpoint_every=never, precision="bf16", impl="triton"
        )
        super().__init__(model, recipe, None, World(0, 1, META), options)

    def _batches(self) -> list[Batch]:
        size = self.recipe.batch_size, self.recipe.seq_length
        ids = torch.empty(size, dtype=torch.int64, device=META)
        return [(torch.empty(size[0], 3, size[1], device=META), ids, torch.empty_like(ids, dtype=torch.bool))]


@contextmanager
def _like_a_gpu() -> Iterator[None]:
    """Makes launchers do with tensors on the meta device what they do with CUDA's on an H100 or H200."""
    properties = SimpleNamespace(multi_processor_count=MULTIPROCESSORS)
    with (
        mock.patch.object(Tensor, "is_cuda", property(lambda tensor: tensor.device == META), create=True),
        mock.patch.object(torch.cuda, "get_device_properties", lambda device: properties),
        mock.patch.object(torch.cuda, "is_current_stream_capturing", lambda: False),
    ):
        yield


class Recorder(TorchDispatchMode):
    """Notes every operation with its part.

    A forward's part is the innermost module that is being called. A backward's is the part in whose forward the node of
    autograd was made, which its number tells.
    """

    def __init__(self, seq_length: int):
        super().__init__()
        self.events: list[Event] = []
        self._seq_length = seq_length
        self._calls: list[str] = []
        self._part_of_node: list[str] = []  # by the node's number, from `_first_node` on
        self._first_node = torch._C._autograd._get_sequence_nr()
        self._last = REST
        self._phase = ""

    @contextmanager
    def listening(self, model: nn.Module) -> Iterator[None]:
        """Records what is done within. Modules have no hooks: with them, layers would go other ways."""
        names = {id(module): _part_name(name) for name, module in model.named_modules()}
        call, recorder = nn.Module.__call__, self

        def traced(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            recorder._number_nodes()
            recorder._calls.append(names[id(module)])
            try:
                return call(module, *args, **kwargs)
            finally:
                recorder._number_nodes()
                recorder._calls.pop()

        def updating(optimizer: Adam) -> None:
            recorder._phase = OPTIMIZER
            try:
                update(optimizer)
            finally:
                recorder._phase = ""

        update = Adam.update
        with mock.patch.object(nn.Module, "__call__", traced), mock.patch.object(Adam, "update", updating), self:
            yield

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "electra_fast":
            with self:  # the launcher, not the shape rule: it is registered for all devices
                return func.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), *args, **kwargs)
        with self:
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:  # what is made of other operations is counted as these
            return result
        result = func(*args, **kwargs)
        n_launches = _n_launches(func, args, kwargs, result)
        if n_launches:
            part, is_backward = self._place()
            n_bytes, product = _bytes(func, args, kwargs, result), _product(func, args)
            self.events.append(Event(func._schema.name, part, is_backward, n_launches, n_bytes, product))
        return result

    def note(self, launch: Launch) -> None:
        """Records the launch of a Triton kernel."""
        moved = traffic(launch, {"cu_seqlens_ptr": lambda i: i * self._seq_length})
        self.events.append(Event(launch.name, *self._place(), 1, moved.n_bytes, launch=launch, traffic=moved))

    def _number_nodes(self) -> None:
        """Gives the nodes that were made since the last time to the module that is being called."""
        n_new = torch._C._autograd._get_sequence_nr() - self._first_node - len(self._part_of_node)
        self._part_of_node += [self._part] * n_new

    @property
    def _part(self) -> str:
        return self._calls[-1] if self._calls else REST

    def _place(self) -> tuple[str, bool]:
        """The part of what happens now, and whether it is a backward."""
        if self._phase:
            return self._phase, False
        node = torch._C._current_autograd_node()
        if node is not None:
            self._number_nodes()
            number = node._sequence_nr() - self._first_node
            if 0 <= number < len(self._part_of_node):  # else gradients that are added up: they go to the last part
                self._last = self._part_of_node[number]
            return self._last, True
        return self._part, False


def _part_name(module: str) -> str:
    """The part that a module belongs to: its layer, or else what of its network it lies in."""
    layer = _LAYER.match(module)
    return layer[0] if layer else ".".join(module.removesuffix(".electra").split(".")[:3]) or OBJECTIVE


def _n_launches(func: Any, args: tuple, kwargs: dict[str, Any], result: Any) -> int:
    packet = func.overloadpacket
    tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
    if func.is_view or packet in _NO_LAUNCH or not any(x.device == META and x.numel() for x in tensors):
        return 0
    return 1 + _copies_first(func, args, kwargs)


def _bytes(func: Any, args: tuple, kwargs: dict[str, Any], result: Any) -> int:
    written = {id(x): x for x in tree_leaves(result) if isinstance(x, Tensor)}
    changed: dict[int, Tensor] = {}
    for argument, value in zip(func._schema.arguments, args, strict=False):
        if argument.alias_info is not None and argument.alias_info.is_write:
            changed |= {id(x): x for x in tree_leaves(value) if isinstance(x, Tensor)}
    given = args, {name: value for name, value in kwargs.items() if name != "out"}
    read = {id(x): x for x in tree_leaves(given) if isinstance(x, Tensor)}
    if func.overloadpacket in _WRITES_ONLY:
        read = {key: x for key, x in read.items() if key not in changed}
    total = sum(map(_size, read.values())) + sum(map(_size, (written | changed).values()))
    if _copies_first(func, args, kwargs):
        total += _size(args[0]) + _size(result)
    return total


def _copies_first(func: Any, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether a product that is added to a matrix copies this matrix to the place of the result before."""
    is_sum = func.overloadpacket in (_aten.addmm, _aten.baddbmm) and args[0].dim() > 1
    return is_sum and kwargs.get("out") is not args[0]


def _size(x: Tensor) -> int:
    """The bytes of a tensor in memory."""
    return x.element_size() * math.prod(n for n, stride in zip(x.shape, x.stride(), strict=True) if stride)


def _product(func: Any, args: tuple) -> tuple[int, int, int]:
    if func.overloadpacket not in _PRODUCTS:
        return 0, 0, 0
    a, b = [x for x in args if isinstance(x, Tensor)][-2:]
    columns = b.shape[-1] if b.dim() > 1 else 1
    return math.prod(a.shape[:-1]), columns, a.shape[-1]
