#include "cpu/team.h"

#include <unistd.h>

namespace electra_fast::cpu {

namespace {

// The process that OpenMP's threads belong to. A forked child has none of them, and would wait for them.
const pid_t kLoadedBy = getpid();

OpenMp& runtime() {
    static OpenMp chosen;
    return chosen;
}

}  // namespace

bool OpenMp::is_usable() const { return parallel && getpid() == kLoadedBy; }

const OpenMp& openmp() { return runtime(); }

void use_openmp(const OpenMp& given) {
    // The first runtime stays: teams may be at work with it.
    if (!runtime().parallel) runtime() = given;
}

}  // namespace electra_fast::cpu
