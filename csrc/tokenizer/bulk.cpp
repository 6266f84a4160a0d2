#include "tokenizer/bulk.h"

#include <algorithm>
#include <atomic>
#include <numeric>
#include <type_traits>
#include <vector>

namespace electra_fast {
namespace {

// Below this a thread costs more than it does.
constexpr std::size_t kSmallestTask = std::size_t{1} << 18;  // bytes
constexpr std::size_t kTasksPerThread = 4;                   // so that none waits long for the slowest
constexpr std::size_t kAhead = 4;                            // texts that are fetched into the cache in advance

// A place in the texts: code unit `unit` of text `row`.
struct Place {
    std::size_t row, unit;
};

// Where the tasks begin, and the end of the last. Only a text that is too long for one task is cut.
std::vector<Place> borders(std::span<const SourceText> texts, std::size_t n_threads, bool may_cut) {
    if (n_threads == 1 || texts.empty()) return {{0, 0}, {texts.size(), 0}};
    std::size_t n_bytes = 0;
    for (const SourceText& text : texts) n_bytes += text.n_bytes();
    const std::size_t task_size = std::max(n_bytes / (n_threads * kTasksPerThread) + 1, kSmallestTask);
    std::vector<Place> borders{{0, 0}};
    std::size_t room = task_size;  // bytes that the task still takes
    for (std::size_t row = 0; row < texts.size(); ++row) {
        const SourceText& text = texts[row];
        std::size_t unit = 0, left = text.n_bytes();
        while (left >= room) {
            unit = may_cut ? text.behind_space(unit + room / text.unit_size()) : text.n_units;
            left = (text.n_units - unit) * text.unit_size();
            borders.push_back(left ? Place{row, unit} : Place{row + 1, 0});
            room = task_size;
            if (!left) break;
        }
        room -= std::min(left, room);
    }
    if (borders.back().row < texts.size()) borders.push_back({texts.size(), 0});
    return borders;
}

// Texts of a few hundred bytes, which lie anywhere, end before the hardware has seen where they lead.
void prefetch(const SourceText& text) {
    const auto* const bytes = static_cast<const char*>(text.data);
    for (std::size_t at = 0; at < std::min<std::size_t>(text.n_bytes(), 512); at += 64) __builtin_prefetch(bytes + at);
}

}  // namespace

template <typename T>
Rows<T> encode_texts(const Encoder& encoder, WorkerPool& pool, std::span<const SourceText> texts, std::span<const T> prefix,
                     std::span<const T> suffix, std::size_t n_threads) {
    // Spans count from the beginning of a text, so that only ids can come from parts of it.
    const std::vector<Place> places = borders(texts, n_threads, std::is_same_v<T, std::int32_t> && encoder.can_cut());
    const std::size_t n_tasks = places.size() - 1;
    std::vector<Buffer<T>> outputs(n_tasks);
    Rows<T> rows;
    std::int64_t* const offsets = rows.offsets.reserve(texts.size() + 1);
    rows.offsets.advance(texts.size() + 1);
    std::fill_n(offsets, texts.size() + 1, 0);
    for_each_task(n_tasks, n_threads, pool, [&](std::size_t task, Worker& worker) {
        Buffer<T>& output = outputs[task];
        const Place first = places[task], last = places[task + 1];
        for (std::size_t row = first.row; row < last.row + (last.unit > 0); ++row) {
            const SourceText& text = texts[row];
            if (row + kAhead < texts.size()) prefetch(texts[row + kAhead]);
            const std::size_t from = row == first.row ? first.unit : 0, to = row == last.row ? last.unit : text.n_units;
            const std::size_t begin = output.size();
            if (from == 0) output.append(prefix.data(), prefix.size());
            try {
                encoder.encode(to_utf8(text.slice(from, to), worker.utf8), worker, output);
            } catch (const SurrogateError& error) {
                throw TextError(row, SurrogateError(error.surrogate, error.position + from).what());
            }
            if (to == text.n_units) output.append(suffix.data(), suffix.size());
            // Lengths for now. Tasks share a text that was cut.
            std::atomic_ref(offsets[row + 1]).fetch_add(static_cast<std::int64_t>(output.size() - begin),
                                                        std::memory_order_relaxed);
        }
    });
    std::partial_sum(offsets, offsets + texts.size() + 1, offsets);
    if (n_tasks == 1) {
        rows.tokens = std::move(outputs[0]);
        return rows;
    }
    std::vector<std::size_t> begins(n_tasks, 0);
    for (std::size_t task = 1; task < n_tasks; ++task) begins[task] = begins[task - 1] + outputs[task - 1].size();
    const std::size_t n_tokens = begins.back() + outputs.back().size();
    rows.tokens.reserve(n_tokens);
    rows.tokens.advance(n_tokens);
    for_each_task(n_tasks, n_threads, pool, [&](std::size_t task, Worker&) {
        std::copy_n(outputs[task].data(), outputs[task].size(), rows.tokens.data() + begins[task]);
        outputs[task] = {};
    });
    return rows;
}

template Rows<std::int32_t> encode_texts(const Encoder&, WorkerPool&, std::span<const SourceText>,
                                         std::span<const std::int32_t>, std::span<const std::int32_t>, std::size_t);
template Rows<Token> encode_texts(const Encoder&, WorkerPool&, std::span<const SourceText>, std::span<const Token>,
                                  std::span<const Token>, std::size_t);

}  // namespace electra_fast
