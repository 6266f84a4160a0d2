"""The contracts of the kernels, one file an op: schema, shape rule and autograd over `electra_fast.kernels`.

Each file ends in the op itself, with the signature of its twin in `electra_fast.ops.reference`. Importing these
registers the ops with torch; Triton is imported when the first kernel runs.
"""
