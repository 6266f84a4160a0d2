"""Tensors that the host makes for kernels, kept on the device from one call to the next."""

from collections.abc import Callable, Hashable

import torch
from torch import Tensor


class Cache:
    """Tensors on the device, by what they are made from. Keeps the youngest, and all that CUDA graphs have recorded."""

    def __init__(self, size: int):
        self._size, self._recent, self._recorded = size, {}, []

    def get(self, device: torch.device, make: Callable[..., Tensor], *args: Hashable) -> Tensor:
        """Returns make(*args), made on the host and copied to the device, or the copy of an earlier call."""
        is_recording = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        key = (device, make, *args)
        tensor = self._recent.pop(key, None)
        if tensor is None:
            host = make(*args).pin_memory() if device.type == "cuda" else make(*args)
            tensor = host.to(device, non_blocking=True)
            if is_recording:
                # The copy is recorded, not done: only replays can read the tensor, and they need the host's, too.
                self._recorded.append((host, tensor))
                return tensor
        if is_recording:
            self._recorded.append(tensor)
        self._recent[key] = tensor
        if len(self._recent) > self._size:
            del self._recent[next(iter(self._recent))]
        return tensor
