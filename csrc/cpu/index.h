// The type of sizes and of places in arrays.
#pragma once

#include <cstddef>

namespace electra_fast::cpu {

using Index = std::ptrdiff_t;  // not long, which has 32 bits on Windows

}  // namespace electra_fast::cpu
