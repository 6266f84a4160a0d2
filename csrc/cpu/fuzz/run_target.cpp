// Gives a target of this folder random inputs where there is no libFuzzer (`make test-arm`):
//
//     TARGET NUMBER OF INPUTS
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int n_arguments, char** arguments) {
    const long n = n_arguments == 2 ? std::atol(arguments[1]) : 0;
    std::mt19937 draw(1);
    for (long i = 0; i < n; ++i) {
        std::vector<std::uint8_t> data(draw() % 400);
        for (std::uint8_t& byte : data) byte = static_cast<std::uint8_t>(draw());
        LLVMFuzzerTestOneInput(data.data(), data.size());
    }
    std::printf("%s: %ld inputs\n", arguments[0], n);
    return n > 0 ? 0 : 2;
}
