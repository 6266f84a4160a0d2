#include "cpu/batch.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

namespace electra_fast::cpu {

// Tokens per thread that go through all layers together: enough to read weights rarely, few enough to stay in cache.
constexpr Index kChunkTokens = 256;

void check_starts(const Batch& batch) {
    const std::vector<std::int32_t>& starts = batch.starts;
    if (!starts.empty() && starts.front() == 0 && starts.back() == batch.n_tokens &&
        std::is_sorted(starts.begin(), starts.end()))
        return;
    throw std::invalid_argument(
        "cu_seqlens must rise from 0 to " + std::to_string(batch.n_tokens) + " tokens, got " +
        (starts.empty() ? std::string("no entry")
                        : std::to_string(starts.size()) + " entries from " + std::to_string(starts.front()) + " to " +
                              std::to_string(starts.back()) +
                              (std::is_sorted(starts.begin(), starts.end()) ? "" : ", not in order")));
}

Reads::Reads(const Batch& batch) : starts(batch.reads_some() ? batch.starts.size() : 0) {
    std::vector<std::pair<Index, Index>> wanted;  // (token, its place in the result)
    for (Index place = 0; place < batch.n_read; ++place) {
        const Index token = batch.read[place];
        if (token < 0 || token >= batch.n_tokens)
            throw std::out_of_range("tokens to read must be in [0, " + std::to_string(batch.n_tokens) + "), got " +
                                    std::to_string(token));
        wanted.emplace_back(token, place);
    }
    std::sort(wanted.begin(), wanted.end());
    for (const auto& [token, place] : wanted) {
        if (tokens.empty() || tokens.back() != token) {
            tokens.push_back(token);
            first_places.push_back(static_cast<Index>(places.size()));
        }
        places.push_back(place);
    }
    first_places.push_back(static_cast<Index>(places.size()));
    for (std::size_t i = 0; i < starts.size(); ++i)
        starts[i] = static_cast<std::int32_t>(
            std::lower_bound(tokens.begin(), tokens.end(), batch.starts[i]) - tokens.begin());
}

std::vector<Chunk> chunks_of(const Batch& batch, const Reads& reads, int n_threads) {
    std::vector<Chunk> chunks;
    const Index most = kChunkTokens * std::max(n_threads, 2);
    const Index n_chunks = std::max(Index{1}, (batch.n_tokens + most - 1) / most);
    const Index size = (batch.n_tokens + n_chunks - 1) / n_chunks;
    for (std::size_t i = 0; i + 1 < batch.starts.size(); ++i) {
        const Index length = batch.starts[i + 1] - batch.starts[i];
        if (length == 0) continue;  // between two chunks, or in one that has tokens: no chunk is empty
        if (chunks.empty() || chunks.back().n_tokens + length / 2 > size)
            chunks.push_back({static_cast<Index>(i), 0, batch.starts[i], 0, 0, 0, 0});
        Chunk& chunk = chunks.back();
        chunk.n_sequences = static_cast<Index>(i) + 1 - chunk.first_sequence;
        chunk.n_tokens += length;
        chunk.longest = std::max(chunk.longest, length);
        if (!batch.reads_some()) continue;
        const Index n_read = reads.starts[i + 1] - reads.starts[i];
        chunk.n_read += n_read;
        chunk.most_read = std::max(chunk.most_read, n_read);
    }
    return chunks;
}

}  // namespace electra_fast::cpu
