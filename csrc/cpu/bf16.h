// Numbers of 16 bits: the upper half of a float.

#pragma once

#include <bit>
#include <cstdint>

#include "cpu/index.h"

namespace electra_fast::cpu {

struct Bf16 {
    Bf16() = default;
    // Rounds to the nearest number, halves to even; NaN stays NaN.
    explicit Bf16(float x) {
        const auto all = std::bit_cast<std::uint32_t>(x);
        const std::uint32_t rounded = x == x ? all + 0x7fff + (all >> 16 & 1) : all | 0x400000;
        bits = static_cast<std::uint16_t>(rounded >> 16);
    }

    std::uint16_t bits;
};

inline float as_float(float x) { return x; }
inline float as_float(Bf16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16); }

// Two neighbours of a product's inner dimension, which one instruction multiplies.
struct Pair {
    Bf16 first, second;
};

// Numbers that a product's instruction takes from a row at once: a float, or a pair.
template <typename T>
constexpr Index kOperand = 1;
template <>
inline constexpr Index kOperand<Bf16> = 2;

}  // namespace electra_fast::cpu
