#include "cpu/block_steps.h"

namespace electra_fast::cpu {

namespace {

// What a forward saves.
template <typename T>
struct Saved {
    Saved(const FeedForwardBlock<T>& block, Index panel) : layout(panel) {
        layout.add(&before_gelu, block.n_tokens, block.inner);
        layout.add(&sums, block.n_tokens, block.hidden);
        layout.add(&statistics, 2 * block.n_tokens);
    }
    Saved(const Saved&) = delete;

    Layout layout;
    Matrix<T> before_gelu, sums;
    float* statistics = nullptr;
};

template <typename T>
Output<T> output_of(const FeedForwardBlock<T>& block) {
    return {block.n_tokens,   block.inner, block.hidden, block.weights[1],
            block.biases[1], block.norm,  block.eps,    block.dropout};
}

template <typename T>
void check(const FeedForwardBlock<T>& block) {
    check_size("hidden_size", block.hidden, kOperand<T>);
    check_size("intermediate_size", block.inner, kOperand<T>);
}

}  // namespace

template <typename T>
Index saved_columns(const BlockKernels<T>& kernels, FeedForwardBlock<T> block) {
    check(block);
    block.n_tokens = kPiece / sizeof(T);  // then no piece of memory needs filling up
    return Saved<T>(block, kernels.panel).layout.size() / kPiece;
}

template <typename T>
bool forward(const Call<T>& call, const FeedForwardBlock<T>& block, T* out, T* saved_to) {
    check(block);
    const BlockKernels<T>& kernels = call.kernels;
    const Index panel = kernels.panel, n_tokens = block.n_tokens, hidden = block.hidden, inner = block.inner;
    const int n_threads = useful_threads(call.n_threads, 2 * n_tokens * hidden * inner);
    const Index inner_panels = ceil_div(inner, panel);

    Layout layout(panel);
    T* inner_packed;
    float* scratch;
    std::byte* unsaved;
    Matrix<T> activated;
    Saved<T> saved(block, panel);
    OutputForward<T> output(kernels, output_of(block), layout);
    layout.add(&inner_packed, layout.padded(inner) * hidden);
    layout.add(&activated, n_tokens, inner);
    layout.add(&scratch, n_threads * kernels.product_scratch);
    layout.add(&unsaved, saved_to ? 0 : saved.layout.size());
    const Borrowed memory(layout);
    saved.layout.place(saved_to ? reinterpret_cast<std::byte*>(saved_to) : unsaved);

    BlockProduct<T> to_inner;
    to_inner.a = in_rows(block.x, hidden, panel);
    to_inner.b = inner_packed;
    to_inner.k = hidden;
    to_inner.n = inner;
    to_inner.end = End::kGelu;
    to_inner.bias = block.biases[0];
    to_inner.c = saved.before_gelu;
    to_inner.second = activated;
    const BlockProduct<T> to_sums = output.product(activated, block.x, saved.sums);

    return run_phases(n_threads, call.wants_stop, [&](Worker& worker) {
        float* const own = scratch + worker.rank * kernels.product_scratch;
        worker.each(inner_panels + output.n_preparations(), [&](Index task) {
            take(task, inner_panels, [&](Index i) {
                kernels.pack_transposed(block.weights[0], inner, hidden, i, inner_packed + i * panel * hidden);
            }) || (output.prepare(task), true);
        }) && worker.each(n_tasks(kernels, to_inner, n_tokens), [&](Index task) {
            multiply(kernels, to_inner, n_tokens, task, own);
        }) && worker.each(n_tasks(kernels, to_sums, n_tokens), [&](Index task) {
            multiply(kernels, to_sums, n_tokens, task, own);
        }) && worker.each(output.n_norms(), [&](Index task) { output.norm(task, saved.sums, out, saved.statistics); });
    });
}

template <typename T>
bool backward(const Call<T>& call, const FeedForwardBlock<T>& block, const T* dout, const T* saved_from,
              const BlockGradients<T, 2>& gradients) {
    check(block);
    const BlockKernels<T>& kernels = call.kernels;
    const Index panel = kernels.panel, n_tokens = block.n_tokens, hidden = block.hidden, inner = block.inner;
    const int n_threads = useful_threads(call.n_threads, 4 * n_tokens * hidden * inner);
    const Index hidden_panels = ceil_div(hidden, panel);

    Layout layout(panel);
    T* inner_packed;
    float* scratch;
    Matrix<T> activated, dinner;
    Saved<T> saved(block, panel);
    OutputBackward<T> output(kernels, output_of(block), n_threads, layout);
    layout.add(&inner_packed, layout.padded(hidden) * inner);
    layout.add(&activated, n_tokens, inner);
    layout.add(&dinner, n_tokens, inner);
    layout.add(&scratch, n_threads * kernels.product_scratch);
    const Borrowed memory(layout);
    saved.layout.place(reinterpret_cast<std::byte*>(const_cast<T*>(saved_from)));

    BlockProduct<T> to_dinner = output.product();
    to_dinner.end = End::kGeluBackward;
    to_dinner.other = saved.before_gelu;
    to_dinner.c = dinner;
    to_dinner.second = activated;

    BlockProduct<T> to_dx;
    to_dx.a = dinner;
    to_dx.b = inner_packed;
    to_dx.k = inner;
    to_dx.n = hidden;
    to_dx.end = End::kAdd;
    to_dx.other = output.dsums();
    to_dx.c = in_rows(gradients.x, hidden, panel);

    const WeightGradient<T> douter = output.weight_gradient(activated, gradients.weights[1], gradients.biases[1]);
    const WeightGradient<T> dinner_weight{dinner, in_rows(block.x, hidden, panel), n_tokens, inner, hidden,
                                       gradients.weights[0], gradients.biases[0]};
    const Index n_dx = gradients.x ? n_tasks(kernels, to_dx, n_tokens) : 0;
    const Index n_douter = n_tasks(kernels, douter), n_dinner = n_tasks(kernels, dinner_weight);

    return run_phases(n_threads, call.wants_stop, [&](Worker& worker) {
        float* const own = scratch + worker.rank * kernels.product_scratch;
        worker.each(hidden_panels + output.n_preparations(), [&](Index task) {
            take(task, hidden_panels, [&](Index i) {
                kernels.pack(block.weights[0], inner, hidden, i, inner_packed + i * panel * inner);
            }) || (output.prepare(task, dout, saved.sums, saved.statistics, worker.rank), true);
        }) && worker.each(n_tasks(kernels, to_dinner, n_tokens), [&](Index task) {
            multiply(kernels, to_dinner, n_tokens, task, own);
        }) && worker.each(n_douter + n_dinner + n_dx + 1, [&](Index task) {
            take(task, n_douter, [&](Index i) { add_up(kernels, douter, i, own); }) ||
                take(task, n_dinner, [&](Index i) { add_up(kernels, dinner_weight, i, own); }) ||
                take(task, n_dx, [&](Index i) { multiply(kernels, to_dx, n_tokens, i, own); }) ||
                (output.add_norms(gradients.norm_weight, gradients.norm_bias), true);
        });
    });
}

#define INSTANTIATE(T)                                                                   \
    template Index saved_columns(const BlockKernels<T>&, FeedForwardBlock<T>);                      \
    template bool forward(const Call<T>&, const FeedForwardBlock<T>&, T*, T*);                     \
    template bool backward(const Call<T>&, const FeedForwardBlock<T>&, const T*, const T*, const BlockGradients<T, 2>&);
INSTANTIATE(float)
INSTANTIATE(Bf16)

}  // namespace electra_fast::cpu
