// GELU(x W' + b), forward and backward: the op linear_gelu, and the first part of the replaced-token head.

#pragma once

#include "cpu/block_steps.h"
#include "cpu/index.h"

namespace electra_fast::cpu {

struct LinearGelu {
    Index n_rows, k, n;
    const float* x;              // [n_rows, k]
    const float *weight, *bias;  // [n, k] and [n]
};

// Null where nobody wants one.
struct LinearGeluGradients {
    float *x, *weight, *bias;
};

// Floats per row that a forward saves, what comes before GELU; it takes the room of one row more.
Index saved_columns(const BlockKernels<float>& kernels, const LinearGelu& linear);
// As the functions of blocks.h; `out` and `dout` are [n_rows, n].
bool forward(const Call<float>& call, const LinearGelu& linear, float* out, float* saved);
bool backward(const Call<float>& call, const LinearGelu& linear, const float* dout, const float* saved,
              const LinearGeluGradients& gradients);

// What a forward saves.
struct SavedLinearGelu {
    SavedLinearGelu(const LinearGelu& linear, Index panel) : layout(panel) {
        layout.add(&before_gelu, linear.n_rows, linear.n);
    }
    SavedLinearGelu(const SavedLinearGelu&) = delete;

    Layout layout;
    Matrix<float> before_gelu;
};

int threads_for(const Call<float>& call, const LinearGelu& linear);

// The steps of a forward: after all preparations comes the product.
class LinearGeluForward {
public:
    LinearGeluForward(const BlockKernels<float>& kernels, const LinearGelu& linear, Layout& layout);

    Index n_preparations() const;
    void prepare(Index task) const;
    BlockProduct<float> product(const Matrix<float>& before_gelu, const Matrix<float>& out) const;

private:
    const BlockKernels<float>& kernels_;
    const LinearGelu& linear_;
    float* packed_ = nullptr;
};

// The steps of a backward: the caller computes the gradient of what comes before GELU beside the preparations, and then
// the gradients follow by two products.
class LinearGeluBackward {
public:
    LinearGeluBackward(const BlockKernels<float>& kernels, const LinearGelu& linear, Layout& layout);

    Index n_preparations() const;
    void prepare(Index task) const;
    const Matrix<float>& dbefore() const { return dbefore_; }
    BlockProduct<float> product(float* dx) const;
    WeightGradient<float> weight_gradient(float* weight, float* bias) const;

private:
    const BlockKernels<float>& kernels_;
    const LinearGelu& linear_;
    float* packed_ = nullptr;
    Matrix<float> dbefore_;
};

}  // namespace electra_fast::cpu
