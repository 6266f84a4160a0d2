#include "tokenizer/encoder.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <stdexcept>
#include <type_traits>

namespace electra_fast {
namespace {

using Pieces = std::vector<std::pair<std::string, std::int32_t>>;

// A word is one mark of punctuation or holds none, so a piece that begins with '#' begins no word, except "#" itself.
Pieces pieces_that_begin(const Pieces& vocabulary) {
    Pieces pieces;
    for (const auto& piece : vocabulary) {
        const bool never = piece.first.size() > 1 && piece.first[0] == '#';
        if (!piece.first.empty() && !never) pieces.push_back(piece);
    }
    return pieces;
}

Pieces pieces_that_continue(const Pieces& vocabulary, const std::string& prefix) {
    Pieces pieces;
    for (const auto& [piece, id] : vocabulary) {
        if (piece.starts_with(prefix) && piece.size() > prefix.size()) pieces.emplace_back(piece.substr(prefix.size()), id);
    }
    return pieces;
}

Scan scan_of(const std::string& name) {
    for (const InstructionSet& set : instruction_sets()) {
        if (name.empty() || name == set.name) return set.scan;
    }
    throw std::invalid_argument("this machine has no instruction set named '" + name + "'");
}

std::uint32_t count_characters(std::string_view text) {
    return static_cast<std::uint32_t>(std::count_if(text.begin(), text.end(), [](char byte) { return (byte & 0xc0) != 0x80; }));
}

// The most bytes that a rule makes of one: a Hangul syllable of three becomes three jamo of three bytes each.
constexpr std::size_t kMostBytes = 3;

}  // namespace

Encoder::Encoder(EncoderOptions options)
    : characters_(options.rules),
      first_pieces_(pieces_that_begin(options.vocabulary)),
      next_pieces_(pieces_that_continue(options.vocabulary, options.continuing_prefix)),
      unknown_id_(options.unknown_id),
      longest_word_(options.longest_word),
      raw_tokens_(std::move(options.raw_tokens), options.split_special),
      normalized_tokens_(std::move(options.normalized_tokens), options.split_special),
      scan_(scan_of(options.instruction_set)) {}

// The masks of the rest of a text after its last whole block, as if white space followed.
BlockMasks Encoder::scan_tail(std::string_view text) const {
    const std::size_t n = text.size() % kBlock;
    const std::uint64_t outside = ~std::uint64_t{0} << n;
    BlockMasks masks{};
    if (n == 0) return {outside, 0};
    if (text.size() > kBlock) {
        scan_(text.data() + text.size() - kBlock, 1, &masks);
        return {masks.spaces >> (kBlock - n) | outside, masks.continuations >> (kBlock - n)};
    }
    std::array<char, kBlock> padded;
    std::copy_n(text.data(), n, padded.data());
    std::fill(padded.begin() + static_cast<std::ptrdiff_t>(n), padded.end(), ' ');
    scan_(padded.data(), 1, &masks);
    return masks;
}

template <typename T>
void Encoder::encode(std::string_view text, Worker& worker, Buffer<T>& output) const {
    constexpr bool kSpans = std::is_same_v<T, Token>;
    const auto put = [&output](const Token& token) {
        if constexpr (kSpans) {
            output.push_back(token);
        } else {
            output.push_back(token.id);
        }
    };
    std::size_t n_counted = 0;  // bytes that n_characters stands for
    std::uint32_t n_characters = 0, n_words = 0;
    raw_tokens_.split(text, worker.raw_parts);
    for (const auto& [part, id] : worker.raw_parts) {
        if constexpr (kSpans) {
            // A token may begin before the end of the token before it, if that took white space along.
            const char* const counted_to = text.data() + n_counted;
            if (part.data() < counted_to) {
                n_characters -= count_characters({part.data(), counted_to});
            } else {
                n_characters += count_characters({counted_to, part.data()});
            }
            n_counted = static_cast<std::size_t>(part.data() - text.data());
        }
        const std::uint32_t first = n_characters;
        if (id != Trie::kNoValue) {
            put({id, first, first + (kSpans ? count_characters(part) : 0), n_words++});
        } else if (normalized_tokens_.empty()) {
            encode_chunks(part, first, n_words, worker, output);
        } else {
            const NormalizedText& normalized = worker.normalized;
            normalize(part, worker);
            normalized_tokens_.split(normalized.bytes, worker.normalized_parts);
            worker.pieces.clear();
            for (const auto& [inner, inner_id] : worker.normalized_parts) {
                const std::uint32_t* sources = normalized.sources.data() + (inner.data() - normalized.bytes.data());
                if (inner_id != Trie::kNoValue) {
                    worker.pieces.push_back({inner_id, sources[0], sources[inner.size() - 1] + 1, n_words++});
                } else {
                    encode_normalized(inner, sources, n_words, worker);
                }
            }
            for (const auto& [piece, begin, end, word] : worker.pieces) put({piece, first + begin, first + end, word});
        }
    }
}

template <typename T>
void Encoder::encode_chunks(std::string_view text, std::uint32_t first_character, std::uint32_t& n_words, Worker& worker,
                            Buffer<T>& output) const {
    constexpr bool kSpans = std::is_same_v<T, Token>;
    constexpr std::size_t kWindow = 16, kBatch = 32;
    constexpr std::size_t kStores = WordCache::kInline + 1;  // tokens written at once, however many of them count
    const char* const text_end = text.data() + text.size();
    const std::size_t n_full = text.size() / kBlock;

    // No rule makes more characters of one than that has bytes, and a token has at least one.
    T* const begin = output.reserve(text.size() + kStores);
    T* end = begin;
    const auto put = [&end](const Token& token, std::uint32_t character, std::uint32_t word) {
        if constexpr (kSpans) {
            *end++ = {token.id, character + token.begin, character + token.end, word + token.word};
        } else {
            *end++ = token.id;
        }
    };

    const auto put_known = [&put](const WordCache::SmallToken* known, std::uint32_t n, std::uint32_t character,
                                  std::uint32_t& n_words) {
        for (std::uint32_t t = 0; t < n; ++t) put({known[t].id, known[t].begin, known[t].end, known[t].word}, character, n_words);
        if (n) n_words += known[n - 1].word + 1u;
    };

    std::array<BlockMasks, kWindow> masks;
    // The places where white space ends and begins, in turn; one more than a window has, for a chunk still open.
    std::array<const char*, kWindow * kBlock + 1> edges;
    std::array<std::uint32_t, kSpans ? kWindow * kBlock + 1 : 1> characters;
    std::array<ChunkKey, kBatch> keys;
    std::array<std::size_t, kBatch> lines;
    std::size_t n_edges = 0;
    std::uint64_t after_space = 1;
    bool done = false;
    for (std::size_t block = 0; !done; block += kWindow) {
        if (block % (Stop::kStep / kBlock) == Stop::kStep / kBlock - kWindow) worker.check();
        std::size_t n_blocks = std::min(kWindow, n_full - block);
        scan_(text.data() + block * kBlock, n_blocks, masks.data());
        if (n_blocks < kWindow) {
            masks[n_blocks++] = scan_tail(text);
            done = true;
        }
        for (std::size_t i = 0; i < n_blocks; ++i) {
            const char* const base = text.data() + (block + i) * kBlock;
            const std::uint64_t spaces = masks[i].spaces, continuations = masks[i].continuations;
            for (std::uint64_t changes = spaces ^ (spaces << 1 | after_space); changes; changes &= changes - 1) {
                const int bit = std::countr_zero(changes);
                if constexpr (kSpans) {
                    const std::uint64_t before = continuations & ((std::uint64_t{1} << bit) - 1);
                    characters[n_edges] = first_character + static_cast<std::uint32_t>(bit) -
                                          (before ? static_cast<std::uint32_t>(std::popcount(before)) : 0);
                }
                edges[n_edges++] = base + bit;
            }
            after_space = spaces >> 63;
            first_character += std::uint32_t{kBlock} - (continuations ? static_cast<std::uint32_t>(std::popcount(continuations)) : 0);
        }

        const std::size_t n_chunks = n_edges / 2;
        for (std::size_t first = 0; first < n_chunks; first += kBatch) {
            const std::size_t n = std::min(kBatch, n_chunks - first);
            for (std::size_t i = 0; i < n; ++i) {
                const char* const chunk = edges[2 * (first + i)];
                const auto length = static_cast<std::size_t>(edges[2 * (first + i) + 1] - chunk);
                keys[i] = ChunkKey::of(chunk, length, text_end - chunk >= 16);
                lines[i] = worker.cache.line_of(keys[i]);
                worker.cache.prefetch(lines[i]);
            }
            for (std::size_t i = 0; i < n; ++i) {
                const std::uint32_t character = kSpans ? characters[2 * (first + i)] : 0;
                const WordCache::Entry* const entry = worker.cache.find(lines[i], keys[i]);
                const std::uint32_t n_tokens = entry ? entry->n_tokens() : 0;
                if (entry && n_tokens <= WordCache::kInline) [[likely]] {
                    // All are written, however many count: a branch on their number could not be predicted.
                    if constexpr (kSpans) {
                        for (std::uint32_t t = 0; t < WordCache::kInline; ++t) {
                            n_words += entry->starts_word(t);
                            end[t] = {entry->ids[t], character + entry->begin(t), character + entry->end(t), n_words};
                        }
                        n_words += n_tokens > 0;
                    } else {
                        std::memcpy(end, entry->ids.data(), sizeof entry->ids);  // std::copy would be a call
                    }
                    end += n_tokens;
                } else if (const auto* known = entry ? worker.cache.in_ring(*entry) : nullptr) {
                    put_known(known, n_tokens, character, n_words);
                } else {
                    const std::string_view chunk{edges[2 * (first + i)], edges[2 * (first + i) + 1]};
                    const bool is_short = chunk.size() <= ChunkKey::kLongest;
                    const bool is_long = !is_short && chunk.size() <= WordCache::kMostBytes;
                    const std::size_t place = is_long ? WordCache::place_of(chunk) : 0;
                    std::uint32_t n_long = 0;
                    if (const auto* tokens = is_long ? worker.cache.find_long(place, chunk, n_long) : nullptr) {
                        put_known(tokens, n_long, character, n_words);
                        continue;
                    }
                    std::uint32_t n_new_words = 0;
                    worker.pieces.clear();
                    normalize(chunk, worker);
                    encode_normalized(worker.normalized.bytes, worker.normalized.sources.data(), n_new_words, worker);
                    if (is_short) worker.cache.insert(lines[i], keys[i], worker.pieces);
                    if (is_long) worker.cache.insert_long(place, chunk, worker.pieces);
                    for (const Token& piece : worker.pieces) put(piece, character, n_words);
                    n_words += n_new_words;
                }
            }
        }
        if (n_edges % 2) {
            edges[0] = edges[n_edges - 1];
            if constexpr (kSpans) characters[0] = characters[n_edges - 1];
        }
        n_edges %= 2;
    }
    output.advance(static_cast<std::size_t>(end - begin));
}

template void Encoder::encode(std::string_view, Worker&, Buffer<std::int32_t>&) const;
template void Encoder::encode(std::string_view, Worker&, Buffer<Token>&) const;

// Normalizes a text into the worker's memory.
void Encoder::normalize(std::string_view text, Worker& worker) const {
    NormalizedText& normalized = worker.normalized;
    char* bytes = normalized.bytes.data();
    std::uint32_t* sources = normalized.sources.data();
    std::uint32_t source = 0;
    // Makes room for what the next characters become, at most Stop::kStep of them.
    const auto make_room = [&](std::size_t n_left) {
        const auto n_done = static_cast<std::size_t>(bytes - normalized.bytes.data());
        normalized.resize(n_done + std::min(n_left, 4 * Stop::kStep) * kMostBytes);
        bytes = normalized.bytes.data() + n_done;
        sources = normalized.sources.data() + n_done;
    };
    make_room(text.size());
    const auto put = [&](std::string_view part) {
        for (const char byte : part) {
            *bytes++ = byte;
            *sources++ = source;
        }
    };
    const char* const end = text.data() + text.size();
    for (const char* at = text.data(); at != end; ++source) {
        if (source % Stop::kStep == Stop::kStep - 1) {
            worker.check();
            make_room(static_cast<std::size_t>(end - at));
        }
        const char* const begin = at;
        const Characters::Entry& entry = characters_[read_utf8(at)];
        const std::string_view same{begin, static_cast<std::size_t>(at - begin)};
        switch (entry.change) {
            case Characters::Change::kNone:
                put(same);
                break;
            case Characters::Change::kDropped:
                break;
            case Characters::Change::kIsolated:
                put(" ");
                put(same);
                put(" ");
                break;
            case Characters::Change::kReplaced:
                put(characters_.replacement(entry));
                break;
            case Characters::Change::kContextual:
                return normalize_in_context(text, normalized);
        }
    }
    normalized.resize(static_cast<std::size_t>(bytes - normalized.bytes.data()));
}

// Normalizes the whole text at once, character by character, as the rules are written.
void Encoder::normalize_in_context(std::string_view text, NormalizedText& normalized) const {
    std::u32string all;
    for (const char* from = text.data(); from != text.data() + text.size();) all += read_utf8(from);
    normalized.resize(0);
    for (const auto& [character, source] : characters_.normalize(all)) {
        append_utf8(character, normalized.bytes);
        normalized.sources.resize(normalized.bytes.size(), source);
    }
}

// Splits normalized text into words and those into the worker's pieces. sources: the characters that the text's bytes
// come from.
void Encoder::encode_normalized(std::string_view text, const std::uint32_t* sources, std::uint32_t& n_words,
                                Worker& worker) const {
    const char* word = text.data();
    std::size_t n_characters = 0, n_read = 0;  // characters of the word, and of the text
    const auto end_word = [&](const char* end) {
        if (end != word) {
            const std::string_view bytes{word, static_cast<std::size_t>(end - word)};
            encode_word(bytes, sources + (word - text.data()), n_characters, n_words++, worker.pieces);
        }
        word = end;
        n_characters = 0;
    };
    const char* const end = text.data() + text.size();
    for (const char* at = text.data(); at != end;) {
        if (++n_read % Stop::kStep == 0) worker.check();
        const char* const begin = at;
        const Split split = characters_[read_utf8(at)].split;
        if (split != Split::kNone) end_word(begin);
        ++n_characters;
        if (split == Split::kPunctuation) end_word(at);
        if (split == Split::kSpace) {
            word = at;
            n_characters = 0;
        }
    }
    end_word(end);
}

// Cuts a word into pieces, greedily, the longest match first; a word that cannot be cut is unknown as a whole.
void Encoder::encode_word(std::string_view word, const std::uint32_t* sources, std::size_t n_characters, std::uint32_t index,
                          std::vector<Token>& pieces) const {
    const std::size_t first = pieces.size();
    bool is_known = n_characters <= longest_word_;
    for (std::size_t at = 0; is_known && at < word.size();) {
        const Trie::Match match = (at ? next_pieces_ : first_pieces_).longest_prefix(word.substr(at));
        is_known = match.length > 0;
        if (is_known) pieces.push_back({match.value, sources[at], sources[at + match.length - 1] + 1, index});
        at += match.length;
    }
    if (is_known) return;
    pieces.resize(first);
    pieces.push_back({unknown_id_, sources[0], sources[word.size() - 1] + 1, index});
}

}  // namespace electra_fast
