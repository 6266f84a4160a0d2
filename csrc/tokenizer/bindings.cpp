// The extension electra_fast._tokenizer: converts between Python and the C++ code, and works without the GIL.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "room.h"
#include "tokenizer/batch.h"
#include "tokenizer/bulk.h"
#include "tokenizer/encoder.h"
#include "tokenizer/parallel.h"
#include "tokenizer/python_texts.h"
#include "tokenizer/text.h"

namespace py = pybind11;
using namespace electra_fast;

namespace {

// The owner of an array's memory from malloc, so that nothing is copied.
py::capsule owner_of(void* data) {
    return py::capsule(data, [](void* pointer) { std::free(pointer); });
}

template <typename T>
py::array_t<T> to_array(Buffer<T>&& values) {
    const auto size = static_cast<py::ssize_t>(values.size());
    T* const data = values.release();
    return py::array_t<T>(size, data, owner_of(data));
}

// An array with any values; large memory that is free stays with the process.
py::array_t<std::int64_t> array_in_room(const std::vector<py::ssize_t>& shape) {
    constexpr std::size_t kLarge = std::size_t{64} << 10;  // below so many bytes malloc has old pages
    std::size_t n_bytes = sizeof(std::int64_t);
    for (const py::ssize_t n : shape) n_bytes = size_product(n_bytes, static_cast<std::size_t>(n));
    if (n_bytes < kLarge) return py::array_t<std::int64_t>(shape);
    auto room = std::make_unique<Room>(n_bytes);
    const auto* const data = reinterpret_cast<const std::int64_t*>(room->data());
    return py::array_t<std::int64_t>(shape, data, py::capsule(room.release(), [](void* owner) {
                                         delete static_cast<Room*>(owner);
                                     }));
}

// As text.h's, in pieces that end where a character does, between which the call may stop.
std::size_t find_ill_formed(std::string_view bytes, Stop& stop) {
    constexpr std::size_t kPiece = 256 * Stop::kStep;
    for (std::size_t from = 0; from < bytes.size();) {
        stop.check();
        std::size_t to = std::min(from + kPiece, bytes.size());
        while (to < bytes.size() && (bytes[to] & 0xc0) == 0x80) ++to;
        const std::size_t ill_formed = from + electra_fast::find_ill_formed(bytes.substr(from, to - from));
        if (ill_formed != to) return ill_formed;
        from = to;
    }
    return bytes.size();
}

std::string indexed(const std::string& name, std::size_t index) { return name + "[" + std::to_string(index) + "]"; }

// Calls encode, and puts the text's name before the message of a TextError.
template <typename Encode, typename Name>
auto with_named_errors(const Encode& encode, const Name& name) {
    try {
        return encode();
    } catch (const TextError& error) {
        throw std::invalid_argument(name(error.index) + " " + error.what());
    }
}

// Calls work(stop) without the GIL. The call ends early if a signal's handler raises, as that of Ctrl-C does; Python runs
// handlers in its main thread alone, and only when it is asked for.
template <typename Work>
auto without_gil(const Work& work) {
    try {
        py::gil_scoped_release release;
        Stop stop([] {
            py::gil_scoped_acquire acquire;
            return PyErr_CheckSignals() != 0;
        });
        return work(stop);
    } catch (const Stopped&) {
        throw py::error_already_set();
    }
}

using PyAddedToken = std::tuple<std::string, std::int32_t, bool, bool, bool, bool>;
using PyFramePiece = std::tuple<int, std::int32_t, std::int32_t>;

std::vector<AddedToken> to_added_tokens(const std::vector<PyAddedToken>& tokens) {
    std::vector<AddedToken> converted;
    for (const auto& [content, id, single_word, lstrip, rstrip, special] : tokens) {
        converted.push_back({content, id, single_word, lstrip, rstrip, special});
    }
    return converted;
}

std::vector<FramePiece> to_frame(const std::vector<PyFramePiece>& pieces) {
    std::vector<FramePiece> frame;
    for (const auto& [sequence, id, type_id] : pieces) {
        frame.push_back({sequence < 0 ? std::nullopt : std::optional(static_cast<std::size_t>(sequence)), id, type_id});
    }
    return frame;
}

class PyEncoder {
public:
    PyEncoder(std::vector<std::pair<std::string, std::int32_t>> vocabulary, std::string continuing_prefix,
              std::int32_t unknown_id, std::size_t longest_word, const Rules& rules,
              const std::vector<PyAddedToken>& raw_tokens, const std::vector<PyAddedToken>& normalized_tokens,
              bool split_special, std::string instruction_set)
        : own_(std::make_shared<Own>(EncoderOptions{
              std::move(vocabulary), std::move(continuing_prefix), unknown_id, longest_word, rules, to_added_tokens(raw_tokens),
              to_added_tokens(normalized_tokens), split_special, std::move(instruction_set)})) {}

    py::tuple encode_texts(const py::sequence& texts, const std::vector<std::int32_t>& prefix,
                           const std::vector<std::int32_t>& suffix, std::size_t n_threads, bool word_starts, bool spans,
                           std::size_t first_index) {
        const auto name = [first_index](std::size_t i) { return indexed("texts", first_index + i); };
        Texts views;
        views.add_all(texts, name);
        return encode_views(views.views(), {prefix, suffix, spans, word_starts, n_threads}, name);
    }

    py::tuple encode_utf8(const py::buffer& buffer, const std::string& separator, const std::vector<std::int32_t>& prefix,
                          const std::vector<std::int32_t>& suffix, std::size_t n_threads, bool word_starts, bool spans) {
        const py::buffer_info info = buffer.request();
        const std::string_view bytes{static_cast<const char*>(info.ptr), static_cast<std::size_t>(info.size)};
        std::vector<SourceText> texts;
        without_gil([&](Stop& stop) {
            const std::size_t ill_formed = find_ill_formed(bytes, stop);
            if (ill_formed != bytes.size()) {
                throw std::invalid_argument("must be UTF-8, but byte " + std::to_string(ill_formed) + " cannot be there");
            }
            for (std::size_t from = 0; from < bytes.size();) {
                if (texts.size() % kTexts == 0) stop.check();
                const std::size_t to = std::min(bytes.find(separator, from), bytes.size());
                texts.push_back({bytes.data() + from, to - from, SourceText::Form::kUtf8});
                from = to + separator.size();
            }
        });
        return encode_views(texts, {prefix, suffix, spans, word_starts, n_threads}, [](std::size_t) { return std::string(); });
    }

    // firsts, seconds: texts, or lists of words; None in seconds stands for no second text.
    Batch encode_batch(const py::sequence& firsts, const std::optional<py::sequence>& seconds, bool split_into_words,
                       const std::shared_ptr<Frame>& frame, const std::optional<Truncation>& truncation,
                       std::size_t n_threads) {
        // The texts stay with the batch, which may encode them again for their spans. It ends where the GIL is held.
        const auto texts = std::make_shared<Texts>();
        std::vector<std::uint8_t> n_sequences;
        std::vector<std::size_t> n_words;  // words of each sequence
        const auto add = [&](const py::handle& sequence, const char* name, std::size_t index) {
            if (!split_into_words) return texts->add(sequence, [&] { return indexed(name, index); });
            const std::size_t n_before = texts->views().size();
            texts->add_all(sequence, [&](std::size_t i) { return indexed(indexed(name, index), i); });
            n_words.push_back(texts->views().size() - n_before);
        };
        const py::tuple first(firsts), second(seconds.value_or(py::tuple()));
        texts->reserve(first.size() + second.size());
        n_sequences.reserve(first.size());
        for (std::size_t i = 0; i < first.size(); ++i) {
            add(first[i], "text", i);
            const bool is_pair = i < second.size() && !second[i].is_none();
            if (is_pair) add(second[i], "text_pair", i);
            n_sequences.push_back(is_pair ? 2 : 1);
        }
        // The name of the text, or the word, of this index.
        const auto name = [&](std::size_t index) {
            std::size_t sequence = 0;
            for (std::size_t sample = 0;; ++sample) {
                for (std::size_t second = 0; second < n_sequences[sample]; ++second, ++sequence) {
                    const std::size_t n = split_into_words ? n_words[sequence] : 1;
                    const std::string text = indexed(second ? "text_pair" : "text", sample);
                    if (index < n) return split_into_words ? indexed(text, index) : text;
                    index -= n;
                }
            }
        };
        BulkRows rows = without_gil([&](Stop& stop) {
            const BulkOptions options{{}, {}, false, false, n_threads};
            const auto encode = [&] {
                return electra_fast::encode_bulk(own_->encoder, own_->pool, texts->views(), options, stop);
            };
            return with_named_errors(encode, name);
        });
        if (split_into_words) join_words(rows.offsets, n_words);
        auto tokens = std::make_shared<const LateTokens>([own = own_, texts, n_words, split_into_words, n_threads] {
            const py::gil_scoped_acquire acquire;
            return without_gil([&](Stop& stop) {
                TokenRows rows = encode_tokens(own->encoder, own->pool, texts->views(), n_threads, stop);
                if (split_into_words) number_words(rows, n_words);
                return std::move(rows.tokens);
            });
        });
        return Batch(std::move(rows), std::move(tokens), n_sequences, frame, truncation);
    }

private:
    template <typename Name>
    py::tuple encode_views(std::span<const SourceText> texts, const BulkOptions& options, const Name& name) {
        BulkRows rows = without_gil([&](Stop& stop) {
            const auto encode = [&] { return electra_fast::encode_bulk(own_->encoder, own_->pool, texts, options, stop); };
            return with_named_errors(encode, name);
        });
        py::object starts = py::none(), spans = py::none();
        if (options.word_starts) starts = to_array(std::move(rows.word_starts));
        if (options.spans) {
            const auto n = static_cast<py::ssize_t>(rows.spans.size());
            auto* const data = reinterpret_cast<std::int32_t*>(rows.spans.release());
            spans = py::array_t<std::int32_t>({n, py::ssize_t{2}}, data, owner_of(data));
        }
        return py::make_tuple(to_array(std::move(rows.ids)), to_array(std::move(rows.offsets)), starts, spans);
    }

    // Makes the offsets of words that were encoded one by one those of sequences.
    static void join_words(Buffer<std::int64_t>& offsets, const std::vector<std::size_t>& n_words) {
        Buffer<std::int64_t> joined;
        joined.push_back(0);
        std::size_t word = 0;
        for (const std::size_t n : n_words) joined.push_back(offsets[word += n]);
        offsets = std::move(joined);
    }

    // Gives tokens of words that were encoded one by one the numbers of these words in their sequences.
    static void number_words(TokenRows& words, const std::vector<std::size_t>& n_words) {
        std::size_t word = 0;
        for (const std::size_t n : n_words) {
            for (std::uint32_t index = 0; index < n; ++index, ++word) {
                const auto begin = static_cast<std::size_t>(words.offsets[word]);
                const auto end = static_cast<std::size_t>(words.offsets[word + 1]);
                for (std::size_t i = begin; i < end; ++i) words.tokens[i].word = index;
            }
        }
    }

    // What a batch keeps, too.
    struct Own {
        explicit Own(EncoderOptions options) : encoder(std::move(options)) {}

        const Encoder encoder;
        WorkerPool pool;
    };

    const std::shared_ptr<Own> own_;
};

// Columns of the rows [first, last) by name; nothing if these rows differ in length, or if there are none.
std::optional<py::dict> columns(const Batch& batch, const py::dict& names, std::size_t first, std::size_t last,
                                std::size_t width, Side side, std::int64_t pad_id, std::int64_t pad_type_id) {
    const std::optional<std::size_t> length = batch.common_length(first, last, width);
    if (!length) return std::nullopt;
    py::dict arrays;
    std::vector<std::pair<Column, std::int64_t*>> places;
    for (const auto& [name, item] : names) {
        const auto column = item.cast<Column>();
        std::vector<py::ssize_t> shape{static_cast<py::ssize_t>(last - first), static_cast<py::ssize_t>(*length)};
        if (column == Column::kOffsets) shape.push_back(2);
        auto array = array_in_room(shape);
        places.emplace_back(column, array.mutable_data());
        arrays[name] = std::move(array);
    }
    {
        const py::gil_scoped_release release;
        const Filling filling{width, side, pad_id, pad_type_id};
        for (const auto& [column, data] : places) batch.column(column, first, last, filling, data);
    }
    return arrays;
}

// Python's own interface serves here: these are millions of objects, and NumPy's lists take twice as long.
py::object checked(PyObject* object) {
    if (!object) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(object);
}

// The list of each row's values, which are tuples for offsets.
py::list column_lists(const Batch& batch, Column column, std::size_t width, Side side, std::int64_t pad_id,
                      std::int64_t pad_type_id) {
    const bool are_pairs = column == Column::kOffsets;
    std::size_t n_tokens = 0;
    for (std::size_t i = 0; i < batch.n_rows(); ++i) n_tokens += std::max(batch.length(i), width);
    Buffer<std::int64_t> values;
    values.resize(size_product(n_tokens, are_pairs ? 2 : 1));
    {
        py::gil_scoped_release release;
        batch.column(column, 0, batch.n_rows(), {width, side, pad_id, pad_type_id}, values.data());
    }
    const std::int64_t* next = values.data();
    const auto number = [&next] { return checked(PyLong_FromLongLong(*next++)); };
    py::list rows(batch.n_rows());
    for (std::size_t i = 0; i < batch.n_rows(); ++i) {
        py::list row(std::max(batch.length(i), width));
        for (py::ssize_t t = 0; t < PyList_GET_SIZE(row.ptr()); ++t) {
            py::object value = are_pairs ? checked(PyTuple_New(2)) : number();
            for (py::ssize_t k = 0; are_pairs && k < 2; ++k) PyTuple_SET_ITEM(value.ptr(), k, number().release().ptr());
            PyList_SET_ITEM(row.ptr(), t, value.release().ptr());
        }
        PyList_SET_ITEM(rows.ptr(), static_cast<py::ssize_t>(i), row.release().ptr());
    }
    return rows;
}

template <typename Value>
py::array_t<std::int64_t> for_rows(const Batch& batch, Value value) {
    Buffer<std::int64_t> values;
    for (std::size_t row = 0; row < batch.n_rows(); ++row) values.push_back(static_cast<std::int64_t>((batch.*value)(row)));
    return to_array(std::move(values));
}

}  // namespace

PYBIND11_MODULE(_tokenizer, module) {
    module.doc() = "WordPiece as `tokenizers` does it, from texts to columns. See csrc/tokenizer.";
    py::list names;
    for (const InstructionSet& set : instruction_sets()) names.append(set.name);
    module.attr("INSTRUCTION_SETS") = names;

    py::class_<Rules>(module, "Rules")
        .def(py::init([](bool clean_text, bool handle_chinese_chars, bool strip_accents, bool lowercase, bool final_sigma) {
                 return Rules{clean_text, handle_chinese_chars, strip_accents, lowercase, final_sigma};
             }),
             py::kw_only(), py::arg("clean_text"), py::arg("handle_chinese_chars"), py::arg("strip_accents"),
             py::arg("lowercase"), py::arg("final_sigma"));

    py::enum_<Side>(module, "Side").value("right", Side::kRight).value("left", Side::kLeft);
    py::enum_<Truncation::Strategy>(module, "Strategy")
        .value("longest_first", Truncation::Strategy::kLongestFirst)
        .value("only_first", Truncation::Strategy::kOnlyFirst)
        .value("only_second", Truncation::Strategy::kOnlySecond);
    py::class_<Truncation>(module, "Truncation")
        .def(py::init([](Truncation::Strategy strategy, std::size_t max_length, std::size_t stride, Side side) {
                 return Truncation{strategy, max_length, stride, side};
             }),
             py::kw_only(), py::arg("strategy"), py::arg("max_length"), py::arg("stride"), py::arg("side"));
    py::class_<Frame, std::shared_ptr<Frame>>(module, "Frame", "The special tokens around a text, and around a pair.")
        .def(py::init([](const std::vector<PyFramePiece>& single, const std::vector<PyFramePiece>& pair) {
                 return Frame{to_frame(single), to_frame(pair)};
             }),
             py::arg("single"), py::arg("pair"));
    py::enum_<Column>(module, "Column")
        .value("input_ids", Column::kIds)
        .value("token_type_ids", Column::kTypeIds)
        .value("attention_mask", Column::kAttentionMask)
        .value("special_tokens_mask", Column::kSpecialTokensMask)
        .value("offset_mapping", Column::kOffsets)
        .value("word_ids", Column::kWords)
        .value("sequence_ids", Column::kSequences);

    py::class_<Batch>(module, "Batch")
        .def("with_overflow", &Batch::with_overflow, py::arg("overflow"), "The same batch, with the rows cut off or without.")
        .def("lengths", [](const Batch& batch) { return for_rows(batch, &Batch::length); }, "Tokens of each row.")
        .def("samples", [](const Batch& batch) { return for_rows(batch, &Batch::sample); }, "Each row's sample, by number.")
        .def("longest", &Batch::longest, "Tokens of the longest row.")
        .def("__len__", &Batch::n_rows)
        .def("n_sequences", &Batch::n_sequences, py::arg("row"))
        .def("columns", &columns, py::arg("names"), py::arg("first"), py::arg("last"), py::arg("width"),
             py::arg("side"), py::arg("pad_id"), py::arg("pad_type_id"),
             "Columns, given by name, of the rows [first, last), each filled up to the width: int64 [rows, tokens], or "
             "[rows, tokens, 2] for offsets. None if these rows differ in length, or if there are none.")
        .def("column_lists", &column_lists, py::arg("column"), py::arg("width"), py::arg("side"), py::arg("pad_id"),
             py::arg("pad_type_id"), "A list of each row's values, which are tuples for offsets.");
    module.def("are_texts", &are_texts, py::arg("items"), "Whether all items of a list or a tuple are texts.");

    py::class_<PyEncoder>(module, "Encoder")
        .def(py::init<std::vector<std::pair<std::string, std::int32_t>>, std::string, std::int32_t, std::size_t,
                      const Rules&, const std::vector<PyAddedToken>&, const std::vector<PyAddedToken>&, bool, std::string>(),
             py::kw_only(), py::arg("vocabulary"), py::arg("continuing_prefix"), py::arg("unknown_id"),
             py::arg("longest_word"), py::arg("rules"), py::arg("raw_tokens"), py::arg("normalized_tokens"),
             py::arg("split_special"), py::arg("instruction_set"))
        .def("encode_texts", &PyEncoder::encode_texts, py::arg("texts"), py::arg("prefix"), py::arg("suffix"),
             py::arg("n_threads"), py::arg("word_starts"), py::arg("spans"), py::arg("first_index"),
             "Returns ids int32 [N] and row offsets int64 [rows + 1]; and, or None in their place, which tokens begin "
             "a word, bool [N], and the characters [begin, end) of each, int32 [N, 2].")
        .def("encode_utf8", &PyEncoder::encode_utf8, py::arg("bytes"), py::arg("separator"), py::arg("prefix"),
             py::arg("suffix"), py::arg("n_threads"), py::arg("word_starts"), py::arg("spans"),
             "Encodes the texts between separators, as encode_texts; no text follows a separator at the end.")
        .def("encode_batch", &PyEncoder::encode_batch, py::arg("firsts"), py::arg("seconds"), py::arg("split_into_words"),
             py::arg("frame"), py::arg("truncation"), py::arg("n_threads"),
             "Encodes texts, or lists of words, and pairs of them; None among the seconds stands for no second.");
}
