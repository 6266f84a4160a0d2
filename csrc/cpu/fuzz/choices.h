// What the targets of this folder share: choices by the fuzzer's input, and comparisons.

#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <vector>

#include "cpu/index.h"

namespace electra_fast::cpu::fuzz {

[[noreturn]] inline void fail(const char* what) {
    std::fprintf(stderr, "fuzz: %s\n", what);
    std::abort();
}

// Reads choices from the input; zeros after its end.
class Choices {
public:
    Choices(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

    unsigned byte() { return size_ ? (--size_, *data_++) : 0; }
    Index upto(Index most) { return static_cast<Index>(byte()) % (most + 1); }
    bool one_in(unsigned n) { return byte() % n == n - 1; }
    // A number that seldom is as it should be.
    std::int64_t any_number() {
        static constexpr std::int64_t kTelling[] = {-1, 0, 1, 255, 65536, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN};
        return kTelling[byte() % std::size(kTelling)];
    }

private:
    const std::uint8_t* data_;
    std::size_t size_;
};

inline float number(Choices& choices, bool is_telling) {
    static constexpr float kTelling[] = {0, -0.0f, 1e-42f, 1e30f, -1e30f, 3e38f, std::numeric_limits<float>::infinity(),
                                         -std::numeric_limits<float>::infinity(),
                                         std::numeric_limits<float>::quiet_NaN()};
    const unsigned byte = choices.byte();
    return is_telling && byte >= 250 ? kTelling[choices.byte() % std::size(kTelling)]
                                     : (static_cast<float>(byte % 200) - 100) / 150;
}

inline bool is_same(const std::vector<float>& a, const std::vector<float>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) {
        return (std::isnan(x) && std::isnan(y)) || std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y);
    });
}

inline bool never() { return false; }

// Whether starts mark sequences of n_tokens tokens.
inline bool are_right(const std::vector<std::int32_t>& starts, Index n_tokens) {
    return !starts.empty() && starts.front() == 0 && starts.back() == n_tokens &&
           std::is_sorted(starts.begin(), starts.end());
}

}  // namespace electra_fast::cpu::fuzz
