// Which tokens are masked, and samples in their places: the ops mask_tokens and place_samples.

#pragma once

#include <cstdint>
#include <vector>

#include "cpu/index.h"

namespace electra_fast::cpu {

struct Masking {
    Index n_tokens, n_slots;
    std::vector<std::int32_t> starts;  // of sequences; rises from 0 to n_tokens
    const std::int64_t* ids;
    const bool* candidates;
    const float* uniform;              // [2, n_tokens] in [0, 1): for the choice, and for [MASK]
    std::int64_t mask_id;
    float mask_prob, mask_fraction;
    bool replacement;
};

// [n_tokens], and [n_slots] each.
struct Masked {
    std::int64_t *ids, *positions, *labels;
    bool* is_used;
};

// Throws std::invalid_argument for starts that cannot be, and for slots without tokens.
void mask_tokens(const Masking& masking, const Masked& to);

// Throws std::out_of_range for a position that is none. All are [n_tokens] or [n_slots].
void place_samples(Index n_tokens, const std::int64_t* ids, Index n_slots, const std::int64_t* positions,
                   const std::int64_t* samples, const bool* is_used, std::int64_t* corrupted, bool* is_replaced);

}  // namespace electra_fast::cpu
