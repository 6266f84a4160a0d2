"""One thread a process: pytest-xdist runs as many processes as there are cores.

Without a GPU the kernels run in Triton's interpreter. Triton reads the variable when it is imported, so it is set here.
"""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
    from electra_fast.testing import repair_interpreter

    repair_interpreter()
torch.set_num_threads(1)
