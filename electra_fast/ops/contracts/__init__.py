"""The contracts of the kernels, one file per op: schema, shape rule and autograd over `electra_fast.kernels`.

Each file ends in the op itself, with the signature of its twin in `electra_fast.ops.reference`. Importing a file
registers its ops with torch; Triton is imported when the first kernel runs. Files that begin with `cpu_` have the ops
in C++, for tensors on a CPU; `blocks` is made of the others.
"""
