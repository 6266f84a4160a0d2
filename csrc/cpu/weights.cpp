#include "cpu/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

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
    if (!parts_.weight) return true;
    return are_same(parts_.weight, weight(), weight_.size()) && are_same(parts_.bias, bias(), bias_.size());
}

void PackedNorm::unpack(float* weight, float* bias) const {
    if (weight) std::copy(weight_.begin(), weight_.end(), weight);
    if (bias) std::copy(bias_.begin(), bias_.end(), bias);
}

PackedLinear::PackedLinear(const LinearParts& parts, const Kernels& kernels, bool in_bytes, Arena& arena)
    : k_(parts.k), panel_(kernels.panel) {
    for (const Index rows : parts.rows) n_ += rows;
    n_panels_ = (n_ + panel_ - 1) / panel_;
    bias_.reserve(static_cast<std::size_t>(n_panels_ * panel_));
    for (std::size_t i = 0; i < parts.rows.size(); ++i)
        bias_.insert(bias_.end(), parts.biases[i], parts.biases[i] + parts.rows[i]);
    bias_.resize(static_cast<std::size_t>(n_panels_ * panel_));
    for (std::size_t i = 0; i < parts.rows.size(); ++i) {
        const Index n = parts.rows[i] * k_;
        for (const Index place : {Index{0}, n / 3, n - 1}) samples_.push_back({parts.weights[i] + place, parts.weights[i][place]});
        samples_.push_back({parts.biases[i], parts.biases[i][0]});
    }
    in_bytes ? pack_bytes(parts, kernels.bytes.group, arena) : pack(parts, arena);
}

// Calls f(column, row) for each column of the product and its row [k] of the weights.
template <typename F>
static void for_each_column(const LinearParts& parts, const F& f) {
    Index column = 0;
    for (std::size_t part = 0; part < parts.rows.size(); ++part)
        for (Index row = 0; row < parts.rows[part]; ++row) f(column++, parts.weights[part] + row * parts.k);
}

void PackedLinear::pack(const LinearParts& parts, Arena& arena) {
    weight_ = arena.take<float>(size_product(bias_.size(), static_cast<std::size_t>(k_)));
    for_each_column(parts, [&](Index column, const float* row) {
        float* const to = weight_ + column / panel_ * panel_ * k_ + column % panel_;
        for (Index i = 0; i < k_; ++i) to[i * panel_] = row[i];
    });
}

void PackedLinear::unpack(Index first_row, Index rows, float* weight, float* bias) const {
    if (first_row < 0 || rows < 0 || rows > n_ - first_row) throw std::logic_error("rows beyond the layer");
    if (bias) std::copy_n(bias_.begin() + first_row, rows, bias);
    if (!weight) return;
    if (!weight_) throw std::logic_error("a weight in eight bits has no way back");
    for (Index column = first_row; column < first_row + rows; ++column, weight += k_) {
        const float* const from = weight_ + column / panel_ * panel_ * k_ + column % panel_;
        for (Index i = 0; i < k_; ++i) weight[i] = from[i * panel_];
    }
}

void PackedLinear::pack_bytes(const LinearParts& parts, Index group, Arena& arena) {
    const Index whole_k = (k_ + group - 1) / group * group;
    bytes_ = arena.take<std::int8_t>(size_product(bias_.size(), static_cast<std::size_t>(whole_k)));
    column_scale_.resize(bias_.size());
    column_sum_.resize(bias_.size());
    for_each_column(parts, [&](Index column, const float* row) {
        float most = 0;
        for (Index i = 0; i < k_; ++i) most = std::max(most, std::fabs(row[i]));
        const bool is_finite = std::all_of(row, row + k_, [](float x) { return std::isfinite(x); });
        const float scale = scale_of(most, is_finite);
        std::int8_t* const to = bytes_ + column / panel_ * panel_ * whole_k + column % panel_ * group;
        std::int32_t sum = 0;
        for (Index i = 0; is_finite && i < k_; ++i) {
            const auto whole = static_cast<std::int8_t>(std::nearbyint(row[i] / scale));
            to[i / group * group * panel_ + i % group] = whole;
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
        product.weight = weight_;
        return;
    }
    product.weight_bytes = bytes_;
    product.column_scale = column_scale_.data();
    product.column_sum = column_sum_.data();
}

}  // namespace electra_fast::cpu
