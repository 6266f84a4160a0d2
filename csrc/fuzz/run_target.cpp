// Gives a target of cpu/fuzz or tokenizer/fuzz inputs where there is no libFuzzer (`make test-arm`): files, and random
// bytes.
//
//     TARGET NUMBER OF RANDOM INPUTS [FILE ...]
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

static void test(const std::string& input) {
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
}

int main(int n_arguments, char** arguments) {
    const long n = n_arguments > 1 ? std::atol(arguments[1]) : 0;
    for (int i = 2; i < n_arguments; ++i) {
        std::ifstream file(arguments[i], std::ios::binary);
        test({std::istreambuf_iterator<char>(file), {}});
    }
    std::mt19937 draw(1);
    for (long i = 0; i < n; ++i) {
        std::string input(draw() % 400, '\0');
        for (char& byte : input) byte = static_cast<char>(draw());
        test(input);
    }
    std::printf("%s: %d files, %ld random inputs\n", arguments[0], n_arguments - 2, n);
    return n > 0 ? 0 : 2;
}
