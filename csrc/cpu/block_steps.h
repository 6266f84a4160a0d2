// What the two blocks share: memory, tasks, and their second part, y = LayerNorm(x + dropout(input W' + b)).

#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "cpu/blocks.h"
#include "cpu/index.h"
#include "cpu/phases.h"
#include "pages.h"

namespace electra_fast::cpu {

inline Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

// Throws std::invalid_argument unless the size is from 1 to a million, and a multiple of `operand`: products of two
// sizes, and of one and a number of tokens, are then far from overflowing.
void check_size(const char* name, Index size, Index operand);

// The number of threads worth waking for so many multiplications, of n_threads.
int useful_threads(int n_threads, Index n_products);

// Pieces of memory begin at multiples of so many bytes.
constexpr Index kPiece = 64;

// Places of a call's numbers, counted first and then given memory in one piece.
class Layout {
public:
    explicit Layout(Index panel) : panel_(panel) {}

    template <typename T>
    void add(T** to, Index n) {
        const auto set = [](void* place, std::byte* memory) {
            *static_cast<T**>(place) = reinterpret_cast<T*>(memory);
        };
        places_.push_back({to, set, size_});
        size_ += ceil_div(n * static_cast<Index>(sizeof(T)), kPiece) * kPiece;
    }
    // Adds a matrix [rows, columns] in panels.
    template <typename T>
    void add(Matrix<T>* to, Index rows, Index columns) {
        to->row_stride = panel_;
        to->panel_stride = rows * panel_;
        add(&to->data, padded(columns) * rows);
    }
    Index padded(Index columns) const { return ceil_div(columns, panel_) * panel_; }
    // Bytes of all.
    Index size() const { return size_; }
    void place(std::byte* memory) const;

private:
    struct Place {
        void* to;
        void (*set)(void* to, std::byte* memory);
        Index offset;
    };
    const Index panel_;
    Index size_ = 0;
    std::vector<Place> places_;
};

// Memory that a call borrows. It is kept for later calls: fresh pages cost time.
class Borrowed {
public:
    explicit Borrowed(const Layout& layout);
    ~Borrowed();
    Borrowed(const Borrowed&) = delete;
    Borrowed& operator=(const Borrowed&) = delete;

    struct Pages;

private:
    std::unique_ptr<Pages> pages_;
};

// One kind of task in a phase that has several: takes the phase's task if it is one of this kind's n, else makes it
// count from the next kind's first one.
template <typename F>
bool take(Index& task, Index n, const F& f) {
    if (task >= n) {
        task -= n;
        return false;
    }
    f(task);
    return true;
}

// A matrix of torch's.
template <typename T>
Matrix<T> in_rows(T* data, Index columns, Index panel) { return {data, columns, panel}; }

// A task of a product is a panel of columns by some rows; neighbours share the panel.
template <typename T>
Index n_tasks(const BlockKernels<T>& kernels, const BlockProduct<T>& product, Index n_rows);
template <typename T>
void multiply(const BlockKernels<T>& kernels, const BlockProduct<T>& product, Index n_rows, Index task, float* scratch);

// A task of a weight's gradient is a panel of its rows by one of its columns.
template <typename T>
Index n_tasks(const BlockKernels<T>& kernels, const WeightGradient<T>& gradient);
template <typename T>
void add_up(const BlockKernels<T>& kernels, const WeightGradient<T>& gradient, Index task, float* scratch);

// Adds up parts of the gradients of a LayerNorm's parameters, [tasks, 2, n], where they are wanted.
template <typename T>
void add_partials(const float* partials, Index n_tasks, Index n, T* weight, T* bias);

// The parameters of a block's second part.
template <typename T>
struct Output {
    Index n_tokens, k, n;
    const T *weight, *bias;
    NormParameters<T> norm;
    float eps;
    Dropout dropout;
    const Index* tokens = nullptr;  // the row of dropout's bits for each row; null: the row itself
};

template <typename T>
class OutputForward {
public:
    OutputForward(const BlockKernels<T>& kernels, const Output<T>& output, Layout& layout);

    // The first phase, together with what comes before the product: packs the weight, draws bits.
    Index n_preparations() const;
    void prepare(Index task) const;

    BlockProduct<T> product(const Matrix<const T>& input, const T* x, const Matrix<T>& sums) const;
    Index n_norms() const;
    void norm(Index task, const Matrix<T>& sums, T* out, float* statistics) const;

private:
    const BlockKernels<T>& kernels_;
    const Output<T> output_;
    const Index bits_stride_;
    T* packed_ = nullptr;
    std::uint8_t* bits_ = nullptr;
};

template <typename T>
class OutputBackward {
public:
    OutputBackward(const BlockKernels<T>& kernels, const Output<T>& output, int n_threads, Layout& layout);

    // The first phase: packs the weight, and computes the gradients of the sums and of what dropout left of them.
    Index n_preparations() const;
    void prepare(Index task, const T* dout, const Matrix<const T>& sums, const float* statistics, int rank) const;

    // The product that gives the gradient of the input; the caller adds where it goes.
    BlockProduct<T> product() const;
    WeightGradient<T> weight_gradient(const Matrix<const T>& input, T* weight, T* bias) const;
    Matrix<const T> dsums() const { return dsums_; }
    // Adds up the gradients of LayerNorm's parameters, where they are wanted.
    void add_norms(T* weight, T* bias) const;

private:
    const Matrix<T>& dbranch() const { return output_.dropout.threshold ? dbranch_ : dsums_; }
    Index n_norms() const;

    const BlockKernels<T>& kernels_;
    const Output<T> output_;
    const Index bits_stride_;
    T* packed_ = nullptr;
    float* partials_ = nullptr;
    std::uint8_t* bits_ = nullptr;
    Matrix<T> dsums_, dbranch_;
};

}  // namespace electra_fast::cpu
