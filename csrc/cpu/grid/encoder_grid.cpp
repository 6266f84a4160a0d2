// The encoder over a grid of sizes, on numbers that are the same everywhere (`make test-arm`):
//
//     encoder_grid write FILE SET      writes the results of an instruction set to a file
//     encoder_grid compare FILE SET    compares with those of another processor, prints the largest differences
//
// Results in fp32 may differ by what the project's tests allow. A product in eight bits of the same numbers must have
// the same bits. In a whole encoder a number between two bytes may go to either, so there a norm is limited.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "cpu/encoder.h"

using namespace electra_fast::cpu;

namespace {

constexpr float kMostDifference = 2e-5f;
constexpr double kMostNormInBytes = 0.01;

// Numbers from -1 to 1, in an order that looks random.
class Numbers {
public:
    std::vector<float> take(long n, float scale) {
        std::vector<float> values(static_cast<std::size_t>(n));
        for (float& x : values) {
            state_ = state_ * 6364136223846793005u + 1442695040888963407u;
            x = scale * (static_cast<float>(state_ >> 40) / static_cast<float>(1 << 23) - 1);
        }
        return values;
    }

private:
    std::uint64_t state_ = 1;
};

// Linear layers and norms in memory that lives as long as this.
class Weights {
public:
    NormParts norm(long n) { return {keep(n, 1), keep(n, 1)}; }
    LinearParts linear(long n, long k) {
        return {k, {keep(n * k, 1 / std::sqrt(static_cast<float>(k)))}, {keep(n, 0.1f)}, {n}};
    }
    const float* keep(long n, float scale) {
        kept_.push_back(numbers_.take(n, scale));
        return kept_.back().data();
    }

private:
    Numbers numbers_;
    std::vector<std::vector<float>> kept_;
};

// Takes results one after another: writes them, or compares them with those of a file.
class Results {
public:
    Results(const char* path, bool writes) : file_(std::fopen(path, writes ? "wb" : "rb")), writes_(writes) {
        if (!file_) fail(path, "cannot be opened");
    }
    ~Results() { std::fclose(file_); }

    void take(const std::string& what, const std::vector<float>& values) {
        if (writes_) {
            if (std::fwrite(values.data(), sizeof(float), values.size(), file_) != values.size())
                fail(what, "cannot be written");
            return;
        }
        std::vector<float> expected(values.size());
        if (std::fread(expected.data(), sizeof(float), expected.size(), file_) != expected.size())
            fail(what, "is not in the file");
        double squares = 0, differences = 0;
        for (std::size_t i = 0; i < values.size(); ++i) {
            const double difference = std::fabs(double{values[i]} - expected[i]);
            if (!(difference <= most_)) most_ = difference, worst_ = what;
            n_equal_ += values[i] == expected[i];
            squares += double{expected[i]} * expected[i];
            differences += difference * difference;
        }
        n_ += values.size();
        norm_ = std::max(norm_, std::sqrt(differences / squares));
    }
    // Prints what was compared since the last time; fails if it differs by more than it may.
    void finish(const char* what, double most, double most_norm) {
        if (!writes_)
            std::printf("%-24s %7.1f %% equal, largest difference %.2g (%s), of norms %.2g\n", what,
                        100.0 * static_cast<double>(n_equal_) / static_cast<double>(n_), most_, worst_.c_str(), norm_);
        if (!(most_ <= most && norm_ <= most_norm)) fail(what, "differs by too much");
        most_ = norm_ = 0;
        n_ = n_equal_ = 0;
        worst_ = "none";
    }

private:
    [[noreturn]] static void fail(const std::string& what, const char* why) {
        std::fprintf(stderr, "encoder_grid: %s %s\n", what.c_str(), why);
        std::exit(1);
    }

    std::FILE* file_;
    bool writes_;
    double most_ = 0, norm_ = 0;
    std::size_t n_ = 0, n_equal_ = 0;
    std::string worst_ = "none";
};

const std::vector<std::vector<long>> kLengths = {{1}, {2}, {17}, {70}, {1, 2, 7, 70, 13, 64, 1}, {300, 5, 33}};

// Widths that fill registers and panels, or not; heads of 1 to 128 columns.
const std::vector<Sizes> kSizes = {
    {48, 2, 72, 24, 1e-12f},  {64, 1, 128, 64, 1e-12f},   {40, 5, 33, 40, 1e-12f},  {96, 3, 200, 16, 1e-12f},
    {256, 2, 64, 128, 1e-12f}, {6, 2, 5, 3, 1e-12f},      {35, 5, 71, 11, 1e-12f},  {33, 3, 65, 33, 1e-12f},
    {17, 1, 13, 17, 1e-12f},  {4, 4, 1, 1, 1e-12f},       {93, 3, 127, 9, 1e-12f},  {128, 2, 1100, 128, 1e-12f},
};

void run_encoder(const Kernels& kernels, const Sizes& sizes, bool in_bytes, Results& results) {
    Weights weights;
    Encoder encoder(kernels, sizes, in_bytes);
    const long hidden = sizes.hidden;
    encoder.set_embedding({weights.norm(sizes.embedding),
                           sizes.embedding == hidden ? LinearParts{} : weights.linear(hidden, sizes.embedding)});
    for (int i = 0; i < 2; ++i)
        encoder.add_layer({weights.linear(3 * hidden, hidden), weights.linear(hidden, hidden),
                           weights.linear(sizes.intermediate, hidden), weights.linear(hidden, sizes.intermediate),
                           weights.norm(hidden), weights.norm(hidden)});
    for (const std::vector<long>& lengths : kLengths)
        for (const bool causal : {false, true}) {
            Batch batch{{0}, 0, nullptr, false, causal};
            for (const long n : lengths) batch.starts.push_back(static_cast<std::int32_t>(batch.n_tokens += n));
            batch.values = weights.keep(batch.n_tokens * sizes.embedding, 1);
            std::vector<float> out(static_cast<std::size_t>(batch.n_tokens * hidden));
            encoder.run(batch, 1, out.data(), nullptr, [] { return false; });
            results.take("hidden " + std::to_string(hidden) + ", heads " + std::to_string(sizes.heads) + ", tokens " +
                             std::to_string(batch.n_tokens) + (causal ? ", causal" : ""),
                         out);
        }
}

void run_product_in_bytes(const Kernels& kernels, long rows, long k, long n, Ending ending, Results& results) {
    Weights weights;
    electra_fast::Arena arena;
    const PackedLinear linear(weights.linear(n, k), kernels, true, arena);
    const long stride = (n + kernels.panel - 1) / kernels.panel * kernels.panel, code_stride = 2 * k + 128;
    const float* const x = weights.keep(rows * k, 3);
    const std::vector<float> added = [&] {
        const float* const values = weights.keep(rows * n, 1);
        std::vector<float> wide(static_cast<std::size_t>(rows * stride));
        for (long i = 0; i < rows; ++i) std::copy_n(values + i * n, n, wide.begin() + i * stride);
        return wide;
    }();
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(rows * code_stride));
    std::vector<float> c(added.size()), row_scale(static_cast<std::size_t>(rows)), values;
    std::vector<std::int32_t> row_zero(static_cast<std::size_t>(rows));
    for (long i = 0; i < rows; ++i)
        kernels.bytes.quantize(x + i * k, k, codes.data() + i * code_stride, &row_scale[static_cast<std::size_t>(i)],
                               &row_zero[static_cast<std::size_t>(i)]);
    Product product;
    product.c = c.data();
    product.c_stride = stride;
    product.added = added.data();
    product.ending = ending;
    product.codes = codes.data();
    product.a_stride = code_stride;
    product.row_scale = row_scale.data();
    product.row_zero = row_zero.data();
    linear.complete(product);
    for (long panel = 0; panel < linear.n_panels(); ++panel) kernels.bytes.multiply(product, 0, rows, panel);
    for (long i = 0; i < rows; ++i) values.insert(values.end(), c.begin() + i * stride, c.begin() + i * stride + n);
    results.take(std::to_string(rows) + " rows, k " + std::to_string(k) + ", n " + std::to_string(n), values);
}

}  // namespace

int main(int n_arguments, char** arguments) {
    const Kernels* const kernels = n_arguments == 4 ? kernels_of(arguments[3]) : nullptr;
    if (!kernels) {
        std::fprintf(stderr, "usage: encoder_grid write|compare FILE avx512|avx2|neon\n");
        return 2;
    }
    std::printf("%s\n", kernels->name);
    Results results(arguments[2], std::strcmp(arguments[1], "write") == 0);
    for (const Sizes& sizes : kSizes) run_encoder(*kernels, sizes, false, results);
    results.finish("encoder, fp32", kMostDifference, 1);
    for (const long k : {1, 3, 4, 5, 8, 12, 33, 256, 1030})
        for (const long n : {1, 16, 17, 70})
            for (long rows = 1; rows < 8; ++rows)
                for (const Ending ending : {Ending::kNone, Ending::kAdd})
                    run_product_in_bytes(*kernels, rows, k, n, ending, results);
    results.finish("product in eight bits", 0, 0);
    for (const Sizes& sizes : kSizes) run_encoder(*kernels, sizes, true, results);
    results.finish("encoder in eight bits", HUGE_VAL, kMostNormInBytes);
    return 0;
}
