/* x86 with the POPCNT instruction. */
#include "kernel.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <string.h>

STRIATE_BEGIN_TARGET("popcnt")
#define COUNT_BITS(x) __builtin_popcountll(x)
#include "scalar.h"

static int usable(void) { return __builtin_cpu_supports("popcnt"); }

const striate_kernel striate_popcnt = {
    .name = "popcnt",
    .block = BLOCK,
    .word_multiple = 2,
    .word_bytes = 4,
    .weight_bytes = 4,
    .most_taps = INT32_MAX,
    .usable = usable,
    .pack = pack,
    .normalise = normalise,
    .order = order,
    .row = convolve,
    .products = multiply,
};

STRIATE_END_TARGET
#endif
