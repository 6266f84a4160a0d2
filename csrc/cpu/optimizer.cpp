#include "cpu/optimizer.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "cpu/block_steps.h"

namespace electra_fast::cpu {

namespace {

// Numbers of a task.
constexpr Index kTaskNumbers = Index{1} << 14;
// A number of a task counts as so many multiplications, as it has to be read.
constexpr Index kNumberProducts = 32;

// Some numbers of one tensor.
struct Piece {
    std::size_t tensor;
    Index first, last;
};

template <typename Tensor>
std::vector<Piece> pieces_of(const std::vector<Tensor>& tensors) {
    std::vector<Piece> pieces;
    for (std::size_t i = 0; i < tensors.size(); ++i)
        for (Index first = 0; first < tensors[i].size; first += kTaskNumbers)
            pieces.push_back({i, first, std::min(first + kTaskNumbers, tensors[i].size)});
    return pieces;
}

// Calls f(i) for each piece.
template <typename F>
void for_pieces(const std::vector<Piece>& pieces, int n_threads, const F& f) {
    const auto n = static_cast<Index>(pieces.size());
    const std::function<bool()> never = [] { return false; };
    run_phases(useful_threads(n_threads, n * kTaskNumbers * kNumberProducts), never, [&](Worker& worker) {
        worker.each(n, [&](Index task) { f(static_cast<std::size_t>(task)); });
    });
}

}  // namespace

float norm(const BlockKernels<float>& kernels, int n_threads, const std::vector<Numbers>& tensors) {
    const std::vector<Piece> pieces = pieces_of(tensors);
    std::vector<double> squares(pieces.size());
    for_pieces(pieces, n_threads, [&](std::size_t i) {
        const auto& [tensor, first, last] = pieces[i];
        squares[i] = kernels.sum_of_squares(tensors[tensor].data + first, last - first);
    });
    return static_cast<float>(std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0)));
}

void update(const BlockKernels<float>& kernels, int n_threads, const AdamW& adam, const std::vector<Updated>& tensors) {
    const std::vector<Piece> pieces = pieces_of(tensors);
    std::vector<AdamWRates> rates;
    for (const Updated& tensor : tensors) {
        // 1 - b^step without cancellation; exp(-inf) is 0.
        const auto correction = [&](double beta) { return -std::expm1(tensor.step * std::log(beta)); };
        rates.push_back({static_cast<float>(tensor.lr / correction(adam.beta1)),
                         static_cast<float>(1 / std::sqrt(correction(adam.beta2))),
                         static_cast<float>(1 - tensor.lr * tensor.decay), static_cast<float>(adam.beta2),
                         static_cast<float>(1 - adam.beta1), static_cast<float>(1 - adam.beta2), adam.eps, adam.grad_scale});
    }
    for_pieces(pieces, n_threads, [&](std::size_t piece) {
        const auto& [i, first, last] = pieces[piece];
        const Updated& tensor = tensors[i];
        kernels.adamw(rates[i], tensor.grad + first, last - first, tensor.param + first, tensor.exp_avg + first,
                      tensor.exp_avg_sq + first);
    });
}

}  // namespace electra_fast::cpu
