// electra_fast._cpu: the encoder for Python. The caller vouches for sizes, strides, types and device of tensors.
//
// Other threads may give a parameter new memory at any time, so parameters are read with the GIL held, where they lie
// then; the layers run without it, on copies.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cpu/encoder.h"
#include "pages.h"

#include "cpu/bindings.h"

namespace py = pybind11;
using namespace electra_fast::cpu;

namespace {

using Address = std::uintptr_t;

// Python's own interface serves here, because this runs for every parameter before every call: pybind11's takes three
// times as long.
Address address_of(py::handle tensor) {
    static PyObject* const name = PyUnicode_InternFromString("data_ptr");
    PyObject* const arguments[] = {tensor.ptr()};
    const auto address =
        py::reinterpret_steal<py::object>(PyObject_VectorcallMethod(name, arguments, 1, nullptr));
    if (!address) throw py::error_already_set();
    const Address value = PyLong_AsSize_t(address.ptr());
    if (PyErr_Occurred()) throw py::error_already_set();
    return value;
}

// The memory of a tensor, which may be empty; null for None.
template <typename T>
T* at(py::handle tensor) {
    return tensor.is_none() ? nullptr : reinterpret_cast<T*>(address_of(tensor));
}

// The memory of a parameter; throws if it has none any more.
const float* values_of(py::handle parameter) {
    const auto* const values = at<const float>(parameter);
    if (!values) throw std::runtime_error("a parameter lost its memory while it was read");
    return values;
}

using Pair = std::pair<py::object, py::object>;
// (weight, bias, rows) of each part of a linear layer.
using Parts = std::vector<std::tuple<py::object, py::object, Index>>;

// The embedding's tables and their numbers of rows: words, types, positions.
using Tables = std::array<std::pair<py::object, Index>, 3>;

NormParts norm_of(const Pair& parameters) { return {values_of(parameters.first), values_of(parameters.second)}; }

LinearParts parts_of(Index k, const Parts& parts) {
    LinearParts found;
    found.k = k;
    for (const auto& [weight, bias, rows] : parts) {
        found.weights.push_back(values_of(weight));
        found.biases.push_back(values_of(bias));
        found.rows.push_back(rows);
    }
    return found;
}

const Kernels& needed_kernels(const std::string& limit) {
    const Kernels* const kernels = kernels_of(limit);
    if (!kernels) throw std::runtime_error("this processor has no instruction set up to " + limit + " that kernels are written for");
    return *kernels;
}

class PyEncoder {
public:
    PyEncoder(Index hidden, Index heads, Index intermediate, Index embedding, float eps, bool in_bytes, const std::string& limit)
        : sizes_{hidden, heads, intermediate, embedding, eps}, encoder_(needed_kernels(limit), sizes_, in_bytes) {}

    void set_embedding(const Pair& norm, const Parts& projection) {
        encoder_.set_embedding({norm_of(norm), parts_of(sizes_.embedding, projection)});
    }

    void add_layer(const Parts& qkv, const Parts& attended, const Pair& attended_norm, const Parts& inner,
                   const Parts& outer, const Pair& outer_norm) {
        encoder_.add_layer({parts_of(sizes_.hidden, qkv), parts_of(sizes_.hidden, attended),
                            parts_of(sizes_.hidden, inner), parts_of(sizes_.intermediate, outer),
                            norm_of(attended_norm), norm_of(outer_norm)});
    }

    // Remembers where parameters lie: those that were copied, and the tables.
    void watch(const py::tuple& parameters) {
        for (const py::handle parameter : parameters) addresses_.push_back(address_of(parameter));
    }

    // Looks at addresses first: only then is it sure that the memory which was copied is still there.
    bool is_current(const py::tuple& parameters) const {
        auto address = addresses_.begin();
        for (const py::handle parameter : parameters)
            if (address_of(parameter) != *address++) return false;
        return encoder_.is_current();
    }

    // Makes the copies the only ones: the parameters that were copied so far may end. Before any are watched.
    void forget_weights() { encoder_.forget_weights(); }

    // Copies rows of the i-th linear layer, in the order of the calls above, into tensors; None for what is not wanted.
    void unpack_linear(std::size_t i, Index first_row, Index rows, py::handle weight, py::handle bias) const {
        encoder_.linear(i).unpack(first_row, rows, at<float>(weight), at<float>(bias));
    }

    void unpack_norm(std::size_t i, py::handle weight, py::handle bias) const {
        encoder_.norm(i).unpack(at<float>(weight), at<float>(bias));
    }

    void run(const Tables& tables, py::handle starts, Index n_sequences, const py::tuple& ids, py::handle embedded,
             Index n_tokens, bool causal, int n_threads, py::handle out, py::handle states, py::handle read,
             Index n_read) const {
        std::unique_ptr<float[]> sums;
        if (embedded.is_none()) {
            const auto table = [&](std::size_t i) -> Table {
                const auto& [tensor, rows] = tables[i];
                return {values_of(tensor), rows};
            };
            const auto column = [&](std::size_t i) { return at<const std::int64_t>(ids[i]); };
            sums = encoder_.look_up({n_tokens, table(0), table(1), table(2), column(0), column(1), column(2)});
        }
        const auto* const first = at<const std::int32_t>(starts);
        const Batch batch{{first, first + n_sequences + 1},
                          n_tokens,
                          sums ? sums.get() : at<const float>(embedded),
                          !sums,
                          causal,
                          at<const std::int64_t>(read),
                          n_read};
        auto* const to = at<float>(out);
        auto* const states_to = at<float>(states);
        const auto has_signal = [] {
            const py::gil_scoped_acquire acquired;
            return PyErr_CheckSignals() != 0;  // where Python's handler raised: the exception waits in this thread
        };
        const bool is_done = [&] {
            const py::gil_scoped_release released;
            return encoder_.run(batch, n_threads, to, states_to, has_signal);
        }();
        if (!is_done) throw py::error_already_set();
    }

private:
    const Sizes sizes_;
    Encoder encoder_;
    std::vector<Address> addresses_;
};

}  // namespace

PYBIND11_MODULE(_cpu, module) {
    module.doc() = "ELECTRA's encoder on a CPU.";
    module.def(
        "instructions",
        [](const std::string& limit) {
            const Kernels* const kernels = kernels_of(limit);
            return std::string(kernels ? kernels->name : "");
        },
        py::arg("limit"), "The instruction set in use, empty if there is none.");
    module.def("trim", &electra_fast::trim_memory, "Gives free memory of the allocator back to the system, where that can be done.");
    module.def(
        "use_openmp",
        [](Address parallel, Address thread_number, Address n_threads) {
            use_openmp({reinterpret_cast<decltype(OpenMp::parallel)>(parallel),
                        reinterpret_cast<decltype(OpenMp::thread_number)>(thread_number),
                        reinterpret_cast<decltype(OpenMp::n_threads)>(n_threads)});
        },
        "Names the OpenMP runtime whose threads to use, by the addresses of its GOMP_parallel, omp_get_thread_num and "
        "omp_get_num_threads. Only the first call counts.");
    py::class_<PyEncoder>(module, "Encoder")
        .def(py::init<Index, Index, Index, Index, float, bool, const std::string&>(), py::arg("hidden"), py::arg("heads"),
             py::arg("intermediate"), py::arg("embedding"), py::arg("eps"), py::arg("in_bytes"),
             py::arg("limit"))
        .def("set_embedding", &PyEncoder::set_embedding)
        .def("add_layer", &PyEncoder::add_layer)
        .def("watch", &PyEncoder::watch)
        .def("is_current", &PyEncoder::is_current)
        .def("forget_weights", &PyEncoder::forget_weights)
        .def("unpack_linear", &PyEncoder::unpack_linear, py::arg("i"), py::arg("first_row"), py::arg("rows"),
             py::arg("weight"), py::arg("bias") = py::none())
        .def("unpack_norm", &PyEncoder::unpack_norm, py::arg("i"), py::arg("weight"), py::arg("bias") = py::none())
        .def("run", &PyEncoder::run);
    bind_blocks(module);
    bind_optimizer(module);
}
