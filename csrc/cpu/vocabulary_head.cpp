#include "cpu/vocabulary_head.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/block_steps.h"

namespace electra_fast::cpu {

namespace {

// Rows whose logits are in memory together: enough to read the weight rarely.
constexpr Index kMostRows = 768;
// Logits that are kept for the backward: 8 MB of them are read in less time than it takes to compute them again.
constexpr Index kMostKept = Index{1} << 21;

void check_sizes(const VocabularyHead& head) {
    check_size("embedding_size", head.width, kOperand<float>);
    if (head.vocabulary < 1 || head.vocabulary > Index{1} << 31)
        throw std::invalid_argument("the vocabulary must have from 1 to 2^31 entries, got " +
                                    std::to_string(head.vocabulary));
}

// Checks a call, and returns its labels: a copy, for another thread may write to what was given.
std::vector<std::int64_t> checked_labels(const VocabularyHead& head) {
    check_sizes(head);
    std::vector<std::int64_t> labels(head.labels, head.labels + head.n_rows);
    for (const std::int64_t label : labels)
        if (label < 0 || label >= head.vocabulary)
            throw std::out_of_range("labels must be in [0, " + std::to_string(head.vocabulary) + "), got " +
                                    std::to_string(label));
    return labels;
}

// What a forward saves. It depends on the sizes alone.
struct Saved {
    Saved(const BlockKernels<float>& kernels, const VocabularyHead& head) : layout(kernels.panel) {
        keeps_logits = head.n_rows <= kMostRows && head.n_rows * layout.padded(head.vocabulary) <= kMostKept;
        if (keeps_logits) layout.add(&logits, head.n_rows, head.vocabulary);
        layout.add(&log_sums, head.n_rows);
    }
    Saved(const Saved&) = delete;

    void place(const float* memory) const { layout.place(reinterpret_cast<std::byte*>(const_cast<float*>(memory))); }

    Layout layout;
    bool keeps_logits;
    Matrix<float> logits;
    float* log_sums = nullptr;
};

int threads_for(const Call<float>& call, const VocabularyHead& head) {
    return useful_threads(call.n_threads, head.n_rows * head.width * head.vocabulary);
}

// Calls f(first, last, panel) for the rows and the panel of a product's task.
template <typename F>
void for_task(const BlockKernels<float>& kernels, Index n_rows, Index task, const F& f) {
    const Index n_blocks = ceil_div(n_rows, kernels.task_rows), first = task % n_blocks * kernels.task_rows;
    f(first, std::min(first + kernels.task_rows, n_rows), task / n_blocks);
}

// The logits of some rows, and the weight that they are computed with.
class LogitsOf {
public:
    LogitsOf(const BlockKernels<float>& kernels, const VocabularyHead& head, Layout& layout)
        : kernels_(kernels), head_(head) {
        layout.add(&packed_, layout.padded(head.vocabulary) * head.width);
    }

    Index n_panels() const { return ceil_div(head_.vocabulary, kernels_.panel); }
    void pack(Index panel) const {
        kernels_.pack_transposed(head_.weight, head_.vocabulary, head_.width, panel,
                                 packed_ + panel * kernels_.panel * head_.width);
    }
    // The product for some rows from first_row on; their logits go to `values`.
    BlockProduct<float> product(Index first_row, const Matrix<float>& values) const {
        BlockProduct<float> product;
        product.a = in_rows(head_.hidden + first_row * head_.width, head_.width, kernels_.panel);
        product.b = packed_;
        product.k = head_.width;
        product.n = head_.vocabulary;
        product.bias = head_.bias;
        product.c = values;
        return product;
    }
private:
    const BlockKernels<float>& kernels_;
    const VocabularyHead& head_;
    float* packed_ = nullptr;
};

// One row's softmax from the sums of its panels.
class Row {
public:
    Row(const Matrix<float>& logits, const PanelSums& sums, Index row, Index n, Index panel)
        : logits_(logits), sums_(sums), row_(row), n_(n), panel_(panel) {
        for (Index i = 0; i < n_panels(); ++i) top_ = std::max(top_, sums.largest[i * sums.n_rows + row]);
    }

    float top() const { return top_; }
    float logit(Index column) const {
        return logits_.data[column / panel_ * logits_.panel_stride + row_ * panel_ + column % panel_];
    }
    // log(sum of exp(x)).
    double log_sum() const {
        double total = 0;
        for (Index i = 0; i < n_panels(); ++i) {
            const Index place = i * sums_.n_rows + row_;
            total += sums_.sums[place] * std::exp(static_cast<double>(sums_.largest[place] - top_));
        }
        return top_ + std::log(total);
    }
    // The first column up to which more than the share `uniform` of all weights lies; `never` has none, if not negative.
    Index sample(float uniform, float temperature, Index never) const {
        const auto weight_of = [&](Index column) {
            return column == never ? 0.0 : std::exp(static_cast<double>(logit(column) - top_) / temperature);
        };
        const auto panel_weight = [&](Index i) {
            const Index place = i * sums_.n_rows + row_;
            const double weight =
                sums_.tempered[place] * std::exp(static_cast<double>(sums_.largest[place] - top_) / temperature);
            return never >= 0 && never / panel_ == i ? exactly(i, weight_of) : weight;
        };
        double total = 0, below = 0;
        for (Index i = 0; i < n_panels(); ++i) total += panel_weight(i);
        const double target = uniform * total;
        Index last = 0;  // for a target that rounding puts beyond all weights
        for (Index i = 0; i < n_panels(); ++i) {
            const double weight = panel_weight(i);
            if (below + weight <= target && i + 1 < n_panels()) {
                if (weight > 0) last = i;
                below += weight;
                continue;
            }
            Index found = -1;
            for (Index column = i * panel_; column < std::min((i + 1) * panel_, n_); ++column) {
                const double own = weight_of(column);
                below += own;
                if (own > 0) found = column;
                if (below > target) return column;
            }
            if (found >= 0) return found;
        }
        Index column = std::min((last + 1) * panel_, n_) - 1;
        while (column > 0 && !(weight_of(column) > 0)) --column;
        return column;
    }

private:
    Index n_panels() const { return ceil_div(n_, panel_); }
    template <typename F>
    double exactly(Index i, const F& weight_of) const {
        double weight = 0;
        for (Index column = i * panel_; column < std::min((i + 1) * panel_, n_); ++column) weight += weight_of(column);
        return weight;
    }

    const Matrix<float>& logits_;
    const PanelSums& sums_;
    const Index row_, n_, panel_;
    float top_ = -std::numeric_limits<float>::infinity();
};

}  // namespace

Index saved_floats(const BlockKernels<float>& kernels, const VocabularyHead& head) {
    check_sizes(head);
    return Saved(kernels, head).layout.size() / static_cast<Index>(sizeof(float));
}

bool forward(const Call<float>& call, const VocabularyHead& head, const Samples& samples, const HeadResults& results,
             float* saved_to) {
    const std::vector<std::int64_t> labels = checked_labels(head);
    const BlockKernels<float>& kernels = call.kernels;
    const int n_threads = threads_for(call, head);
    Layout layout(kernels.panel);
    LogitsOf logits(kernels, head, layout);
    PanelSums sums{};
    sums.n_rows = std::min(head.n_rows, kMostRows);
    Saved saved(kernels, head);
    Matrix<float> values;
    float *scratch, *unsaved;
    layout.add(&sums.largest, logits.n_panels() * sums.n_rows);
    layout.add(&sums.sums, logits.n_panels() * sums.n_rows);
    if (samples.uniform) layout.add(&sums.tempered, logits.n_panels() * sums.n_rows);
    layout.add(&scratch, n_threads * kernels.product_scratch);
    layout.add(&unsaved, saved_to ? 0 : saved.layout.size() / static_cast<Index>(sizeof(float)));
    if (!saved.keeps_logits) layout.add(&values, sums.n_rows, head.vocabulary);
    const Borrowed memory(layout);
    saved.place(saved_to ? saved_to : unsaved);
    if (saved.keeps_logits) values = saved.logits;

    Stop stop(call.wants_stop);  // one for all rows: some of them alone are over before it asks
    for (Index begin = 0; begin < head.n_rows; begin += kMostRows) {
        const Index n_rows = std::min(head.n_rows - begin, kMostRows);
        const BlockProduct<float> product = logits.product(begin, values);
        const bool is_done = run_phases(n_threads, stop, [&](Worker& worker) {
            float* const own = scratch + worker.rank * kernels.product_scratch;
            worker.each(begin == 0 ? logits.n_panels() : 0, [&](Index task) { logits.pack(task); }) &&
                worker.each(n_tasks(kernels, product, n_rows), [&](Index task) {
                    multiply(kernels, product, n_rows, task, own);
                    for_task(kernels, n_rows, task, [&](Index first, Index last, Index panel) {
                        kernels.sum_logits({values, head.vocabulary}, samples.temperature, first, last, panel, sums);
                    });
                }) &&
                worker.each(n_rows, [&](Index i) {
                    const Row row(values, sums, i, head.vocabulary, kernels.panel);
                    const Index label = labels[static_cast<std::size_t>(begin + i)];
                    const double log_sum = row.log_sum();
                    saved.log_sums[begin + i] = static_cast<float>(log_sum);
                    results.losses[begin + i] = static_cast<float>(log_sum - row.logit(label));
                    results.is_correct[begin + i] = row.logit(label) >= row.top() && !std::isnan(log_sum);
                    if (samples.uniform)
                        samples.out[begin + i] = row.sample(samples.uniform[begin + i], samples.temperature,
                                                            samples.never_label ? label : -1);
                });
        });
        if (!is_done) return false;
    }
    return true;
}

bool backward(const Call<float>& call, const VocabularyHead& head, const float* saved_from, const float* dlosses,
              const HeadGradients& gradients) {
    const std::vector<std::int64_t> labels = checked_labels(head);
    const BlockKernels<float>& kernels = call.kernels;
    const Index panel = kernels.panel;
    const int n_threads = threads_for(call, head);
    Layout layout(panel);
    LogitsOf logits(kernels, head, layout);
    Saved saved(kernels, head);
    Matrix<float> dvalues;
    float *packed, *scratch;
    const Index width_panels = ceil_div(head.width, panel);
    layout.add(&dvalues, std::min(head.n_rows, kMostRows), head.vocabulary);
    layout.add(&packed, gradients.hidden ? width_panels * panel * head.vocabulary : 0);
    layout.add(&scratch, n_threads * kernels.product_scratch);
    const Borrowed memory(layout);
    saved.place(saved_from);
    const Logits values{saved.keeps_logits ? saved.logits : dvalues, head.vocabulary};

    Stop stop(call.wants_stop);
    for (Index begin = 0; begin == 0 || begin < head.n_rows; begin += kMostRows) {
        const Index n_rows = std::min(head.n_rows - begin, kMostRows);
        const BlockProduct<float> product = logits.product(begin, dvalues);
        BlockProduct<float> to_dhidden;
        to_dhidden.a = dvalues;
        to_dhidden.b = packed;
        to_dhidden.k = head.vocabulary;
        to_dhidden.n = head.width;
        to_dhidden.end = End::kAdd;
        if (gradients.hidden) to_dhidden.c = in_rows(gradients.hidden + begin * head.width, head.width, panel);
        WeightGradient<float> dweight{dvalues, in_rows(head.hidden + begin * head.width, head.width, panel), n_rows,
                               head.vocabulary, head.width, gradients.weight, gradients.bias};
        dweight.adds = begin > 0;
        const Index n_dhidden = gradients.hidden ? n_tasks(kernels, to_dhidden, n_rows) : 0;
        const Index n_packs = begin == 0 && !saved.keeps_logits ? logits.n_panels() : 0;
        const bool is_done = run_phases(n_threads, stop, [&](Worker& worker) {
            float* const own = scratch + worker.rank * kernels.product_scratch;
            worker.each(n_packs + (begin == 0 && gradients.hidden ? width_panels : 0), [&](Index task) {
                take(task, n_packs, [&](Index i) { logits.pack(i); }) ||
                    (kernels.pack(head.weight, head.vocabulary, head.width, task, packed + task * panel * head.vocabulary),
                     true);
            }) && worker.each(n_tasks(kernels, product, n_rows), [&](Index task) {
                if (!saved.keeps_logits) multiply(kernels, product, n_rows, task, own);
                for_task(kernels, n_rows, task, [&](Index first, Index last, Index i) {
                    kernels.logits_backward(values, saved.log_sums + begin, labels.data() + begin, dlosses + begin,
                                            first, last, i, dvalues);
                });
            }) && worker.each(n_dhidden + n_tasks(kernels, dweight), [&](Index task) {
                take(task, n_dhidden, [&](Index i) { multiply(kernels, to_dhidden, n_rows, i, own); }) ||
                    (add_up(kernels, dweight, task, own), true);
            });
        });
        if (!is_done) return false;
    }
    return true;
}

}  // namespace electra_fast::cpu
