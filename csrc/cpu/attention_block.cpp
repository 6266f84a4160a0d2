#include <algorithm>
#include <stdexcept>
#include <string>

#include "cpu/block_steps.h"

namespace electra_fast::cpu {

namespace {

// Queries, keys and values.
constexpr long kParts = 3;

// What a forward saves. Each part of qkv begins with a panel.
template <typename T>
struct Saved {
    Saved(const AttentionBlock<T>& block, long panel) : layout(panel) {
        layout.add(&qkv, block.n_tokens, kParts * layout.padded(block.hidden));
        layout.add(&attended, block.n_tokens, block.hidden);
        layout.add(&sums, block.n_tokens, block.hidden);
        layout.add(&scores, 2 * block.heads * block.n_tokens);
        layout.add(&statistics, 2 * block.n_tokens);
    }
    Saved(const Saved&) = delete;

    Layout layout;
    Matrix<T> qkv, attended, sums;
    float *scores = nullptr, *statistics = nullptr;
};

template <typename T>
Output<T> output_of(const AttentionBlock<T>& block) {
    return {block.n_tokens,   block.hidden, block.hidden, block.weights[kParts],
            block.biases[kParts], block.norm,   block.eps,    block.output_dropout};
}

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
}

template <typename T>
long n_products(const AttentionBlock<T>& block) {
    long products = 4 * block.n_tokens * block.hidden * block.hidden;
    for (std::size_t i = 0; i + 1 < block.starts.size(); ++i) {
        const long length = block.starts[i + 1] - block.starts[i];
        products += 2 * length * length * block.hidden;
    }
    return products;
}

template <typename T>
long longest_of(const AttentionBlock<T>& block) {
    long longest = 0;
    for (std::size_t i = 0; i + 1 < block.starts.size(); ++i)
        longest = std::max<long>(longest, block.starts[i + 1] - block.starts[i]);
    return longest;
}

// The task of one head in one sequence.
template <typename T>
BlockAttention<T> attention_of(const AttentionBlock<T>& block, const Saved<T>& saved, long panel, long task) {
    const auto sequence = static_cast<std::size_t>(task / block.heads);
    BlockAttention<T> attention{};
    attention.qkv = saved.qkv;
    attention.part_panels = ceil_div(block.hidden, panel);
    attention.first_token = block.starts[sequence];
    attention.length = block.starts[sequence + 1] - block.starts[sequence];
    attention.n_tokens = block.n_tokens;
    attention.head = task % block.heads;
    attention.head_size = block.hidden / block.heads;
    attention.causal = block.causal;
    attention.dropout = block.attention_dropout;
    attention.statistics = saved.scores;
    return attention;
}

template <typename T>
long n_heads(const AttentionBlock<T>& block) { return static_cast<long>(block.starts.size() - 1) * block.heads; }

}  // namespace

template <typename T>
long saved_columns(const BlockKernels<T>& kernels, AttentionBlock<T> block) {
    check_sizes(block);
    block.n_tokens = kPiece / sizeof(T);  // then no piece of memory needs filling up
    return Saved<T>(block, kernels.panel).layout.size() / kPiece;
}

template <typename T>
bool forward(const Call<T>& call, const AttentionBlock<T>& block, T* out, T* saved_to) {
    check(block);
    const BlockKernels<T>& kernels = call.kernels;
    const long panel = kernels.panel, n_tokens = block.n_tokens, hidden = block.hidden;
    const int n_threads = useful_threads(call.n_threads, n_products(block));
    const long panels = ceil_div(hidden, panel);
    const long scratch_size = std::max(
        kernels.product_scratch, kernels.attention_scratch(longest_of(block), hidden / block.heads));

    Layout layout(panel);
    T* packed;
    float* scratch;
    std::byte* unsaved;
    Saved<T> saved(block, panel);
    OutputForward<T> output(kernels, output_of(block), layout);
    layout.add(&packed, kParts * layout.padded(hidden) * hidden);
    layout.add(&scratch, n_threads * scratch_size);
    layout.add(&unsaved, saved_to ? 0 : saved.layout.size());
    const Borrowed memory(layout);
    saved.layout.place(saved_to ? reinterpret_cast<std::byte*>(saved_to) : unsaved);

    const auto to_part = [&](long part) {
        BlockProduct<T> product;
        product.a = in_rows(block.x, hidden, panel);
        product.b = packed + part * panels * panel * hidden;
        product.k = product.n = hidden;
        product.bias = block.biases[static_cast<std::size_t>(part)];
        product.c = saved.qkv.from_panel(part * panels);
        return product;
    };
    const BlockProduct<T> parts[kParts] = {to_part(0), to_part(1), to_part(2)};
    const long part_tasks = n_tasks(kernels, parts[0], n_tokens);
    const BlockProduct<T> to_sums = output.product(saved.attended, block.x, saved.sums);

    return run_phases(n_threads, call.wants_stop, [&](Worker& worker) {
        float* const own = scratch + worker.rank * scratch_size;
        worker.each(kParts * panels + output.n_preparations(), [&](long task) {
            take(task, kParts * panels, [&](long i) {
                kernels.pack_transposed(block.weights[static_cast<std::size_t>(i / panels)], hidden, hidden, i % panels,
                                        packed + i * panel * hidden);
            }) || (output.prepare(task), true);
        }) && worker.each(kParts * part_tasks, [&](long task) {
            multiply(kernels, parts[task / part_tasks], n_tokens, task % part_tasks, own);
        }) && worker.each(n_heads(block), [&](long task) {
            BlockAttention<T> attention = attention_of(block, saved, panel, task);
            attention.out = saved.attended;
            kernels.attend(attention, own);
        }) && worker.each(n_tasks(kernels, to_sums, n_tokens), [&](long task) {
            multiply(kernels, to_sums, n_tokens, task, own);
        }) && worker.each(output.n_norms(), [&](long task) { output.norm(task, saved.sums, out, saved.statistics); });
    });
}

template <typename T>
bool backward(const Call<T>& call, const AttentionBlock<T>& block, const T* dout, const T* saved_from,
              const BlockGradients<T, 4>& gradients) {
    check(block);
    const BlockKernels<T>& kernels = call.kernels;
    const long panel = kernels.panel, n_tokens = block.n_tokens, hidden = block.hidden;
    const int n_threads = useful_threads(call.n_threads, 2 * n_products(block));
    const long panels = ceil_div(hidden, panel), part_columns = panels * panel;
    const long scratch_size = std::max(
        kernels.product_scratch, kernels.attention_backward_scratch(longest_of(block), hidden / block.heads));

    Layout layout(panel);
    T* packed;
    float* scratch;
    Matrix<T> dattended, dqkv;
    Saved<T> saved(block, panel);
    OutputBackward<T> output(kernels, output_of(block), n_threads, layout);
    layout.add(&packed, part_columns * kParts * part_columns);
    layout.add(&dattended, n_tokens, hidden);
    layout.add(&dqkv, n_tokens, kParts * part_columns);
    layout.add(&scratch, n_threads * scratch_size);
    const Borrowed memory(layout);
    saved.layout.place(reinterpret_cast<std::byte*>(const_cast<T*>(saved_from)));

    BlockProduct<T> to_dattended = output.product();
    to_dattended.end = End::kAdd;
    to_dattended.c = dattended;

    // The three parts' products are one, over all columns of dqkv; between the parts are zeros.
    BlockProduct<T> to_dx;
    to_dx.a = dqkv;
    to_dx.b = packed;
    to_dx.k = kParts * part_columns;
    to_dx.n = hidden;
    to_dx.end = End::kAdd;
    to_dx.other = output.dsums();
    to_dx.c = in_rows(gradients.x, hidden, panel);
    const auto pack = [&](long i) {
        T* const to = packed + i * panel * to_dx.k;
        for (long part = 0; part < kParts; ++part) {
            T* const part_to = to + part * part_columns * panel;
            kernels.pack(block.weights[static_cast<std::size_t>(part)], hidden, hidden, i, part_to);
            std::fill(part_to + hidden * panel, part_to + part_columns * panel, T());
            T* const last = dqkv.from_panel((part + 1) * panels - 1).data;
            if (i == 0 && part_columns > hidden) std::fill_n(last, n_tokens * panel, T());
        }
    };

    const auto gradient_of = [&](long part) -> WeightGradient<T> {
        return {dqkv.from_panel(part * panels), in_rows(block.x, hidden, panel), n_tokens, hidden, hidden,
                gradients.weights[static_cast<std::size_t>(part)], gradients.biases[static_cast<std::size_t>(part)]};
    };
    const WeightGradient<T> weights[kParts + 1] = {
        gradient_of(0), gradient_of(1), gradient_of(2),
        output.weight_gradient(saved.attended, gradients.weights[kParts], gradients.biases[kParts])};
    long n_weights[kParts + 1], all_weights = 0;
    for (long i = 0; i <= kParts; ++i) all_weights += n_weights[i] = n_tasks(kernels, weights[i]);
    const long n_dx = gradients.x ? n_tasks(kernels, to_dx, n_tokens) : 0;

    return run_phases(n_threads, call.wants_stop, [&](Worker& worker) {
        float* const own = scratch + worker.rank * scratch_size;
        worker.each(panels + output.n_preparations(), [&](long task) {
            take(task, panels, pack) || (output.prepare(task, dout, saved.sums, saved.statistics, worker.rank), true);
        }) && worker.each(n_tasks(kernels, to_dattended, n_tokens), [&](long task) {
            multiply(kernels, to_dattended, n_tokens, task, own);
        }) && worker.each(n_heads(block), [&](long task) {
            BlockAttention<T> attention = attention_of(block, saved, panel, task);
            attention.dattended = dattended;
            attention.dqkv = dqkv;
            kernels.attend_backward(attention, own);
        }) && worker.each(all_weights + n_dx + 1, [&](long task) {
            for (long i = 0; i <= kParts; ++i)
                if (take(task, n_weights[i], [&](long j) { add_up(kernels, weights[i], j, own); })) return;
            take(task, n_dx, [&](long i) { multiply(kernels, to_dx, n_tokens, i, own); }) ||
                (output.add_norms(gradients.norm_weight, gradients.norm_bias), true);
        });
    });
}

#define INSTANTIATE(T)                                                                   \
    template long saved_columns(const BlockKernels<T>&, AttentionBlock<T>);                      \
    template bool forward(const Call<T>&, const AttentionBlock<T>&, T*, T*);                     \
    template bool backward(const Call<T>&, const AttentionBlock<T>&, const T*, const T*, const BlockGradients<T, 4>&);
INSTANTIATE(float)
INSTANTIATE(Bf16)

}  // namespace electra_fast::cpu
