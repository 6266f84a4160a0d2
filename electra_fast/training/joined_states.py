"""States saved while queries, keys and values were one parameter `qkv` [3H, ...]; today they are three.

A run's checkpoint names its tensors, so `joined_tensors` finds them. An optimizer's `state_dict()` has numbers for
names, so `split_optimizer_state` finds the three by where they lie. Optimizers of electra_fast call it themselves;
another optimizer is told to:

    optimizer.register_load_state_dict_pre_hook(split_optimizer_state)
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from ..model.qkv import NAMES
from ..ops.joining import are_side_by_side

_PART = re.compile(r"(.*\.)(query|key|value)\.(weight|bias)")


def joined_tensors(tensors: dict[str, Tensor], saved: Collection[str]) -> dict[str, list[Tensor]]:
    """The tensors of `tensors` that a checkpoint with the names `saved` holds as one: {its name: the three}."""
    found: dict[str, list[Tensor]] = {}
    for name in tensors:
        match = _PART.fullmatch(name)
        if match and (whole := f"{match[1]}qkv.{match[3]}") in saved:
            found[whole] = [tensors[f"{match[1]}{part}.{match[3]}"] for part in NAMES]
    return found


def split_optimizer_state(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state with three entries for each `qkv` that it holds; a state of today is returned as it is.

    Args:
        optimizer: the optimizer that the state is for, of a model whose parameters are whole, not in shards.
        state_dict: what `optimizer.state_dict()` gave when it was saved.
    """
    groups = [_as_saved(group["params"]) for group in optimizer.param_groups]
    if [len(group["params"]) for group in state_dict["param_groups"]] != [len(group) for group in groups]:
        return state_dict
    state, saved_groups, n_params = {}, [], 0
    for saved, group, now in zip(state_dict["param_groups"], groups, optimizer.param_groups, strict=True):
        place = {id(p): n_params + i for i, p in enumerate(now["params"])}
        n_params += len(place)
        saved_groups.append({**saved, "params": list(place.values())})
        for index, parts in zip(saved["params"], group, strict=True):
            for i, part in enumerate(parts):
                if index in state_dict["state"]:
                    entry = state_dict["state"][index].items()
                    state[place[id(part)]] = {name: _share(value, i, parts) for name, value in entry}
    return {**state_dict, "state": state, "param_groups": saved_groups}


def _as_saved(params: Sequence[Tensor]) -> list[list[Tensor]]:
    """A group's parameters as they were saved: the three that lie side by side as one, where the first of them is."""
    by_storage: dict[int, list[Tensor]] = {}
    for p in params:
        if type(p) is torch.nn.Parameter:
            by_storage.setdefault(p.untyped_storage()._cdata, []).append(p)
    triples = [parts for parts in by_storage.values() if len(parts) == 3 and are_side_by_side(parts)]
    first = {id(parts[0]): parts for parts in triples}
    others = {id(part) for parts in triples for part in parts[1:]}
    return [first.get(id(p), [p]) for p in params if id(p) not in others]


def _share(value: Any, i: int, parts: Sequence[Tensor]) -> Any:
    if not isinstance(value, Tensor):
        return value
    is_joined = value.dim() > 0 and value.shape[0] == sum(len(part) for part in parts)
    return (value.chunk(len(parts))[i] if is_joined else value).clone()
