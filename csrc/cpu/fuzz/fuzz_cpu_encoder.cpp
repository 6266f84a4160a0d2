// A libFuzzer target (`make fuzz`) that gives the encoder on a CPU arguments of all kinds: sizes, starts of sequences,
// ids, weights and numbers of threads. Wrong ones must be refused with an exception of the kind that is promised. With
// right ones each sequence of a batch must have the bits that it has alone, on one thread, and so must tokens that are
// read.
//
// All memory ends where its tensor does, so that the address sanitizer guards it.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "cpu/encoder.h"
#include "cpu/fuzz/choices.h"

using namespace electra_fast::cpu;
using namespace electra_fast::cpu::fuzz;

namespace {

// The parameters of a model, in vectors of their exact sizes.
class Model {
public:
    Model(Choices& choices, const Sizes& sizes, Index n_layers, bool is_telling)
        : choices_(choices), is_telling_(is_telling), sizes_(sizes), n_layers_(n_layers) {}

    // Makes the encoder; it may read the parameters in it later (`is_current`).
    void copy_to(Encoder& encoder) {
        const Index hidden = sizes_.hidden;
        LinearParts projection;
        has_projection = sizes_.embedding != hidden;
        if (has_projection) projection = linear(hidden, sizes_.embedding, 1);
        encoder.set_embedding({norm(sizes_.embedding), projection});
        for (Index i = 0; i < n_layers_; ++i)
            encoder.add_layer({linear(3 * hidden, hidden, 3), linear(hidden, hidden, 1),
                               linear(sizes_.intermediate, hidden, 1), linear(hidden, sizes_.intermediate, 1),
                               norm(hidden), norm(hidden)});
    }
    Table table(Index rows) { return {numbers(rows * sizes_.embedding), rows}; }
    const float* numbers(Index n) {
        std::vector<float> values(static_cast<std::size_t>(n));
        // Few bytes make many numbers: the input would be too long.
        float seed = number(choices_, is_telling_);
        for (std::size_t i = 0; i < values.size(); ++i)
            values[i] = i % 37 == 5 ? seed : static_cast<float>(static_cast<int>(i * 7919 % 41) - 20) / 40;
        memory_.push_back(std::move(values));
        return memory_.back().data();
    }

    // What was copied, in order.
    std::vector<LinearParts> linears;
    std::vector<std::pair<NormParts, Index>> norms;
    bool has_projection = false;

private:
    NormParts norm(Index n) { return norms.emplace_back(NormParts{numbers(n), numbers(n)}, n).first; }
    LinearParts linear(Index n, Index k, Index n_parts) {
        LinearParts parts;
        parts.k = k;
        for (Index i = 0; i < n_parts; ++i) {
            parts.weights.push_back(numbers(n / n_parts * k));
            parts.biases.push_back(numbers(n / n_parts));
            parts.rows.push_back(n / n_parts);
        }
        linears.push_back(parts);
        return parts;
    }

    Choices& choices_;
    bool is_telling_;
    Sizes sizes_;
    Index n_layers_;
    std::vector<std::vector<float>> memory_;
};

// Unpacks what the encoder has copied, which must be what it was given, and makes its copies the only ones.
void check_unpacked(const Model& model, Encoder& encoder, bool in_bytes) {
    const auto holds = [](const std::vector<float>& found, const float* given) {
        return is_same(found, {given, given + found.size()});
    };
    encoder.forget_weights();
    for (std::size_t i = 0; i < model.norms.size(); ++i) {
        const auto& [parts, n] = model.norms[i];
        std::vector<float> weight(static_cast<std::size_t>(n)), bias(weight);
        encoder.norm(i).unpack(weight.data(), bias.data());
        if (!holds(weight, parts.weight) || !holds(bias, parts.bias)) fail("a norm has other numbers unpacked");
    }
    for (std::size_t i = 0; i < model.linears.size(); ++i) {
        const LinearParts& parts = model.linears[i];
        Index first = 0;
        for (std::size_t part = 0; part < parts.rows.size(); first += parts.rows[part++]) {
            const bool is_rounded = in_bytes && (i > 0 || !model.has_projection);  // the projection is not
            std::vector<float> bias(static_cast<std::size_t>(parts.rows[part])), weight(bias.size() * static_cast<std::size_t>(parts.k));
            try {
                encoder.linear(i).unpack(first, parts.rows[part], weight.data(), bias.data());
                if (is_rounded || !holds(weight, parts.weights[part])) fail("a weight has other numbers unpacked");
            } catch (const std::logic_error&) {
                if (!is_rounded) fail("a weight was not unpacked");
            }
            if (!holds(bias, parts.biases[part])) fail("a bias has other numbers unpacked");
        }
    }
    if (!encoder.is_current()) fail("the only copy is not current");
}

void check_sizes(Choices& choices, const Kernels& kernels) {
    const Sizes sizes{choices.any_number(), choices.any_number(), choices.any_number(), choices.any_number(), 1e-12f};
    try {
        const Encoder encoder(kernels, sizes, choices.one_in(2));
    } catch (const std::invalid_argument&) {
    }
}

std::vector<std::int64_t> column(Choices& choices, Index n, Index n_rows, bool& is_right) {
    std::vector<std::int64_t> ids(static_cast<std::size_t>(n));
    for (std::int64_t& id : ids) id = choices.upto(n_rows - 1);
    if (n && choices.one_in(16)) {
        std::int64_t& id = ids[static_cast<std::size_t>(choices.upto(n - 1))];
        id = choices.one_in(2) ? n_rows : choices.any_number();
        is_right = is_right && id >= 0 && id < n_rows;
    }
    return ids;
}

// Runs a batch and, if it is right, each of its sequences alone.
void check_run(Choices& choices, const Kernels& kernels) {
    const Index head_size = 1 + choices.upto(40), heads = 1 + choices.upto(3), hidden = head_size * heads;
    const Sizes sizes{hidden, heads, 1 + choices.upto(100), choices.one_in(3) ? hidden : 1 + choices.upto(60), 1e-12f};
    const bool in_bytes = choices.one_in(2), is_telling = choices.one_in(4);
    const Index n_layers = choices.upto(2);
    Encoder encoder(kernels, sizes, in_bytes);
    Model model(choices, sizes, n_layers, is_telling);
    model.copy_to(encoder);
    if (!encoder.is_current()) fail("a new copy is not current");
    if (choices.one_in(2)) check_unpacked(model, encoder, in_bytes);

    Batch batch{{0}, 0, nullptr, choices.one_in(4), choices.one_in(4)};
    for (Index n = choices.upto(6); n; --n) {
        batch.n_tokens += choices.one_in(8) ? 3 * choices.upto(255) : choices.upto(40);
        batch.starts.push_back(static_cast<std::int32_t>(batch.n_tokens));
    }
    bool is_right = true, are_ids_right = true;
    if (choices.one_in(8)) {
        batch.starts[static_cast<std::size_t>(choices.upto(static_cast<Index>(batch.starts.size()) - 1))] =
            static_cast<std::int32_t>(choices.any_number());
        if (choices.one_in(8)) batch.starts.clear();
        is_right = are_right(batch.starts, batch.n_tokens);
    }
    std::unique_ptr<float[]> sums;
    if (batch.is_embedded) {
        batch.values = model.numbers(batch.n_tokens * hidden);
    } else {
        const Index n_words = 1 + choices.upto(20), n_types = 1 + choices.upto(3), n_positions = 1 + choices.upto(50);
        const auto ids = column(choices, batch.n_tokens, n_words, are_ids_right);
        const auto types = column(choices, batch.n_tokens, n_types, are_ids_right);
        const auto positions = column(choices, batch.n_tokens, n_positions, are_ids_right);
        try {
            const Table words = model.table(n_words), kinds = model.table(n_types), places = model.table(n_positions);
            sums = encoder.look_up({batch.n_tokens, words, kinds, places, ids.data(), types.data(), positions.data()});
            if (!are_ids_right) fail("an id that is in no table was taken");
        } catch (const std::out_of_range&) {
            if (are_ids_right) fail("ids that are in their tables were refused");
            return;
        }
        batch.values = sums.get();
    }
    const auto n_numbers = static_cast<std::size_t>(batch.n_tokens * hidden);
    std::vector<float> out(n_numbers), states(n_numbers * static_cast<std::size_t>(n_layers + 1));
    const int n_threads = static_cast<int>(choices.upto(4));
    try {
        if (!encoder.run(batch, n_threads, out.data(), states.data(), never)) fail("a call ended before its time");
        if (!is_right) fail("starts that are none were taken");
    } catch (const std::invalid_argument&) {
        if (is_right) fail("starts were refused");
        return;
    }
    if (!is_same(out, {states.end() - static_cast<std::ptrdiff_t>(n_numbers), states.end()}))
        fail("the last state is not the result");
    const Index width = batch.is_embedded ? hidden : sizes.embedding;
    for (std::size_t i = 0; i + 1 < batch.starts.size(); ++i) {
        const Index begin = batch.starts[i], n = batch.starts[i + 1] - begin;
        const std::vector<float> values(batch.values + begin * width, batch.values + (begin + n) * width);
        std::vector<float> alone(static_cast<std::size_t>(n * hidden));
        encoder.run({{0, static_cast<std::int32_t>(n)}, n, values.data(), batch.is_embedded, batch.causal}, 1,
                    alone.data(), nullptr, never);
        if (!is_same(alone, {out.begin() + begin * hidden, out.begin() + (begin + n) * hidden}))
            fail("a sequence alone has other states");
    }

    const auto read = column(choices, choices.upto(8), std::max(batch.n_tokens, Index{1}), are_ids_right);
    are_ids_right = are_ids_right && (batch.n_tokens || read.empty());
    batch.read = read.data();
    batch.n_read = static_cast<Index>(read.size());
    std::vector<float> found(read.size() * static_cast<std::size_t>(hidden)), expected;
    try {
        encoder.run(batch, n_threads, found.data(), choices.one_in(4) ? states.data() : nullptr, never);
        if (!are_ids_right) fail("a token that is not there was read");
    } catch (const std::out_of_range&) {
        if (are_ids_right) fail("tokens to read were refused");
        return;
    }
    for (const std::int64_t token : read)
        expected.insert(expected.end(), out.begin() + token * hidden, out.begin() + (token + 1) * hidden);
    if (!is_same(found, expected)) fail("tokens that are read have other states");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Choices choices(data, size);
    const Kernels* const kernels = kernels_of(choices.one_in(2) ? "avx2" : "avx512");
    if (!kernels) return 0;
    choices.one_in(16) ? check_sizes(choices, *kernels) : check_run(choices, *kernels);
    return 0;
}
