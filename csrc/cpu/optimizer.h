// AdamW over many tensors, and the norm of all of them together: the ops adamw and grad_norm.
//
// p -= lr (m / c1 / (sqrt(v / c2) + eps) + decay p) with g = scale grad, m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g g and
// ci = 1 - bi^step, or 1 without bias correction. All arithmetic is that of floats, and that of the numbers in each tensor's
// rate alone of doubles.

#pragma once

#include <vector>

#include "cpu/blocks.h"
#include "cpu/index.h"

namespace electra_fast::cpu {

// What is the same for all tensors.
struct AdamW {
    double beta1, beta2;
    float eps, grad_scale;
};

// A tensor that is updated, and what is its own.
struct Updated {
    float *param, *exp_avg, *exp_avg_sq;
    const float* grad;
    Index size;
    double lr, decay, step;  // step: from 1; infinite without bias correction
};

struct Numbers {
    const float* data;
    Index size;
};

// Neither stops before it is done: half an update would be worse than a late answer to Ctrl-C.
float norm(const BlockKernels<float>& kernels, int n_threads, const std::vector<Numbers>& tensors);
void update(const BlockKernels<float>& kernels, int n_threads, const AdamW& adam, const std::vector<Updated>& tensors);

}  // namespace electra_fast::cpu
