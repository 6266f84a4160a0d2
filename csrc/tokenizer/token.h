#pragma once

#include <cstdint>

namespace electra_fast {

struct Token {
    std::int32_t id;
    std::uint32_t begin, end;  // characters of the text
    std::uint32_t word;
};

}  // namespace electra_fast
