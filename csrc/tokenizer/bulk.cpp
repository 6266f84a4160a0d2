#include "tokenizer/bulk.h"

#include <algorithm>
#include <type_traits>
#include <vector>

namespace electra_fast {
namespace {

// Below this a thread costs more than it does.
constexpr std::size_t kSmallestTask = std::size_t{1} << 18;  // bytes
constexpr std::size_t kTasksPerThread = 4;                   // so that none waits long for the slowest

// A part of a text, or all of it.
struct Piece {
    std::size_t row, from, to;  // code units
};

// Pieces of all texts in order, and where each task's begin. Only texts that are too long for a task are cut.
struct Plan {
    std::vector<Piece> pieces;
    std::vector<std::size_t> tasks;
};

Plan plan(std::span<const SourceText> texts, std::size_t n_threads, bool may_cut) {
    std::size_t n_bytes = 0;
    for (const SourceText& text : texts) n_bytes += text.n_bytes();
    const std::size_t task_size =
        n_threads > 1 ? std::max(n_bytes / (n_threads * kTasksPerThread) + 1, kSmallestTask) : n_bytes + 1;
    Plan plan;
    plan.pieces.reserve(texts.size());
    std::size_t filled = task_size;  // the first piece opens a task
    for (std::size_t row = 0; row < texts.size(); ++row) {
        const SourceText& text = texts[row];
        std::size_t from = 0;
        do {
            if (filled >= task_size) {
                plan.tasks.push_back(plan.pieces.size());
                filled = 0;
            }
            const std::size_t room = from + task_size / text.unit_size();
            const std::size_t to = may_cut && room < text.n_units ? text.behind_space(room) : text.n_units;
            plan.pieces.push_back({row, from, to});
            filled += (to - from) * text.unit_size();
            from = to;
        } while (from < text.n_units);
    }
    plan.tasks.push_back(plan.pieces.size());
    return plan;
}

}  // namespace

template <typename T>
Rows<T> encode_texts(const Encoder& encoder, WorkerPool& pool, std::span<const SourceText> texts, std::span<const T> prefix,
                     std::span<const T> suffix, std::size_t n_threads) {
    // Spans count from the beginning of a text, so that only ids can come from parts of it.
    const Plan work = plan(texts, n_threads, std::is_same_v<T, std::int32_t> && encoder.can_cut());
    const std::size_t n_tasks = work.tasks.size() - 1;
    std::vector<Buffer<T>> outputs(n_tasks);
    std::vector<std::size_t> lengths(work.pieces.size());
    for_each_task(n_tasks, n_threads, pool, [&](std::size_t task, Worker& worker) {
        Buffer<T>& output = outputs[task];
        for (std::size_t i = work.tasks[task]; i < work.tasks[task + 1]; ++i) {
            const Piece& piece = work.pieces[i];
            const SourceText& text = texts[piece.row];
            const std::size_t begin = output.size();
            if (piece.from == 0) output.append(prefix.data(), prefix.size());
            try {
                encoder.encode(to_utf8(text.slice(piece.from, piece.to), worker.utf8), worker, output);
            } catch (const SurrogateError& error) {
                const SurrogateError located(error.surrogate, error.position + piece.from);
                throw TextError(piece.row, located.what());
            }
            if (piece.to == text.n_units) output.append(suffix.data(), suffix.size());
            lengths[i] = output.size() - begin;
        }
    });

    Rows<T> rows;
    rows.offsets.reserve(texts.size() + 1);
    rows.offsets.push_back(0);
    std::int64_t n_tokens = 0;
    for (std::size_t i = 0; i < work.pieces.size(); ++i) {
        n_tokens += static_cast<std::int64_t>(lengths[i]);
        if (work.pieces[i].to == texts[work.pieces[i].row].n_units) rows.offsets.push_back(n_tokens);
    }
    if (n_tasks == 1) {
        rows.tokens = std::move(outputs[0]);
        return rows;
    }
    std::vector<std::size_t> begins(n_tasks, 0);
    for (std::size_t task = 1; task < n_tasks; ++task) begins[task] = begins[task - 1] + outputs[task - 1].size();
    rows.tokens.reserve(static_cast<std::size_t>(n_tokens));
    rows.tokens.advance(static_cast<std::size_t>(n_tokens));
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
