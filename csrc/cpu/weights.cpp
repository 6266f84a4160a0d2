#include "cpu/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace electra_fast::cpu {

namespace {

bool are_same(const float* a, const float* b, std::size_t n) {
    return std::memcmp(a, b, n * sizeof(float)) == 0;  // NaN equals itself
}

// The number that stands for 1 where the largest number is `most`. Numbers so small that a float cannot hold their scale
// count as zeros.
float scale_of(float most, bool is_finite) {
    if (!is_finite) return std::numeric_limits<float>::quiet_NaN();
    return most >= 127 * std::numeric_limits<float>::min() ? most / 127 : 1;
}

}  // namespace

PackedNorm::PackedNorm(const NormParts& parts, Index n)
    : parts_(parts), weight_(parts.weight, parts.weight + n), bias_(parts.bias, parts.bias + n) {}

bool PackedNorm::is_current() const {
    return are_same(parts_.weight, weight(), weight_.size()) && are_same(parts_.bias, bias(), bias_.size());
}

PackedLinear::PackedLinear(const LinearParts& parts, const Kernels& kernels, bool in_bytes) : k_(parts.k) {
    for (const Index rows : parts.rows) n_ += rows;
    n_panels_ = (n_ + kernels.panel - 1) / kernels.panel;
    bias_.reserve(static_cast<std::size_t>(n_panels_ * kernels.panel));
    for (std::size_t i = 0; i < parts.rows.size(); ++i)
        bias_.insert(bias_.end(), parts.biases[i], parts.biases[i] + parts.rows[i]);
    bias_.resize(static_cast<std::size_t>(n_panels_ * kernels.panel));
    for (std::size_t i = 0; i < parts.rows.size(); ++i) {
        const Index n = parts.rows[i] * k_;
        for (const Index place : {Index{0}, n / 3, n - 1}) samples_.push_back({parts.weights[i] + place, parts.weights[i][place]});
        samples_.push_back({parts.biases[i], parts.biases[i][0]});
    }
    in_bytes ? pack_bytes(parts, kernels.panel, kernels.bytes.group) : pack(parts, kernels.panel);
}

// Calls f(column, row) for each column of the product and its row [k] of the weights.
template <typename F>
static void for_each_column(const LinearParts& parts, const F& f) {
    Index column = 0;
    for (std::size_t part = 0; part < parts.rows.size(); ++part)
        for (Index row = 0; row < parts.rows[part]; ++row) f(column++, parts.weights[part] + row * parts.k);
}

void PackedLinear::pack(const LinearParts& parts, Index panel) {
    weight_ = std::make_unique<ZeroedPages<float>>(size_product(bias_.size(), static_cast<std::size_t>(k_)));
    float* const packed = weight_->data();
    for_each_column(parts, [&](Index column, const float* row) {
        float* const to = packed + column / panel * panel * k_ + column % panel;
        for (Index i = 0; i < k_; ++i) to[i * panel] = row[i];
    });
}

void PackedLinear::pack_bytes(const LinearParts& parts, Index panel, Index group) {
    const Index whole_k = (k_ + group - 1) / group * group;
    bytes_ = std::make_unique<ZeroedPages<std::int8_t>>(size_product(bias_.size(), static_cast<std::size_t>(whole_k)));
    column_scale_.resize(bias_.size());
    column_sum_.resize(bias_.size());
    std::int8_t* const packed = bytes_->data();
    for_each_column(parts, [&](Index column, const float* row) {
        float most = 0;
        for (Index i = 0; i < k_; ++i) most = std::max(most, std::fabs(row[i]));
        const bool is_finite = std::all_of(row, row + k_, [](float x) { return std::isfinite(x); });
        const float scale = scale_of(most, is_finite);
        std::int8_t* const to = packed + column / panel * panel * whole_k + column % panel * group;
        std::int32_t sum = 0;
        for (Index i = 0; is_finite && i < k_; ++i) {
            const auto whole = static_cast<std::int8_t>(std::nearbyint(row[i] / scale));
            to[i / group * group * panel + i % group] = whole;
            sum += whole;
        }
        column_scale_[static_cast<std::size_t>(column)] = scale;
        column_sum_[static_cast<std::size_t>(column)] = sum;
    });
    k_ = whole_k;
}

bool PackedLinear::is_current() const {
    return std::all_of(samples_.begin(), samples_.end(), [](const Sample& sample) {
        return are_same(sample.place, &sample.value, 1);
    });
}

void PackedLinear::complete(Product& product) const {
    product.k = k_;
    product.bias = bias_.data();
    if (weight_) {
        product.weight = weight_->data();
        return;
    }
    product.weight_bytes = bytes_->data();
    product.column_scale = column_scale_.data();
    product.column_sum = column_sum_.data();
}

}  // namespace electra_fast::cpu
