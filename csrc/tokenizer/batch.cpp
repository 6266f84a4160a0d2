#include "tokenizer/batch.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace electra_fast {
namespace {

// Values of zero that are written at once: they stay in the cache until others are written over some.
constexpr std::size_t kZeros = std::size_t{1} << 15;

// The lengths that two sequences are cut to; `room` is the number of tokens that a row holds besides special ones.
std::array<std::size_t, 2> kept_lengths(std::array<std::size_t, 2> lengths, bool is_pair, std::size_t room,
                                        Truncation::Strategy strategy) {
    const std::size_t total = lengths[0] + lengths[1];
    if (total <= room) return lengths;
    if (room == 0) return {0, 0};
    if (strategy == Truncation::Strategy::kLongestFirst) {
        if (!is_pair) return {room, 0};
        // The shorter one keeps its length, up to half of the room.
        const bool swapped = lengths[0] > lengths[1];
        std::size_t shorter = std::min(lengths[0], lengths[1]);
        std::size_t longer = shorter > room ? shorter : std::max(shorter, room - shorter);
        if (shorter + longer > room) {
            shorter = room / 2;
            longer = shorter + room % 2;
        }
        return swapped ? std::array{longer, shorter} : std::array{shorter, longer};
    }
    const std::size_t target = strategy == Truncation::Strategy::kOnlySecond;
    if (target == 1 && !is_pair) throw std::invalid_argument("truncation='only_second' needs a pair, got a single text");
    const std::size_t excess = total - room;
    if (lengths[target] <= excess) {
        throw std::invalid_argument(std::string("truncation='") + (target ? "only_second" : "only_first") + "' must remove " +
                                    std::to_string(excess) + " tokens, but that text has " +
                                    std::to_string(lengths[target]));
    }
    lengths[target] -= excess;
    return lengths;
}

}  // namespace

Batch::Batch(BulkRows ids, std::shared_ptr<const LateTokens> tokens, const std::vector<std::uint8_t>& n_sequences,
             std::shared_ptr<const Frame> frame, const std::optional<Truncation>& truncation)
    : tokens_(std::move(tokens)), frame_(std::move(frame)) {
    Samples all;
    all.samples.reserve(n_sequences.size());
    all.parts.reserve(ids.offsets.size());
    const std::int64_t* bound = ids.offsets.data();
    for (const std::uint8_t n : n_sequences) {
        Sample& sample = all.samples.emplace_back();
        sample.n_sequences = n;
        std::array<Part, 2> whole{};
        for (std::size_t s = 0; s < n; ++s, ++bound) {
            whole[s] = {static_cast<std::size_t>(bound[0]), static_cast<std::size_t>(bound[1])};
        }
        std::array<std::size_t, 2> lengths{whole[0].end - whole[0].begin, whole[1].end - whole[1].begin};
        if (truncation) {
            const auto& pieces = n == 2 ? frame_->pair : frame_->single;
            const auto n_special = static_cast<std::size_t>(
                std::count_if(pieces.begin(), pieces.end(), [](const FramePiece& piece) { return !piece.sequence; }));
            if (truncation->max_length < n_special) {
                throw std::invalid_argument("max_length must leave room for " + std::to_string(n_special) +
                                            " special tokens, got " + std::to_string(truncation->max_length));
            }
            lengths = kept_lengths(lengths, n == 2, truncation->max_length - n_special, truncation->strategy);
        }
        for (std::size_t s = 0; s < n; ++s) {
            sample.first_part[s] = all.parts.size();
            truncation ? cut(whole[s], lengths[s], *truncation, all.parts) : all.parts.push_back(whole[s]);
            sample.n_parts[s] = all.parts.size() - sample.first_part[s];
        }
    }
    ids_ = std::make_shared<const Buffer<std::int32_t>>(std::move(ids.ids));
    samples_ = std::make_shared<const Samples>(std::move(all));
    *this = with_overflow(false);
}

// Cuts a sequence into parts of `length` tokens, as many as fit a row; the first part is at the end that is kept.
void Batch::cut(Part whole, std::size_t length, const Truncation& truncation, std::vector<Part>& parts) {
    const std::size_t size = whole.end - whole.begin;
    if (length >= size) return parts.push_back(whole);
    if (length == 0) {
        parts.push_back({whole.begin, whole.begin});
        return parts.push_back(whole);
    }
    if (truncation.stride >= length) {
        throw std::invalid_argument("stride must be below the " + std::to_string(length) +
                                    " tokens that a text is cut to, got " + std::to_string(truncation.stride));
    }
    const std::size_t step = length - truncation.stride;
    for (std::size_t done = 0, covered = 0; covered < size; done += step) {
        covered = std::min(done + length, size);
        parts.push_back(truncation.side == Side::kRight ? Part{whole.begin + done, whole.begin + covered}
                                                        : Part{whole.end - covered, whole.end - done});
    }
}

Batch Batch::with_overflow(bool overflow) const {
    Batch batch;
    batch.ids_ = ids_;
    batch.tokens_ = tokens_;
    batch.samples_ = samples_;
    batch.frame_ = frame_;
    batch.rows_.reserve(samples_->samples.size());
    for (std::size_t i = 0; i < samples_->samples.size(); ++i) {
        batch.rows_.push_back(row_of(i, 0, 0));
        if (!overflow) continue;
        // The further parts of the first text go with each of the second, then its first part with the further ones.
        const auto [n_first, n_second] = samples_->samples[i].n_parts;
        for (std::size_t a = 1; a < n_first; ++a) {
            for (std::size_t b = 0; b < std::max<std::size_t>(n_second, 1); ++b) batch.rows_.push_back(row_of(i, a, b));
        }
        for (std::size_t b = 1; b < n_second; ++b) batch.rows_.push_back(row_of(i, 0, b));
    }
    return batch;
}

Batch::Row Batch::row_of(std::size_t sample, std::size_t first, std::size_t second) const {
    const auto& [n_sequences, first_part, n_parts] = samples_->samples[sample];
    Row row{sample, n_sequences, {samples_->parts[first_part[0] + first], {}}};
    if (n_sequences == 2) row.parts[1] = samples_->parts[first_part[1] + second];
    for (const FramePiece& piece : frame_of(row)) {
        row.length += piece.sequence ? row.parts[*piece.sequence].end - row.parts[*piece.sequence].begin : 1;
    }
    return row;
}

const std::vector<FramePiece>& Batch::frame_of(const Row& row) const {
    return row.n_sequences == 2 ? frame_->pair : frame_->single;
}

std::size_t Batch::longest() const {
    std::size_t longest = 0;
    for (const Row& row : rows_) longest = std::max(longest, row.length);
    return longest;
}

std::optional<std::size_t> Batch::common_length(std::size_t first, std::size_t last, std::size_t width) const {
    if (first == last) return std::nullopt;
    const std::size_t length = std::max(rows_[first].length, width);
    for (std::size_t index = first; index < last; ++index) {
        if (std::max(rows_[index].length, width) != length) return std::nullopt;
    }
    return length;
}

std::int64_t Filling::of(Column column) const {
    switch (column) {
        case Column::kIds:
            return id;
        case Column::kTypeIds:
            return type_id;
        case Column::kSpecialTokensMask:
            return 1;
        case Column::kWords:
        case Column::kSequences:
            return -1;
        default:
            return 0;
    }
}

void Batch::column(Column column, std::size_t first, std::size_t last, const Filling& filling,
                   std::int64_t* out) const {
    const std::size_t width = filling.width, per_token = column == Column::kOffsets ? 2 : 1;
    const std::int64_t fill = filling.of(column);
    const std::int64_t* zeros_end = out;  // where the zeros end that were written ahead
    const auto put = [&](std::int64_t value, std::size_t n) {
        std::int64_t* const end = out + n * per_token;
        if (value != 0 || end > zeros_end) std::fill(out, end, value);
        out = end;
    };
    const bool asks_for_tokens = column == Column::kOffsets || column == Column::kWords;
    const Token* const tokens = asks_for_tokens ? tokens_->get().data() : nullptr;
    for (std::size_t index = first; index < last; ++index) {
        const Row& row = rows_[index];
        const std::size_t missing = width > row.length ? width - row.length : 0;
        if (fill == 0 && out >= zeros_end && missing > row.length) {
            // Most of a padded batch is zeros. Written for many rows at once they are not read from memory before.
            const std::size_t n = std::min((last - index) * width, kZeros / width * width) * per_token;
            zeros_end = std::fill_n(out, n, 0);
        }
        if (filling.side == Side::kLeft) put(fill, missing);
        for (const FramePiece& piece : frame_of(row)) {
            const Part part = piece.sequence ? row.parts[*piece.sequence] : Part{0, 1};
            const std::size_t n = part.end - part.begin;
            switch (column) {
                case Column::kIds:
                    if (piece.sequence) {
                        // Ids are never below zero: widened by zeros, they take fewer instructions than by signs.
                        out = std::transform(ids_->data() + part.begin, ids_->data() + part.end, out,
                                             [](std::int32_t id) { return static_cast<std::uint32_t>(id); });
                    } else {
                        put(piece.id, 1);
                    }
                    break;
                case Column::kTypeIds:
                    put(piece.type_id, n);
                    break;
                case Column::kAttentionMask:
                    put(1, n);
                    break;
                case Column::kSpecialTokensMask:
                    put(!piece.sequence, n);
                    break;
                case Column::kOffsets:
                    if (piece.sequence) {
                        for (std::size_t t = part.begin; t < part.end; ++t) {
                            *out++ = tokens[t].begin;
                            *out++ = tokens[t].end;
                        }
                    } else {
                        put(0, 1);
                    }
                    break;
                case Column::kWords:
                    if (piece.sequence) {
                        out = std::transform(tokens + part.begin, tokens + part.end, out,
                                             [](const Token& token) { return token.word; });
                    } else {
                        put(-1, 1);
                    }
                    break;
                case Column::kSequences:
                    put(piece.sequence ? static_cast<std::int64_t>(*piece.sequence) : -1, n);
                    break;
            }
        }
        if (filling.side == Side::kRight) put(fill, missing);
    }
}

}  // namespace electra_fast
