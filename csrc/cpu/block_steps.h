// What the two blocks share: memory, tasks, and their second part, y = LayerNorm(x + dropout(input W' + b)).

#pragma once

#include <memory>
#include <vector>

#include "cpu/blocks.h"
#include "cpu/phases.h"
#include "pages.h"

namespace electra_fast::cpu {

inline long ceil_div(long a, long b) { return (a + b - 1) / b; }

// Throws std::invalid_argument unless the size is from 1 to a million: products of two sizes, and of one and a number of
// tokens, are then far from overflowing.
void check_size(const char* name, long size);

// The number of threads worth waking for so many multiplications.
int useful_threads(const Call& call, long n_products);

// Pieces of memory begin at multiples of so many floats.
constexpr long kPiece = 16;

// Places of a call's numbers, counted first and then given memory in one piece.
class Layout {
public:
    explicit Layout(long panel) : panel_(panel) {}

    void add(float** to, long n);
    // Adds a matrix [rows, columns] in panels.
    void add(Matrix* to, long rows, long columns);
    long padded(long columns) const { return ceil_div(columns, panel_) * panel_; }
    long size() const { return size_; }
    void place(float* memory) const;

private:
    struct Place {
        float** to;
        long offset;
    };
    const long panel_;
    long size_ = 0;
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
bool take(long& task, long n, const F& f) {
    if (task >= n) {
        task -= n;
        return false;
    }
    f(task);
    return true;
}

// A matrix of torch's.
template <typename T>
MatrixOf<T> in_rows(T* data, long columns, long panel) { return {data, columns, panel}; }

// A task of a product is a panel of columns by some rows; neighbours share the panel.
long n_tasks(const BlockKernels& kernels, const BlockProduct& product, long n_rows);
void multiply(const BlockKernels& kernels, const BlockProduct& product, long n_rows, long task, float* scratch);

// A task of a weight's gradient is a panel of its rows by one of its columns.
long n_tasks(const BlockKernels& kernels, const WeightGradient& gradient);
void add_up(const BlockKernels& kernels, const WeightGradient& gradient, long task, float* scratch);

// Floats of scratch memory for both.
long product_scratch(const BlockKernels& kernels);

// Adds up parts of the gradients of a LayerNorm's parameters, [tasks, 2, n], where they are wanted.
void add_partials(const float* partials, long n_tasks, long n, float* weight, float* bias);

// The parameters of a block's second part.
struct Output {
    long n_tokens, k, n;
    const float *weight, *bias;
    NormParameters norm;
    float eps;
    Dropout dropout;
};

class OutputForward {
public:
    OutputForward(const BlockKernels& kernels, const Output& output, Layout& layout);

    // The first phase, together with what comes before the product: packs the weight, draws bits.
    long n_preparations() const;
    void prepare(long task) const;

    BlockProduct product(const ConstMatrix& input, const float* x, const Matrix& sums) const;
    long n_norms() const;
    void norm(long task, const Matrix& sums, float* out, float* statistics) const;

private:
    const BlockKernels& kernels_;
    const Output output_;
    const long bits_stride_;
    float *packed_ = nullptr, *bits_ = nullptr;
};

class OutputBackward {
public:
    OutputBackward(const BlockKernels& kernels, const Output& output, int n_threads, Layout& layout);

    // The first phase: packs the weight, and computes the gradients of the sums and of what dropout left of them.
    long n_preparations() const;
    void prepare(long task, const float* dout, const ConstMatrix& sums, const float* statistics, int rank) const;

    // The product that gives the gradient of the input; the caller adds where it goes.
    BlockProduct product() const;
    WeightGradient weight_gradient(const ConstMatrix& input, float* weight, float* bias) const;
    ConstMatrix dsums() const { return dsums_; }
    // Adds up the gradients of LayerNorm's parameters, where they are wanted.
    void add_norms(float* weight, float* bias) const;

private:
    const Matrix& dbranch() const { return output_.dropout.threshold ? dbranch_ : dsums_; }
    long n_norms() const;

    const BlockKernels& kernels_;
    const Output output_;
    const long bits_floats_;
    float *packed_ = nullptr, *partials_ = nullptr, *bits_ = nullptr;
    Matrix dsums_, dbranch_;
};

}  // namespace electra_fast::cpu
