#include "cpu/embedding.h"

#include <algorithm>

#include "cpu/block_steps.h"

namespace electra_fast::cpu {

namespace {

// Tokens of a task that goes through LayerNorm, and columns of one that adds up gradients of a table's rows: all tokens
// of some columns, so that they are added in their order.
constexpr Index kTaskTokens = 16;
constexpr Index kTaskColumns = 32;
// Rows of a table that are set to zero in a task.
constexpr Index kTaskRows = 1024;

void check(const Embedding& embedding) {
    check_size("embedding_size", embedding.width, kOperand<float>);
    embedding.tokens.check();
}

int threads_for(const Call<float>& call, const Embedding& embedding) {
    return useful_threads(call.n_threads, 64 * embedding.tokens.n_tokens * embedding.width);
}

// A gradient of a table, and which row of it each token gives to.
struct TableGradient {
    float* rows;
    Index n_rows;
    const std::int64_t* ids;
    std::int64_t left_out;
};

}  // namespace

bool forward(const Call<float>& call, const Embedding& embedding, float* out, float* statistics) {
    check(embedding);
    const BlockKernels<float>& kernels = call.kernels;
    const Tokens& tokens = embedding.tokens;
    const Index width = embedding.width, bits_floats = ceil_div(kernels.bits_stride(width), 4);
    const int n_threads = threads_for(call, embedding);
    Layout layout(kernels.panel);
    float *sums, *bits;
    layout.add(&sums, tokens.n_tokens * width);
    layout.add(&bits, n_threads * bits_floats);
    const Borrowed memory(layout);
    const NormForward<float> norm{in_rows<const float>(sums, width, kernels.panel), embedding.norm.weight, embedding.norm.bias,
                           embedding.eps, width, tokens.n_tokens, out, statistics};
    return run_phases(n_threads, call.wants_stop, [&](Worker& worker) {
        auto* const own_bits = reinterpret_cast<std::uint8_t*>(bits + worker.rank * bits_floats);
        worker.each(ceil_div(tokens.n_tokens, kTaskTokens), [&](Index task) {
            const Index first = task * kTaskTokens, last = std::min(first + kTaskTokens, tokens.n_tokens);
            for (Index token = first; token < last; ++token)
                tokens.add_up(token, static_cast<std::size_t>(width), sums + token * width);
            kernels.norm(norm, first, last);
            for (Index token = first; embedding.dropout.threshold && token < last; ++token)
                kernels.drop(embedding.dropout, static_cast<std::uint32_t>(token), width, out + token * width,
                             out + token * width, own_bits);
        });
    });
}

bool backward(const Call<float>& call, const Embedding& embedding, const float* dout, const float* statistics,
              const EmbeddingGradients& gradients) {
    check(embedding);
    const BlockKernels<float>& kernels = call.kernels;
    const Tokens& tokens = embedding.tokens;
    const Index width = embedding.width, n_tokens = tokens.n_tokens, bits_floats = ceil_div(kernels.bits_stride(width), 4);
    const Index n_norms = ceil_div(n_tokens, kTaskTokens), n_columns = ceil_div(width, kTaskColumns);
    const int n_threads = threads_for(call, embedding);
    Layout layout(kernels.panel);
    float *sums, *dropped, *dsums, *partials, *bits;
    layout.add(&sums, n_tokens * width);
    layout.add(&dropped, embedding.dropout.threshold ? n_tokens * width : 0);
    layout.add(&dsums, n_tokens * width);
    layout.add(&partials, n_norms * 2 * width);
    layout.add(&bits, n_threads * bits_floats);
    const Borrowed memory(layout);
    const Matrix<float> to = in_rows(dsums, width, kernels.panel);
    const NormBackward<float> norm{embedding.dropout.threshold ? dropped : dout, in_rows<const float>(sums, width, kernels.panel),
                            embedding.norm.weight, statistics, width, n_tokens, {}, to, to};
    const TableGradient tables[] = {
        {gradients.words, tokens.words.rows, tokens.ids, gradients.padding_id},
        {gradients.types, tokens.types.rows, tokens.type_ids, -1},
        {gradients.positions, tokens.positions.rows, tokens.position_ids, -1},
    };
    const auto n_zeros = [&](const TableGradient& table) { return table.rows ? ceil_div(table.n_rows, kTaskRows) : 0; };
    return run_phases(n_threads, call.wants_stop, [&](Worker& worker) {
        auto* const own_bits = reinterpret_cast<std::uint8_t*>(bits + worker.rank * bits_floats);
        worker.each(n_norms + n_zeros(tables[0]) + n_zeros(tables[1]) + n_zeros(tables[2]), [&](Index task) {
            for (const TableGradient& table : tables)
                if (take(task, n_zeros(table), [&](Index i) {
                        std::fill(table.rows + i * kTaskRows * width,
                                  table.rows + std::min((i + 1) * kTaskRows, table.n_rows) * width, 0.0f);
                    }))
                    return;
            const Index first = task * kTaskTokens, last = std::min(first + kTaskTokens, n_tokens);
            for (Index token = first; token < last; ++token) {
                tokens.add_up(token, static_cast<std::size_t>(width), sums + token * width);
                if (embedding.dropout.threshold)
                    kernels.drop(embedding.dropout, static_cast<std::uint32_t>(token), width, dout + token * width,
                                 dropped + token * width, own_bits);
            }
            float* const partial = partials + task * 2 * width;
            std::fill_n(partial, 2 * width, 0.0f);
            kernels.norm_backward(norm, first, last, partial, own_bits);
        }) && worker.each(3 * n_columns + 1, [&](Index task) {
            if (task == 3 * n_columns) {
                add_partials(partials, n_norms, width, gradients.norm_weight, gradients.norm_bias);
                return;
            }
            const TableGradient& table = tables[task / n_columns];
            const Index first = task % n_columns * kTaskColumns, last = std::min(first + kTaskColumns, width);
            for (Index token = 0; table.rows && token < n_tokens; ++token) {
                if (table.ids[token] == table.left_out) continue;
                const float* const from = dsums + token * width;
                float* const row = table.rows + table.ids[token] * width;
                for (Index i = first; i < last; ++i) row[i] += from[i];
            }
        });
    });
}

}  // namespace electra_fast::cpu
