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
constexpr Index kNormRows = 16;
constexpr Index kMostSize = Index{1} << 20;
// Multiplications of a thread below which another one is not worth waking.
constexpr Index kThreadProducts = Index{1} << 21;

}  // namespace

void check_size(const char* name, Index size, Index operand) {
    if (size < 1 || size > kMostSize)
        throw std::invalid_argument(std::string(name) + " must be from 1 to " + std::to_string(kMostSize) + ", got " +
                                    std::to_string(size));
    if (size % operand != 0)
        throw std::invalid_argument(std::string(name) + " must be even for bfloat16, got " + std::to_string(size));
}

int useful_threads(int n_threads, Index n_products) {
    return static_cast<int>(std::clamp(n_products / kThreadProducts, Index{1}, std::max<Index>(n_threads, 1)));
}

void Layout::place(std::byte* memory) const {
    for (const auto& [to, set, offset] : places_) set(to, memory + offset);
}

struct Borrowed::Pages {
    explicit Pages(std::size_t n) : n(n), bytes(n) {}
    const std::size_t n;
    ZeroedPages<std::byte> bytes;
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
    layout.place(pages_->bytes.data());
}

Borrowed::~Borrowed() { spare().give_back(std::move(pages_)); }

template <typename T>
Index n_tasks(const BlockKernels<T>& kernels, const BlockProduct<T>& product, Index n_rows) {
    return ceil_div(product.n, kernels.panel) * ceil_div(n_rows, kernels.task_rows);
}

template <typename T>
void multiply(const BlockKernels<T>& kernels, const BlockProduct<T>& product, Index n_rows, Index task, float* scratch) {
    const Index n_blocks = ceil_div(n_rows, kernels.task_rows), first = task % n_blocks * kernels.task_rows;
    kernels.multiply(product, first, std::min(first + kernels.task_rows, n_rows), task / n_blocks, scratch);
}

template <typename T>
static Index column_panels(const BlockKernels<T>& kernels, const WeightGradient<T>& gradient) {
    return gradient.out ? ceil_div(gradient.k, kernels.panel) : gradient.bias ? 1 : 0;
}

template <typename T>
Index n_tasks(const BlockKernels<T>& kernels, const WeightGradient<T>& gradient) {
    return ceil_div(gradient.n, kernels.panel) * column_panels(kernels, gradient);
}

template <typename T>
void add_up(const BlockKernels<T>& kernels, const WeightGradient<T>& gradient, Index task, float* scratch) {
    const Index n_columns = column_panels(kernels, gradient);
    kernels.weight_gradient(gradient, task / n_columns, task % n_columns, scratch);
}

template <typename T>
OutputForward<T>::OutputForward(const BlockKernels<T>& kernels, const Output<T>& output, Layout& layout)
    : kernels_(kernels), output_(output), bits_stride_(kernels.bits_stride(output.n)) {
    layout.add(&packed_, layout.padded(output.n) * output.k);
    layout.add(&bits_, output.dropout.threshold ? output.n_tokens * bits_stride_ : 0);
}

template <typename T>
Index OutputForward<T>::n_norms() const { return ceil_div(output_.n_tokens, kNormRows); }

template <typename T>
Index OutputForward<T>::n_preparations() const {
    return ceil_div(output_.n, kernels_.panel) + (output_.dropout.threshold ? n_norms() : 0);
}

template <typename T>
void OutputForward<T>::prepare(Index task) const {
    const bool is_panel = take(task, ceil_div(output_.n, kernels_.panel), [&](Index i) {
        kernels_.pack_transposed(output_.weight, output_.n, output_.k, i, packed_ + i * kernels_.panel * output_.k);
    });
    if (is_panel) return;
    for (Index row = task * kNormRows; row < std::min((task + 1) * kNormRows, output_.n_tokens); ++row)
        kernels_.draw_bits(output_.dropout, static_cast<std::uint32_t>(output_.tokens ? output_.tokens[row] : row), 0,
                           output_.n, bits_ + row * bits_stride_);
}

template <typename T>
BlockProduct<T> OutputForward<T>::product(const Matrix<const T>& input, const T* x, const Matrix<T>& sums) const {
    BlockProduct<T> product;
    product.a = input;
    product.b = packed_;
    product.k = output_.k;
    product.n = output_.n;
    product.end = End::kResidual;
    product.bias = output_.bias;
    product.other = in_rows(x, output_.n, kernels_.panel);
    product.c = sums;
    product.bits = output_.dropout.threshold ? bits_ : nullptr;
    product.bits_stride = bits_stride_;
    product.scale = output_.dropout.scale;
    return product;
}

template <typename T>
void OutputForward<T>::norm(Index task, const Matrix<T>& sums, T* out, float* statistics) const {
    const auto& [weight, bias] = output_.norm;
    kernels_.norm({sums, weight, bias, output_.eps, output_.n, output_.n_tokens, out, statistics},
                  task * kNormRows, std::min((task + 1) * kNormRows, output_.n_tokens));
}

template <typename T>
OutputBackward<T>::OutputBackward(
    const BlockKernels<T>& kernels, const Output<T>& output, int n_threads, Layout& layout)
    : kernels_(kernels), output_(output), bits_stride_(ceil_div(kernels.bits_stride(output.n), kPiece) * kPiece) {
    layout.add(&packed_, layout.padded(output.k) * output.n);
    layout.add(&partials_, n_norms() * 2 * output.n);
    layout.add(&bits_, n_threads * bits_stride_);
    layout.add(&dsums_, output.n_tokens, output.n);
    if (output.dropout.threshold) layout.add(&dbranch_, output.n_tokens, output.n);
}

template <typename T>
Index OutputBackward<T>::n_norms() const { return ceil_div(output_.n_tokens, kNormRows); }

template <typename T>
Index OutputBackward<T>::n_preparations() const { return ceil_div(output_.k, kernels_.panel) + n_norms(); }

template <typename T>
void OutputBackward<T>::prepare(
    Index task, const T* dout, const Matrix<const T>& sums, const float* statistics, int rank) const {
    const bool is_panel = take(task, ceil_div(output_.k, kernels_.panel), [&](Index i) {
        kernels_.pack(output_.weight, output_.n, output_.k, i, packed_ + i * kernels_.panel * output_.n);
    });
    if (is_panel) return;
    float* const partial = partials_ + task * 2 * output_.n;
    std::fill_n(partial, 2 * output_.n, 0.0f);
    kernels_.norm_backward({dout, sums, output_.norm.weight, statistics, output_.n, output_.n_tokens, output_.dropout,
                            dsums_, dbranch(), output_.tokens},
                           task * kNormRows, std::min((task + 1) * kNormRows, output_.n_tokens), partial,
                           bits_ + rank * bits_stride_);
}

template <typename T>
BlockProduct<T> OutputBackward<T>::product() const {
    BlockProduct<T> product;
    product.a = dbranch();
    product.b = packed_;
    product.k = output_.n;
    product.n = output_.k;
    return product;
}

template <typename T>
WeightGradient<T> OutputBackward<T>::weight_gradient(const Matrix<const T>& input, T* weight, T* bias) const {
    return {dbranch(), input, output_.n_tokens, output_.n, output_.k, weight, bias};
}

template <typename T>
void OutputBackward<T>::add_norms(T* weight, T* bias) const {
    add_partials(partials_, n_norms(), output_.n, weight, bias);
}

template <typename T>
void add_partials(const float* partials, Index n_tasks, Index n, T* weight, T* bias) {
    constexpr Index kColumns = 64;
    for (const auto& [to, first] : {std::pair(weight, Index{0}), std::pair(bias, n)}) {
        if (!to) continue;
        for (Index begin = 0; begin < n; begin += kColumns) {
            const Index length = std::min(kColumns, n - begin);
            float sums[kColumns] = {};
            for (Index task = 0; task < n_tasks; ++task)
                for (Index i = 0; i < length; ++i) sums[i] += partials[2 * task * n + first + begin + i];
            std::transform(sums, sums + length, to + begin, [](float x) { return T(x); });
        }
    }
}

template <>
const BlockKernels<float>* block_kernels_of<float>(std::string_view limit) {
    const Kernels* const kernels = kernels_of(limit);
#if defined(__x86_64__)
    if (kernels) return std::string_view(kernels->name).starts_with("AVX2") ? &avx2_block_kernels() : &avx512_block_kernels();
#elif defined(__aarch64__)
    if (kernels) return &neon_block_kernels();
#endif
    return nullptr;
}

template <>
const BlockKernels<Bf16>* block_kernels_of<Bf16>(std::string_view limit) {
#if defined(__x86_64__)
    const Kernels* const kernels = kernels_of(limit);
    if (kernels && !std::string_view(kernels->name).starts_with("AVX2") && __builtin_cpu_supports("avx512bf16"))
        return &bf16_block_kernels();
#else
    (void)limit;
#endif
    return nullptr;
}

#define INSTANTIATE(T)                                                                  \
    template Index n_tasks(const BlockKernels<T>&, const BlockProduct<T>&, Index);        \
    template void multiply(const BlockKernels<T>&, const BlockProduct<T>&, Index, Index, float*); \
    template Index n_tasks(const BlockKernels<T>&, const WeightGradient<T>&);            \
    template void add_up(const BlockKernels<T>&, const WeightGradient<T>&, Index, float*); \
    template void add_partials(const float*, Index, Index, T*, T*);                       \
    template class OutputForward<T>;                                                    \
    template class OutputBackward<T>;
INSTANTIATE(float)
INSTANTIATE(Bf16)

}  // namespace electra_fast::cpu
