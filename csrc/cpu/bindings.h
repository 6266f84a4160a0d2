// The parts of electra_fast._cpu.

#pragma once

#include <pybind11/pybind11.h>

namespace electra_fast::cpu {

void bind_blocks(pybind11::module_& module);
void bind_optimizer(pybind11::module_& module);

}  // namespace electra_fast::cpu
