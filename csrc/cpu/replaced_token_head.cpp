#include "cpu/replaced_token_head.h"

#include <algorithm>
#include <numeric>

#include "cpu/linear_gelu.h"

namespace electra_fast::cpu {

namespace {

// Tokens of a task; gradients are sums of their sums.
constexpr Index kTaskTokens = 16;

LinearGelu dense_of(const ReplacedTokenHead& head) {
    return {head.n_tokens, head.hidden, head.hidden, head.x, head.weight, head.bias};
}

template <typename F>
void for_task(const ReplacedTokenHead& head, Index task, const F& f) {
    f(task * kTaskTokens, std::min((task + 1) * kTaskTokens, head.n_tokens));
}

}  // namespace

Index saved_columns(const BlockKernels<float>& kernels, const ReplacedTokenHead& head) {
    return saved_columns(kernels, dense_of(head));
}

bool forward(const Call<float>& call, const ReplacedTokenHead& head, float* logits, float* saved_to) {
    check_size("hidden_size", head.hidden, kOperand<float>);
    const BlockKernels<float>& kernels = call.kernels;
    const Index panel = kernels.panel, n_tokens = head.n_tokens, hidden = head.hidden;
    const LinearGelu dense = dense_of(head);
    const int n_threads = threads_for(call, dense);

    Layout layout(panel);
    SavedLinearGelu saved(dense, panel);
    const LinearGeluForward steps(kernels, dense, layout);
    Matrix<float> activated;
    float* scratch;
    std::byte* unsaved;
    layout.add(&activated, n_tokens, hidden);
    layout.add(&scratch, n_threads * kernels.product_scratch);
    layout.add(&unsaved, saved_to ? 0 : saved.layout.size());
    const Borrowed memory(layout);
    saved.layout.place(saved_to ? reinterpret_cast<std::byte*>(saved_to) : unsaved);
    const BlockProduct<float> product = steps.product(saved.before_gelu, activated);

    return run_phases(n_threads, call.wants_stop, [&](Worker& worker) {
        float* const own = scratch + worker.rank * kernels.product_scratch;
        worker.each(steps.n_preparations(), [&](Index task) { steps.prepare(task); }) &&
            worker.each(n_tasks(kernels, product, n_tokens),
                        [&](Index task) { multiply(kernels, product, n_tokens, task, own); }) &&
            worker.each(ceil_div(n_tokens, kTaskTokens), [&](Index task) {
                for_task(head, task, [&](Index first, Index last) {
                    kernels.project(activated, head.gate, *head.offset, hidden, first, last, logits);
                });
            });
    });
}

bool backward(const Call<float>& call, const ReplacedTokenHead& head, const float* dlogits, const float* saved_from,
              const ReplacedTokenGradients& gradients) {
    check_size("hidden_size", head.hidden, kOperand<float>);
    const BlockKernels<float>& kernels = call.kernels;
    const Index panel = kernels.panel, n_tokens = head.n_tokens, hidden = head.hidden;
    const LinearGelu dense = dense_of(head);
    const int n_threads = threads_for(call, dense);
    const Index n_gates = ceil_div(n_tokens, kTaskTokens);

    Layout layout(panel);
    SavedLinearGelu saved(dense, panel);
    const LinearGeluBackward steps(kernels, dense, layout);
    float *partials, *scratch;
    layout.add(&partials, n_gates * hidden);
    layout.add(&scratch, n_threads * kernels.product_scratch);
    const Borrowed memory(layout);
    saved.layout.place(reinterpret_cast<std::byte*>(const_cast<float*>(saved_from)));

    const BlockProduct<float> to_dx = steps.product(gradients.x);
    const WeightGradient<float> dweight = steps.weight_gradient(gradients.weight, gradients.bias);
    const Index n_dx = gradients.x ? n_tasks(kernels, to_dx, n_tokens) : 0, n_dweight = n_tasks(kernels, dweight);

    const auto add_up_end = [&] {
        if (gradients.gate) {
            std::fill_n(gradients.gate, hidden, 0.0f);
            for (Index i = 0; i < n_gates * hidden; ++i) gradients.gate[i % hidden] += partials[i];
        }
        if (gradients.offset) *gradients.offset = static_cast<float>(std::accumulate(dlogits, dlogits + n_tokens, 0.0));
    };

    return run_phases(n_threads, call.wants_stop, [&](Worker& worker) {
        float* const own = scratch + worker.rank * kernels.product_scratch;
        worker.each(steps.n_preparations() + n_gates, [&](Index task) {
            take(task, steps.n_preparations(), [&](Index i) { steps.prepare(i); }) ||
                (for_task(head, task, [&](Index first, Index last) {
                    float* const partial = partials + task * hidden;
                    std::fill_n(partial, hidden, 0.0f);
                    kernels.project_backward(
                        saved.before_gelu, head.gate, dlogits, hidden, first, last, steps.dbefore(), partial);
                }), true);
        }) && worker.each(n_dweight + n_dx + 1, [&](Index task) {
            take(task, n_dweight, [&](Index i) { add_up(kernels, dweight, i, own); }) ||
                take(task, n_dx, [&](Index i) { multiply(kernels, to_dx, n_tokens, i, own); }) ||
                (add_up_end(), true);
        });
    });
}

}  // namespace electra_fast::cpu
