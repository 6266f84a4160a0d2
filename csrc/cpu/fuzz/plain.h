// The ops on a CPU in plain loops over doubles, for comparison.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "cpu/index.h"
#include "cpu/linear_gelu.h"
#include "cpu/replaced_token_head.h"
#include "cpu/vocabulary_head.h"

namespace electra_fast::cpu::fuzz {

using Doubles = std::vector<double>;

inline std::size_t at(Index i) { return static_cast<std::size_t>(i); }

// Whether dropout keeps an element: Philox 4x32-7, as ops/philox.py draws it.
inline bool is_kept(const Dropout& dropout, Index row, Index head, Index column) {
    std::uint64_t c0 = at(column / 8), c1 = at(row), c2 = at(head), c3 = 0;
    auto k0 = static_cast<std::uint32_t>(dropout.seed), k1 = static_cast<std::uint32_t>(dropout.seed >> 32);
    for (int round = 0; round < 7; ++round) {
        const std::uint64_t a = c0 * 0xD2511F53u, b = c2 * 0xCD9E8D57u;
        c0 = (b >> 32) ^ c1 ^ k0;
        c1 = b & 0xffffffffu;
        c2 = (a >> 32) ^ c3 ^ k1;
        c3 = a & 0xffffffffu;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    const std::uint64_t words[] = {c0, c1, c2, c3};
    return (words[at(column % 8 / 2)] >> (column % 2 * 16) & 0xffff) >= dropout.threshold;
}

inline double factor(const Dropout& dropout, Index row, Index head, Index column) {
    return dropout.threshold == 0 ? 1 : is_kept(dropout, row, head, column) ? dropout.scale : 0;
}

// y = x W' + b, and its gradients.
struct Linear {
    const float *weight, *bias;
    Index n, k;
    Doubles dweight = Doubles(at(n * k)), dbias = Doubles(at(n));

    Doubles forward(const Doubles& x, Index rows) const {
        Doubles y(at(rows * n));
        for (Index i = 0; i < rows; ++i)
            for (Index j = 0; j < n; ++j) {
                double total = bias[j];
                for (Index l = 0; l < k; ++l) total += x[at(i * k + l)] * weight[j * k + l];
                y[at(i * n + j)] = total;
            }
        return y;
    }
    void backward(const Doubles& x, const Doubles& dy, Index rows, Doubles& dx) {
        for (Index i = 0; i < rows; ++i)
            for (Index j = 0; j < n; ++j) {
                const double d = dy[at(i * n + j)];
                dbias[at(j)] += d;
                for (Index l = 0; l < k; ++l) {
                    dweight[at(j * k + l)] += d * x[at(i * k + l)];
                    dx[at(i * k + l)] += d * weight[j * k + l];
                }
            }
    }
};

// LayerNorm(x + dropout(branch)), and its gradients.
struct Norm {
    NormParameters<float> parameters;
    double eps;
    Index n;
    Dropout dropout;
    Doubles dweight = Doubles(at(n)), dbias = Doubles(at(n)), normed = {}, inverses = {};

    Doubles forward(const Doubles& x, const Doubles& branch, Index rows) {
        normed.assign(at(rows * n), 0);
        inverses.assign(at(rows), 0);
        Doubles y(at(rows * n));
        for (Index i = 0; i < rows; ++i) {
            double mean = 0, variance = 0;
            for (Index j = 0; j < n; ++j) {
                normed[at(i * n + j)] = x[at(i * n + j)] + factor(dropout, i, 0, j) * branch[at(i * n + j)];
                mean += normed[at(i * n + j)] / static_cast<double>(n);
            }
            for (Index j = 0; j < n; ++j) variance += std::pow(normed[at(i * n + j)] - mean, 2) / static_cast<double>(n);
            inverses[at(i)] = 1 / std::sqrt(variance + eps);
            for (Index j = 0; j < n; ++j) {
                double& number = normed[at(i * n + j)];
                number = (number - mean) * inverses[at(i)];
                y[at(i * n + j)] = number * parameters.weight[j] + parameters.bias[j];
            }
        }
        return y;
    }
    // Gradients of x and of the branch.
    void backward(const float* dy, Index rows, Doubles& dx, Doubles& dbranch) {
        dx.assign(at(rows * n), 0);
        dbranch.assign(at(rows * n), 0);
        for (Index i = 0; i < rows; ++i) {
            double average = 0, projection = 0;
            for (Index j = 0; j < n; ++j) {
                const double d = dy[i * n + j], number = normed[at(i * n + j)], g = d * parameters.weight[j];
                dweight[at(j)] += d * number;
                dbias[at(j)] += d;
                average += g / static_cast<double>(n);
                projection += g * number / static_cast<double>(n);
            }
            for (Index j = 0; j < n; ++j) {
                const std::size_t place = at(i * n + j);
                const double g = dy[i * n + j] * parameters.weight[j];
                dx[place] = inverses[at(i)] * (g - average - normed[place] * projection);
                dbranch[place] = factor(dropout, i, 0, j) * dx[place];
            }
        }
    }
};

// A result, and gradients in the order of the op's tensors: hidden, weights, biases, LayerNorm's.
struct Plain {
    Doubles out;
    std::vector<Doubles> gradients;
};

// Scaled dot products of one head within one sequence; adds to `attended`, or with `dattended` to the gradients.
inline void attend(const AttentionBlock<float>& block, Index begin, Index length, Index head, const Doubles (&qkv)[3],
                   Doubles& attended, const Doubles* dattended, Doubles (&dqkv)[3]) {
    const Index d = block.hidden / block.heads, hidden = block.hidden;
    const double scale = 1 / std::sqrt(static_cast<double>(d));
    const auto place = [&](Index token, Index column) { return at((begin + token) * hidden + head * d + column); };
    for (Index i = 0; i < length; ++i) {
        const Index n = block.causal ? i + 1 : length;
        Doubles p(at(n)), dp(at(n));
        double top = -INFINITY, total = 0, mean = 0;
        for (Index j = 0; j < n; ++j) {
            for (Index c = 0; c < d; ++c) p[at(j)] += scale * qkv[0][place(i, c)] * qkv[1][place(j, c)];
            top = std::max(top, p[at(j)]);
        }
        for (double& x : p) total += x = std::exp(x - top);
        for (Index j = 0; j < n; ++j) {
            p[at(j)] /= total;
            const double kept = factor(block.attention_dropout, begin + i, head, j);
            for (Index c = 0; c < d; ++c) {
                if (!dattended) {
                    attended[place(i, c)] += kept * p[at(j)] * qkv[2][place(j, c)];
                    continue;
                }
                dp[at(j)] += kept * (*dattended)[place(i, c)] * qkv[2][place(j, c)];
                dqkv[2][place(j, c)] += kept * p[at(j)] * (*dattended)[place(i, c)];
            }
            mean += p[at(j)] * dp[at(j)];
        }
        if (!dattended) continue;
        for (Index j = 0; j < n; ++j)
            for (Index c = 0; c < d; ++c) {
                const double ds = scale * p[at(j)] * (dp[at(j)] - mean);
                dqkv[0][place(i, c)] += ds * qkv[1][place(j, c)];
                dqkv[1][place(j, c)] += ds * qkv[0][place(i, c)];
            }
    }
}

inline Plain plain(const AttentionBlock<float>& block, const float* dout) {
    if (block.read) {  // the op of all tokens, of whose rows some are taken
        AttentionBlock<float> whole = block;
        whole.read.reset();
        std::vector<float> dwhole(at(block.n_tokens * block.hidden));
        const auto each_number = [&](const auto& f) {
            for (Index row = 0; row < block.n_rows(); ++row)
                for (Index j = 0; j < block.hidden; ++j)
                    f(at(row * block.hidden + j), at((*block.read)[at(row)] * block.hidden + j));
        };
        each_number([&](std::size_t of_row, std::size_t of_token) { dwhole[of_token] += dout[of_row]; });
        Plain found = plain(whole, dwhole.data());
        Doubles out(at(block.n_rows() * block.hidden));
        each_number([&](std::size_t of_row, std::size_t of_token) { out[of_row] = found.out[of_token]; });
        found.out = out;
        return found;
    }
    const Index rows = block.n_tokens, hidden = block.hidden;
    const Doubles x(block.x, block.x + rows * hidden);
    std::vector<Linear> linears;
    for (std::size_t i = 0; i < 4; ++i) linears.push_back({block.weights[i], block.biases[i], hidden, hidden});
    Norm norm{block.norm, block.eps, hidden, block.output_dropout};
    Doubles qkv[3], dqkv[3], attended(x.size()), dattended(x.size()), dx, dbranch;
    for (std::size_t i = 0; i < 3; ++i) {
        qkv[i] = linears[i].forward(x, rows);
        dqkv[i].assign(x.size(), 0);
    }
    const auto each_head = [&](const Doubles* gradient) {
        for (std::size_t i = 0; i + 1 < block.starts.size(); ++i)
            for (Index head = 0; head < block.heads; ++head)
                attend(block, block.starts[i], block.starts[i + 1] - block.starts[i], head, qkv, attended, gradient, dqkv);
    };
    each_head(nullptr);
    Plain found;
    found.out = norm.forward(x, linears[3].forward(attended, rows), rows);
    norm.backward(dout, rows, dx, dbranch);
    linears[3].backward(attended, dbranch, rows, dattended);
    each_head(&dattended);
    for (std::size_t i = 0; i < 3; ++i) linears[i].backward(x, dqkv[i], rows, dx);
    found.gradients = {dx};
    for (const Linear& linear : linears) found.gradients.push_back(linear.dweight);
    for (const Linear& linear : linears) found.gradients.push_back(linear.dbias);
    found.gradients.insert(found.gradients.end(), {norm.dweight, norm.dbias});
    return found;
}

inline Plain plain(const FeedForwardBlock<float>& block, const float* dout) {
    const Index rows = block.n_tokens, hidden = block.hidden, inner = block.inner;
    const Doubles x(block.x, block.x + rows * hidden);
    Linear first{block.weights[0], block.biases[0], inner, hidden}, second{block.weights[1], block.biases[1], hidden, inner};
    Norm norm{block.norm, block.eps, hidden, block.dropout};
    const Doubles before = first.forward(x, rows);
    Doubles activated(before), dinner(before.size()), dx, dbranch;
    for (double& a : activated) a *= std::erfc(-a / std::sqrt(2.0)) / 2;
    Plain found;
    found.out = norm.forward(x, second.forward(activated, rows), rows);
    norm.backward(dout, rows, dx, dbranch);
    second.backward(activated, dbranch, rows, dinner);
    for (std::size_t i = 0; i < dinner.size(); ++i)
        dinner[i] *= std::erfc(-before[i] / std::sqrt(2.0)) / 2 +
                     before[i] * std::exp(-before[i] * before[i] / 2) / std::sqrt(2 * M_PI);
    first.backward(x, dinner, rows, dx);
    found.gradients = {dx, first.dweight, second.dweight, first.dbias, second.dbias, norm.dweight, norm.dbias};
    return found;
}

inline Plain plain(const LinearGelu& linear, const float* dout) {
    const Doubles x(linear.x, linear.x + linear.n_rows * linear.k);
    Linear dense{linear.weight, linear.bias, linear.n, linear.k};
    const Doubles before = dense.forward(x, linear.n_rows);
    Doubles dbefore(before.size()), dx(x.size());
    Plain found;
    for (std::size_t i = 0; i < before.size(); ++i) {
        const double below = std::erfc(-before[i] / std::sqrt(2.0)) / 2;
        found.out.push_back(before[i] * below);
        dbefore[i] = dout[i] * (below + before[i] * std::exp(-before[i] * before[i] / 2) / std::sqrt(2 * M_PI));
    }
    dense.backward(x, dbefore, linear.n_rows, dx);
    found.gradients = {dx, dense.dweight, dense.dbias};
    return found;
}

inline Plain plain(const ReplacedTokenHead& head, const float* dlogits) {
    const Index rows = head.n_tokens, hidden = head.hidden;
    const Doubles x(head.x, head.x + rows * hidden);
    Linear dense{head.weight, head.bias, hidden, hidden}, gate{head.gate, head.offset, 1, hidden};
    const Doubles before = dense.forward(x, rows);
    Doubles activated(before), dactivated(before.size()), dx(x.size());
    for (double& a : activated) a *= std::erfc(-a / std::sqrt(2.0)) / 2;
    Plain found;
    found.out = gate.forward(activated, rows);
    gate.backward(activated, Doubles(dlogits, dlogits + rows), rows, dactivated);
    for (std::size_t i = 0; i < before.size(); ++i)
        dactivated[i] *= std::erfc(-before[i] / std::sqrt(2.0)) / 2 +
                         before[i] * std::exp(-before[i] * before[i] / 2) / std::sqrt(2 * M_PI);
    dense.backward(x, dactivated, rows, dx);
    found.gradients = {dx, dense.dweight, dense.dbias, gate.dweight, gate.dbias};
    return found;
}

// `dout` are the gradients of the losses.
inline Plain plain(const VocabularyHead& head, const float* dout) {
    const Doubles x(head.hidden, head.hidden + head.n_rows * head.width);
    Linear linear{head.weight, head.bias, head.vocabulary, head.width};
    Doubles logits = linear.forward(x, head.n_rows), dx(x.size());
    Plain found;
    for (Index i = 0; i < head.n_rows; ++i) {
        double total = 0;
        double* const row = logits.data() + i * head.vocabulary;
        for (Index j = 0; j < head.vocabulary; ++j) total += std::exp(row[j]);
        found.out.push_back(std::log(total) - row[head.labels[i]]);
        for (Index j = 0; j < head.vocabulary; ++j)
            row[j] = dout[i] * (std::exp(row[j]) / total - (j == head.labels[i] ? 1 : 0));
    }
    linear.backward(x, logits, head.n_rows, dx);
    found.gradients = {dx, linear.dweight, linear.dbias};
    return found;
}

}  // namespace electra_fast::cpu::fuzz
