"""The subcommand `info`."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from ..versions import __version__, installed_version
from .console import print_json


@dataclass(kw_only=True)
class InfoCommand:
    """Show versions, the device, which code serves each op and why, and which calls stay with transformers."""

    model: str | None = None
    """A directory, or a model on the Hub; the code that serves its ops depends on its activation and head size.
    Default: a model with GELU and a head size that the kernels support, like all of Google's."""
    json: bool = False
    """Print one JSON document."""

    def run(self) -> None:
        import torch

        from ..integrations.limits import LIMITS, version_obstacle
        from ..model.config import ElectraConfig
        from ..model.cpu_parameters import why_not_for
        from ..ops import cpu, explain

        cuda = torch.cuda.is_available()
        versions = {"electra_fast": __version__, "python": platform.python_version()}
        versions |= {name: installed_version(name) for name in ("torch", "triton", "transformers")}
        device = torch.cuda.get_device_name() if cuda else f"cpu, {torch.get_num_threads()} threads"
        shape, unserved = {}, None
        if self.model is not None:
            config = ElectraConfig.from_pretrained(self.model)
            shape = {"head_size": config.head_size, "activation": config.hidden_act}
            unserved = why_not_for(config)
        ops = [dict(zip(("op", "impl", "reason"), row, strict=True)) for row in explain("auto", **shape)]
        encoder = {name: unserved or cpu.obstacle() or cpu.instructions() for name in ("fp32", "int8")}
        obstacle = version_obstacle()
        if self.json:
            served = {"obstacle": obstacle, "limits": LIMITS}
            print_json(
                {"versions": versions, "device": device, "ops": ops, "cpu_inference": encoder, "transformers": served}
            )
            return
        for name, value in {**versions, "device": device}.items():
            print(f"{name:<20}{value or 'not installed'}")
        print()
        for op in ops:
            print(f"{op['op']:<20}{op['impl']:<8}{op['reason']}")
        print()
        for name, by in encoder.items():
            print(f"{f'CPU inference, {name}':<28}{by}")
        print(f"\nelectra_fast.integrations.transformers.enable() {obstacle or 'serves ELECTRA, but not these calls:'}")
        for name, why in ({} if obstacle else LIMITS).items():
            print(f"  {name:<24}{why}")
