"""The Triton kernels, one file per op: formula, forward, backward, launchers.

Only torch and triton are imported here, and launchers are pure: they allocate, choose a grid and launch. Schemas, shape
rules and autograd are in `electra_fast.ops.contracts`, the plain torch versions in `electra_fast.ops.reference`.
"""
