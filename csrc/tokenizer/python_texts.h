// Python's strings as the C++ code reads them.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "tokenizer/text.h"

namespace electra_fast {

namespace py = pybind11;

// Whether all items of a list or a tuple are texts. It asks without running any code of Python's.
inline bool are_texts(const py::handle& items) {
    const auto fast = py::reinterpret_steal<py::object>(PySequence_Fast(items.ptr(), "items must be a sequence"));
    if (!fast) throw py::error_already_set();
    PyObject* const* const begin = PySequence_Fast_ITEMS(fast.ptr());
    return std::all_of(begin, begin + PySequence_Fast_GET_SIZE(fast.ptr()),
                       [](PyObject* item) { return PyUnicode_Check(item); });
}

inline constexpr std::size_t kTexts = std::size_t{1} << 12;  // texts between two checks whether a call must end

// Views of Python strings. It keeps the strings alive, whatever other threads do to their lists meanwhile.
class Texts {
public:
    Texts() = default;
    ~Texts() {
        for (std::size_t i = 0; i < owned_.size(); ++i) {
            if (i + kAhead < owned_.size()) __builtin_prefetch(owned_[i + kAhead]);
            Py_DECREF(owned_[i]);
        }
    }
    Texts(const Texts&) = delete;
    Texts& operator=(const Texts&) = delete;

    // Makes room for more texts; lists of words come one by one, so it grows by half at least.
    void reserve(std::size_t more) {
        const std::size_t n = views_.size() + more;
        if (n <= views_.capacity()) return;
        views_.reserve(std::max(n, views_.capacity() / 2 * 3));
        owned_.reserve(views_.capacity());
    }

    // name(index): gives the name of a text, for errors.
    template <typename Name>
    void add_all(const py::handle& sequence, const Name& name) {
        const auto fast = py::reinterpret_steal<py::object>(PySequence_Fast(sequence.ptr(), "texts must be a sequence"));
        if (!fast) throw py::error_already_set();
        const auto size = [&fast] { return static_cast<std::size_t>(PySequence_Fast_GET_SIZE(fast.ptr())); };
        reserve(size());
        for (std::size_t i = 0;; ++i) {
            // The handler of a signal may change the list, so its size and its place are asked for anew.
            if (i % kTexts == kTexts - 1 && PyErr_CheckSignals()) throw py::error_already_set();
            const std::size_t n = size();
            if (i >= n) break;
            PyObject* const* const items = PySequence_Fast_ITEMS(fast.ptr());
            if (i + kAhead < n) __builtin_prefetch(items[i + kAhead]);  // strings lie anywhere
            add(items[i], [&] { return name(i); });
        }
    }

    template <typename Name>
    void add(const py::handle& text, const Name& name) {
        PyObject* const object = text.ptr();
        if (!PyUnicode_Check(object)) {
            const std::string shown = py::repr(text).cast<std::string>().substr(0, 80);
            throw py::type_error(name() + " must be a str, got " + shown + " of type " + Py_TYPE(object)->tp_name);
        }
#if PY_VERSION_HEX < 0x030c0000
        if (PyUnicode_READY(object)) throw py::error_already_set();
#endif
        const auto form = PyUnicode_IS_ASCII(object)                         ? SourceText::Form::kUtf8
                          : PyUnicode_KIND(object) == PyUnicode_1BYTE_KIND ? SourceText::Form::kLatin1
                          : PyUnicode_KIND(object) == PyUnicode_2BYTE_KIND ? SourceText::Form::kUcs2
                                                                           : SourceText::Form::kUcs4;
        views_.push_back({PyUnicode_DATA(object), static_cast<std::size_t>(PyUnicode_GET_LENGTH(object)), form});
        owned_.push_back(Py_NewRef(object));
    }

    std::span<const SourceText> views() const { return views_; }

private:
    static constexpr std::size_t kAhead = 8;

    std::vector<SourceText> views_;
    std::vector<PyObject*> owned_;
};

}  // namespace electra_fast
