#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>

#include "cpu/block_steps.h"

namespace electra_fast::cpu {

namespace {

// Queries, keys and values.
constexpr Index kParts = 3;

// Rows of x that are copied in a task.
constexpr Index kTaskRows = 64;

// What a forward saves: keys and values of all tokens, and for the rows of the result all else.
template <typename T>
struct Saved {
    Saved(const AttentionBlock<T>& block, Index panel) : layout(panel) {
        layout.add(&queries, block.n_rows(), block.hidden);
        layout.add(&keys, block.n_tokens, block.hidden);
        layout.add(&values, block.n_tokens, block.hidden);
        layout.add(&attended, block.n_rows(), block.hidden);
        layout.add(&sums, block.n_rows(), block.hidden);
        layout.add(&scores, 2 * block.heads * block.n_rows());
        layout.add(&statistics, 2 * block.n_rows());
    }
    Saved(const Saved&) = delete;

    Layout layout;
    Matrix<T> queries, keys, values, attended, sums;
    float *scores = nullptr, *statistics = nullptr;
};

// The rows of the result, by sequences.
class Rows {
public:
    template <typename T>
    explicit Rows(const AttentionBlock<T>& block) : rows_(static_cast<std::size_t>(block.n_rows())) {
        const std::vector<std::int32_t>& starts = block.starts;
        if (!block.read) {
            tokens_.resize(rows_.size());
            std::iota(tokens_.begin(), tokens_.end(), Index{0});
            rows_ = tokens_;
            begins_.assign(starts.begin(), starts.end());
            return;
        }
        tokens_ = *block.read;
        const auto sequence_of = [&](Index token) {
            return static_cast<std::size_t>(std::upper_bound(starts.begin(), starts.end(), token) - starts.begin());
        };
        begins_.assign(starts.size(), 0);
        for (const Index token : tokens_) ++begins_[sequence_of(token)];
        std::partial_sum(begins_.begin(), begins_.end(), begins_.begin());
        std::vector<Index> next(begins_);
        for (std::size_t row = 0; row < tokens_.size(); ++row)
            rows_[static_cast<std::size_t>(next[sequence_of(tokens_[row]) - 1]++)] = static_cast<Index>(row);
    }

    // The token of each row.
    const Index* tokens() const { return tokens_.data(); }
    // The rows of a sequence, and how many they are.
    const Index* of(std::size_t sequence) const { return rows_.data() + begins_[sequence]; }
    Index n_of(std::size_t sequence) const { return begins_[sequence + 1] - begins_[sequence]; }

private:
    std::vector<Index> tokens_, rows_, begins_;
};

template <typename T>
Output<T> output_of(const AttentionBlock<T>& block, const Rows& rows) {
    return {block.n_rows(),       block.hidden, block.hidden, block.weights[kParts],
            block.biases[kParts], block.norm,   block.eps,    block.output_dropout,
            block.read ? rows.tokens() : nullptr};
}

// The rows of x that belong to the result: x itself, or a copy that is made in tasks.
template <typename T>
class RowsOfX {
public:
    RowsOfX(const AttentionBlock<T>& block, Layout& layout) : block_(block) {
        layout.add(&copy_, block.read ? block.n_rows() * block.hidden : 0);
    }

    const T* data() const { return block_.read ? copy_ : block_.x; }
    Index n_tasks() const { return block_.read ? ceil_div(block_.n_rows(), kTaskRows) : 0; }
    void copy(Index task) const {
        const Index hidden = block_.hidden, last = std::min((task + 1) * kTaskRows, block_.n_rows());
        for (Index row = task * kTaskRows; row < last; ++row)
            std::copy_n(block_.x + (*block_.read)[static_cast<std::size_t>(row)] * hidden, hidden, copy_ + row * hidden);
    }

private:
    const AttentionBlock<T>& block_;
    T* copy_ = nullptr;
};

template <typename T>
void check_sizes(const AttentionBlock<T>& block) {
    check_size("hidden_size", block.hidden, kOperand<T>);
    if (block.heads < 1 || block.hidden % block.heads != 0)
        throw std::invalid_argument("hidden_size " + std::to_string(block.hidden) + " is no multiple of " +
                                    std::to_string(block.heads) + " heads");
}

template <typename T>
void check(const AttentionBlock<T>& block) {
    check_sizes(block);
    const std::vector<std::int32_t>& starts = block.starts;
    if (starts.empty() || starts.front() != 0 || starts.back() != block.n_tokens ||
        !std::is_sorted(starts.begin(), starts.end()))
        throw std::invalid_argument("cu_seqlens must rise from 0 to " + std::to_string(block.n_tokens) + " tokens, got " +
                                    std::to_string(starts.size()) + " entries" +
                                    (starts.empty() ? "" : " from " + std::to_string(starts.front()) + " to " +
                                                               std::to_string(starts.back())));
    for (const Index token : block.read.value_or(std::vector<Index>()))
        if (token < 0 || token >= block.n_tokens)
            throw std::out_of_range("tokens to read must be in [0, " + std::to_string(block.n_tokens) + "), got " +
                                    std::to_string(token));
}

template <typename T>
Index length_of(const AttentionBlock<T>& block, std::size_t sequence) {
    return block.starts[sequence + 1] - block.starts[sequence];
}

template <typename T>
Index n_products(const AttentionBlock<T>& block, const Rows& rows) {
    Index products = 2 * (block.n_tokens + block.n_rows()) * block.hidden * block.hidden;
    for (std::size_t i = 0; i + 1 < block.starts.size(); ++i)
        products += 2 * rows.n_of(i) * length_of(block, i) * block.hidden;
    return products;
}

// The most floats of scratch memory that one sequence takes, by the function of the kernels that says so.
template <typename T>
Index scratch_of(const AttentionBlock<T>& block, const Rows& rows, Index (*scratch)(Index, Index, Index)) {
    Index most = 0;
    for (std::size_t i = 0; i + 1 < block.starts.size(); ++i)
        most = std::max(most, scratch(rows.n_of(i), length_of(block, i), block.hidden / block.heads));
    return most;
}

// The task of one head in one sequence.
template <typename T>
BlockAttention<T> attention_of(const AttentionBlock<T>& block, const Rows& rows, const Saved<T>& saved, Index task) {
    const auto sequence = static_cast<std::size_t>(task / block.heads);
    BlockAttention<T> attention{};
    attention.queries = saved.queries;
    attention.keys = saved.keys;
    attention.values = saved.values;
    attention.rows = rows.of(sequence);
    attention.tokens = rows.tokens();
    attention.n_queries = rows.n_of(sequence);
    attention.n_rows = block.n_rows();
    attention.first_token = block.starts[sequence];
    attention.length = length_of(block, sequence);
    attention.head = task % block.heads;
    attention.head_size = block.hidden / block.heads;
    attention.causal = block.causal;
    attention.dropout = block.attention_dropout;
    attention.statistics = saved.scores;
    return attention;
}

template <typename T>
Index n_heads(const AttentionBlock<T>& block) { return static_cast<Index>(block.starts.size() - 1) * block.heads; }

}  // namespace

template <typename T>
std::pair<Index, Index> saved_columns(const BlockKernels<T>& kernels, AttentionBlock<T> block) {
    check_sizes(block);
    constexpr std::size_t whole = kPiece / sizeof(T);  // then no piece of memory needs filling up
    block.read.emplace();
    block.n_tokens = whole;
    const Index of_tokens = Saved<T>(block, kernels.panel).layout.size();
    block.read->resize(whole);
    return {of_tokens / kPiece, (Saved<T>(block, kernels.panel).layout.size() - of_tokens) / kPiece};
}

template <typename T>
bool forward(const Call<T>& call, const AttentionBlock<T>& block, T* out, T* saved_to) {
    check(block);
    const BlockKernels<T>& kernels = call.kernels;
    const Rows rows(block);
    const Index panel = kernels.panel, hidden = block.hidden, n_rows = block.n_rows();
    const int n_threads = useful_threads(call.n_threads, n_products(block, rows));
    const Index panels = ceil_div(hidden, panel);
    const Index scratch_size = std::max(kernels.product_scratch, scratch_of(block, rows, kernels.attention_scratch));

    Layout layout(panel);
    T* packed;
    float* scratch;
    std::byte* unsaved;
    Saved<T> saved(block, panel);
    OutputForward<T> output(kernels, output_of(block, rows), layout);
    RowsOfX<T> rows_of_x(block, layout);
    layout.add(&packed, kParts * layout.padded(hidden) * hidden);
    layout.add(&scratch, n_threads * scratch_size);
    layout.add(&unsaved, saved_to ? 0 : saved.layout.size());
    const Borrowed memory(layout);
    saved.layout.place(saved_to ? reinterpret_cast<std::byte*>(saved_to) : unsaved);

    const auto to_part = [&](Index part, const T* x, const Matrix<T>& to) {
        BlockProduct<T> product;
        product.a = in_rows(x, hidden, panel);
        product.b = packed + part * panels * panel * hidden;
        product.k = product.n = hidden;
        product.bias = block.biases[static_cast<std::size_t>(part)];
        product.c = to;
        return product;
    };
    const BlockProduct<T> to_queries = to_part(0, rows_of_x.data(), saved.queries);
    const BlockProduct<T> to_keys = to_part(1, block.x, saved.keys), to_values = to_part(2, block.x, saved.values);
    const Index n_of_rows = n_tasks(kernels, to_queries, n_rows), n_of_tokens = n_tasks(kernels, to_keys, block.n_tokens);
    const BlockProduct<T> to_sums = output.product(saved.attended, rows_of_x.data(), saved.sums);

    return run_phases(n_threads, call.wants_stop, [&](Worker& worker) {
        float* const own = scratch + worker.rank * scratch_size;
        worker.each(kParts * panels + rows_of_x.n_tasks() + output.n_preparations(), [&](Index task) {
            take(task, kParts * panels, [&](Index i) {
                kernels.pack_transposed(block.weights[static_cast<std::size_t>(i / panels)], hidden, hidden, i % panels,
                                        packed + i * panel * hidden);
            }) || take(task, rows_of_x.n_tasks(), [&](Index i) { rows_of_x.copy(i); }) || (output.prepare(task), true);
        }) && worker.each(n_of_rows + 2 * n_of_tokens, [&](Index task) {
            take(task, n_of_rows, [&](Index i) { multiply(kernels, to_queries, n_rows, i, own); }) ||
                take(task, n_of_tokens, [&](Index i) { multiply(kernels, to_keys, block.n_tokens, i, own); }) ||
                (multiply(kernels, to_values, block.n_tokens, task, own), true);
        }) && worker.each(n_heads(block), [&](Index task) {
            BlockAttention<T> attention = attention_of(block, rows, saved, task);
            attention.out = saved.attended;
            kernels.attend(attention, own);
        }) && worker.each(n_tasks(kernels, to_sums, n_rows), [&](Index task) {
            multiply(kernels, to_sums, n_rows, task, own);
        }) && worker.each(output.n_norms(), [&](Index task) { output.norm(task, saved.sums, out, saved.statistics); });
    });
}

template <typename T>
bool backward(const Call<T>& call, const AttentionBlock<T>& block, const T* dout, const T* saved_from,
              const BlockGradients<T, 4>& gradients) {
    check(block);
    const BlockKernels<T>& kernels = call.kernels;
    const Rows rows(block);
    const Index panel = kernels.panel, n_tokens = block.n_tokens, hidden = block.hidden, n_rows = block.n_rows();
    const int n_threads = useful_threads(call.n_threads, 2 * n_products(block, rows));
    const Index panels = ceil_div(hidden, panel), part_columns = panels * panel;
    const Index scratch_size =
        std::max(kernels.product_scratch, scratch_of(block, rows, kernels.attention_backward_scratch));
    // The gradient of x is one product, over all columns of the last parts' gradients: all parts where all tokens are
    // read, else keys and values. Then the gradient by queries is a product of its own, of the rows that are read.
    const bool reads_some = block.read.has_value();
    const Index n_joined = reads_some ? 2 : kParts;

    Layout layout(panel);
    T *packed, *packed_queries, *drows;
    float* scratch;
    Matrix<T> dattended, joined, dqueries;
    Saved<T> saved(block, panel);
    OutputBackward<T> output(kernels, output_of(block, rows), n_threads, layout);
    RowsOfX<T> rows_of_x(block, layout);
    layout.add(&packed, part_columns * n_joined * part_columns);
    layout.add(&packed_queries, reads_some ? part_columns * part_columns : 0);
    layout.add(&dattended, n_rows, hidden);
    layout.add(&joined, n_tokens, n_joined * part_columns);
    layout.add(&dqueries, reads_some ? n_rows : 0, hidden);
    layout.add(&drows, reads_some ? n_rows * hidden : 0);
    layout.add(&scratch, n_threads * scratch_size);
    const Borrowed memory(layout);
    saved.layout.place(reinterpret_cast<std::byte*>(const_cast<T*>(saved_from)));
    const Matrix<T> dvalues = joined.from_panel((n_joined - 1) * panels), dkeys = joined.from_panel((n_joined - 2) * panels);
    if (!reads_some) dqueries = joined;

    BlockProduct<T> to_dattended = output.product();
    to_dattended.end = End::kAdd;
    to_dattended.c = dattended;

    // Between the joined parts are zeros.
    BlockProduct<T> to_dx, to_drows;
    to_dx.a = joined;
    to_dx.b = packed;
    to_dx.k = n_joined * part_columns;
    to_dx.n = hidden;
    to_dx.end = End::kAdd;
    if (!reads_some) to_dx.other = output.dsums();
    to_dx.c = in_rows(gradients.x, hidden, panel);
    to_drows.a = dqueries;
    to_drows.b = packed_queries;
    to_drows.k = part_columns;
    to_drows.n = hidden;
    to_drows.end = End::kAdd;
    to_drows.other = output.dsums();
    to_drows.c = in_rows(drows, hidden, panel);
    // Packs panel i of a part's weight, and with the first one clears the last columns of the part's gradient.
    const auto pack_part = [&](Index part, Index i, T* to, const Matrix<T>& gradient, Index n) {
        kernels.pack(block.weights[static_cast<std::size_t>(part)], hidden, hidden, i, to);
        std::fill(to + hidden * panel, to + part_columns * panel, T());
        if (i == 0 && part_columns > hidden) std::fill_n(gradient.from_panel(panels - 1).data, n * panel, T());
    };
    const auto pack = [&](Index i) {
        for (Index j = 0; j < n_joined; ++j)
            pack_part(kParts - n_joined + j, i, packed + (i * n_joined + j) * part_columns * panel,
                      joined.from_panel(j * panels), n_tokens);
        if (reads_some) pack_part(0, i, packed_queries + i * part_columns * panel, dqueries, n_rows);
    };

    const auto gradient_of = [&](Index part, const Matrix<const T>& dy, const T* x, Index n) -> WeightGradient<T> {
        return {dy, in_rows(x, hidden, panel), n, hidden, hidden, gradients.weights[static_cast<std::size_t>(part)],
                gradients.biases[static_cast<std::size_t>(part)]};
    };
    const WeightGradient<T> weights[kParts + 1] = {
        gradient_of(0, dqueries, rows_of_x.data(), n_rows), gradient_of(1, dkeys, block.x, n_tokens),
        gradient_of(2, dvalues, block.x, n_tokens),
        output.weight_gradient(saved.attended, gradients.weights[kParts], gradients.biases[kParts])};
    Index n_weights[kParts + 1], all_weights = 0;
    for (Index i = 0; i <= kParts; ++i) all_weights += n_weights[i] = n_tasks(kernels, weights[i]);
    const Index n_dx = gradients.x ? n_tasks(kernels, to_dx, n_tokens) : 0;
    const Index n_drows = gradients.x && reads_some ? n_tasks(kernels, to_drows, n_rows) : 0;
    const auto n_sequences = static_cast<Index>(block.starts.size() - 1);

    return run_phases(n_threads, call.wants_stop, [&](Worker& worker) {
        float* const own = scratch + worker.rank * scratch_size;
        worker.each(panels + rows_of_x.n_tasks() + output.n_preparations(), [&](Index task) {
            take(task, panels, pack) || take(task, rows_of_x.n_tasks(), [&](Index i) { rows_of_x.copy(i); }) ||
                (output.prepare(task, dout, saved.sums, saved.statistics, worker.rank), true);
        }) && worker.each(n_tasks(kernels, to_dattended, n_rows), [&](Index task) {
            multiply(kernels, to_dattended, n_rows, task, own);
        }) && worker.each(n_heads(block), [&](Index task) {
            BlockAttention<T> attention = attention_of(block, rows, saved, task);
            attention.dattended = dattended;
            attention.dqueries = dqueries;
            attention.dkeys = dkeys;
            attention.dvalues = dvalues;
            kernels.attend_backward(attention, own);
        }) && worker.each(all_weights + n_dx + n_drows + 1, [&](Index task) {
            for (Index i = 0; i <= kParts; ++i)
                if (take(task, n_weights[i], [&](Index j) { add_up(kernels, weights[i], j, own); })) return;
            take(task, n_dx, [&](Index i) { multiply(kernels, to_dx, n_tokens, i, own); }) ||
                take(task, n_drows, [&](Index i) { multiply(kernels, to_drows, n_rows, i, own); }) ||
                (output.add_norms(gradients.norm_weight, gradients.norm_bias), true);
        }) && worker.each(n_drows ? n_sequences : 0, [&](Index task) {
            const auto sequence = static_cast<std::size_t>(task);
            for (Index i = 0; i < rows.n_of(sequence); ++i) {
                const Index row = rows.of(sequence)[i];
                const T* const from = drows + row * hidden;
                T* const to = gradients.x + rows.tokens()[row] * hidden;
                for (Index j = 0; j < hidden; ++j) to[j] = T(as_float(to[j]) + as_float(from[j]));
            }
        });
    });
}

#define INSTANTIATE(T)                                                                   \
    template std::pair<Index, Index> saved_columns(const BlockKernels<T>&, AttentionBlock<T>);     \
    template bool forward(const Call<T>&, const AttentionBlock<T>&, T*, T*);                     \
    template bool backward(const Call<T>&, const AttentionBlock<T>&, const T*, const T*, const BlockGradients<T, 4>&);
INSTANTIATE(float)
INSTANTIATE(Bf16)

}  // namespace electra_fast::cpu
