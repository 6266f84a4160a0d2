#include "cpu/block_steps.h"

namespace electra_fast::cpu {

namespace {

// What a forward saves.
struct Saved {
    Saved(const FeedForwardBlock& block, long panel) : layout(panel) {
        layout.add(&before_gelu, block.n_tokens, block.inner);
        layout.add(&sums, block.n_tokens, block.hidden);
        layout.add(&statistics, 2 * block.n_tokens);
    }
    Saved(const Saved&) = delete;

    Layout layout;
    Matrix before_gelu, sums;
    float* statistics = nullptr;
};

Output output_of(const FeedForwardBlock& block) {
    return {block.n_tokens,   block.inner, block.hidden, block.weights[1],
            block.biases[1], block.norm,  block.eps,    block.dropout};
}

void check(const FeedForwardBlock& block) {
    check_size("hidden_size", block.hidden);
    check_size("intermediate_size", block.inner);
}

}  // namespace

long saved_columns(const BlockKernels& kernels, FeedForwardBlock block) {
    check(block);
    block.n_tokens = kPiece;
    return Saved(block, kernels.panel).layout.size() / kPiece;
}

bool forward(const Call& call, const FeedForwardBlock& block, float* out, float* saved_to) {
    check(block);
    const BlockKernels& kernels = call.kernels;
    const long panel = kernels.panel, n_tokens = block.n_tokens, hidden = block.hidden, inner = block.inner;
    const int n_threads = useful_threads(call, 2 * n_tokens * hidden * inner);
    const long inner_panels = ceil_div(inner, panel);

    Layout layout(panel);
    float *inner_packed, *scratch, *unsaved;
    Matrix activated;
    Saved saved(block, panel);
    OutputForward output(kernels, output_of(block), layout);
    layout.add(&inner_packed, layout.padded(inner) * hidden);
    layout.add(&activated, n_tokens, inner);
    layout.add(&scratch, n_threads * product_scratch(kernels));
    layout.add(&unsaved, saved_to ? 0 : saved.layout.size());
    const Borrowed memory(layout);
    saved.layout.place(saved_to ? saved_to : unsaved);

    BlockProduct to_inner;
    to_inner.a = in_rows(block.x, hidden, panel);
    to_inner.b = inner_packed;
    to_inner.k = hidden;
    to_inner.n = inner;
    to_inner.end = End::kGelu;
    to_inner.bias = block.biases[0];
    to_inner.c = saved.before_gelu;
    to_inner.second = activated;
    const BlockProduct to_sums = output.product(activated, block.x, saved.sums);

    return run_phases(n_threads, call.wants_stop, [&](Worker& worker) {
        float* const own = scratch + worker.rank * product_scratch(kernels);
        worker.each(inner_panels + output.n_preparations(), [&](long task) {
            take(task, inner_panels, [&](long i) {
                kernels.pack_transposed(block.weights[0], inner, hidden, i, inner_packed + i * panel * hidden);
            }) || (output.prepare(task), true);
        }) && worker.each(n_tasks(kernels, to_inner, n_tokens), [&](long task) {
            multiply(kernels, to_inner, n_tokens, task, own);
        }) && worker.each(n_tasks(kernels, to_sums, n_tokens), [&](long task) {
            multiply(kernels, to_sums, n_tokens, task, own);
        }) && worker.each(output.n_norms(), [&](long task) { output.norm(task, saved.sums, out, saved.statistics); });
    });
}

bool backward(const Call& call, const FeedForwardBlock& block, const float* dout, const float* saved_from,
              const BlockGradients<2>& gradients) {
    check(block);
    const BlockKernels& kernels = call.kernels;
    const long panel = kernels.panel, n_tokens = block.n_tokens, hidden = block.hidden, inner = block.inner;
    const int n_threads = useful_threads(call, 4 * n_tokens * hidden * inner);
    const long hidden_panels = ceil_div(hidden, panel);

    Layout layout(panel);
    float *inner_packed, *scratch;
    Matrix activated, dinner;
    Saved saved(block, panel);
    OutputBackward output(kernels, output_of(block), n_threads, layout);
    layout.add(&inner_packed, layout.padded(hidden) * inner);
    layout.add(&activated, n_tokens, inner);
    layout.add(&dinner, n_tokens, inner);
    layout.add(&scratch, n_threads * product_scratch(kernels));
    const Borrowed memory(layout);
    saved.layout.place(const_cast<float*>(saved_from));

    BlockProduct to_dinner = output.product();
    to_dinner.end = End::kGeluBackward;
    to_dinner.other = saved.before_gelu;
    to_dinner.c = dinner;
    to_dinner.second = activated;

    BlockProduct to_dx;
    to_dx.a = dinner;
    to_dx.b = inner_packed;
    to_dx.k = inner;
    to_dx.n = hidden;
    to_dx.end = End::kAdd;
    to_dx.other = output.dsums();
    to_dx.c = in_rows(gradients.x, hidden, panel);

    const WeightGradient douter = output.weight_gradient(activated, gradients.weights[1], gradients.biases[1]);
    const WeightGradient dinner_weight{dinner, in_rows(block.x, hidden, panel), n_tokens, inner, hidden,
                                       gradients.weights[0], gradients.biases[0]};
    const long n_dx = gradients.x ? n_tasks(kernels, to_dx, n_tokens) : 0;
    const long n_douter = n_tasks(kernels, douter), n_dinner = n_tasks(kernels, dinner_weight);

    return run_phases(n_threads, call.wants_stop, [&](Worker& worker) {
        float* const own = scratch + worker.rank * product_scratch(kernels);
        worker.each(hidden_panels + output.n_preparations(), [&](long task) {
            take(task, hidden_panels, [&](long i) {
                kernels.pack(block.weights[0], inner, hidden, i, inner_packed + i * panel * inner);
            }) || (output.prepare(task, dout, saved.sums, saved.statistics, worker.rank), true);
        }) && worker.each(n_tasks(kernels, to_dinner, n_tokens), [&](long task) {
            multiply(kernels, to_dinner, n_tokens, task, own);
        }) && worker.each(n_douter + n_dinner + n_dx + 1, [&](long task) {
            take(task, n_douter, [&](long i) { add_up(kernels, douter, i, own); }) ||
                take(task, n_dinner, [&](long i) { add_up(kernels, dinner_weight, i, own); }) ||
                take(task, n_dx, [&](long i) { multiply(kernels, to_dx, n_tokens, i, own); }) ||
                (output.add_norms(gradients.norm_weight, gradients.norm_bias), true);
        });
    });
}

}  // namespace electra_fast::cpu
