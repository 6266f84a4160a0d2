#include "cpu/block_steps.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "cpu/variants.h"
#include "spare.h"

namespace electra_fast::cpu {

namespace {

// Rows of a task that draws bits or goes through LayerNorm. Gradients are sums of their sums, which is more exact.
constexpr long kNormRows = 16;
constexpr long kMostSize = 1L << 20;
// Multiplications of a thread below which another one is not worth waking.
constexpr long kThreadProducts = 1L << 21;

}  // namespace

void check_size(const char* name, long size) {
    if (size < 1 || size > kMostSize)
        throw std::invalid_argument(std::string(name) + " must be from 1 to " + std::to_string(kMostSize) + ", got " +
                                    std::to_string(size));
}

int useful_threads(const Call& call, long n_products) {
    return static_cast<int>(std::clamp(n_products / kThreadProducts, 1L, std::max<long>(call.n_threads, 1)));
}

void Layout::add(float** to, long n) {
    places_.push_back({to, size_});
    size_ += ceil_div(n, kPiece) * kPiece;
}

void Layout::add(Matrix* to, long rows, long columns) {
    to->row_stride = panel_;
    to->panel_stride = rows * panel_;
    add(&to->data, padded(columns) * rows);
}

void Layout::place(float* memory) const {
    for (const auto& [to, offset] : places_) *to = memory + offset;
}

struct Borrowed::Pages {
    explicit Pages(std::size_t n) : n(n), floats(n) {}
    const std::size_t n;
    ZeroedPages<float> floats;
};

// Forward and backward take turns in training; more at once are borrowed by threads that train side by side.
static Spare<Borrowed::Pages, 4>& spare() {
    static Spare<Borrowed::Pages, 4> kept;
    return kept;
}

Borrowed::Borrowed(const Layout& layout) : pages_(spare().take()) {
    const auto n = static_cast<std::size_t>(layout.size());
    if (!pages_ || pages_->n < n) {
        pages_.reset();
        pages_ = std::make_unique<Pages>(n);
    }
    layout.place(pages_->floats.data());
}

Borrowed::~Borrowed() { spare().give_back(std::move(pages_)); }

long n_tasks(const BlockKernels& kernels, const BlockProduct& product, long n_rows) {
    return ceil_div(product.n, kernels.panel) * ceil_div(n_rows, kernels.task_rows);
}

void multiply(const BlockKernels& kernels, const BlockProduct& product, long n_rows, long task, float* scratch) {
    const long n_blocks = ceil_div(n_rows, kernels.task_rows), first = task % n_blocks * kernels.task_rows;
    kernels.multiply(product, first, std::min(first + kernels.task_rows, n_rows), task / n_blocks, scratch);
}

static long column_panels(const BlockKernels& kernels, const WeightGradient& gradient) {
    return gradient.out ? ceil_div(gradient.k, kernels.panel) : gradient.bias ? 1 : 0;
}

long n_tasks(const BlockKernels& kernels, const WeightGradient& gradient) {
    return ceil_div(gradient.n, kernels.panel) * column_panels(kernels, gradient);
}

void add_up(const BlockKernels& kernels, const WeightGradient& gradient, long task, float* scratch) {
    const long n_columns = column_panels(kernels, gradient);
    kernels.weight_gradient(gradient, task / n_columns, task % n_columns, scratch);
}

long product_scratch(const BlockKernels& kernels) {
    return std::max(kernels.task_rows, kernels.panel) * kernels.panel;
}

OutputForward::OutputForward(const BlockKernels& kernels, const Output& output, Layout& layout)
    : kernels_(kernels), output_(output), bits_stride_(kernels.bits_stride(output.n)) {
    layout.add(&packed_, layout.padded(output.n) * output.k);
    layout.add(&bits_, output.dropout.threshold ? output.n_tokens * ceil_div(bits_stride_, 4) : 0);
}

long OutputForward::n_norms() const { return ceil_div(output_.n_tokens, kNormRows); }

long OutputForward::n_preparations() const {
    return ceil_div(output_.n, kernels_.panel) + (output_.dropout.threshold ? n_norms() : 0);
}

void OutputForward::prepare(long task) const {
    const bool is_panel = take(task, ceil_div(output_.n, kernels_.panel), [&](long i) {
        kernels_.pack_transposed(output_.weight, output_.n, output_.k, i, packed_ + i * kernels_.panel * output_.k);
    });
    if (is_panel) return;
    auto* const bits = reinterpret_cast<std::uint8_t*>(bits_);
    for (long row = task * kNormRows; row < std::min((task + 1) * kNormRows, output_.n_tokens); ++row)
        kernels_.draw_bits(output_.dropout, static_cast<std::uint32_t>(row), 0, output_.n, bits + row * bits_stride_);
}

BlockProduct OutputForward::product(const ConstMatrix& input, const float* x, const Matrix& sums) const {
    BlockProduct product;
    product.a = input;
    product.b = packed_;
    product.k = output_.k;
    product.n = output_.n;
    product.end = End::kResidual;
    product.bias = output_.bias;
    product.other = in_rows(x, output_.n, kernels_.panel);
    product.c = sums;
    product.bits = output_.dropout.threshold ? reinterpret_cast<const std::uint8_t*>(bits_) : nullptr;
    product.bits_stride = bits_stride_;
    product.scale = output_.dropout.scale;
    return product;
}

void OutputForward::norm(long task, const Matrix& sums, float* out, float* statistics) const {
    kernels_.norm({sums, output_.norm.weight, output_.norm.bias, output_.eps, output_.n, output_.n_tokens, out, statistics},
                  task * kNormRows, std::min((task + 1) * kNormRows, output_.n_tokens));
}

OutputBackward::OutputBackward(const BlockKernels& kernels, const Output& output, int n_threads, Layout& layout)
    : kernels_(kernels), output_(output), bits_floats_(ceil_div(kernels.bits_stride(output.n), 64) * 16) {
    layout.add(&packed_, layout.padded(output.k) * output.n);
    layout.add(&partials_, n_norms() * 2 * output.n);
    layout.add(&bits_, n_threads * bits_floats_);
    layout.add(&dsums_, output.n_tokens, output.n);
    if (output.dropout.threshold) layout.add(&dbranch_, output.n_tokens, output.n);
}

long OutputBackward::n_norms() const { return ceil_div(output_.n_tokens, kNormRows); }

long OutputBackward::n_preparations() const { return ceil_div(output_.k, kernels_.panel) + n_norms(); }

void OutputBackward::prepare(long task, const float* dout, const ConstMatrix& sums, const float* statistics, int rank) const {
    const bool is_panel = take(task, ceil_div(output_.k, kernels_.panel), [&](long i) {
        kernels_.pack(output_.weight, output_.n, output_.k, i, packed_ + i * kernels_.panel * output_.n);
    });
    if (is_panel) return;
    float* const partial = partials_ + task * 2 * output_.n;
    std::fill_n(partial, 2 * output_.n, 0.0f);
    kernels_.norm_backward({dout, sums, output_.norm.weight, statistics, output_.n, output_.n_tokens, output_.dropout,
                            dsums_, dbranch()},
                           task * kNormRows, std::min((task + 1) * kNormRows, output_.n_tokens), partial,
                           reinterpret_cast<std::uint8_t*>(bits_ + rank * bits_floats_));
}

BlockProduct OutputBackward::product() const {
    BlockProduct product;
    product.a = dbranch();
    product.b = packed_;
    product.k = output_.n;
    product.n = output_.k;
    return product;
}

WeightGradient OutputBackward::weight_gradient(const ConstMatrix& input, float* weight, float* bias) const {
    return {dbranch(), input, output_.n_tokens, output_.n, output_.k, weight, bias};
}

void OutputBackward::add_norms(float* weight, float* bias) const {
    add_partials(partials_, n_norms(), output_.n, weight, bias);
}

void add_partials(const float* partials, long n_tasks, long n, float* weight, float* bias) {
    for (const auto& [to, first] : {std::pair(weight, 0L), std::pair(bias, n)}) {
        if (!to) continue;
        std::fill_n(to, n, 0.0f);
        for (long task = 0; task < n_tasks; ++task)
            for (long i = 0; i < n; ++i) to[i] += partials[2 * task * n + first + i];
    }
}

const BlockKernels* block_kernels_of(std::string_view limit) {
    const Kernels* const kernels = kernels_of(limit);
#if defined(__x86_64__)
    if (kernels) return std::string_view(kernels->name) == "AVX2" ? &avx2_block_kernels() : &avx512_block_kernels();
#endif
    return nullptr;
}

}  // namespace electra_fast::cpu
