#include "tokenizer/bulk.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <exception>
#include <mutex>
#include <numeric>
#include <shared_mutex>
#include <thread>
#include <vector>

namespace electra_fast {
namespace {

constexpr std::size_t kTask = std::size_t{1} << 18;  // bytes that one thread takes at a time
constexpr std::size_t kBytesPerToken = 3;            // prose has more; arrays grow where a text has fewer
constexpr std::size_t kAhead = 4;                    // texts that are fetched into the cache in advance
constexpr std::size_t kRows = std::size_t{1} << 16;  // texts between two checks whether the call must end

// A place in the texts: code unit `unit` of text `row`.
struct Place {
    std::size_t row, unit;
};

// The places where the tasks begin, and the end of the last. Only a text that is too long for one task is cut.
std::vector<Place> borders(std::span<const SourceText> texts, std::size_t n_threads, bool may_cut, Stop& stop) {
    if (n_threads == 1 || texts.empty()) return {{0, 0}, {texts.size(), 0}};
    std::vector<Place> borders{{0, 0}};
    std::size_t room = kTask;  // bytes that the task can still take
    for (std::size_t row = 0; row < texts.size(); ++row) {
        if (row % kRows == 0) stop.check();
        const SourceText& text = texts[row];
        std::size_t unit = 0, left = text.n_bytes();
        while (left >= room) {
            unit = may_cut ? text.behind_space(unit + room / text.unit_size()) : text.n_units;
            left = (text.n_units - unit) * text.unit_size();
            borders.push_back(left ? Place{row, unit} : Place{row + 1, 0});
            room = kTask;
            if (!left) break;
        }
        room -= std::min(left, room);
    }
    if (borders.back().row < texts.size()) borders.push_back({texts.size(), 0});
    return borders;
}

// Texts of a few hundred bytes lie anywhere in memory, and end before the hardware's prefetcher has found their course.
void prefetch(const SourceText& text) {
    const auto* const bytes = static_cast<const char*>(text.data);
    for (std::size_t at = 0; at < std::min<std::size_t>(text.n_bytes(), 512); at += 64) __builtin_prefetch(bytes + at);
}

// Columns that a task fills text by text, and that the tasks' results are joined to.
class BulkOutput {
public:
    // Texts may be cut only if no result counts from their beginning.
    static bool may_cut(const Encoder& encoder, const BulkOptions& options) {
        return encoder.can_cut() && !options.spans && !options.word_starts;
    }

    void add_specials(const std::vector<std::int32_t>& specials, const BulkOptions& options) {
        for (const std::int32_t id : specials) {
            rows.ids.push_back(id);
            if (options.spans) rows.spans.push_back({0, 0});
            if (options.word_starts) rows.word_starts.push_back(true);
        }
    }

    void add_text(const Encoder& encoder, std::string_view text, Worker& worker, const BulkOptions& options) {
        if (!options.spans && !options.word_starts) return encoder.encode(text, worker, rows.ids);
        // Tokens go through the worker's own memory first, which stays in the cache.
        Buffer<Token>& tokens = worker.tokens;
        tokens.clear();
        encoder.encode(text, worker, tokens);
        std::int32_t* const ids = rows.ids.reserve(tokens.size());
        for (std::size_t i = 0; i < tokens.size(); ++i) ids[i] = tokens[i].id;
        rows.ids.advance(tokens.size());
        if (options.spans) {
            Span* const spans = rows.spans.reserve(tokens.size());
            for (std::size_t i = 0; i < tokens.size(); ++i) {
                spans[i] = {static_cast<std::int32_t>(tokens[i].begin), static_cast<std::int32_t>(tokens[i].end)};
            }
            rows.spans.advance(tokens.size());
        }
        if (options.word_starts) {
            bool* const starts = rows.word_starts.reserve(tokens.size());
            for (std::size_t i = 0; i < tokens.size(); ++i) starts[i] = i == 0 || tokens[i].word != tokens[i - 1].word;
            rows.word_starts.advance(tokens.size());
        }
    }

    void reserve(std::size_t n, const BulkOptions& options) {
        rows.ids.reserve(n);
        if (options.spans) rows.spans.reserve(n);
        if (options.word_starts) rows.word_starts.reserve(n);
    }

    std::size_t size() const { return rows.ids.size(); }

    void resize(std::size_t n, const BulkOptions& options) {
        rows.ids.resize(n);
        if (options.spans) rows.spans.resize(n);
        if (options.word_starts) rows.word_starts.resize(n);
    }

    // Copies n tokens of another output, from `begin` on, to a place that has been reserved.
    void place(const BulkOutput& other, std::size_t begin, std::size_t n, std::size_t at) {
        rows.ids.place(other.rows.ids, begin, n, at);
        if (other.rows.spans.size()) rows.spans.place(other.rows.spans, begin, n, at);
        if (other.rows.word_starts.size()) rows.word_starts.place(other.rows.word_starts, begin, n, at);
    }

    BulkRows rows;
};

class TokenOutput {
public:
    static bool may_cut(const Encoder&, const BulkOptions&) { return false; }
    void add_specials(const std::vector<std::int32_t>&, const BulkOptions&) {}
    void add_text(const Encoder& encoder, std::string_view text, Worker& worker, const BulkOptions&) {
        encoder.encode(text, worker, rows.tokens);
    }
    void reserve(std::size_t n, const BulkOptions&) { rows.tokens.reserve(n); }
    std::size_t size() const { return rows.tokens.size(); }
    void resize(std::size_t n, const BulkOptions&) { rows.tokens.resize(n); }
    void place(const TokenOutput& other, std::size_t begin, std::size_t n, std::size_t at) {
        rows.tokens.place(other.rows.tokens, begin, n, at);
    }

    TokenRows rows;
};

// The tasks' outputs, joined in order. Tasks end in any order; an output is copied to its place as soon as the sizes of
// all before it are known. So only a few wait, in memory that is used over and over.
template <typename Output>
class Joined {
public:
    Joined(std::size_t n_expected, const BulkOptions& options) : options_(options), capacity_(n_expected) {
        output_.reserve(n_expected, options);
    }

    // Copies the task's n tokens of `from`, if the tasks before it have been placed.
    bool place(std::size_t task, const Output& from, std::size_t begin, std::size_t n) {
        if (n_placed_.load(std::memory_order_acquire) != task) return false;
        const std::size_t at = size_;
        size_ += n;
        n_placed_.store(task + 1, std::memory_order_release);
        {
            const std::shared_lock lock(growth_);
            if (at + n <= capacity_) {
                output_.place(from, begin, n, at);
                return true;
            }
        }
        const std::unique_lock lock(growth_);
        capacity_ = std::max(capacity_, at + n + at / 2);
        output_.reserve(capacity_, options_);
        output_.place(from, begin, n, at);
        return true;
    }

    Output take() {
        output_.resize(size_, options_);
        return std::move(output_);
    }

private:
    const BulkOptions& options_;
    Output output_;
    std::size_t capacity_;
    std::size_t size_ = 0;  // belongs to the task whose turn it is
    std::atomic<std::size_t> n_placed_{0};
    std::shared_mutex growth_;
};

template <typename Output>
Output encode_texts(const Encoder& encoder, WorkerPool& pool, std::span<const SourceText> texts, const BulkOptions& options,
                    Stop& stop) {
    const std::vector<Place> places = borders(texts, options.n_threads, Output::may_cut(encoder, options), stop);
    const std::size_t n_tasks = places.size() - 1;
    std::size_t n_bytes = 0;
    Buffer<std::int64_t> offsets;
    offsets.resize(texts.size() + 1);
    offsets[0] = 0;
    for (std::size_t row = 0; row < texts.size(); ++row) {
        if (row % kRows == 0) stop.check();
        n_bytes += texts[row].n_bytes();
        offsets[row + 1] = 0;
    }
    const auto encode_task = [&](std::size_t task, Worker& worker, Output& output) {
        const Place first = places[task], last = places[task + 1];
        std::size_t unchecked = 0;  // bytes
        for (std::size_t row = first.row; row < last.row + (last.unit > 0); ++row) {
            const SourceText& text = texts[row];
            if (row + kAhead < texts.size()) prefetch(texts[row + kAhead]);
            const std::size_t from = row == first.row ? first.unit : 0, to = row == last.row ? last.unit : text.n_units;
            const std::size_t begin = output.size();
            unchecked += (to - from) * text.unit_size() + 1;  // an empty text takes time, too
            if (unchecked >= Stop::kStep) {
                worker.check();
                unchecked = 0;
            }
            if (from == 0) output.add_specials(options.prefix, options);
            try {
                output.add_text(encoder, to_utf8(text.slice(from, to), worker.utf8, worker.stop), worker, options);
            } catch (const SurrogateError& error) {
                throw TextError(row, SurrogateError(error.surrogate, error.position + from).what());
            }
            if (to == text.n_units) output.add_specials(options.suffix, options);
            // The offsets hold lengths for now. The additions are atomic, since tasks share a text that was cut.
            std::atomic_ref(offsets[row + 1]).fetch_add(static_cast<std::int64_t>(output.size() - begin),
                                                        std::memory_order_relaxed);
        }
    };

    Output output;
    if (n_tasks == 1) {
        output.reserve(n_bytes / kBytesPerToken, options);
        run_with_worker(pool, stop, [&](Worker& worker) { encode_task(0, worker, output); });
    } else {
        Joined<Output> joined(n_bytes / kBytesPerToken, options);
        std::atomic<std::size_t> next{0};
        std::vector<std::exception_ptr> errors(n_tasks);
        run_on_threads(std::min(options.n_threads, n_tasks), pool, stop, [&](Worker& worker) {
            struct Done {
                std::size_t task, begin, n;
            };
            Output outputs;  // outputs of tasks that wait for their place
            std::deque<Done> waiting;
            const auto place_ready = [&] {
                while (!waiting.empty()) {
                    const auto& [task, begin, n] = waiting.front();
                    if (!joined.place(task, outputs, begin, n)) return;
                    waiting.pop_front();
                }
                outputs.resize(0, options);
            };
            for (std::size_t task; (task = next.fetch_add(1)) < n_tasks;) {
                const std::size_t begin = outputs.size();
                try {
                    encode_task(task, worker, outputs);
                } catch (const TextError&) {
                    // The first of the texts in error is named, so the tasks before it go on.
                    errors[task] = std::current_exception();
                }
                waiting.push_back({task, begin, outputs.size() - begin});
                place_ready();
            }
            for (; !waiting.empty(); place_ready()) {
                worker.check();
                std::this_thread::yield();
            }
        });
        for (const std::exception_ptr& error : errors) {
            if (error) std::rethrow_exception(error);
        }
        output = joined.take();
    }
    std::partial_sum(offsets.data(), offsets.data() + offsets.size(), offsets.data());
    output.rows.offsets = std::move(offsets);
    return output;
}

}  // namespace

BulkRows encode_bulk(const Encoder& encoder, WorkerPool& pool, std::span<const SourceText> texts, const BulkOptions& options,
                     Stop& stop) {
    return encode_texts<BulkOutput>(encoder, pool, texts, options, stop).rows;
}

TokenRows encode_tokens(const Encoder& encoder, WorkerPool& pool, std::span<const SourceText> texts, std::size_t n_threads,
                        Stop& stop) {
    BulkOptions options;
    options.n_threads = n_threads;
    return encode_texts<TokenOutput>(encoder, pool, texts, options, stop).rows;
}

}  // namespace electra_fast
