// A linear layer's weights in the form that the kernels read.

#pragma once

#include <cstdint>
#include <vector>

#include "cpu/index.h"
#include "cpu/kernels.h"
#include "pages.h"

namespace electra_fast::cpu {

// A torch Linear: weight [n, k] and bias [n]. Both may come in several parts, one below the other.
struct LinearParts {
    Index k = 0;
    std::vector<const float*> weights, biases;
    std::vector<Index> rows;
};

// A LayerNorm's weight and bias, [n] each.
struct NormParts {
    const float *weight, *bias;
};

class PackedNorm {
public:
    PackedNorm(const NormParts& parts, Index n);

    // Whether the parts, which must still exist, hold what was copied. Compares all of them: they are small.
    bool is_current() const;
    // Makes this the only copy: `is_current` looks no more at the parts, which may end.
    void forget_parts() { parts_ = {}; }
    // Writes what was copied to weight and bias [n]; either may be null.
    void unpack(float* weight, float* bias) const;
    const float* weight() const { return weight_.data(); }
    const float* bias() const { return bias_.data(); }

private:
    NormParts parts_;
    std::vector<float> weight_, bias_;
};

class PackedLinear {
public:
    // Copies the parts to memory of the arena, in eight bits if `in_bytes`. Each row of the weight is then a scale times
    // whole numbers, and the largest of them is 127 or -127; the scale of a row with NaN or an infinite number is NaN.
    PackedLinear(const LinearParts& parts, const Kernels& kernels, bool in_bytes, Arena& arena);

    Index n_panels() const { return n_panels_; }
    // Whether the parts, which must still exist, hold what was copied. Looks at a few numbers of each part, so it
    // notices changes of whole parts only.
    bool is_current() const;
    // Makes this the only copy: `is_current` looks no more at the parts, which may end.
    void forget_parts() { samples_.clear(); }
    // Writes some rows of what was copied to weight [rows, k] and bias [rows]; either may be null. Throws
    // std::logic_error for a weight in eight bits, and for rows that there are not.
    void unpack(Index first_row, Index rows, float* weight, float* bias) const;
    // Fills in the weights, the bias and k of `product`. The caller sets a, c, added, strides, and the rows in bytes.
    void complete(Product& product) const;

private:
    void pack(const LinearParts& parts, Arena& arena);
    void pack_bytes(const LinearParts& parts, Index group, Arena& arena);

    struct Sample {
        const float* place;
        float value;
    };

    Index n_ = 0, k_ = 0, panel_ = 0, n_panels_ = 0;
    std::vector<Sample> samples_;
    std::vector<float> bias_, column_scale_;
    std::vector<std::int32_t> column_sum_;
    float* weight_ = nullptr;
    std::int8_t* bytes_ = nullptr;
};

}  // namespace electra_fast::cpu
