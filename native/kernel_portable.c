/* Any machine: bits are counted by adding neighbours, then pairs, then nibbles. */
#include <stdint.h>

static inline uint64_t count_bits(uint64_t x) {
    x -= x >> 1 & 0x5555555555555555u;
    x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return x * 0x0101010101010101u >> 56;
}

#define COUNT_BITS(x) count_bits(x)
#include "scalar.h"

static int usable(void) { return 1; }

const striate_kernel striate_portable = {
    .name = "portable",
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
