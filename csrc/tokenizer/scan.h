// Scanning of bytes, 64 at a time: the only code of the tokenizer that is written for an instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace electra_fast {

constexpr std::size_t kBlock = 64;

// Bit i of a word is about byte i of a block.
struct BlockMasks {
    std::uint64_t spaces;         // ' ', '\t', '\n', '\r': no word reaches across one, whatever the options
    std::uint64_t continuations;  // bytes of UTF-8 that do not begin a character
};

// Reads n_blocks * 64 bytes.
using Scan = void (*)(const char* text, std::size_t n_blocks, BlockMasks* masks);

struct InstructionSet {
    std::string name;
    Scan scan;
};

// The instruction sets that this machine runs, the fastest first; the last is "scalar", which all have.
const std::vector<InstructionSet>& instruction_sets();

}  // namespace electra_fast
