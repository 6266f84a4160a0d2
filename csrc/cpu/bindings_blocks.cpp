// The two blocks for Python: of float32 in the module itself, of bfloat16 in its submodule `bfloat16`. Tensors come as
// addresses, 0 for none; the caller vouches for their sizes, strides, types and device, and that they live until the
// call returns.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "cpu/bindings.h"
#include "cpu/blocks.h"
#include "cpu/embedding.h"
#include "cpu/linear_gelu.h"
#include "cpu/masking.h"
#include "cpu/replaced_token_head.h"
#include "cpu/vocabulary_head.h"
#include "room.h"

namespace py = pybind11;

namespace electra_fast::cpu {

namespace {

using Address = std::uintptr_t;
template <std::size_t n>
using Addresses = std::array<Address, n>;
// (threshold of 65536, seed) of a dropout.
using Drawn = std::pair<std::uint32_t, std::int64_t>;
// The tokens that are read; None for all.
using Read = std::optional<std::vector<Index>>;

template <typename T>
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

template <typename T>
const BlockKernels<T>& kernels_up_to(const std::string& limit) {
    const BlockKernels<T>* const kernels = block_kernels_of<T>(limit);
    if (!kernels)
        throw std::runtime_error("this processor has no instruction set up to " + limit + " that kernels " +
                                 (std::is_same_v<T, Bf16> ? "of bfloat16 " : "") + "are written for");
    return *kernels;
}

// Runs a call without the GIL; throws what a signal's handler raised.
template <typename T, typename Run>
void without_gil(int n_threads, const std::string& limit, const Run& run) {
    const std::function<bool()> has_signal = [] {
        const py::gil_scoped_acquire acquired;
        return PyErr_CheckSignals() != 0;
    };
    const Call<T> call{kernels_up_to<T>(limit), n_threads, has_signal};
    const bool is_done = [&] {
        const py::gil_scoped_release released;
        return run(call);
    }();
    if (!is_done) throw py::error_already_set();
}

template <typename T>
AttentionBlock<T> attention_block(const std::array<Index, 3>& sizes, std::vector<std::int32_t> starts, bool causal,
                                  Address x, const Addresses<4>& weights, const Addresses<4>& biases,
                                  const Addresses<2>& norm, float eps, const std::array<Drawn, 2>& dropouts, Read read) {
    return {sizes[0], sizes[1], sizes[2], std::move(starts), causal, at<const T>(x), all_at<const T>(weights),
            all_at<const T>(biases), {at<const T>(norm[0]), at<const T>(norm[1])}, eps, dropout_of(dropouts[0]),
            dropout_of(dropouts[1]), std::move(read)};
}

template <typename T>
FeedForwardBlock<T> feed_forward_block(const std::array<Index, 3>& sizes, Address x, const Addresses<2>& weights,
                                       const Addresses<2>& biases, const Addresses<2>& norm, float eps,
                                       const Drawn& dropout) {
    return {sizes[0], sizes[1], sizes[2], at<const T>(x), all_at<const T>(weights), all_at<const T>(biases),
            {at<const T>(norm[0]), at<const T>(norm[1])}, eps, dropout_of(dropout)};
}

// The tables' addresses and numbers of rows, and the tokens' ids: of words, types and positions.
Embedding embedding_of(const std::array<Index, 2>& sizes, const Addresses<3>& tables, const std::array<Index, 3>& rows,
                       const Addresses<3>& ids, const Addresses<2>& norm, float eps, const Drawn& dropout) {
    const auto table = [&](std::size_t i) -> Table { return {at<const float>(tables[i]), rows[i]}; };
    const auto column = [&](std::size_t i) { return at<const std::int64_t>(ids[i]); };
    return {{sizes[0], table(0), table(1), table(2), column(0), column(1), column(2)}, sizes[1],
            {at<const float>(norm[0]), at<const float>(norm[1])}, eps, dropout_of(dropout)};
}

VocabularyHead vocabulary_head(const std::array<Index, 3>& sizes, Address hidden, Address weight, Address bias,
                               Address labels) {
    return {sizes[0], sizes[1], sizes[2], at<const float>(hidden), at<const float>(weight),
            at<const float>(bias), at<const std::int64_t>(labels)};
}

// Sizes: rows, columns of x and of the result. Parameters: weight and bias.
LinearGelu linear_gelu(const std::array<Index, 3>& sizes, Address x, const Addresses<2>& parameters) {
    return {sizes[0], sizes[1], sizes[2], at<const float>(x), at<const float>(parameters[0]), at<const float>(parameters[1])};
}

// Parameters: weight and bias of the dense layer, and of the prediction.
ReplacedTokenHead replaced_token_head(const std::array<Index, 2>& sizes, Address x, const Addresses<4>& parameters) {
    const auto [weight, bias, gate, offset] = all_at<const float>(parameters);
    return {sizes[0], sizes[1], at<const float>(x), weight, bias, gate, offset};
}

template <typename T>
void bind_blocks_of(py::module_& module) {
    module.def(
        "has_blocks", [](const std::string& limit) { return block_kernels_of<T>(limit) != nullptr; },
        "Whether the processor has the instructions that the blocks are written for.");
    module.def(
        "attention_block_saved",
        [](Index hidden, Index heads, const std::string& limit) {
            AttentionBlock<T> block{};
            block.hidden = hidden;
            block.heads = heads;
            return saved_columns(kernels_up_to<T>(limit), block);
        },
        "Numbers per token and per row of the result that attention_block_forward saves; there is room for one of each "
        "more.");
    module.def(
        "feed_forward_block_saved",
        [](Index hidden, Index inner, const std::string& limit) {
            FeedForwardBlock<T> block{};
            block.hidden = hidden;
            block.inner = inner;
            return saved_columns(kernels_up_to<T>(limit), block);
        },
        "Numbers per token that feed_forward_block_forward saves; `saved` is [tokens + 1, numbers].");
    module.def(
        "attention_block_forward",
        [](const std::array<Index, 3>& sizes, std::vector<std::int32_t> starts, bool causal, Address x,
           const Addresses<4>& weights, const Addresses<4>& biases, const Addresses<2>& norm, float eps,
           const std::array<Drawn, 2>& dropouts, Read read, Address out, Address saved, int n_threads,
           const std::string& limit) {
            const AttentionBlock<T> block = attention_block<T>(sizes, std::move(starts), causal, x, weights, biases, norm,
                                                               eps, dropouts, std::move(read));
            without_gil<T>(n_threads, limit, [&](const Call<T>& call) {
                return forward(call, block, at<T>(out), at<T>(saved));
            });
        });
    module.def(
        "attention_block_backward",
        [](const std::array<Index, 3>& sizes, std::vector<std::int32_t> starts, bool causal, Address x,
           const Addresses<4>& weights, const Addresses<4>& biases, const Addresses<2>& norm, float eps,
           const std::array<Drawn, 2>& dropouts, Read read, Address dout, Address saved, Address dx,
           const Addresses<4>& dweights, const Addresses<4>& dbiases, const Addresses<2>& dnorm, int n_threads,
           const std::string& limit) {
            const AttentionBlock<T> block = attention_block<T>(sizes, std::move(starts), causal, x, weights, biases, norm,
                                                               eps, dropouts, std::move(read));
            const BlockGradients<T, 4> gradients{at<T>(dx), all_at<T>(dweights), all_at<T>(dbiases),
                                                 at<T>(dnorm[0]), at<T>(dnorm[1])};
            without_gil<T>(n_threads, limit, [&](const Call<T>& call) {
                return backward(call, block, at<const T>(dout), at<const T>(saved), gradients);
            });
        });
    module.def(
        "feed_forward_block_forward",
        [](const std::array<Index, 3>& sizes, Address x, const Addresses<2>& weights, const Addresses<2>& biases,
           const Addresses<2>& norm, float eps, const Drawn& dropout, Address out, Address saved, int n_threads,
           const std::string& limit) {
            const FeedForwardBlock<T> block = feed_forward_block<T>(sizes, x, weights, biases, norm, eps, dropout);
            without_gil<T>(n_threads, limit, [&](const Call<T>& call) {
                return forward(call, block, at<T>(out), at<T>(saved));
            });
        });
    module.def(
        "feed_forward_block_backward",
        [](const std::array<Index, 3>& sizes, Address x, const Addresses<2>& weights, const Addresses<2>& biases,
           const Addresses<2>& norm, float eps, const Drawn& dropout, Address dout, Address saved, Address dx,
           const Addresses<2>& dweights, const Addresses<2>& dbiases, const Addresses<2>& dnorm, int n_threads,
           const std::string& limit) {
            const FeedForwardBlock<T> block = feed_forward_block<T>(sizes, x, weights, biases, norm, eps, dropout);
            const BlockGradients<T, 2> gradients{at<T>(dx), all_at<T>(dweights), all_at<T>(dbiases),
                                                 at<T>(dnorm[0]), at<T>(dnorm[1])};
            without_gil<T>(n_threads, limit, [&](const Call<T>& call) {
                return backward(call, block, at<const T>(dout), at<const T>(saved), gradients);
            });
        });
}

// The embedding and the heads, which are written for float32 alone.
void bind_ends(py::module_& module) {
    module.def(
        "linear_gelu_saved",
        [](Index in_features, Index out_features, const std::string& limit) {
            return saved_columns(kernels_up_to<float>(limit), linear_gelu({0, in_features, out_features}, 0, {}));
        },
        "Floats per row that linear_gelu_forward saves; `saved` is [rows + 1, floats].");
    module.def(
        "linear_gelu_forward",
        [](const std::array<Index, 3>& sizes, Address x, const Addresses<2>& parameters, Address out, Address saved,
           int n_threads, const std::string& limit) {
            const LinearGelu linear = linear_gelu(sizes, x, parameters);
            without_gil<float>(n_threads, limit, [&](const Call<float>& call) {
                return forward(call, linear, at<float>(out), at<float>(saved));
            });
        });
    module.def(
        "linear_gelu_backward",
        [](const std::array<Index, 3>& sizes, Address x, const Addresses<2>& parameters, Address dout, Address saved,
           const Addresses<3>& gradients, int n_threads, const std::string& limit) {
            const LinearGelu linear = linear_gelu(sizes, x, parameters);
            const auto to = all_at<float>(gradients);
            without_gil<float>(n_threads, limit, [&](const Call<float>& call) {
                return backward(call, linear, at<const float>(dout), at<const float>(saved), {to[0], to[1], to[2]});
            });
        });
    module.def(
        "rtd_head_saved",
        [](Index hidden, const std::string& limit) {
            return saved_columns(kernels_up_to<float>(limit), replaced_token_head({0, hidden}, 0, {}));
        },
        "Floats per token that rtd_head_forward saves; `saved` is [tokens + 1, floats].");
    module.def(
        "rtd_head_forward",
        [](const std::array<Index, 2>& sizes, Address x, const Addresses<4>& parameters, Address logits, Address saved,
           int n_threads, const std::string& limit) {
            const ReplacedTokenHead head = replaced_token_head(sizes, x, parameters);
            without_gil<float>(n_threads, limit, [&](const Call<float>& call) {
                return forward(call, head, at<float>(logits), at<float>(saved));
            });
        });
    module.def(
        "rtd_head_backward",
        [](const std::array<Index, 2>& sizes, Address x, const Addresses<4>& parameters, Address dlogits, Address saved,
           const Addresses<5>& gradients, int n_threads, const std::string& limit) {
            const ReplacedTokenHead head = replaced_token_head(sizes, x, parameters);
            const auto to = all_at<float>(gradients);
            without_gil<float>(n_threads, limit, [&](const Call<float>& call) {
                return backward(call, head, at<const float>(dlogits), at<const float>(saved),
                                {to[0], to[1], to[2], to[3], to[4]});
            });
        });
    module.def(
        "embedding_forward",
        [](const std::array<Index, 2>& sizes, const Addresses<3>& tables, const std::array<Index, 3>& rows,
           const Addresses<3>& ids, const Addresses<2>& norm, float eps, const Drawn& dropout, Address out,
           Address statistics, int n_threads, const std::string& limit) {
            const Embedding embedding = embedding_of(sizes, tables, rows, ids, norm, eps, dropout);
            without_gil<float>(n_threads, limit, [&](const Call<float>& call) {
                return forward(call, embedding, at<float>(out), at<float>(statistics));
            });
        });
    module.def(
        "embedding_backward",
        [](const std::array<Index, 2>& sizes, const Addresses<3>& tables, const std::array<Index, 3>& rows,
           const Addresses<3>& ids, const Addresses<2>& norm, float eps, const Drawn& dropout, Address dout,
           Address statistics, const Addresses<3>& dtables, const Addresses<2>& dnorm, std::int64_t padding_id,
           int n_threads, const std::string& limit) {
            const Embedding embedding = embedding_of(sizes, tables, rows, ids, norm, eps, dropout);
            without_gil<float>(n_threads, limit, [&](const Call<float>& call) {
                return backward(call, embedding, at<const float>(dout), at<const float>(statistics),
                                {at<float>(dtables[0]), at<float>(dtables[1]), at<float>(dtables[2]),
                                 at<float>(dnorm[0]), at<float>(dnorm[1]), padding_id});
            });
        });
    module.def(
        "mlm_head_saved",
        [](const std::array<Index, 3>& sizes, const std::string& limit) {
            return saved_floats(kernels_up_to<float>(limit), vocabulary_head(sizes, 0, 0, 0, 0));
        },
        "Floats that mlm_head_forward saves.");
    module.def(
        "mlm_head_forward",
        [](const std::array<Index, 3>& sizes, Address hidden, Address weight, Address bias, Address labels,
           Address uniform, float temperature, bool never_label, Address losses, Address is_correct, Address samples,
           Address saved, int n_threads, const std::string& limit) {
            const VocabularyHead head = vocabulary_head(sizes, hidden, weight, bias, labels);
            without_gil<float>(n_threads, limit, [&](const Call<float>& call) {
                return forward(call, head, {at<const float>(uniform), temperature, never_label, at<std::int64_t>(samples)},
                               {at<float>(losses), at<bool>(is_correct)}, at<float>(saved));
            });
        });
    module.def(
        "mlm_head_backward",
        [](const std::array<Index, 3>& sizes, Address hidden, Address weight, Address bias, Address labels,
           Address saved, Address dlosses, Address dhidden, Address dweight, Address dbias, int n_threads,
           const std::string& limit) {
            const VocabularyHead head = vocabulary_head(sizes, hidden, weight, bias, labels);
            without_gil<float>(n_threads, limit, [&](const Call<float>& call) {
                return backward(call, head, at<const float>(saved), at<const float>(dlosses),
                                {at<float>(dhidden), at<float>(dweight), at<float>(dbias)});
            });
        });
}

// The choice of masked tokens. It takes microseconds, so the GIL stays.
void bind_masking(py::module_& module) {
    module.def(
        "mask_tokens",
        [](Index n_tokens, std::vector<std::int32_t> starts, const Addresses<3>& given, Index n_slots, std::int64_t mask_id, float mask_prob,
           float mask_fraction, bool replacement, const Addresses<4>& to) {
            mask_tokens({n_tokens, n_slots, std::move(starts), at<const std::int64_t>(given[0]), at<const bool>(given[1]),
                         at<const float>(given[2]), mask_id, mask_prob, mask_fraction, replacement},
                        {at<std::int64_t>(to[0]), at<std::int64_t>(to[1]), at<std::int64_t>(to[2]), at<bool>(to[3])});
        });
    module.def(
        "place_samples",
        [](const std::array<Index, 2>& sizes, const Addresses<6>& places) {
            place_samples(sizes[0], at<const std::int64_t>(places[0]), sizes[1], at<const std::int64_t>(places[1]),
                          at<const std::int64_t>(places[2]), at<const bool>(places[3]), at<std::int64_t>(places[4]),
                          at<bool>(places[5]));
        });
}

}  // namespace

void bind_blocks(py::module_& module) {
    py::class_<Room>(module, "Room", py::buffer_protocol())
        .def(py::init<std::size_t>())
        .def_buffer([](Room& room) -> py::buffer_info {
            return {room.data(), 1, py::format_descriptor<std::uint8_t>::format(), static_cast<py::ssize_t>(room.n_bytes())};
        });
    bind_blocks_of<float>(module);
    bind_ends(module);
    bind_masking(module);
    py::module_ of_bf16 = module.def_submodule("bfloat16", "The blocks of bfloat16.");
    bind_blocks_of<Bf16>(of_bf16);
}

}  // namespace electra_fast::cpu
