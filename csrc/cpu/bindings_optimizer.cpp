// The ops of the optimizer for Python, on tensors of float32. A step has hundreds of tensors, and looking at each of them
// from Python takes as long as the update. So they come as capsules of DLPack, which hold their memory and say what they
// are. The caller vouches that this memory is as large as they say. A tensor of another kind is told by the result.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cpu/bindings.h"
#include "cpu/optimizer.h"

namespace py = pybind11;

namespace electra_fast::cpu {

namespace {

// DLPack's tensor, as of its version 0.
struct DlTensor {
    void* data;
    std::int32_t device_type, device_id;
    std::int32_t n_dims;
    std::uint8_t type_code, type_bits;
    std::uint16_t type_lanes;
    const std::int64_t *shape, *strides;
    std::uint64_t byte_offset;
};
constexpr std::int32_t kCpu = 1;
constexpr std::uint8_t kFloat = 2;

// The numbers of a tensor of float32 on the CPU, which lie one after the other; none of another one.
std::optional<Numbers> numbers_of(const DlTensor& tensor) {
    if (tensor.device_type != kCpu || tensor.type_code != kFloat || tensor.type_bits != 32 || tensor.type_lanes != 1)
        return {};
    Index size = 1;
    for (std::int32_t i = 0; i < tensor.n_dims; ++i) size *= tensor.shape[i];
    Index stride = 1;
    for (std::int32_t i = tensor.n_dims; tensor.strides && size > 0 && i-- > 0; stride *= tensor.shape[i])
        if (tensor.shape[i] != 1 && tensor.strides[i] != stride) return {};
    return Numbers{reinterpret_cast<const float*>(static_cast<const char*>(tensor.data) + tensor.byte_offset), size};
}

using Capsules = std::vector<py::capsule>;

const DlTensor& tensor_in(const py::capsule& capsule) {
    const void* const tensor = PyCapsule_GetPointer(capsule.ptr(), "dltensor");
    if (!tensor) throw py::error_already_set();
    return *static_cast<const DlTensor*>(tensor);
}

// The numbers of tensors, which must have the shapes of others; none if one of them is of another kind.
std::optional<std::vector<Numbers>> numbers_in(const Capsules& capsules, const Capsules& others) {
    std::vector<Numbers> found;
    for (std::size_t i = 0; i < capsules.size(); ++i) {
        const DlTensor &tensor = tensor_in(capsules[i]), &other = tensor_in(others.at(i));
        if (!std::equal(tensor.shape, tensor.shape + tensor.n_dims, other.shape, other.shape + other.n_dims))
            throw std::invalid_argument("parameters and moments must have the shapes of their gradients, number " +
                                        std::to_string(i) + " has another one");
        const std::optional<Numbers> numbers = numbers_of(tensor);
        if (!numbers) return {};
        found.push_back(*numbers);
    }
    return found;
}

float* writable(const Numbers& numbers) { return const_cast<float*>(numbers.data); }

const BlockKernels<float>& kernels_up_to(const std::string& limit) {
    const BlockKernels<float>* const kernels = block_kernels_of<float>(limit);
    if (!kernels) throw std::runtime_error("this processor has no instruction set up to " + limit + " that kernels are written for");
    return *kernels;
}

}  // namespace

void bind_optimizer(py::module_& module) {
    module.def(
        "grad_norm",
        [](const Capsules& grads, int n_threads, const std::string& limit) -> std::optional<float> {
            const std::optional<std::vector<Numbers>> numbers = numbers_in(grads, grads);
            if (!numbers) return {};
            const BlockKernels<float>& kernels = kernels_up_to(limit);
            const py::gil_scoped_release released;
            return norm(kernels, n_threads, *numbers);
        },
        "The 2-norm of all tensors; None if one of them is no row of float32 on the CPU.");
    module.def(
        "adamw",
        [](const std::array<Capsules, 4>& tensors, const std::vector<std::array<double, 3>>& of_each, double beta1,
           double beta2, float eps, float grad_scale, int n_threads, const std::string& limit) {
            std::array<std::vector<Numbers>, 4> lists;
            for (std::size_t i = 0; i < lists.size(); ++i) {
                std::optional<std::vector<Numbers>> found = numbers_in(tensors[i], tensors[0]);
                if (!found) return false;
                lists[i] = std::move(*found);
            }
            const auto& [grads, params, exp_avgs, exp_avg_sqs] = lists;
            std::vector<Updated> updated;
            for (std::size_t i = 0; i < params.size(); ++i) {
                const auto [lr, decay, step] = of_each.at(i);
                updated.push_back({writable(params[i]), writable(exp_avgs.at(i)), writable(exp_avg_sqs.at(i)),
                                   grads.at(i).data, params[i].size, lr, decay, step});
            }
            const BlockKernels<float>& kernels = kernels_up_to(limit);
            const py::gil_scoped_release released;
            update(kernels, n_threads, {beta1, beta2, eps, grad_scale}, updated);
            return true;
        },
        "Updates parameters; `tensors` are gradients, parameters and both moments, `of_each` the rate, decay and step of "
        "each. Returns False, with nothing done, if one of them is no row of float32 on the CPU.");
}

}  // namespace electra_fast::cpu
