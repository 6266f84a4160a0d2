// ELECTRA's encoder on a CPU: from token ids or embedded tokens to hidden states, in one call and without padding.

#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/team.h"
#include "cpu/weights.h"
#include "spare.h"

namespace electra_fast::cpu {

struct Sizes {
    long hidden, heads, intermediate, embedding;
    float eps;
};

struct Norm {
    const float *weight, *bias;
};

struct LayerWeights {
    LinearParts qkv, attended, inner, outer;
    Norm attended_norm, outer_norm;
};

// The tables of the embedding, [rows, embedding] each, and the projection to the hidden size; it has no parts if the
// two sizes are equal.
struct EmbeddingWeights {
    struct Table {
        const float* values;
        long rows;
    };
    Table words, positions, types;
    Norm norm;
    LinearParts projection;
};

// T tokens in B sequences from `starts` [B + 1] on: ids, types and positions, [T] each, or `embedded`, [T, hidden].
struct Batch {
    long n_sequences;
    const std::int32_t* starts;
    const std::int64_t *ids, *types, *positions;
    const float* embedded;
    bool causal;
};

class Workspace;

class Encoder {
public:
    Encoder(const Kernels& kernels, const Sizes& sizes, bool in_bytes);
    ~Encoder();
    Encoder(const Encoder&) = delete;
    Encoder& operator=(const Encoder&) = delete;

    // Both copy the weights of linear layers. All other weights are read where they are, so they must live on.
    void set_embedding(const EmbeddingWeights& weights);
    void add_layer(const LayerWeights& weights);
    // Whether all weights that were copied are unchanged; see PackedLinear.
    bool is_current() const;
    long n_layers() const { return static_cast<long>(layers_.size()); }

    // Writes the last hidden states to out [T, hidden] and, unless `states` is null, those of the embedding and of
    // every layer to states [layers + 1, T, hidden]. Throws std::out_of_range for a token that is not in a table.
    void run(const Batch& batch, int n_threads, float* out, float* states) const;

private:
    struct Layer {
        PackedLinear qkv, attended, inner, outer;
        Norm attended_norm, outer_norm;
    };
    // Some whole sequences of a batch that go through all layers before the next chunk does.
    struct Chunk {
        long first_sequence, n_sequences, first_token, n_tokens, longest;
    };
    struct Step;

    void check(const Batch& batch) const;
    std::vector<Chunk> chunks_of(const Batch& batch, int n_threads) const;
    std::unique_ptr<Workspace> take_workspace(long n_tokens, long longest, int n_threads) const;
    void embed(const Step& step) const;
    void attend(const Step& step) const;
    void multiply(
        const Step& step, const PackedLinear& linear, Product product, const float* a, long a_stride, long k) const;
    void norm(const Step& step, const Norm& norm, float* to, long to_stride) const;
    void run_chunk(const Step& step, float* out, float* states, long n_tokens) const;

    const Kernels& kernels_;
    const Sizes sizes_;
    const bool in_bytes_;
    EmbeddingWeights embedding_{};
    std::unique_ptr<PackedLinear> projection_;
    std::vector<Layer> layers_;
    mutable Spare<Workspace, 16> spare_;
};

}  // namespace electra_fast::cpu
