// Tokens and the tables that they are looked up in.

#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "cpu/index.h"

namespace electra_fast::cpu {

// A table of the embedding, [rows, embedding].
struct Table {
    const float* values;
    Index rows;

    // The row of an id; throws std::out_of_range where the table has none.
    const float* row(const char* name, std::int64_t id, std::size_t width) const {
        if (id < 0 || id >= rows)
            throw std::out_of_range(std::string(name) + " must be in [0, " + std::to_string(rows) + "), got " +
                                    std::to_string(id));
        return values + static_cast<std::size_t>(id) * width;
    }
};

// What each of T tokens is: ids, types and positions, [T] each, and the tables that they point into.
struct Tokens {
    Index n_tokens;
    Table words, types, positions;
    const std::int64_t *ids, *type_ids, *position_ids;

    // Writes the sum of a token's three rows.
    void add_up(Index token, std::size_t width, float* sum) const {
        const float* const word = words.row("input_ids", ids[token], width);
        const float* const type = types.row("token_type_ids", type_ids[token], width);
        const float* const position = positions.row("position_ids", position_ids[token], width);
        for (std::size_t i = 0; i < width; ++i) sum[i] = word[i] + type[i] + position[i];
    }
    // Throws std::out_of_range for a token that is not in a table.
    void check() const {
        for (Index token = 0; token < n_tokens; ++token) {
            words.row("input_ids", ids[token], 0);
            types.row("token_type_ids", type_ids[token], 0);
            positions.row("position_ids", position_ids[token], 0);
        }
    }
};

}  // namespace electra_fast::cpu
