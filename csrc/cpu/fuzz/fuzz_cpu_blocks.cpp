// A libFuzzer target (`make fuzz`) that gives the ops on a CPU, forward and backward, arguments of all kinds: sizes,
// starts of sequences, numbers, labels, dropouts, numbers of threads, and gradients that nobody wants. Wrong ones must be
// refused with an exception of the kind that is promised. With right ones results must be those of plain loops, and have
// the same bits on any number of threads, whoever wants which gradients.
//
// All memory ends where its tensor does, so that the address sanitizer guards it.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/fuzz/choices.h"
#include "cpu/fuzz/plain.h"
#include "cpu/optimizer.h"

using namespace electra_fast::cpu;
using namespace electra_fast::cpu::fuzz;

namespace {

using Floats = std::vector<float>;

// Tensors of their exact sizes.
class Memory {
public:
    Memory(Choices& choices, bool is_telling) : choices_(choices), is_telling_(is_telling) {}

    // Few bytes make many numbers: the input would be too long.
    const float* numbers(Index n, double scale) {
        auto values = std::make_unique<Floats>(at(n));
        const float seed = number(choices_, is_telling_);
        const Index step = 1 + choices_.byte();
        for (Index i = 0; i < n; ++i) {
            const double x = scale * static_cast<double>(i * step * 31 % 41 - 20) / 20;
            (*values)[at(i)] = i % 37 == 5 ? seed : static_cast<float>(x);
        }
        kept_.push_back(std::move(values));
        return kept_.back()->data();
    }
    // A weight whose product with numbers of size 1 has numbers of that size.
    const float* weight(Index n, Index k) { return numbers(n * k, 1 / std::sqrt(static_cast<double>(k))); }
    bool is_telling() const { return is_telling_; }

private:
    Choices& choices_;
    const bool is_telling_;
    std::vector<std::unique_ptr<Floats>> kept_;
};

Dropout dropout(Choices& choices) {
    static constexpr std::uint32_t kTelling[] = {0, 1, 6554, 32768, 65535, 65536};
    const std::uint32_t threshold = kTelling[at(choices.upto(5))];
    const float scale = threshold < 65536 ? 65536.0f / static_cast<float>(65536 - threshold) : 0.0f;
    return {threshold, scale, static_cast<std::uint64_t>(choices.any_number()) * 3 + choices.byte()};
}

double largest_of(const Doubles& numbers) {
    double largest = 0;
    for (const double x : numbers) largest = std::max(largest, std::abs(x));
    return largest;
}

// Compares with errors of fp32, in units of the largest number but at least of `least`: a scale of dropout may be large.
void compare(const char* what, const Floats& found, const Doubles& expected, double least) {
    const double largest = std::max(least, largest_of(expected));
    for (std::size_t i = 0; i < expected.size(); ++i)
        if (!(std::abs(found[i] - expected[i]) <= 2e-4 * largest)) {
            std::fprintf(stderr, "%s: number %zu is %g, expected %g, the largest %g\n", what, i,
                         static_cast<double>(found[i]), expected[i], largest);
            fail("numbers that are wrong");
        }
}

// Multiplications of one product up to which plain loops are waited for.
constexpr Index kMostPlain = Index{1} << 20;

// The results and all gradients of an op, on one thread or more; `run(threads, out, gradients)` runs both directions.
// A gradient is null where the fuzzer wants it so.
template <typename Run, typename Expected>
void check(Choices& choices, const Memory& memory, const std::vector<Index>& sizes, Index out_size, Index n_products,
           const Run& run, const Expected& expected) {
    const auto run_with = [&](int n_threads, unsigned wanted, Floats& out, std::vector<Floats>& gradients) {
        out.assign(at(out_size), NAN);
        gradients.clear();
        std::vector<float*> to;
        for (const Index size : sizes) gradients.emplace_back(at(size), NAN);
        for (std::size_t i = 0; i < sizes.size(); ++i) to.push_back(wanted >> i & 1 ? gradients[i].data() : nullptr);
        run(n_threads, out.data(), to);
    };
    Floats out, other_out;
    std::vector<Floats> gradients, others;
    run_with(1, ~0u, out, gradients);
    const unsigned wanted = choices.byte() | choices.byte() << 8;
    run_with(static_cast<int>(choices.upto(4)), wanted, other_out, others);
    if (!is_same(out, other_out)) fail("results that depend on threads");
    for (std::size_t i = 0; i < sizes.size(); ++i)
        if ((wanted >> i & 1) && !is_same(gradients[i], others[i])) fail("gradients that depend on threads or on others");
    if (memory.is_telling() || n_products > kMostPlain) return;
    const Plain right = expected();
    compare("out", out, right.out, 1e-2);
    // The gradient of the keys' bias is zero but for the rounding of what is as large as others.
    double least = 1;
    for (const Doubles& gradient : right.gradients) least = std::max(least, largest_of(gradient));
    for (std::size_t i = 0; i < sizes.size(); ++i)
        compare(("gradient " + std::to_string(i)).c_str(), gradients[i], right.gradients[i], 1e-2 * least);
}

// Calls f, which must throw Error unless the arguments are right; returns whether they were.
template <typename Error, typename F>
bool is_taken(bool is_right, const F& f) {
    try {
        f();
        if (!is_right) fail("wrong arguments were taken");
    } catch (const Error&) {
        if (is_right) fail("right arguments were refused");
    }
    return is_right;
}

void must(bool is_done) {
    if (!is_done) fail("a call ended before its time");
}

// Sizes for few multiplications, at times for several threads.
Index some_tokens(Choices& choices) { return choices.one_in(8) ? choices.upto(255) : choices.upto(40); }

Index rows_of(const AttentionBlock<float>& block) { return block.n_rows(); }
Index rows_of(const FeedForwardBlock<float>& block) { return block.n_tokens; }
Index saved_floats(const BlockKernels<float>& kernels, const AttentionBlock<float>& block) {
    const auto [of_token, of_row] = saved_columns(kernels, block);
    return (block.n_tokens + 1) * of_token + (block.n_rows() + 1) * of_row;
}
Index saved_floats(const BlockKernels<float>& kernels, const FeedForwardBlock<float>& block) {
    return (block.n_tokens + 1) * saved_columns(kernels, block);
}

template <typename Block, std::size_t n>
void run_block(const BlockKernels<float>& kernels, Choices& choices, Memory& memory, const Block& block) {
    const Index out_size = rows_of(block) * block.hidden;
    const float* const dout = memory.numbers(out_size, 1);
    std::vector<Index> sizes{block.n_tokens * block.hidden};
    if constexpr (n == 4) {
        sizes.insert(sizes.end(), 4, block.hidden * block.hidden);
        sizes.insert(sizes.end(), 4, block.hidden);
    } else {
        sizes.insert(sizes.end(), {block.hidden * block.inner, block.hidden * block.inner, block.inner, block.hidden});
    }
    sizes.insert(sizes.end(), 2, block.hidden);
    Floats unsaved(at(out_size));
    check(choices, memory, sizes, out_size, block.n_tokens * sizes[1],
          [&](int n_threads, float* out, const std::vector<float*>& to) {
              const std::function<bool()> wants_stop = never;
              const Call<float> call{kernels, n_threads, wants_stop};
              Floats saved(at(saved_floats(kernels, block)), NAN);
              must(forward(call, block, out, saved.data()));
              must(forward(call, block, unsaved.data(), static_cast<float*>(nullptr)));
              if (!is_same(unsaved, Floats(out, out + out_size))) fail("a forward that saves nothing has other results");
              BlockGradients<float, n> gradients{to[0], {}, {}, to[1 + 2 * n], to[2 + 2 * n]};
              std::copy_n(to.begin() + 1, n, gradients.weights.begin());
              std::copy_n(to.begin() + 1 + n, n, gradients.biases.begin());
              must(backward(call, block, dout, saved.data(), gradients));
          },
          [&] { return plain(block, dout); });
}

void check_attention(const BlockKernels<float>& kernels, Choices& choices, Memory& memory) {
    AttentionBlock<float> block{};
    const Index head_size = choices.one_in(4) ? 1 + choices.upto(129) : 1 + choices.upto(20);
    block.heads = 1 + choices.upto(3);
    block.hidden = head_size * block.heads;
    block.starts = {0};
    block.causal = choices.one_in(2);
    for (Index n = choices.upto(4); n; --n) {
        block.n_tokens += some_tokens(choices);
        block.starts.push_back(static_cast<std::int32_t>(block.n_tokens));
    }
    bool is_right = true;
    if (choices.one_in(8)) {
        block.starts[at(choices.upto(static_cast<Index>(block.starts.size()) - 1))] =
            static_cast<std::int32_t>(choices.any_number());
        if (choices.one_in(4)) block.starts.clear();
        if (choices.one_in(4)) block.heads = choices.any_number();
        is_right = are_right(block.starts, block.n_tokens) && block.heads > 0 && block.hidden % block.heads == 0;
    }
    block.x = memory.numbers(block.n_tokens * block.hidden, 1);
    for (const float*& weight : block.weights) weight = memory.weight(block.hidden, block.hidden);
    for (const float*& bias : block.biases) bias = memory.numbers(block.hidden, 0.5);
    block.norm = {memory.numbers(block.hidden, 1), memory.numbers(block.hidden, 1)};
    block.eps = 0.1f;
    block.attention_dropout = dropout(choices);
    block.output_dropout = dropout(choices);
    if (is_right && choices.one_in(2)) {
        block.read.emplace();
        for (Index n = choices.upto(30); n && block.n_tokens; --n) block.read->push_back(choices.upto(block.n_tokens - 1));
        if (choices.one_in(8)) {
            block.read->push_back(choices.any_number());
            const Index last = block.read->back();
            const std::function<bool()> wants_stop = never;
            if (!is_taken<std::out_of_range>(last >= 0 && last < block.n_tokens, [&] {
                    Floats out(at(block.n_rows() * block.hidden));
                    must(forward<float>({kernels, 1, wants_stop}, block, out.data(), nullptr));
                }))
                return;
        }
    }
    if (is_right) return run_block<AttentionBlock<float>, 4>(kernels, choices, memory, block);
    is_taken<std::invalid_argument>(false, [&] {
        const std::function<bool()> wants_stop = never;
        const Call<float> call{kernels, 1, wants_stop};
        choices.one_in(2) ? forward<float>(call, block, nullptr, nullptr)
                          : backward<float>(call, block, nullptr, nullptr, {});
    });
}

void check_feed_forward(const BlockKernels<float>& kernels, Choices& choices, Memory& memory) {
    FeedForwardBlock<float> block{};
    block.n_tokens = some_tokens(choices);
    block.hidden = 1 + choices.upto(150);
    block.inner = choices.one_in(8) ? 1 + 3 * choices.upto(255) : 1 + choices.upto(150);
    block.x = memory.numbers(block.n_tokens * block.hidden, 1);
    block.weights = {memory.weight(block.inner, block.hidden), memory.weight(block.hidden, block.inner)};
    block.biases = {memory.numbers(block.inner, 0.5), memory.numbers(block.hidden, 0.5)};
    block.norm = {memory.numbers(block.hidden, 1), memory.numbers(block.hidden, 1)};
    block.eps = 0.1f;
    block.dropout = dropout(choices);
    run_block<FeedForwardBlock<float>, 2>(kernels, choices, memory, block);
}

template <typename Block>
void check_sizes(const BlockKernels<float>& kernels, Block block, Index Block::*other, Choices& choices) {
    block.hidden = choices.any_number();
    block.*other = choices.any_number();
    try {
        if (saved_floats(kernels, block) < 1) fail("sizes that need no memory");
    } catch (const std::invalid_argument&) {
    }
}

void check_head(const BlockKernels<float>& kernels, Choices& choices, Memory& memory) {
    VocabularyHead head{};
    head.n_rows = choices.one_in(32) ? 4 * choices.upto(255) : some_tokens(choices);
    head.width = 1 + choices.upto(head.n_rows > 255 ? 20 : 150);
    head.vocabulary = choices.one_in(8) ? 1 + 3 * choices.upto(255) : 1 + choices.upto(150);
    head.hidden = memory.numbers(head.n_rows * head.width, 1);
    head.weight = memory.weight(head.vocabulary, head.width);
    head.bias = memory.numbers(head.vocabulary, 0.5);
    std::vector<std::int64_t> labels(at(head.n_rows)), samples(at(head.n_rows));
    bool is_right = true;
    for (std::int64_t& label : labels) label = choices.upto(head.vocabulary - 1);
    if (head.n_rows && choices.one_in(8)) {
        std::int64_t& label = labels[at(choices.upto(head.n_rows - 1))];
        label = choices.one_in(2) ? head.vocabulary : choices.any_number();
        is_right = label >= 0 && label < head.vocabulary;
    }
    head.labels = labels.data();
    Floats uniform(at(head.n_rows));
    for (std::size_t i = 0; i < uniform.size(); ++i) uniform[i] = static_cast<float>(choices.byte()) / 256;
    const Samples sampling{choices.one_in(4) ? nullptr : uniform.data(), choices.one_in(2) ? 1.0f : 0.5f,
                           choices.one_in(2), samples.data()};
    const float* const dlosses = memory.numbers(head.n_rows, 1);
    const auto is_correct = std::make_unique<bool[]>(at(head.n_rows));
    Floats losses(at(head.n_rows)), saved(at(saved_floats(kernels, head)));
    const std::function<bool()> wants_stop = never;
    const HeadResults results{losses.data(), is_correct.get()};
    if (!is_taken<std::out_of_range>(
            is_right, [&] { must(forward({kernels, 1, wants_stop}, head, sampling, results, nullptr)); }))
        return;
    const std::vector<std::int64_t> first_samples = samples;
    for (const std::int64_t sample : samples)
        if (sample < 0 || sample >= head.vocabulary) fail("a sample that is no token");
    const Index n_weights = head.vocabulary * head.width;
    check(choices, memory, {head.n_rows * head.width, n_weights, head.vocabulary}, head.n_rows, head.n_rows * n_weights,
          [&](int n_threads, float* out, const std::vector<float*>& to) {
              const Call<float> call{kernels, n_threads, wants_stop};
              must(forward(call, head, sampling, {out, is_correct.get()}, saved.data()));
              if (samples != first_samples) fail("samples that depend on threads");
              must(backward(call, head, saved.data(), dlosses, {to[0], to[1], to[2]}));
          },
          [&] { return plain(head, dlosses); });
}

void check_linear_gelu(const BlockKernels<float>& kernels, Choices& choices, Memory& memory) {
    LinearGelu linear{};
    linear.n_rows = some_tokens(choices);
    linear.k = 1 + choices.upto(150);
    linear.n = 1 + choices.upto(150);
    linear.x = memory.numbers(linear.n_rows * linear.k, 1);
    linear.weight = memory.weight(linear.n, linear.k);
    linear.bias = memory.numbers(linear.n, 0.5);
    const Index n_numbers = linear.n_rows * linear.n, n_weights = linear.n * linear.k;
    const float* const dout = memory.numbers(n_numbers, 1);
    check(choices, memory, {linear.n_rows * linear.k, n_weights, linear.n}, n_numbers, linear.n_rows * n_weights,
          [&](int n_threads, float* out, const std::vector<float*>& to) {
              const std::function<bool()> wants_stop = never;
              const Call<float> call{kernels, n_threads, wants_stop};
              Floats saved(at((linear.n_rows + 1) * saved_columns(kernels, linear)), NAN), unsaved(at(n_numbers));
              must(forward(call, linear, out, saved.data()));
              must(forward(call, linear, unsaved.data(), nullptr));
              if (!is_same(unsaved, Floats(out, out + n_numbers))) fail("a forward that saves nothing has other results");
              must(backward(call, linear, dout, saved.data(), {to[0], to[1], to[2]}));
          },
          [&] { return plain(linear, dout); });
}

void check_replaced_token_head(const BlockKernels<float>& kernels, Choices& choices, Memory& memory) {
    ReplacedTokenHead head{};
    head.n_tokens = some_tokens(choices);
    head.hidden = 1 + choices.upto(150);
    head.x = memory.numbers(head.n_tokens * head.hidden, 1);
    head.weight = memory.weight(head.hidden, head.hidden);
    head.bias = memory.numbers(head.hidden, 0.5);
    head.gate = memory.weight(1, head.hidden);
    head.offset = memory.numbers(1, 0.5);
    const float* const dlogits = memory.numbers(head.n_tokens, 1);
    const Index n_weights = head.hidden * head.hidden;
    check(choices, memory, {head.n_tokens * head.hidden, n_weights, head.hidden, head.hidden, 1}, head.n_tokens,
          head.n_tokens * n_weights,
          [&](int n_threads, float* out, const std::vector<float*>& to) {
              const std::function<bool()> wants_stop = never;
              const Call<float> call{kernels, n_threads, wants_stop};
              Floats saved(at((head.n_tokens + 1) * saved_columns(kernels, head)), NAN), unsaved(at(head.n_tokens));
              must(forward(call, head, out, saved.data()));
              must(forward(call, head, unsaved.data(), nullptr));
              if (!is_same(unsaved, Floats(out, out + head.n_tokens))) fail("a forward that saves nothing has other results");
              must(backward(call, head, dlogits, saved.data(), {to[0], to[1], to[2], to[3], to[4]}));
          },
          [&] { return plain(head, dlogits); });
}

// AdamW of some tensors beside plain loops over doubles, and the norm of their gradients.
void check_optimizer(const BlockKernels<float>& kernels, Choices& choices, Memory& memory) {
    const AdamW adam{choices.one_in(4) ? 0.0 : 0.9, choices.one_in(4) ? 0.0 : 0.99, 1e-3f, choices.one_in(2) ? 1.0f : 0.3f};
    std::vector<Floats> params, exp_avgs, exp_avg_sqs;
    std::vector<Updated> tensors;
    std::vector<Numbers> grads;
    for (Index n = choices.upto(5); n; --n) {
        const Index size = choices.one_in(8) ? 200 * choices.upto(255) : choices.upto(40);
        const float *const grad = memory.numbers(size, 1), *const numbers = memory.numbers(size, 1);
        params.emplace_back(numbers, numbers + size);
        exp_avgs.emplace_back(at(size), 0.25f);
        exp_avg_sqs.emplace_back(at(size), 0.5f);
        grads.push_back({grad, size});
        tensors.push_back({nullptr, nullptr, nullptr, grad, size, 0.01 * static_cast<double>(choices.upto(9)), 0.1,
                           choices.one_in(2) ? INFINITY : 1.0 + choices.byte()});
    }
    const auto run = [&](int n_threads) {
        std::vector<Floats> found;
        for (std::size_t i = 0; i < tensors.size(); ++i) found.insert(found.end(), {params[i], exp_avgs[i], exp_avg_sqs[i]});
        for (std::size_t i = 0; i < tensors.size(); ++i) {
            tensors[i].param = found[3 * i].data();
            tensors[i].exp_avg = found[3 * i + 1].data();
            tensors[i].exp_avg_sq = found[3 * i + 2].data();
        }
        update(kernels, n_threads, adam, tensors);
        found.push_back({norm(kernels, n_threads, grads)});
        return found;
    };
    const std::vector<Floats> found = run(1), others = run(static_cast<int>(choices.upto(4)));
    for (std::size_t i = 0; i < found.size(); ++i)
        if (!is_same(found[i], others[i])) fail("updates that depend on threads");
    if (memory.is_telling()) return;
    double squares = 0;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        const Updated& tensor = tensors[i];
        Doubles param(at(tensor.size)), exp_avg(at(tensor.size)), exp_avg_sq(at(tensor.size));
        for (std::size_t j = 0; j < param.size(); ++j) {
            const double g = tensor.grad[j] * static_cast<double>(adam.grad_scale);
            squares += std::pow(static_cast<double>(tensor.grad[j]), 2);
            exp_avg[j] = adam.beta1 * exp_avgs[i][j] + (1 - adam.beta1) * g;
            exp_avg_sq[j] = adam.beta2 * exp_avg_sqs[i][j] + (1 - adam.beta2) * g * g;
            const double correction1 = 1 - std::pow(adam.beta1, tensor.step), correction2 = 1 - std::pow(adam.beta2, tensor.step);
            param[j] = params[i][j] - tensor.lr * (exp_avg[j] / correction1 / (std::sqrt(exp_avg_sq[j] / correction2) + adam.eps) +
                                                   tensor.decay * params[i][j]);
        }
        compare("parameter", found[3 * i], param, 1);
        compare("first moment", found[3 * i + 1], exp_avg, 1);
        compare("second moment", found[3 * i + 2], exp_avg_sq, 1);
    }
    compare("norm", found.back(), {std::sqrt(squares)}, 1e-2);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Choices choices(data, size);
    const BlockKernels<float>* const kernels = block_kernels_of<float>(choices.one_in(2) ? "avx2" : "avx512");
    if (!kernels) return 0;
    if (choices.one_in(16)) {
        check_sizes(*kernels, AttentionBlock<float>{}, &AttentionBlock<float>::heads, choices);
        check_sizes(*kernels, FeedForwardBlock<float>{}, &FeedForwardBlock<float>::inner, choices);
        return 0;
    }
    Memory memory(choices, choices.one_in(4));
    switch (choices.upto(5)) {
        case 0: check_attention(*kernels, choices, memory); break;
        case 1: check_feed_forward(*kernels, choices, memory); break;
        case 2: check_replaced_token_head(*kernels, choices, memory); break;
        case 3: check_optimizer(*kernels, choices, memory); break;
        case 4: check_linear_gelu(*kernels, choices, memory); break;
        default: check_head(*kernels, choices, memory);
    }
    return 0;
}
