#include "cpu/linear_gelu.h"

#include <algorithm>

namespace electra_fast::cpu {

namespace {

// Rows of a task that goes through GELU's derivative.
constexpr Index kTaskRows = 16;

void check(const LinearGelu& linear) {
    check_size("in_features", linear.k, kOperand<float>);
    check_size("out_features", linear.n, kOperand<float>);
}

}  // namespace

int threads_for(const Call<float>& call, const LinearGelu& linear) {
    return useful_threads(call.n_threads, linear.n_rows * linear.k * linear.n);
}

LinearGeluForward::LinearGeluForward(const BlockKernels<float>& kernels, const LinearGelu& linear, Layout& layout)
    : kernels_(kernels), linear_(linear) {
    layout.add(&packed_, layout.padded(linear.n) * linear.k);
}

Index LinearGeluForward::n_preparations() const { return ceil_div(linear_.n, kernels_.panel); }

void LinearGeluForward::prepare(Index task) const {
    kernels_.pack_transposed(linear_.weight, linear_.n, linear_.k, task, packed_ + task * kernels_.panel * linear_.k);
}

BlockProduct<float> LinearGeluForward::product(const Matrix<float>& before_gelu, const Matrix<float>& out) const {
    BlockProduct<float> product;
    product.a = in_rows(linear_.x, linear_.k, kernels_.panel);
    product.b = packed_;
    product.k = linear_.k;
    product.n = linear_.n;
    product.end = End::kGelu;
    product.bias = linear_.bias;
    product.c = before_gelu;
    product.second = out;
    return product;
}

LinearGeluBackward::LinearGeluBackward(const BlockKernels<float>& kernels, const LinearGelu& linear, Layout& layout)
    : kernels_(kernels), linear_(linear) {
    layout.add(&packed_, layout.padded(linear.k) * linear.n);
    layout.add(&dbefore_, linear.n_rows, linear.n);
}

Index LinearGeluBackward::n_preparations() const { return ceil_div(linear_.k, kernels_.panel); }

void LinearGeluBackward::prepare(Index task) const {
    kernels_.pack(linear_.weight, linear_.n, linear_.k, task, packed_ + task * kernels_.panel * linear_.n);
}

BlockProduct<float> LinearGeluBackward::product(float* dx) const {
    BlockProduct<float> product;
    product.a = dbefore_;
    product.b = packed_;
    product.k = linear_.n;
    product.n = linear_.k;
    product.end = End::kAdd;
    product.c = in_rows(dx, linear_.k, kernels_.panel);
    return product;
}

WeightGradient<float> LinearGeluBackward::weight_gradient(float* weight, float* bias) const {
    return {dbefore_, in_rows(linear_.x, linear_.k, kernels_.panel), linear_.n_rows, linear_.n, linear_.k, weight, bias};
}

Index saved_columns(const BlockKernels<float>& kernels, const LinearGelu& linear) {
    check(linear);
    return Layout(kernels.panel).padded(linear.n);
}

bool forward(const Call<float>& call, const LinearGelu& linear, float* out, float* saved_to) {
    check(linear);
    const BlockKernels<float>& kernels = call.kernels;
    const int n_threads = threads_for(call, linear);

    Layout layout(kernels.panel);
    SavedLinearGelu saved(linear, kernels.panel);
    const LinearGeluForward steps(kernels, linear, layout);
    float* scratch;
    layout.add(&scratch, n_threads * kernels.product_scratch);
    const Borrowed memory(layout);
    const Matrix<float> to = in_rows(out, linear.n, kernels.panel);
    if (saved_to) saved.layout.place(reinterpret_cast<std::byte*>(saved_to));
    const BlockProduct<float> product = steps.product(saved_to ? saved.before_gelu : to, to);

    return run_phases(n_threads, call.wants_stop, [&](Worker& worker) {
        float* const own = scratch + worker.rank * kernels.product_scratch;
        worker.each(steps.n_preparations(), [&](Index task) { steps.prepare(task); }) &&
            worker.each(n_tasks(kernels, product, linear.n_rows),
                        [&](Index task) { multiply(kernels, product, linear.n_rows, task, own); });
    });
}

bool backward(const Call<float>& call, const LinearGelu& linear, const float* dout, const float* saved_from,
              const LinearGeluGradients& gradients) {
    check(linear);
    const BlockKernels<float>& kernels = call.kernels;
    const Index n_rows = linear.n_rows;
    const int n_threads = threads_for(call, linear);

    Layout layout(kernels.panel);
    SavedLinearGelu saved(linear, kernels.panel);
    const LinearGeluBackward steps(kernels, linear, layout);
    float* scratch;
    layout.add(&scratch, n_threads * kernels.product_scratch);
    const Borrowed memory(layout);
    saved.layout.place(reinterpret_cast<std::byte*>(const_cast<float*>(saved_from)));

    const BlockProduct<float> to_dx = steps.product(gradients.x);
    const WeightGradient<float> dweight = steps.weight_gradient(gradients.weight, gradients.bias);
    const Index n_dx = gradients.x ? n_tasks(kernels, to_dx, n_rows) : 0, n_dweight = n_tasks(kernels, dweight);

    return run_phases(n_threads, call.wants_stop, [&](Worker& worker) {
        float* const own = scratch + worker.rank * kernels.product_scratch;
        worker.each(steps.n_preparations() + ceil_div(n_rows, kTaskRows), [&](Index task) {
            take(task, steps.n_preparations(), [&](Index i) { steps.prepare(i); }) ||
                (kernels.gelu_backward(saved.before_gelu, dout, linear.n, task * kTaskRows,
                                       std::min((task + 1) * kTaskRows, n_rows), steps.dbefore()),
                 true);
        }) && worker.each(n_dweight + n_dx, [&](Index task) {
            take(task, n_dweight, [&](Index i) { add_up(kernels, dweight, i, own); }) ||
                (multiply(kernels, to_dx, n_rows, task, own), true);
        });
    });
}

}  // namespace electra_fast::cpu
