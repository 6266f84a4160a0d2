#include "cpu/masking.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace electra_fast::cpu {

namespace {

// The candidates of a sequence, in the order of their random numbers and then of their places.
void order_candidates(const Masking& masking, Index first, Index last, std::vector<Index>& order) {
    order.clear();
    for (Index token = first; token < last; ++token)
        if (masking.candidates[token]) order.push_back(token);
    std::stable_sort(order.begin(), order.end(),
                     [&](Index a, Index b) { return masking.uniform[a] < masking.uniform[b]; });
}

}  // namespace

void mask_tokens(const Masking& masking, const Masked& to) {
    const std::vector<std::int32_t>& starts = masking.starts;
    if (starts.empty() || starts.front() != 0 || starts.back() != masking.n_tokens ||
        !std::is_sorted(starts.begin(), starts.end()))
        throw std::invalid_argument("cu_seqlens must rise from 0 to " + std::to_string(masking.n_tokens) + " tokens");
    if (masking.n_slots > 0 && masking.n_tokens == 0) throw std::invalid_argument("slots need tokens, got none");
    std::copy_n(masking.ids, masking.n_tokens, to.ids);
    std::fill_n(to.positions, masking.n_slots, std::int64_t{0});
    std::fill_n(to.is_used, masking.n_slots, false);
    std::vector<Index> order;
    Index slot = 0;
    for (std::size_t i = 0; i + 1 < starts.size(); ++i) {
        const Index first = starts[i], length = starts[i + 1] - first;
        order_candidates(masking, first, first + length, order);
        const auto n_candidates = static_cast<Index>(order.size());
        const auto wanted = static_cast<Index>(std::nearbyint(static_cast<float>(length) * masking.mask_prob));
        const Index n_chosen = std::min(std::max(wanted, Index{1}), n_candidates);
        for (Index j = 0; j < n_chosen && slot < masking.n_slots; ++j, ++slot) {
            Index place = j;
            if (masking.replacement) {
                const float draw = masking.uniform[first + j] * static_cast<float>(n_candidates);
                place = std::clamp(static_cast<Index>(draw), Index{0}, n_candidates - 1);
            }
            const Index token = order[static_cast<std::size_t>(place)];
            to.positions[slot] = token;
            to.is_used[slot] = true;
            if (masking.uniform[masking.n_tokens + token] < masking.mask_fraction) to.ids[token] = masking.mask_id;
        }
    }
    for (Index i = 0; i < masking.n_slots; ++i) to.labels[i] = masking.ids[to.positions[i]];
}

void place_samples(Index n_tokens, const std::int64_t* ids, Index n_slots, const std::int64_t* positions,
                   const std::int64_t* samples, const bool* is_used, std::int64_t* corrupted, bool* is_replaced) {
    std::copy_n(ids, n_tokens, corrupted);
    for (Index slot = 0; slot < n_slots; ++slot) {
        const std::int64_t position = positions[slot];
        if (position < 0 || position >= n_tokens)
            throw std::out_of_range("positions must be in [0, " + std::to_string(n_tokens) + "), got " +
                                    std::to_string(position));
        if (is_used[slot]) corrupted[position] = samples[slot];
    }
    for (Index token = 0; token < n_tokens; ++token) is_replaced[token] = corrupted[token] != ids[token];
}

}  // namespace electra_fast::cpu
