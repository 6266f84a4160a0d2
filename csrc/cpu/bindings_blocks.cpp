// The two blocks for Python. Tensors come as addresses, 0 for none; the caller vouches for their sizes, strides, types
// and device, and that they live until the call returns.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cpu/bindings.h"
#include "cpu/blocks.h"
#include "cpu/embedding.h"
#include "cpu/vocabulary_head.h"
#include "pages.h"
#include "spare.h"

namespace py = pybind11;

namespace electra_fast::cpu {

namespace {

using Address = std::uintptr_t;
template <std::size_t n>
using Addresses = std::array<Address, n>;
// (threshold of 65536, seed) of a dropout.
using Drawn = std::pair<std::uint32_t, std::int64_t>;

template <typename T = const float>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

template <typename T, std::size_t n>
std::array<T*, n> all_at(const Addresses<n>& addresses) {
    std::array<T*, n> found;
    for (std::size_t i = 0; i < n; ++i) found[i] = at<T>(addresses[i]);
    return found;
}

Dropout dropout_of(const Drawn& drawn) {
    const auto [threshold, seed] = drawn;
    const float scale = threshold < 65536 ? 65536.0f / static_cast<float>(65536 - threshold) : 0.0f;
    return {threshold, scale, static_cast<std::uint64_t>(seed)};
}

const BlockKernels& kernels_up_to(const std::string& limit) {
    const BlockKernels* const kernels = block_kernels_of(limit);
    if (!kernels) throw std::runtime_error("this processor has no instruction set up to " + limit + " that kernels are written for");
    return *kernels;
}

// Runs a call without the GIL; throws what a signal's handler raised.
template <typename Run>
void without_gil(int n_threads, const std::string& limit, const Run& run) {
    const std::function<bool()> has_signal = [] {
        const py::gil_scoped_acquire acquired;
        return PyErr_CheckSignals() != 0;
    };
    const Call call{kernels_up_to(limit), n_threads, has_signal};
    const bool is_done = [&] {
        const py::gil_scoped_release released;
        return run(call);
    }();
    if (!is_done) throw py::error_already_set();
}

AttentionBlock attention_block(const std::array<long, 3>& sizes, std::vector<std::int32_t> starts, bool causal, Address x,
                               const Addresses<4>& weights, const Addresses<4>& biases, const Addresses<2>& norm,
                               float eps, const std::array<Drawn, 2>& dropouts) {
    return {sizes[0], sizes[1], sizes[2], std::move(starts), causal, at(x), all_at<const float>(weights),
            all_at<const float>(biases), {at(norm[0]), at(norm[1])}, eps, dropout_of(dropouts[0]), dropout_of(dropouts[1])};
}

FeedForwardBlock feed_forward_block(const std::array<long, 3>& sizes, Address x, const Addresses<2>& weights,
                                    const Addresses<2>& biases, const Addresses<2>& norm, float eps, const Drawn& dropout) {
    return {sizes[0], sizes[1], sizes[2], at(x), all_at<const float>(weights), all_at<const float>(biases),
            {at(norm[0]), at(norm[1])}, eps, dropout_of(dropout)};
}

// The tables' addresses and numbers of rows, and the tokens' ids: of words, types and positions.
Embedding embedding_of(const std::array<long, 2>& sizes, const Addresses<3>& tables, const std::array<long, 3>& rows,
                       const Addresses<3>& ids, const Addresses<2>& norm, float eps, const Drawn& dropout) {
    const auto table = [&](std::size_t i) -> Table { return {at(tables[i]), rows[i]}; };
    const auto column = [&](std::size_t i) { return at<const std::int64_t>(ids[i]); };
    return {{sizes[0], table(0), table(1), table(2), column(0), column(1), column(2)}, sizes[1],
            {at(norm[0]), at(norm[1])}, eps, dropout_of(dropout)};
}

// Memory of a large result. Its pages stay with the process for later ones: fresh pages take longer than what fills them.
class Room {
public:
    explicit Room(std::size_t n_bytes) : n_bytes_(n_bytes), pages_(spare().take()) {
        if (pages_ && pages_->n_bytes >= n_bytes && pages_->n_bytes / 2 <= n_bytes) return;
        pages_.reset();
        pages_ = std::make_unique<Pages>(n_bytes);
    }
    ~Room() { spare().give_back(std::move(pages_)); }
    Room(const Room&) = delete;
    Room& operator=(const Room&) = delete;

    py::buffer_info buffer() {
        return {pages_->memory.data(), 1, py::format_descriptor<std::uint8_t>::format(), static_cast<py::ssize_t>(n_bytes_)};
    }

private:
    struct Pages {
        explicit Pages(std::size_t n) : n_bytes(n), memory(n) {}
        const std::size_t n_bytes;
        ZeroedPages<std::uint8_t> memory;
    };
    // The gradients of the word tables of two networks, and of their heads.
    static Spare<Pages, 4>& spare() {
        static Spare<Pages, 4> kept;
        return kept;
    }

    const std::size_t n_bytes_;
    std::unique_ptr<Pages> pages_;
};

VocabularyHead vocabulary_head(const std::array<long, 3>& sizes, Address hidden, Address weight, Address bias,
                               Address labels) {
    return {sizes[0], sizes[1], sizes[2], at(hidden), at(weight), at(bias), at<const std::int64_t>(labels)};
}

}  // namespace

void bind_blocks(py::module_& module) {
    py::class_<Room>(module, "Room", py::buffer_protocol()).def(py::init<std::size_t>()).def_buffer(&Room::buffer);
    module.def(
        "attention_block_saved",
        [](long hidden, long heads, const std::string& limit) {
            AttentionBlock block{};
            block.hidden = hidden;
            block.heads = heads;
            return saved_columns(kernels_up_to(limit), block);
        },
        "Floats per token that attention_block_forward saves; `saved` is [tokens + 1, floats].");
    module.def(
        "feed_forward_block_saved",
        [](long hidden, long inner, const std::string& limit) {
            FeedForwardBlock block{};
            block.hidden = hidden;
            block.inner = inner;
            return saved_columns(kernels_up_to(limit), block);
        },
        "Floats per token that feed_forward_block_forward saves; `saved` is [tokens + 1, floats].");
    module.def(
        "attention_block_forward",
        [](const std::array<long, 3>& sizes, std::vector<std::int32_t> starts, bool causal, Address x,
           const Addresses<4>& weights, const Addresses<4>& biases, const Addresses<2>& norm, float eps,
           const std::array<Drawn, 2>& dropouts, Address out, Address saved, int n_threads, const std::string& limit) {
            const AttentionBlock block =
                attention_block(sizes, std::move(starts), causal, x, weights, biases, norm, eps, dropouts);
            without_gil(n_threads, limit, [&](const Call& call) {
                return forward(call, block, at<float>(out), at<float>(saved));
            });
        });
    module.def(
        "attention_block_backward",
        [](const std::array<long, 3>& sizes, std::vector<std::int32_t> starts, bool causal, Address x,
           const Addresses<4>& weights, const Addresses<4>& biases, const Addresses<2>& norm, float eps,
           const std::array<Drawn, 2>& dropouts, Address dout, Address saved, Address dx, const Addresses<4>& dweights,
           const Addresses<4>& dbiases, const Addresses<2>& dnorm, int n_threads, const std::string& limit) {
            const AttentionBlock block =
                attention_block(sizes, std::move(starts), causal, x, weights, biases, norm, eps, dropouts);
            const BlockGradients<4> gradients{at<float>(dx), all_at<float>(dweights), all_at<float>(dbiases),
                                              at<float>(dnorm[0]), at<float>(dnorm[1])};
            without_gil(n_threads, limit, [&](const Call& call) {
                return backward(call, block, at(dout), at(saved), gradients);
            });
        });
    module.def(
        "feed_forward_block_forward",
        [](const std::array<long, 3>& sizes, Address x, const Addresses<2>& weights, const Addresses<2>& biases,
           const Addresses<2>& norm, float eps, const Drawn& dropout, Address out, Address saved, int n_threads,
           const std::string& limit) {
            const FeedForwardBlock block = feed_forward_block(sizes, x, weights, biases, norm, eps, dropout);
            without_gil(n_threads, limit, [&](const Call& call) {
                return forward(call, block, at<float>(out), at<float>(saved));
            });
        });
    module.def(
        "feed_forward_block_backward",
        [](const std::array<long, 3>& sizes, Address x, const Addresses<2>& weights, const Addresses<2>& biases,
           const Addresses<2>& norm, float eps, const Drawn& dropout, Address dout, Address saved, Address dx,
           const Addresses<2>& dweights, const Addresses<2>& dbiases, const Addresses<2>& dnorm, int n_threads,
           const std::string& limit) {
            const FeedForwardBlock block = feed_forward_block(sizes, x, weights, biases, norm, eps, dropout);
            const BlockGradients<2> gradients{at<float>(dx), all_at<float>(dweights), all_at<float>(dbiases),
                                              at<float>(dnorm[0]), at<float>(dnorm[1])};
            without_gil(n_threads, limit, [&](const Call& call) {
                return backward(call, block, at(dout), at(saved), gradients);
            });
        });
    module.def(
        "embedding_forward",
        [](const std::array<long, 2>& sizes, const Addresses<3>& tables, const std::array<long, 3>& rows,
           const Addresses<3>& ids, const Addresses<2>& norm, float eps, const Drawn& dropout, Address out,
           Address statistics, int n_threads, const std::string& limit) {
            const Embedding embedding = embedding_of(sizes, tables, rows, ids, norm, eps, dropout);
            without_gil(n_threads, limit, [&](const Call& call) {
                return forward(call, embedding, at<float>(out), at<float>(statistics));
            });
        });
    module.def(
        "embedding_backward",
        [](const std::array<long, 2>& sizes, const Addresses<3>& tables, const std::array<long, 3>& rows,
           const Addresses<3>& ids, const Addresses<2>& norm, float eps, const Drawn& dropout, Address dout,
           Address statistics, const Addresses<3>& dtables, const Addresses<2>& dnorm, std::int64_t padding_id,
           int n_threads, const std::string& limit) {
            const Embedding embedding = embedding_of(sizes, tables, rows, ids, norm, eps, dropout);
            without_gil(n_threads, limit, [&](const Call& call) {
                return backward(call, embedding, at(dout), at(statistics),
                                {at<float>(dtables[0]), at<float>(dtables[1]), at<float>(dtables[2]),
                                 at<float>(dnorm[0]), at<float>(dnorm[1]), padding_id});
            });
        });
    module.def(
        "mlm_head_forward",
        [](const std::array<long, 3>& sizes, Address hidden, Address weight, Address bias, Address labels,
           Address uniform, float temperature, bool never_label, Address losses, Address is_correct, Address samples,
           Address log_sums, int n_threads, const std::string& limit) {
            const VocabularyHead head = vocabulary_head(sizes, hidden, weight, bias, labels);
            without_gil(n_threads, limit, [&](const Call& call) {
                return forward(call, head, {at(uniform), temperature, never_label, at<std::int64_t>(samples)},
                               {at<float>(losses), at<bool>(is_correct), at<float>(log_sums)});
            });
        });
    module.def(
        "mlm_head_backward",
        [](const std::array<long, 3>& sizes, Address hidden, Address weight, Address bias, Address labels,
           Address log_sums, Address dlosses, Address dhidden, Address dweight, Address dbias, int n_threads,
           const std::string& limit) {
            const VocabularyHead head = vocabulary_head(sizes, hidden, weight, bias, labels);
            without_gil(n_threads, limit, [&](const Call& call) {
                return backward(call, head, at(log_sums), at(dlosses), {at<float>(dhidden), at<float>(dweight), at<float>(dbias)});
            });
        });
}

}  // namespace electra_fast::cpu
