#include "cpu/encoder.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "pages.h"

namespace electra_fast::cpu {

namespace {

// Size of the block of rows that meets one panel of weights after the other, in bytes and in rows: it stays in a core's
// L2 cache.
constexpr Index kBlockBytes = 512 << 10;
constexpr Index kMostBlockRows = 96;
// Rows for which a thread reads all weights itself, so that it need not read what others have computed: from a core
// without a common cache that takes several times as long as from its own.
constexpr Index kGroupRows = 128;
// Multiplications below which another thread is not worth starting; they take some tens of microseconds.
constexpr Index kThreadProducts = 4 << 20;

// Rows of a task of small steps, such as norms.
constexpr Index kTaskRows = 4;
// Multiplications of an attention task, after which a thread looks whether the call is to stop: some hundredths of a
// second.
constexpr Index kTaskProducts = Index{1} << 28;
// The largest size of a model: products of two sizes, and of one and a number of tokens, are far from overflowing.
constexpr Index kMostSize = Index{1} << 20;
// Terms of a sum of products of two bytes that 32 bits can hold.
constexpr Index kMostByteTerms = (Index{1} << 31) / (255 * 127);

Index round_up(Index n, Index step) { return (n + step - 1) / step * step; }

// Floats from row to row of a matrix of n columns. Rows a multiple of 4 KB apart would compete for a few cache sets.
Index row_size(Index n, Index panel) { return round_up(n, panel) + 16; }

// Throws unless the parts are a weight [n, k] together.
void check_parts(const char* name, const LinearParts& parts, Index n, Index k) {
    const Index rows = std::accumulate(parts.rows.begin(), parts.rows.end(), Index{0});
    if (rows != n || parts.k != k)
        throw std::invalid_argument(std::string(name) + " must have the shape [" + std::to_string(n) + ", " +
                                    std::to_string(k) + "], got [" + std::to_string(rows) + ", " +
                                    std::to_string(parts.k) + "]");
}

}  // namespace

// The memory that a chunk is computed in. It is kept from layer to layer and call to call: fresh pages cost time.
class Workspace {
public:
    Workspace(const Kernels& kernels, const AttentionKernel& attention, const Sizes& sizes, Index n_tokens, Index longest,
              int n_threads)
        : capacity(n_tokens),
          longest(longest),
          n_threads(n_threads),
          hidden_stride(row_size(std::max(sizes.hidden, sizes.embedding), kernels.panel)),
          qkv_stride(row_size(3 * sizes.hidden, kernels.panel)),
          inner_stride(row_size(sizes.intermediate, kernels.panel)),
          codes_stride(round_up(std::max(sizes.hidden, sizes.intermediate) * kernels.bytes.code_size, 16) + 64),
          scratch_size(round_up(attention.scratch_size(longest, sizes.hidden / sizes.heads), 16)),
          memory_(size_product(static_cast<std::size_t>(n_tokens),
                               static_cast<std::size_t>(
                                   3 * hidden_stride + qkv_stride + inner_stride + codes_stride / 4 + 2)) +
                  size_product(static_cast<std::size_t>(n_threads), static_cast<std::size_t>(scratch_size)) + 64) {
        float* next = memory_.data();
        const auto take = [&](Index n) { return std::exchange(next, next + n); };
        hidden = take(n_tokens * hidden_stride);
        summed = take(n_tokens * hidden_stride);
        attended = take(n_tokens * hidden_stride);
        qkv = take(n_tokens * qkv_stride);
        inner = take(n_tokens * inner_stride);
        scratch = take(n_threads * scratch_size);
        row_scale = take(n_tokens);
        row_zero = reinterpret_cast<std::int32_t*>(take(n_tokens));
        codes = reinterpret_cast<std::uint8_t*>(take(n_tokens * codes_stride / 4));
    }

    const Index capacity, longest;
    const int n_threads;
    const Index hidden_stride, qkv_stride, inner_stride, codes_stride, scratch_size;
    float *hidden, *summed, *attended, *qkv, *inner, *scratch, *row_scale;
    std::int32_t* row_zero;
    std::uint8_t* codes;

private:
    ZeroedPages<float> memory_;
};

// The queries of attention: rows, and which of them are those of each sequence, counted from the first of a chunk.
struct Encoder::Queries {
    const float* rows;
    Index stride;
    const std::vector<std::int32_t>& starts;
    Index most;  // of a sequence in the chunk
};

// A thread's part in a chunk, and the rows that it computes: the chunk's tokens, or those that are read.
struct Encoder::Step {
    const Batch& batch;
    const Reads& reads;
    const Chunk& chunk;
    Workspace& space;
    Thief& thief;
    float *hidden, *summed;
    Index n_rows;

    Step(const Batch& batch, const Reads& reads, const Chunk& chunk, Workspace& space, Thief& thief)
        : batch(batch),
          reads(reads),
          chunk(chunk),
          space(space),
          thief(thief),
          hidden(space.hidden),
          summed(space.summed),
          n_rows(chunk.n_tokens) {}

    // Calls f(row) for each row, by some thread.
    template <typename F>
    bool each_row(const F& f) const {
        return thief.each((n_rows + kTaskRows - 1) / kTaskRows, [&](Index task) {
            const Index last = std::min((task + 1) * kTaskRows, n_rows);
            for (Index row = task * kTaskRows; row < last; ++row) f(row);
        });
    }
};

Encoder::Encoder(const Kernels& kernels, const Sizes& sizes, bool in_bytes)
    : kernels_(kernels),
      attention_(in_bytes ? kernels.attention_beside_bytes : kernels.attention),
      sizes_(sizes),
      in_bytes_(in_bytes) {
    for (const auto& [name, size] : {std::pair("hidden_size", sizes.hidden), {"num_attention_heads", sizes.heads},
                                     {"intermediate_size", sizes.intermediate}, {"embedding_size", sizes.embedding}})
        if (size < 1 || size > kMostSize)
            throw std::invalid_argument(std::string(name) + " must be from 1 to " + std::to_string(kMostSize) +
                                        ", got " + std::to_string(size));
    if (sizes.hidden % sizes.heads != 0)
        throw std::invalid_argument("hidden_size " + std::to_string(sizes.hidden) + " is no multiple of " +
                                    std::to_string(sizes.heads) + " heads");
    if (in_bytes && std::max(sizes.hidden, sizes.intermediate) > kMostByteTerms)
        throw std::invalid_argument("int8 takes sizes up to " + std::to_string(kMostByteTerms) + ", got " +
                                    std::to_string(std::max(sizes.hidden, sizes.intermediate)));
}

Encoder::~Encoder() = default;

void Encoder::set_embedding(const EmbeddingWeights& weights) {
    embedding_norm_ = &pack(weights.norm, sizes_.embedding);
    if (weights.projection.weights.empty()) {
        if (sizes_.embedding != sizes_.hidden)
            throw std::invalid_argument("a projection to the hidden size is missing");
        return;
    }
    check_parts("the projection", weights.projection, sizes_.hidden, sizes_.embedding);
    // The projection stays in 32 bits: it is small, and everything after it depends on its accuracy.
    projection_ = &pack(weights.projection, false);
}

void Encoder::add_layer(const LayerWeights& weights) {
    check_parts("queries, keys and values", weights.qkv, 3 * sizes_.hidden, sizes_.hidden);
    check_parts("the layer after attention", weights.attended, sizes_.hidden, sizes_.hidden);
    check_parts("the intermediate layer", weights.inner, sizes_.intermediate, sizes_.hidden);
    check_parts("the output layer", weights.outer, sizes_.hidden, sizes_.intermediate);
    const PackedLinear& qkv = pack(weights.qkv, in_bytes_);
    const PackedLinear& attended = pack(weights.attended, in_bytes_);
    const PackedNorm& attended_norm = pack(weights.attended_norm, sizes_.hidden);
    const PackedLinear& inner = pack(weights.inner, in_bytes_);
    const PackedLinear& outer = pack(weights.outer, in_bytes_);
    layers_.push_back({qkv, attended, inner, outer, attended_norm, pack(weights.outer_norm, sizes_.hidden)});
}

const PackedLinear& Encoder::pack(const LinearParts& parts, bool in_bytes) {
    linears_.push_back(std::make_unique<PackedLinear>(parts, kernels_, in_bytes, weights_));
    return *linears_.back();
}

const PackedNorm& Encoder::pack(const NormParts& parts, Index n) {
    norms_.push_back(std::make_unique<PackedNorm>(parts, n));
    return *norms_.back();
}

bool Encoder::is_current() const {
    const auto current = [](const auto& copy) { return copy->is_current(); };
    return std::all_of(linears_.begin(), linears_.end(), current) && std::all_of(norms_.begin(), norms_.end(), current);
}

void Encoder::forget_weights() {
    for (const auto& linear : linears_) linear->forget_parts();
    for (const auto& norm : norms_) norm->forget_parts();
}

std::unique_ptr<float[]> Encoder::look_up(const Tokens& tokens) const {
    const auto width = static_cast<std::size_t>(sizes_.embedding);
    // Not set to zero: every number is written.
    std::unique_ptr<float[]> sums(new float[size_product(static_cast<std::size_t>(tokens.n_tokens), width)]);
    for (Index token = 0; token < tokens.n_tokens; ++token)
        tokens.add_up(token, width, sums.get() + static_cast<std::size_t>(token) * width);
    return sums;
}

// Returns a workspace with at least this much room. A new one also has all the room of the one that it replaces: calls
// that take turns do not take memory from the system again and again.
std::unique_ptr<Workspace> Encoder::take_workspace(Index n_tokens, Index longest, int n_threads) const {
    std::unique_ptr<Workspace> space = spare_.take();
    if (space) {
        if (space->capacity >= n_tokens && space->longest >= longest && space->n_threads >= n_threads) return space;
        n_tokens = std::max(n_tokens, space->capacity);
        longest = std::max(longest, space->longest);
        n_threads = std::max(n_threads, space->n_threads);
        space.reset();  // before the larger one is taken
    }
    return std::make_unique<Workspace>(kernels_, attention_, sizes_, n_tokens, longest, n_threads);
}

bool Encoder::run(
    const Batch& batch, int n_threads, float* out, float* states, const std::function<bool()>& wants_stop) const {
    check_starts(batch);
    const Reads reads(batch);
    if (batch.n_tokens == 0) return true;
    const double products = static_cast<double>(n_layers()) * static_cast<double>(batch.n_tokens) *
                            static_cast<double>(sizes_.hidden * (4 * sizes_.hidden + 2 * sizes_.intermediate));
    n_threads = static_cast<int>(std::clamp(1 + products / kThreadProducts, 1.0, std::max(1.0, n_threads * 1.0)));
    const std::vector<Chunk> chunks = chunks_of(batch, reads, n_threads);
    Index n_tokens = 0, longest = 1;
    for (const Chunk& chunk : chunks) {
        n_tokens = std::max(n_tokens, chunk.n_tokens);
        longest = std::max(longest, chunk.longest);
    }
    std::unique_ptr<Workspace> space = take_workspace(n_tokens, longest, n_threads);
    const auto work = [&](Thief& thief) {
        for (const Chunk& chunk : chunks)
            if (!run_chunk(Step(batch, reads, chunk, *space, thief), out, states)) return;
    };
    const bool is_done = run_stealing(n_threads, wants_stop, work);
    spare_.give_back(std::move(space));
    return is_done;
}

bool Encoder::embed(const Step& step) const {
    Workspace& space = step.space;
    const Batch& batch = step.batch;
    const Index width = batch.is_embedded ? sizes_.hidden : sizes_.embedding;
    const bool has_projection = projection_ && !batch.is_embedded;
    const bool is_done = step.each_row([&](Index row) {
        const float* const from = batch.values + (step.chunk.first_token + row) * width;
        float* const x = (has_projection ? step.summed : step.hidden) + row * space.hidden_stride;
        if (batch.is_embedded) {
            std::copy_n(from, width, x);
        } else {
            kernels_.norm(from, embedding_norm_->weight(), embedding_norm_->bias(), sizes_.eps, width, x);
        }
    });
    if (!is_done || !has_projection) return is_done;
    Product product;
    product.c = step.hidden;
    product.c_stride = space.hidden_stride;
    product.a = step.summed;
    product.a_stride = space.hidden_stride;
    projection_->complete(product);
    return step.thief.each(projection_->n_panels(), [&](Index panel) {
        kernels_.multiply(product, 0, step.n_rows, panel);
    });
}

bool Encoder::attend(const Step& step, const Queries& queries) const {
    Workspace& space = step.space;
    const Index head_size = sizes_.hidden / sizes_.heads;
    // A task is one head of a sequence, or a part of one if there are too few heads to keep all threads busy, or if a
    // head takes long.
    const Index n_heads = step.chunk.n_sequences * sizes_.heads;
    const Index n_parts = std::max(
        {Index{1}, std::min(Index{4} * step.thief.n_threads / n_heads, queries.most / 32),
         std::min(queries.most, queries.most * step.chunk.longest / (kTaskProducts / head_size + 1))});
    const Index first_row = queries.starts[static_cast<std::size_t>(step.chunk.first_sequence)];
    return step.thief.each(n_heads * n_parts, [&](Index task) {
        const Index part = task % n_parts, number = task / n_parts, column = number % sizes_.heads * head_size;
        const auto sequence = static_cast<std::size_t>(step.chunk.first_sequence + number / sizes_.heads);
        const Index start = step.batch.starts[sequence], row = queries.starts[sequence] - first_row;
        const Index n_queries = queries.starts[sequence + 1] - queries.starts[sequence];
        const float* const qkv = space.qkv + (start - step.chunk.first_token) * space.qkv_stride + column;
        AttentionHead head{};
        head.queries = queries.rows + row * queries.stride + column;
        head.queries_stride = queries.stride;
        head.keys = qkv + sizes_.hidden;
        head.values = qkv + 2 * sizes_.hidden;
        head.keys_stride = space.qkv_stride;
        head.out = space.attended + row * space.hidden_stride + column;
        head.out_stride = space.hidden_stride;
        head.length = step.batch.starts[sequence + 1] - start;
        head.head_size = head_size;
        head.first_query = n_queries * part / n_parts;
        head.last_query = n_queries * (part + 1) / n_parts;
        head.scale = 1.0f / std::sqrt(static_cast<float>(head_size));
        head.causal = step.batch.causal;
        if (head.first_query < head.last_query) attention_.attend(head, space.scratch + step.thief.rank * space.scratch_size);
    });
}

// Makes a row of k numbers the row of codes that a product in bytes reads.
void Encoder::quantize(const Step& step, Index row, const float* x, Index k) const {
    Workspace& space = step.space;
    kernels_.bytes.quantize(x, k, space.codes + row * space.codes_stride, space.row_scale + row, space.row_zero + row);
}

// The rows of a as the products of this encoder read them.
bool Encoder::prepare(const Step& step, const float* a, Index a_stride, Index k) const {
    return !in_bytes_ || step.each_row([&](Index row) { quantize(step, row, a + row * a_stride, k); });
}

// product.c = ending(a W' + bias) for all rows of the step, and all columns or those of some panels. In bytes the codes
// stand for a.
bool Encoder::multiply(
    const Step& step, const PackedLinear& linear, Product product, const float* a, Index a_stride) const {
    return multiply(step, linear, product, a, a_stride, 0, linear.n_panels());
}

bool Encoder::multiply(const Step& step, const PackedLinear& linear, Product product, const float* a, Index a_stride,
                       Index first_panel, Index last_panel) const {
    Workspace& space = step.space;
    linear.complete(product);
    product.a = a;
    product.a_stride = a_stride;
    if (in_bytes_) {
        product.codes = space.codes;
        product.a_stride = space.codes_stride;
        product.row_scale = space.row_scale;
        product.row_zero = space.row_zero;
    }
    const Index row_bytes = product.k * (in_bytes_ ? kernels_.bytes.code_size : 4), tile = kernels_.tile_rows;
    const Index most = std::clamp(kBlockBytes / row_bytes / tile * tile, tile, kMostBlockRows);
    // Group of rows by group: a thread computes the rows that it computes in the other steps. Within a group panel by
    // panel: its threads are at one panel at most times, so that its weights come from far memory once.
    const Index n_groups = std::clamp(step.n_rows / kGroupRows, Index{1}, Index{step.thief.n_threads});
    const Index n_blocks = (step.n_rows + most * n_groups - 1) / (most * n_groups);  // of a group
    const Index n_tiles = (step.n_rows + tile - 1) / tile, n_panels = last_panel - first_panel;
    const auto begin = [&](Index i) { return std::min(n_tiles * i / (n_groups * n_blocks) * tile, step.n_rows); };
    const auto run = in_bytes_ ? kernels_.bytes.multiply : kernels_.multiply;
    return step.thief.each(n_groups * n_panels * n_blocks, [&](Index task) {
        const Index panel = task / n_blocks, block = panel / n_panels * n_blocks + task % n_blocks;
        const Index first = begin(block), last = begin(block + 1);
        if (first < last) run(product, first, last, first_panel + panel % n_panels);
    });
}

// step.hidden = LayerNorm(step.summed), prepared for a product.
bool Encoder::norm(const Step& step, const PackedNorm& norm) const {
    const Index stride = step.space.hidden_stride;
    return step.each_row([&](Index row) {
        float* const to = step.hidden + row * stride;
        kernels_.norm(step.summed + row * stride, norm.weight(), norm.bias(), sizes_.eps, sizes_.hidden, to);
        if (in_bytes_) quantize(step, row, to, sizes_.hidden);
    });
}

// Makes the tokens that are read the step's rows, prepared for a product.
bool Encoder::narrow(Step& step) const {
    const Index stride = step.space.hidden_stride;
    const Index first_read = step.reads.starts[static_cast<std::size_t>(step.chunk.first_sequence)];
    step.n_rows = step.chunk.n_read;
    const bool is_done = step.each_row([&](Index row) {
        const Index token = step.reads.tokens[static_cast<std::size_t>(first_read + row)];
        float* const to = step.summed + row * stride;
        std::copy_n(step.hidden + (token - step.chunk.first_token) * stride, sizes_.hidden, to);
        if (in_bytes_) quantize(step, row, to, sizes_.hidden);
    });
    std::swap(step.hidden, step.summed);
    return is_done;
}

// What follows attention in a layer.
bool Encoder::finish_layer(const Step& step, const Layer& layer) const {
    Workspace& space = step.space;
    Product to_sum, to_inner;
    to_sum.c = step.summed;
    to_sum.added = step.hidden;
    to_sum.c_stride = space.hidden_stride;
    to_sum.ending = Ending::kAdd;
    to_inner.c = space.inner;
    to_inner.c_stride = space.inner_stride;
    to_inner.ending = Ending::kGelu;

    const Index hidden_stride = space.hidden_stride, inner_stride = space.inner_stride;
    return prepare(step, space.attended, hidden_stride, sizes_.hidden) &&
           multiply(step, layer.attended, to_sum, space.attended, hidden_stride) && norm(step, layer.attended_norm) &&
           multiply(step, layer.inner, to_inner, step.hidden, hidden_stride) &&
           prepare(step, space.inner, inner_stride, sizes_.intermediate) &&
           multiply(step, layer.outer, to_sum, space.inner, inner_stride) && norm(step, layer.outer_norm);
}

// One layer, from step.hidden, which is prepared, to the same.
bool Encoder::run_layer(const Step& step, const Layer& layer) const {
    const Workspace& space = step.space;
    Product to_qkv;
    to_qkv.c = space.qkv;
    to_qkv.c_stride = space.qkv_stride;
    return multiply(step, layer.qkv, to_qkv, step.hidden, space.hidden_stride) &&
           attend(step, {space.qkv, space.qkv_stride, step.batch.starts, step.chunk.longest}) &&
           finish_layer(step, layer);
}

// The same from all tokens to those that are read: of the others it computes keys and values alone.
bool Encoder::run_narrowing_layer(Step& step, const Layer& layer) const {
    const Workspace& space = step.space;
    const Index panel = kernels_.panel, stride = space.hidden_stride;
    Product to_keys, to_queries;
    to_keys.c = space.qkv;
    to_keys.c_stride = space.qkv_stride;
    to_queries.c = space.attended;  // which attention reads them from, and replaces
    to_queries.c_stride = stride;
    // A panel with queries and keys is in both products.
    return multiply(step, layer.qkv, to_keys, step.hidden, stride, sizes_.hidden / panel, layer.qkv.n_panels()) &&
           narrow(step) &&
           multiply(step, layer.qkv, to_queries, step.hidden, stride, 0, (sizes_.hidden + panel - 1) / panel) &&
           attend(step, {space.attended, stride, step.reads.starts, step.chunk.most_read}) && finish_layer(step, layer);
}

bool Encoder::run_chunk(Step step, float* out, float* states) const {
    const Index width = sizes_.hidden, stride = step.space.hidden_stride;
    const bool reads_some = step.batch.reads_some();
    if (reads_some && !states && step.chunk.n_read == 0) return true;
    if (!embed(step) || !prepare(step, step.hidden, stride, width)) return false;
    // Queries of a causal layer are in the places of their keys.
    const bool narrows = reads_some && !states && !step.batch.causal && !layers_.empty();
    const std::size_t n_whole = layers_.size() - (narrows ? 1 : 0);
    for (std::size_t i = 0; i <= n_whole; ++i) {
        const Index first = static_cast<Index>(i) * step.batch.n_tokens + step.chunk.first_token;
        const auto keep = [&](Index row) { std::copy_n(step.hidden + row * stride, width, states + (first + row) * width); };
        if (states && !step.each_row(keep)) return false;
        if (i < n_whole && !run_layer(step, layers_[i])) return false;
    }
    if (narrows ? !run_narrowing_layer(step, layers_.back()) : reads_some && !narrow(step)) return false;
    return step.each_row([&](Index row) {
        const float* const from = step.hidden + row * stride;
        if (!reads_some) {
            std::copy_n(from, width, out + (step.chunk.first_token + row) * width);
            return;
        }
        const Reads& reads = step.reads;
        const auto i = static_cast<std::size_t>(reads.starts[static_cast<std::size_t>(step.chunk.first_sequence)] + row);
        for (Index j = reads.first_places[i]; j < reads.first_places[i + 1]; ++j)
            std::copy_n(from, width, out + reads.places[static_cast<std::size_t>(j)] * width);
    });
}

}  // namespace electra_fast::cpu
