// A linear layer's weights in the form that the kernels read.

#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/kernels.h"
#include "pages.h"

namespace electra_fast::cpu {

// A torch Linear: weight [n, k] and bias [n], each of which may come in several parts, one below the other.
struct LinearParts {
    long k = 0;
    std::vector<const float*> weights, biases;
    std::vector<long> rows;
};

class PackedLinear {
public:
    // Copies the parts. In eight bits where `in_bytes`: each row of the weight then is a scale times whole numbers from
    // -127 to 127, of which the largest is one of these two.
    PackedLinear(const LinearParts& parts, const Kernels& kernels, bool in_bytes);

    long n_panels() const { return n_panels_; }
    // Whether the parts, which must still be there, hold what was copied: looks at a few numbers of each only, for changes
    // of all of them.
    bool is_current() const;
    // c of `product` is what x W' + bias is written to; a, added, strides and what bytes of a need are the caller's.
    void complete(Product& product) const;

private:
    void pack(const LinearParts& parts, long panel);
    void pack_bytes(const LinearParts& parts, long panel);

    struct Sample {
        const float* place;
        float value;
    };

    long n_ = 0, k_ = 0, n_panels_ = 0;
    std::vector<Sample> samples_;
    std::vector<float> bias_, column_scale_;
    std::vector<std::int32_t> column_sum_;
    std::unique_ptr<ZeroedPages<float>> weight_;
    std::unique_ptr<ZeroedPages<std::int8_t>> bytes_;
};

}  // namespace electra_fast::cpu
