"""A checker of every kernel launch in Triton's interpreter: its programs run in random order, its accesses are watched.

The interpreter runs one program after another, and every load and store of one at once, so that it hides what a GPU
would not forgive. `checking` raises a `Fault` where

- two programs touch one address, and one of them stores there: GPUs promise no order between programs;
- a program loads or stores again where it has stored: its threads do not wait for each other's stores;
- two lanes of one store have one address: either may win;
- an address lies outside of the tensor whose pointer it was made from, or is no multiple of its own size;
- an address that was read from a table of pointers lies in no living tensor that a launcher asked for its address;
- an atomic operation and a plain one meet at an address. Atomic operations among themselves may.

Masked-off lanes are not counted. A program may store where it has loaded before, as kernels that work in place do; that
such a store waits for the loads is not checked. A view with gaps counts as all that lies between its first element and
its last.

How an address finds its argument: 48 bits hold every address, so the bits above hold the argument's number while the
kernel computes with it, and are taken off at the access. How accesses find each other: `_Shadow` has, for each element
of a storage, the program that stored there and the one that loaded.
"""

from __future__ import annotations

import inspect
import mmap
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from triton.runtime import interpreter

_ADDRESS_BITS = 48
_ADDRESS = np.uint64(2**_ADDRESS_BITS - 1)
_ATOMIC, _SEVERAL = -1, -1  # in the place of a program's number: who stored, who loaded

# The methods of the interpreter's builder that touch memory: what they do, and where they take pointers and mask.
_ACCESSES = {
    "create_masked_load": ("loads", 1, 2),
    "create_masked_store": ("stores", 1, 3),
    "create_atomic_rmw": ("updates", 2, 4),
    "create_atomic_cas": ("updates", 1, None),
}

_MAP_NORESERVE = 0x4000  # Linux's; Python's mmap does not have it


class Fault(AssertionError):
    """An access that a GPU may answer differently; the message names kernel, program, argument and address."""


@dataclass(frozen=True)
class _Region:
    """The bytes from `start` to `end`, between the first and the last element of a tensor, and its storage's bytes."""

    start: int
    end: int
    storage_start: int
    storage_bytes: int
    itemsize: int
    name: str

    @classmethod
    def of(cls, tensor: Tensor, start: int, name: str) -> _Region:
        last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        n_bytes = (last + 1) * tensor.element_size() if tensor.numel() else 0
        storage = tensor.untyped_storage()
        return cls(start, start + n_bytes, storage.data_ptr(), storage.nbytes(), tensor.element_size(), name)

    def place(self, address: int) -> str:
        """The place of an address, in words."""
        offset = address - self.start
        return f"{self.name}{offset:+d} bytes ({offset / self.itemsize:+g} elements, address {address:#x})"


class _Shadow:
    """The programs that touched each element of a storage in one launch, one more than their number; 0 for none.

    The memory of `writers` and `readers` is committed where it is touched, so that a storage may have any size.
    """

    def __init__(self, region: _Region, grain: int):
        self.origin = region.storage_start // 16 * 16
        self.n_bytes = region.storage_start + region.storage_bytes - self.origin
        self.grain = grain  # bytes of an element
        self.writers, self.readers, self.lanes = (self._zeros() for _ in range(3))

    def _zeros(self) -> np.ndarray:
        n_elements = -(-self.n_bytes // self.grain)
        return np.frombuffer(untouched_memory(4 * n_elements), dtype=np.int32)

    def elements(self, addresses: np.ndarray, size: int) -> np.ndarray:
        """The elements that accesses of `size` bytes touch, [n * size / grain]."""
        if size < self.grain:
            factor = self.grain // size
            self.grain = size
            self.writers, self.readers = self.writers.repeat(factor), self.readers.repeat(factor)
            self.lanes = self._zeros()
        first = (addresses - np.uint64(self.origin)).view(np.int64) // self.grain
        if size == self.grain:
            return first
        return (first[:, None] + np.arange(size // self.grain)).ravel()

    def twice(self, elements: np.ndarray) -> int | None:
        """The place in `elements` of one that is there twice."""
        if (elements[1:] > elements[:-1]).all():
            return None
        lanes = np.arange(len(elements), dtype=np.int32)
        self.lanes[elements] = lanes
        return _first(self.lanes[elements] != lanes)


class _Launch:
    """One launch: the order of its programs, its regions and shadows."""

    def __init__(self, kernel: str, names: dict[int, str], checker: Checker):
        self.kernel, self.checker = kernel, checker
        self._names = names
        self._regions: list[_Region] = []
        self._shadows: dict[int, _Shadow] = {}
        self._dims, self._order, self._program = (1, 1, 1), np.zeros(1, dtype=np.int64), 0
        self.reached: dict[str, tuple[int, int]] = {}

    def set_grid(self, grid: tuple[int, ...]) -> int:
        """Draws the order of the programs, and returns how many will run."""
        self._dims = (*grid, 1, 1)[:3]
        self._order = self.checker.order(int(np.prod(self._dims)))
        return len(self._order)

    @property
    def dims(self) -> tuple[int, int, int]:
        return self._dims

    def begin(self, turn: int) -> tuple[int, int, int]:
        """Begins the program whose turn it is, and returns its ids."""
        self._program = int(self._order[turn])
        return self._ids(self._program)

    def _ids(self, program: int) -> tuple[int, int, int]:
        rest, z = divmod(program, self._dims[2])
        return *divmod(rest, self._dims[1]), z

    def add(self, tensor: Tensor) -> int:
        """Makes a tensor an argument; returns its address with the argument's number in the highest bits."""
        address = tensor.data_ptr()
        self._regions.append(_Region.of(tensor, address, self._names.get(address, "an argument")))
        return len(self._regions) << _ADDRESS_BITS | address

    def access(self, kind: str, pointers: Any, mask: Any) -> Any:
        """Checks the addresses [...] of one access in the lanes that the mask does not rule out; returns real ones."""
        size = interpreter._get_np_dtype(pointers.get_element_ty()).itemsize
        tagged = pointers.data if mask is None else pointers.data[np.broadcast_to(mask.data, pointers.data.shape)]
        tagged = tagged.ravel()
        if len(tagged):
            addresses, tags = tagged & _ADDRESS, tagged >> np.uint64(_ADDRESS_BITS)
            if tags[0] == tags.min() == tags.max():
                self._access(kind, addresses, size, int(tags[0]))
            else:
                for tag in np.unique(tags):
                    self._access(kind, addresses[tags == tag], size, int(tag))
        return interpreter.TensorHandle(pointers.data & _ADDRESS, pointers.dtype)

    def _access(self, kind: str, addresses: np.ndarray, size: int, tag: int) -> None:
        low, high = int(addresses.min()), int(addresses.max())
        region = self._regions[tag - 1] if tag else self._behind_a_table(kind, low, high, size)
        if low < region.start or high + size > region.end:
            outside = _first(
                (addresses < np.uint64(region.start)) | (addresses + np.uint64(size) > np.uint64(region.end))
            )
            length = region.end - region.start
            self._fail(kind, f"{region.place(int(addresses[outside]))}, outside of its {length} bytes")
        if low % size or (addresses % np.uint64(size)).any():
            at = int(addresses[_first(addresses % np.uint64(size) != 0)])
            self._fail(kind, f"{region.place(at)}, which is no multiple of the {size} bytes that it takes")
        ends = ((high - region.start) // size, (region.end - region.start) // size)
        self.reached[region.name] = max(ends, self.reached.get(region.name, ends))
        shadow = self._shadows.get(region.storage_start)
        if shadow is None:
            shadow = self._shadows[region.storage_start] = _Shadow(region, size)
        self._meet(kind, region, shadow, shadow.elements(addresses, size))

    def _behind_a_table(self, kind: str, low: int, high: int, size: int) -> _Region:
        region = self.checker.living(low, high + size)
        if region is None:
            self._fail(
                kind,
                f"addresses {low:#x} to {high + size - 1:#x}, which come from a table of pointers and lie in no one "
                "living tensor whose address was asked for",
            )
        return region

    def _meet(self, kind: str, region: _Region, shadow: _Shadow, elements: np.ndarray) -> None:
        me = self._program + 1
        writers = shadow.writers[elements]
        readers = shadow.readers[elements]

        def fail(bad: np.ndarray, what: Callable[[int, int], str]) -> None:
            at = _first(bad)
            address = shadow.origin + int(elements[at]) * shadow.grain
            self._fail(kind, f"{region.place(address)}, {what(int(writers[at]), int(readers[at]))}")

        def who(number: int) -> str:
            if number == me:
                return "it"
            return "another program" if number < 0 else f"program {self._ids(number - 1)}"

        if kind == "loads":
            if writers.any():
                fail(writers != 0, lambda w, _: f"where {_stored(who(w), w)}")
            shadow.readers[elements] = np.where((readers == 0) | (readers == me), me, _SEVERAL)
            return
        if kind == "updates":
            if (writers > 0).any():
                fail(writers > 0, lambda w, _: f"where {who(w)} stored, which is not atomic")
            if readers.any():
                fail(readers != 0, lambda _, r: f"where {who(r)} loaded, which is not atomic")
            shadow.writers[elements] = _ATOMIC
            return
        if writers.any():
            fail(writers != 0, lambda w, _: f"where {_stored(who(w), w)}")
        if ((readers != 0) & (readers != me)).any():
            fail((readers != 0) & (readers != me), lambda _, r: f"where {who(r)} loaded")
        twice = shadow.twice(elements)
        if twice is not None:
            at = region.place(shadow.origin + int(elements[twice]) * shadow.grain)
            self._fail(kind, f"{at}, by two lanes of one store")
        shadow.writers[elements] = me

    def _fail(self, kind: str, what: str) -> None:
        ids = self._ids(self._program)
        raise Fault(f"{self.kernel}, program {ids} of {self._dims}, {kind} at {what} (seed {self.checker.seed})")


def _stored(who: str, writer: int) -> str:
    return "an atomic operation has been" if writer == _ATOMIC else f"{who} stored"


def _first(bad: np.ndarray) -> int | None:
    """The first place that is true."""
    return int(bad.argmax()) if bad.any() else None


def untouched_memory(n_bytes: int) -> mmap.mmap:
    """Zeros that take no memory until they are touched."""
    return mmap.mmap(-1, max(n_bytes, 4), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)


class Checker:
    """The state of `checking`.

    Attributes:
        seed: the seed of the orders of programs.
        launches: how often each kernel was launched.
        reached: the largest element that was touched and the number of elements, by kernel and argument.
    """

    def __init__(self, seed: int, n_ends: int | None):
        self.seed, self.launches = seed, Counter()
        self._random, self._n_ends = np.random.default_rng(seed), n_ends
        self._asked: dict[tuple[int, int], tuple[_Region, StorageWeakRef]] = {}
        self.reached: dict[tuple[str, str], tuple[int, int]] = {}

    def order(self, n_programs: int) -> np.ndarray:
        """A permutation of all programs or, with `n_ends`, of so many first and last ones."""
        if self._n_ends is None or 2 * self._n_ends >= n_programs:
            return self._random.permutation(n_programs)
        ends = np.arange(self._n_ends)
        return self._random.permutation(np.concatenate([ends, n_programs - 1 - ends]))

    def ask(self, tensor: Tensor, address: int) -> None:
        """Remembers a tensor that was asked for its address, which may be bound for a table."""
        if type(tensor) is not Tensor and not isinstance(tensor, torch.nn.Parameter):
            return
        region = _Region.of(tensor, address, f"a tensor {tuple(tensor.shape)} of a table ")
        self._asked[region.start, region.end] = region, StorageWeakRef(tensor.untyped_storage())

    def living(self, start: int, end: int) -> _Region | None:
        """The smallest living region that holds these bytes."""
        holding = [r for r, ref in self._asked.values() if r.start <= start and end <= r.end and not ref.expired()]
        return min(holding, key=lambda region: region.end - region.start, default=None)


@contextmanager
def checking(seed: int, n_ends: int | None = None) -> Iterator[Checker]:
    """Checks every launch within, in the order of programs that the seed gives.

    Args:
        seed: what the order is drawn from.
        n_ends: how many of the first and of the last programs of each grid run; None for all programs.

    Raises:
        Fault: the first access that breaks a rule, before it is made.
    """
    checker = Checker(seed, n_ends)
    launch: _Launch | None = None
    builder, run, convert = interpreter.InterpreterBuilder, interpreter.GridExecutor.__call__, interpreter._implicit_cvt
    set_dims, set_ids, data_ptr = builder.set_grid_dim, builder.set_grid_idx, Tensor.data_ptr

    def run_checked(executor: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal launch
        parameters = inspect.signature(executor.fn).parameters
        given = inspect.getcallargs(executor.fn, *args, **{k: v for k, v in kwargs.items() if k in parameters})
        launch = _Launch(executor.fn.__name__, _names(given), checker)
        grid = executor.grid
        executor.grid = lambda arguments: (launch.set_grid(grid(arguments) if callable(grid) else grid),)
        checker.launches[launch.kernel] += 1
        try:
            run(executor, *args, **kwargs)
        except interpreter.InterpreterError as error:
            fault = _fault(error)
            raise (error if fault is None else fault) from None
        finally:
            launch, done = None, launch
            for name, ends in done.reached.items():
                checker.reached[done.kernel, name] = max(ends, checker.reached.get((done.kernel, name), ends))

    def convert_checked(argument: Any) -> Any:
        converted = convert(argument)
        if launch is not None and isinstance(argument, Tensor):
            converted.handle.data = np.array([launch.add(argument)], dtype=np.uint64)
        return converted

    def ask(tensor: Tensor) -> int:
        address = data_ptr(tensor)
        checker.ask(tensor, address)
        return address

    def watched(name: str, kind: str, pointers_at: int, mask_at: int | None) -> Callable:
        method = getattr(builder, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if launch is None:
                return method(*args, **kwargs)
            pointers = launch.access(kind, args[pointers_at], None if mask_at is None else args[mask_at])
            return method(*args[:pointers_at], pointers, *args[pointers_at + 1 :], **kwargs)

        return call

    patches = [
        (interpreter.GridExecutor, "__call__", run_checked),
        (interpreter, "_implicit_cvt", convert_checked),
        (Tensor, "data_ptr", ask),
        (builder, "set_grid_dim", lambda self, *_: set_dims(self, *launch.dims)),
        (builder, "set_grid_idx", lambda self, turn, *_: set_ids(self, *launch.begin(turn))),
        *((builder, name, watched(name, *access)) for name, access in _ACCESSES.items()),
    ]
    with ExitStack() as stack:
        for owner, name, function in patches:
            stack.enter_context(mock.patch.object(owner, name, function))
        yield checker


def _names(arguments: dict[str, Any]) -> dict[int, str]:
    """The names of the arguments that are tensors, by address; those that share one are named together."""
    names: dict[int, str] = {}
    for name, value in arguments.items():
        if isinstance(value, Tensor):
            address = value.data_ptr()
            names[address] = f"{names[address]} or {name}" if address in names else name
    return names


def _fault(error: BaseException | None) -> Fault | None:
    """The fault that the interpreter has wrapped, once for each function that it left."""
    while error is not None and not isinstance(error, Fault):
        error = error.__cause__
    return error
