// A libFuzzer target (`make fuzz`) that compares the encoder with its promises, and with a WordPiece that is too plain
// to be wrong in the same way: no trie, no cache, no scan.
//
// In an input one byte chooses the options, one says how often the text is repeated, the rest is the text. The caches
// live on from input to input, as in a process; if a failure depends on earlier inputs, run again with the same -seed.
#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/encoder.h"
#include "tokenizer/text.h"

using namespace electra_fast;

namespace {

[[noreturn]] void fail(const char* what, std::string_view text) {
    std::fprintf(stderr, "fuzz_encoder: %s\ntext:", what);
    for (const char byte : text) std::fprintf(stderr, " %02x", static_cast<unsigned char>(byte));
    std::fprintf(stderr, "\n");
    std::abort();
}

// ---- Options

constexpr std::size_t kSetups = 32, kLongestWord = 100, kShortestLimit = 5;
constexpr std::int32_t kUnknown = 0, kFirstAdded = 1000;

// The vocabulary leads greedy matching into dead ends: 'q' is in no piece, 'x' only begins, 'y' only continues.
std::vector<std::pair<std::string, std::int32_t>> make_vocabulary() {
    std::vector<std::string> pieces = {
        "[UNK]", "un", "able", "ab", "abc", "##able", "##ab", "##abcd", "##bcde", "the", "token", "##ization", "##ize",
        "x", "##y", "!", ",", ".", "'", "-", "[", "]", "#", "##", "###", "#a", "##.", "a.b", "$", "\u2019", "\u00bf",
        "\u3002", "\u00e9", "##\u00e9", "e\u0301", "##\u0301", "\u00df", "##\u00df", "\u0131", "i\u0307", "##\u0307",
        "\u00c0", "\u0130", "\u0430", "\u0431", "##\u0431", "\u0438", "##\u0438", "\u0439", "\u0416", "##\u0436",
        "\u03b1", "##\u03c3", "##\u03c2", "\u03c3", "\u05d0", "##\u05d1", "\u0627", "##\u0644", "\u09c7", "##\u09be",
        "\u304b", "##\u304b", "\u304c", "##\u3099", "\u302e", "##\u302f", "\u1100", "##\u1161", "\u1100\u1161",
        "##\u11a8", "\u1112\u1161\u11ab", "\uac00", "##\uac01", "\u4e2d", "##\u6587", "\u8c48", "\u8c48\u6587",
        "\U00020122", "\U0001d157", "##\U0001d165", "##\U0001d16d", "\U0001f600", "##\U0001f600", "\u200d", "##\u00ad",
        "\ufffd",
    };
    for (const char letter : std::string_view("abcdeginostuABEZ0123")) {
        pieces.push_back({letter});
        pieces.push_back(std::string("##") + letter);
    }
    std::vector<std::pair<std::string, std::int32_t>> numbered;
    for (const std::string& piece : pieces) numbered.emplace_back(piece, static_cast<std::int32_t>(numbered.size()));
    return numbered;
}

const auto kVocabulary = make_vocabulary();

constexpr std::size_t kAdded = 8, kAddedInWords = 4;  // tokens after the first kAddedInWords reach across white space

std::vector<AddedToken> added_tokens(std::int32_t first_id, std::size_t n) {
    std::vector<AddedToken> tokens = {
        {.content = "[MASK]", .id = 0, .special = true},
        {.content = "[M]a", .id = 0, .single_word = true},
        {.content = "e\u0301", .id = 0, .single_word = true},
        {.content = "\u4e2d\u0085", .id = 0},
        {.content = "[M]", .id = 0, .lstrip = true, .rstrip = true},
        {.content = "ab", .id = 0, .single_word = true, .lstrip = true, .rstrip = true, .special = true},
        {.content = "a b", .id = 0, .lstrip = true},
        {.content = " c", .id = 0, .rstrip = true},
    };
    tokens.resize(n);
    for (AddedToken& token : tokens) token.id = first_id++;
    return tokens;
}

struct Setup {
    Rules rules;
    std::size_t longest_word;
    bool has_added;
    std::unique_ptr<Encoder> encoder;
    std::unique_ptr<Characters> characters;
    std::unique_ptr<Worker> worker;
};

// Makes eight options of five bits: options without a bit of their own take a sum of some, so that any two of the eight
// still meet in all four ways.
Setup make_setup(std::size_t index) {
    const auto odd = [index](std::size_t mask) { return std::popcount(index & mask) % 2 == 1; };
    Setup setup;
    setup.rules = {.clean_text = odd(1), .handle_chinese_chars = odd(2), .strip_accents = odd(4), .lowercase = odd(8),
                   .final_sigma = odd(7)};
    setup.longest_word = odd(9) ? kShortestLimit : kLongestWord;
    setup.has_added = odd(16);
    EncoderOptions options;
    options.vocabulary = kVocabulary;
    options.unknown_id = kUnknown;
    options.longest_word = setup.longest_word;
    options.rules = setup.rules;
    if (setup.has_added) {
        options.raw_tokens = added_tokens(kFirstAdded, odd(5) ? kAdded : kAddedInWords);
        if (odd(3)) options.normalized_tokens = added_tokens(2 * kFirstAdded, kAdded);
        options.split_special = odd(6);
    }
    setup.encoder = std::make_unique<Encoder>(std::move(options));
    setup.characters = std::make_unique<Characters>(setup.rules);
    setup.worker = std::make_unique<Worker>();
    return setup;
}

// A setup is made when it is first asked for: it takes a while, and as much memory as its cache.
Setup& setup_of(std::size_t index) {
    static std::array<std::optional<Setup>, kSetups> setups;
    if (!setups[index]) setups[index] = make_setup(index);
    return *setups[index];
}

// ---- Text

// Characters that some rule treats in its own way; mutations of bytes seldom find them.
constexpr char32_t kTelling[] = {
    0x00, 0x09, 0x0b, 0x7f, 0x85, 0xa0, 0xad, 0xbf, 0xc0, 0xdf, 0xe9, 0x130, 0x131, 0x300, 0x301, 0x307, 0x316, 0x344,
    0x345, 0x390, 0x391, 0x3a3, 0x3c2, 0x3c3, 0x416, 0x439, 0x5b0, 0x5d0, 0x5d1, 0x627, 0x644, 0x64b, 0x9cb, 0xe33,
    0xf73, 0x1100, 0x1161, 0x11a8, 0x1680, 0x1e9e, 0x1f82, 0x1fbe, 0x2003, 0x200b, 0x200d, 0x2019, 0x2028, 0x212a,
    0x212b, 0x3000, 0x3002, 0x302e, 0x302f, 0x304b, 0x304c, 0x3099, 0x4e2d, 0x6587, 0xac00, 0xac01, 0xd55c, 0xd7a3,
    0xe000, 0xf900, 0xfa0e, 0xfb1d, 0xfeff, 0xff01, 0xfffd, 0xffff, 0x10400, 0x16ff0, 0x1d15e, 0x1d15f, 0x1d165,
    0x1d16d, 0x1f600, 0x20122, 0x2f800, 0xe0001, 0x10ffff,
};

// The length of the well-formed character that the bytes begin with; 0 if there is none.
std::size_t length_of_character(std::string_view bytes) {
    const auto at = [&](std::size_t i) -> unsigned { return i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0; };
    const unsigned first = at(0);
    const std::size_t length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    for (std::size_t i = 1; i < length; ++i) {
        if ((at(i) & 0xc0) != 0x80) return 0;
    }
    // These are overlong forms, surrogates, and code points beyond the last character.
    const bool is_bad = (first == 0xe0 && at(1) < 0xa0) || (first == 0xed && at(1) > 0x9f) || (first == 0xf0 && at(1) < 0x90) ||
                        (first == 0xf4 && at(1) > 0x8f);
    return is_bad ? 0 : length;
}

// The bytes as UTF-8, where a byte that is in no well-formed character stands for one of kTelling.
std::string well_formed(std::string_view bytes) {
    std::string text;
    std::size_t first_ill_formed = bytes.size();
    for (std::size_t at = 0; at < bytes.size();) {
        const std::size_t length = length_of_character(bytes.substr(at));
        if (length) {
            text += bytes.substr(at, length);
        } else {
            append_utf8(kTelling[(static_cast<unsigned char>(bytes[at]) - 0x80u) % std::size(kTelling)], text);
            first_ill_formed = std::min(first_ill_formed, at);
        }
        at += std::max<std::size_t>(length, 1);
    }
    if (find_ill_formed(bytes) != first_ill_formed) fail("what is ill-formed is elsewhere", bytes);
    return text;
}

std::u32string decode(std::string_view text) {
    std::u32string characters;
    for (const char *at = text.data(), *end = at + text.size(); at != end;) characters += read_utf8(at);
    return characters;
}

// ---- The plain WordPiece

std::vector<Token> encode_plainly(const Setup& setup, std::string_view text) {
    static const auto pieces = [] {
        std::map<std::u32string, std::int32_t> map;
        for (const auto& [piece, id] : kVocabulary) map[decode(piece)] = id;
        return map;
    }();
    const std::vector<Characters::Normalized> normalized = setup.characters->normalize(decode(text));
    std::vector<Token> tokens;
    std::uint32_t n_words = 0;
    for (std::size_t first = 0, last; first < normalized.size(); first = last) {
        const auto split = [&](std::size_t i) { return (*setup.characters)[normalized[i].character].split; };
        last = first + 1;
        if (split(first) == Split::kSpace) continue;
        if (split(first) == Split::kNone) {
            while (last < normalized.size() && split(last) == Split::kNone) ++last;
        }
        std::vector<Token> word;
        bool is_known = last - first <= setup.longest_word;
        for (std::size_t begin = first, end; is_known && begin < last; begin = end) {
            std::u32string piece = begin == first ? U"" : U"##";
            for (std::size_t i = begin; i < last; ++i) piece += normalized[i].character;
            for (end = last; end > begin && !pieces.contains(piece); --end) piece.pop_back();
            is_known = end > begin;
            if (is_known) word.push_back({pieces.at(piece), normalized[begin].source, normalized[end - 1].source + 1, n_words});
        }
        if (!is_known) word = {{kUnknown, normalized[first].source, normalized[last - 1].source + 1, n_words}};
        tokens.insert(tokens.end(), word.begin(), word.end());
        ++n_words;
    }
    return tokens;
}

// ---- Checks

bool are_same(const std::vector<Token>& a, const std::vector<Token>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Token& one, const Token& other) {
        return one.id == other.id && one.begin == other.begin && one.end == other.end && one.word == other.word;
    });
}

// Encodes from memory that ends where the text does into new memory, so that the address sanitizer guards both.
template <typename T>
std::vector<T> encode(const Setup& setup, std::string_view text) {
    const std::vector<char> exact(text.begin(), text.end());
    Buffer<T> output;
    setup.encoder->encode({exact.data(), exact.size()}, *setup.worker, output);
    return {output.data(), output.data() + output.size()};
}

void check_tokens(const std::vector<Token>& tokens, std::string_view text) {
    const std::size_t n_characters = decode(text).size();
    Token before{};
    for (const Token& token : tokens) {
        const auto id = static_cast<std::size_t>(token.id);
        const bool is_added = id >= kFirstAdded && id < 3 * kFirstAdded && id % kFirstAdded < kAdded;
        if (id >= kVocabulary.size() && !is_added) fail("an id that no token has", text);
        if (token.begin >= token.end || token.end > n_characters) fail("a span that is none", text);
        if (token.begin < before.begin || token.end < before.end) fail("a span before the last one", text);
        if (token.word != before.word && token.word != before.word + 1) fail("a word that does not follow the last one", text);
        before = token;
    }
    if (!tokens.empty() && tokens[0].word != 0) fail("the first word is not 0", text);
}

void check_chunks(const Setup& setup, const std::vector<Token>& whole, std::string_view text) {
    const auto is_space = [](char byte) { return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r'; };
    std::vector<Token> joined;
    std::uint32_t n_characters = 0;
    for (auto at = text.begin(); at != text.end();) {
        const auto end = is_space(*at) ? at + 1 : std::find_if(at, text.end(), is_space);
        const std::string_view chunk(at, end);
        const std::uint32_t n_words = joined.empty() ? 0 : joined.back().word + 1;
        for (const auto& [id, begin, stop, word] : encode<Token>(setup, chunk)) {
            joined.push_back({id, n_characters + begin, n_characters + stop, n_words + word});
        }
        n_characters += static_cast<std::uint32_t>(decode(chunk).size());
        at = end;
    }
    if (!are_same(whole, joined)) fail("a text is not the sum of its chunks", text);
}

// Checks a trie of the text's own words: they differ from input to input, the vocabulary does not.
void check_trie(std::string_view text) {
    std::vector<std::pair<std::string, std::int32_t>> keys;
    for (std::size_t at = 0, end; at < text.size(); at = end + 1) {
        end = std::min(text.find(' ', at), text.size());
        if (at < end) keys.emplace_back(text.substr(at, end - at), static_cast<std::int32_t>(keys.size()));
    }
    const Trie trie(keys);
    for (std::size_t at = 0; at < text.size(); ++at) {
        Trie::Match expected;
        for (const auto& [key, value] : keys) {
            if (key.size() >= expected.length && text.substr(at).starts_with(key)) expected = {key.size(), value};
        }
        const Trie::Match match = trie.longest_prefix(text.substr(at));
        if (match.length != expected.length || match.value != expected.value) fail("the trie finds another prefix", text);
    }
}

// Checks the text as Python's strings hold it, in the narrowest units that are wide enough and in wider ones.
void check_utf8(std::string_view text) {
    const std::u32string characters = decode(text);
    const char32_t last = characters.empty() ? 0 : *std::max_element(characters.begin(), characters.end());
    const auto check = [&](const auto& units, SourceText::Form form) {
        Buffer<char> scratch;
        for (const char left_from_the_last_text : {'l', 'e', 'f', 't'}) scratch.push_back(left_from_the_last_text);
        if (to_utf8({units.data(), units.size(), form}, scratch, nullptr) != text) fail("other UTF-8", text);
    };
    using Form = SourceText::Form;
    check(characters, Form::kUcs4);
    if (last < 0x10000) check(std::u16string(characters.begin(), characters.end()), Form::kUcs2);
    if (last < 0x100) check(std::vector<std::uint8_t>(characters.begin(), characters.end()), Form::kLatin1);
}

void check_scans(std::string_view text) {
    const std::size_t n_blocks = (text.size() + kBlock - 1) / kBlock;
    std::vector<char> padded(text.begin(), text.end());
    padded.resize(n_blocks * kBlock, ' ');
    std::vector<BlockMasks> expected(n_blocks), masks(n_blocks);
    instruction_sets().back().scan(padded.data(), n_blocks, expected.data());
    for (const InstructionSet& set : instruction_sets()) {
        set.scan(padded.data(), n_blocks, masks.data());
        for (std::size_t i = 0; i < n_blocks; ++i) {
            const bool are_equal = masks[i].spaces == expected[i].spaces && masks[i].continuations == expected[i].continuations;
            if (!are_equal) fail(("scalar and " + set.name + " differ").c_str(), text);
        }
    }
}

void check(const Setup& setup, std::string_view text) {
    const std::vector<Token> tokens = encode<Token>(setup, text);
    check_tokens(tokens, text);
    if (!are_same(tokens, encode<Token>(setup, text))) fail("the second time differs", text);
    const std::vector<std::int32_t> ids = encode<std::int32_t>(setup, text);
    const auto is_id_of = [](std::int32_t id, const Token& token) { return id == token.id; };
    if (!std::equal(ids.begin(), ids.end(), tokens.begin(), tokens.end(), is_id_of)) fail("ids alone differ", text);
    if (!setup.has_added && !are_same(tokens, encode_plainly(setup, text))) fail("the plain WordPiece differs", text);
    if (setup.encoder->can_cut()) check_chunks(setup, tokens, text);
    check_utf8(text);
    check_scans(text);
}

}  // namespace

// Encodes more tokens than the cache's ring holds, there and back: inputs would take hours to reach its end.
extern "C" int LLVMFuzzerInitialize(int*, char***) {
    constexpr int kChunks = 40000;
    std::string there, back;
    for (int i = 0; i < kChunks; ++i) {
        there += std::to_string(10000 + i) + ",.!-',.!- ";
        back += std::to_string(9999 + kChunks - i) + ",.!-',.!- ";
    }
    check(setup_of(0), there + back);
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 2) return 0;
    const std::string once = well_formed({reinterpret_cast<const char*>(data) + 2, size - 2});
    std::string text = once;
    // One of 8 inputs is repeated, so that short ones cross the borders of blocks and of windows, too.
    const bool is_repeated = data[1] % 8 == 7;
    if (is_repeated) {
        for (unsigned i = data[1] / 8; i; --i) text += once;
    }
    check(setup_of(data[0] % kSetups), text);
    if (!is_repeated) check_trie(text);
    return 0;
}
