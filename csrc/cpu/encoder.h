// ELECTRA's encoder on a CPU: from token ids or embedded tokens to hidden states, in one call and without padding.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "cpu/batch.h"
#include "cpu/index.h"
#include "cpu/kernels.h"
#include "cpu/stealing.h"
#include "cpu/tokens.h"
#include "cpu/weights.h"
#include "spare.h"

namespace electra_fast::cpu {

struct Sizes {
    Index hidden, heads, intermediate, embedding;
    float eps;
};

struct LayerWeights {
    LinearParts qkv, attended, inner, outer;
    NormParts attended_norm, outer_norm;
};

// The LayerNorm of the embedding, and the projection to the hidden size; it has no parts if the two sizes are equal.
struct EmbeddingWeights {
    NormParts norm;
    LinearParts projection;
};

class Workspace;

class Encoder {
public:
    // Throws std::invalid_argument for sizes that cannot be.
    Encoder(const Kernels& kernels, const Sizes& sizes, bool in_bytes);
    ~Encoder();
    Encoder(const Encoder&) = delete;
    Encoder& operator=(const Encoder&) = delete;

    // Both copy all weights, and throw std::invalid_argument if those do not fit the sizes.
    void set_embedding(const EmbeddingWeights& weights);
    void add_layer(const LayerWeights& weights);
    // Whether all weights that were copied, which must still exist, are unchanged; see PackedLinear.
    bool is_current() const;
    // Makes the copies the only ones: the weights that were given may end.
    void forget_weights();
    // The i-th linear layer and norm in the order in which they were given; throw std::out_of_range.
    const PackedLinear& linear(std::size_t i) const { return *linears_.at(i); }
    const PackedNorm& norm(std::size_t i) const { return *norms_.at(i); }
    Index n_layers() const { return static_cast<Index>(layers_.size()); }

    // Adds up each token's rows of the three tables: [T, embedding]. Nothing else reads the tables, so they may change
    // once it has returned. Throws std::out_of_range for a token that is not in a table.
    std::unique_ptr<float[]> look_up(const Tokens& tokens) const;

    // Writes the last hidden states of all tokens, or of those to read, to out [T or n_read, hidden] and, unless
    // `states` is null, those of the embedding and of every layer to states [layers + 1, T, hidden]. Throws
    // std::invalid_argument for starts that are none, std::out_of_range for a token to read that there is not. Returns
    // false, with the results undone, once `wants_stop` returned true; it is asked in this thread, now and then.
    bool run(
        const Batch& batch, int n_threads, float* out, float* states, const std::function<bool()>& wants_stop) const;

private:
    struct Layer {
        const PackedLinear &qkv, &attended, &inner, &outer;
        const PackedNorm &attended_norm, &outer_norm;
    };
    struct Queries;
    struct Step;

    const PackedLinear& pack(const LinearParts& parts, bool in_bytes);
    const PackedNorm& pack(const NormParts& parts, Index n);
    std::unique_ptr<Workspace> take_workspace(Index n_tokens, Index longest, int n_threads) const;
    void quantize(const Step& step, Index row, const float* x, Index k) const;
    // The steps of a thread. They return once all threads together are done, or false where the call is to stop.
    bool embed(const Step& step) const;
    bool attend(const Step& step, const Queries& queries) const;
    bool prepare(const Step& step, const float* a, Index a_stride, Index k) const;
    bool multiply(
        const Step& step, const PackedLinear& linear, Product product, const float* a, Index a_stride) const;
    bool multiply(const Step& step, const PackedLinear& linear, Product product, const float* a, Index a_stride,
                  Index first_panel, Index last_panel) const;
    bool norm(const Step& step, const PackedNorm& norm) const;
    bool narrow(Step& step) const;
    bool finish_layer(const Step& step, const Layer& layer) const;
    bool run_layer(const Step& step, const Layer& layer) const;
    bool run_narrowing_layer(Step& step, const Layer& layer) const;
    bool run_chunk(Step step, float* out, float* states) const;

    const Kernels& kernels_;
    const AttentionKernel attention_;
    const Sizes sizes_;
    const bool in_bytes_;
    Arena weights_;
    std::vector<std::unique_ptr<PackedLinear>> linears_;
    std::vector<std::unique_ptr<PackedNorm>> norms_;
    const PackedNorm* embedding_norm_ = nullptr;
    const PackedLinear* projection_ = nullptr;
    std::vector<Layer> layers_;
    mutable Spare<Workspace, 16> spare_;
};

}  // namespace electra_fast::cpu
