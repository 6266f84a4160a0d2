// WordPiece as `tokenizers` does it for BERT: added tokens, normalizer, words, pieces.
//
// White space of ASCII is a border that nothing crosses: every rule leaves it white space or acts on one character, and
// canonical reordering stops at it. So the tokens of a chunk, the text between two such characters, depend on its bytes
// alone, and the tokens of most chunks are known from the last time (word_cache.h). A chunk that is not in the cache is
// normalized, split into words and cut into pieces. Added tokens matched in normalized text are the exception: they
// reach across white space, so with them the cache is not used.
//
// After construction an encoder does not change: threads may share it, each with a Worker of its own.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/buffer.h"
#include "tokenizer/characters.h"
#include "tokenizer/scan.h"
#include "tokenizer/stop.h"
#include "tokenizer/token.h"
#include "tokenizer/trie.h"
#include "tokenizer/word_cache.h"

namespace electra_fast {

struct EncoderOptions {
    std::vector<std::pair<std::string, std::int32_t>> vocabulary;
    std::string continuing_prefix = "##";
    std::int32_t unknown_id = 0;
    std::size_t longest_word = 100;  // in characters; longer words are unknown
    Rules rules;
    std::vector<AddedToken> raw_tokens;         // found in the text as it is
    std::vector<AddedToken> normalized_tokens;  // found in normalized text; their contents are normalized already
    bool split_special = false;                 // treat special tokens as ordinary text
    std::string instruction_set;                // a name from scan.h; empty: the fastest
};

// Normalized text, and for each byte the index of the character that it comes from.
struct NormalizedText {
    std::string bytes;
    std::vector<std::uint32_t> sources;

    void resize(std::size_t n) {
        bytes.resize(n);
        sources.resize(n);
    }
};

// A thread's own memory: the cache, and scratch buffers that keep their allocations.
struct Worker {
    WordCache cache;
    NormalizedText normalized;
    std::vector<Token> pieces;
    std::vector<AddedTokens::Part> raw_parts, normalized_parts;
    Buffer<char> utf8;
    Buffer<Token> tokens;
    Stop* stop = nullptr;  // of the call that uses this worker, if that may end early

    // Throws Stopped if the call must end. To be called after Stop::kStep bytes or so.
    void check() const {
        if (stop) stop->check();
    }
};

class Encoder {
public:
    explicit Encoder(EncoderOptions options);

    // Appends a text's tokens, or their ids alone, which takes less time. text: well-formed UTF-8. Spans and words are
    // numbers of its characters and words. Throws Stopped if the worker's call must end.
    template <typename T>
    void encode(std::string_view text, Worker& worker, Buffer<T>& output) const;

    // Tells whether a text may be cut after any white space of ASCII and its parts be encoded one by one.
    bool can_cut() const { return normalized_tokens_.empty() && !raw_tokens_.reach_across_space(); }

private:
    template <typename T>
    void encode_chunks(std::string_view text, std::uint32_t first_character, std::uint32_t& n_words, Worker& worker,
                       Buffer<T>& output) const;

    BlockMasks scan_tail(std::string_view text) const;
    void normalize(std::string_view text, Worker& worker) const;
    void normalize_in_context(std::string_view text, NormalizedText& normalized) const;
    void encode_normalized(std::string_view text, const std::uint32_t* sources, std::uint32_t& n_words, Worker& worker) const;
    void encode_word(std::string_view word, const std::uint32_t* sources, std::size_t n_characters, std::uint32_t index,
                     std::vector<Token>& pieces) const;

    Characters characters_;
    Trie first_pieces_, next_pieces_;
    std::int32_t unknown_id_;
    std::size_t longest_word_;
    AddedTokens raw_tokens_, normalized_tokens_;
    Scan scan_;
};

}  // namespace electra_fast
