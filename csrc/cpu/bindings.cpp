// electra_fast._cpu: the encoder for Python. Tensors come as addresses; the caller vouches for their sizes and types.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "cpu/encoder.h"

namespace py = pybind11;
using namespace electra_fast::cpu;

namespace {

using Address = std::uintptr_t;

template <typename T>
const T* at(Address address) {
    return reinterpret_cast<const T*>(address);
}

Norm norm_of(const std::pair<Address, Address>& addresses) {
    return {at<float>(addresses.first), at<float>(addresses.second)};
}

// Makes LinearParts from (weight, bias, rows) of each part.
LinearParts parts_of(long k, const std::vector<std::tuple<Address, Address, long>>& parts) {
    LinearParts found;
    found.k = k;
    for (const auto& [weight, bias, rows] : parts) {
        found.weights.push_back(at<float>(weight));
        found.biases.push_back(at<float>(bias));
        found.rows.push_back(rows);
    }
    return found;
}

using Parts = std::vector<std::tuple<Address, Address, long>>;
using Pair = std::pair<Address, Address>;
using Table = std::pair<Address, long>;

const Kernels& needed_kernels(const std::string& limit) {
    const Kernels* const kernels = kernels_of(limit);
    if (!kernels) throw std::runtime_error("this processor has no instruction set up to " + limit + " that kernels are written for");
    return *kernels;
}

class PyEncoder {
public:
    PyEncoder(long hidden, long heads, long intermediate, long embedding, float eps, bool in_bytes, const std::string& limit)
        : sizes_{hidden, heads, intermediate, embedding, eps}, encoder_(needed_kernels(limit), sizes_, in_bytes) {}

    void set_embedding(Table words, Table positions, Table types, Pair norm, const Parts& projection) {
        const auto table = [](const Table& from) -> EmbeddingWeights::Table {
            return {at<float>(from.first), from.second};
        };
        encoder_.set_embedding(
            {table(words), table(positions), table(types), norm_of(norm), parts_of(sizes_.embedding, projection)});
    }

    void add_layer(const Parts& qkv, const Parts& attended, Pair attended_norm, const Parts& inner, const Parts& outer,
                   Pair outer_norm) {
        const LayerWeights weights{parts_of(sizes_.hidden, qkv),   parts_of(sizes_.hidden, attended),
                                   parts_of(sizes_.hidden, inner), parts_of(sizes_.intermediate, outer),
                                   norm_of(attended_norm),         norm_of(outer_norm)};
        const py::gil_scoped_release released;
        encoder_.add_layer(weights);
    }

    bool is_current() const { return encoder_.is_current(); }

    void run(Address starts, long n_sequences, Address ids, Address types, Address positions, Address embedded, bool causal,
             int n_threads, Address out, Address states) const {
        const Batch batch{n_sequences,
                          at<std::int32_t>(starts),
                          at<std::int64_t>(ids),
                          at<std::int64_t>(types),
                          at<std::int64_t>(positions),
                          at<float>(embedded),
                          causal};
        const py::gil_scoped_release released;
        encoder_.run(batch, n_threads, reinterpret_cast<float*>(out), reinterpret_cast<float*>(states));
    }

private:
    const Sizes sizes_;
    Encoder encoder_;
};

}  // namespace

PYBIND11_MODULE(_cpu, module) {
    module.doc() = "ELECTRA's encoder on a CPU.";
    module.def(
        "instructions",
        [](const std::string& limit) -> std::pair<std::string, bool> {
            const Kernels* const kernels = kernels_of(limit);
            return kernels ? std::pair(std::string(kernels->name), kernels->multiply_bytes != nullptr)
                           : std::pair(std::string(), false);
        },
        py::arg("limit"), "The instruction set in use, empty if there is none, and whether it multiplies bytes.");
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
        .def(py::init<long, long, long, long, float, bool, const std::string&>(), py::arg("hidden"), py::arg("heads"),
             py::arg("intermediate"), py::arg("embedding"), py::arg("eps"), py::arg("in_bytes"),
             py::arg("limit"))
        .def("set_embedding", &PyEncoder::set_embedding)
        .def("add_layer", &PyEncoder::add_layer)
        .def("is_current", &PyEncoder::is_current)
        .def("run", &PyEncoder::run);
}
