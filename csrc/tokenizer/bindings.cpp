// electra_fast._tokenizer: converts between Python and wordpiece.h, and releases the GIL while encoding.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "tokenizer/wordpiece.h"

namespace py = pybind11;
using electra_fast::Rows;
using electra_fast::WordPiece;

namespace {

// The bytes of an ASCII str, which Python keeps as such: neither encoded nor copied.
std::optional<std::string_view> ascii_view(PyObject* text) {
    if (!PyUnicode_Check(text)) throw py::type_error(std::string("a text must be a str, got ") + Py_TYPE(text)->tp_name);
    if (!PyUnicode_IS_ASCII(text)) return std::nullopt;
    return std::string_view(reinterpret_cast<const char*>(PyUnicode_1BYTE_DATA(text)),
                            static_cast<std::size_t>(PyUnicode_GET_LENGTH(text)));
}

// An array that owns the vector: no copy.
template <typename T>
py::array_t<T> to_array(std::vector<T>&& values) {
    auto* owned = new std::vector<T>(std::move(values));
    py::capsule free(owned, [](void* pointer) { delete static_cast<std::vector<T>*>(pointer); });
    return py::array_t<T>(static_cast<py::ssize_t>(owned->size()), owned->data(), free);
}

py::tuple encode(const WordPiece& self, const py::sequence& texts, const std::vector<std::int32_t>& prefix,
                 const std::vector<std::int32_t>& suffix) {
    const py::tuple held(texts);  // keeps the texts alive, whatever other threads do to the list meanwhile
    std::vector<std::optional<std::string_view>> views;
    views.reserve(held.size());
    for (const py::handle text : held) views.push_back(ascii_view(text.ptr()));
    Rows rows;
    {
        py::gil_scoped_release release;
        rows = self.encode(views, prefix, suffix);
    }
    return py::make_tuple(to_array(std::move(rows.ids)), to_array(std::move(rows.offsets)), rows.deferred);
}

}  // namespace

PYBIND11_MODULE(_tokenizer, module) {
    module.doc() = "WordPiece over ASCII text, in bulk.";
    module.attr("LONGEST_WORD") = WordPiece::kLongestWord;
    py::class_<WordPiece>(module, "WordPiece")
        .def(py::init<const std::vector<std::pair<std::string, std::int32_t>>&, std::int32_t, std::size_t, bool,
                      std::vector<std::string>>(),
             py::arg("pieces"), py::arg("unknown_id"), py::arg("max_word_length"), py::arg("lower_case"),
             py::arg("whole_tokens"))
        .def("encode", &encode, py::arg("texts"), py::arg("prefix"), py::arg("suffix"),
             "Returns (ids int32 [N], row offsets int64 [rows + 1], the rows left to the caller).");
}
