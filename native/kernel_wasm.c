/* WebAssembly with 128-bit SIMD (-msimd128). */
#include "kernel.h"

#if defined(__wasm_simd128__)
#include <wasm_simd128.h>
#define VECTOR v128_t
#define ZERO() wasm_i32x4_splat(0)
#define LOAD(p) wasm_v128_load(p)
#define SPLAT(p) wasm_v128_load32_splat(p)
#define ADD_COUNTS(bytes, a, b) wasm_i8x16_add(bytes, wasm_i8x16_popcnt(wasm_v128_xor(a, b)))
#define WIDEN(sums, bytes) \
    wasm_i32x4_add(sums,   \
                   wasm_u32x4_extadd_pairwise_u16x8(wasm_u16x8_extadd_pairwise_u8x16(bytes)))
#define STORE(p, sums) wasm_v128_store(p, sums)
#include "lanes.h"

static int usable(void) { return 1; }

const striate_kernel striate_wasm = {
    .name = "wasm",
    .block = BLOCK,
    .word_multiple = 1,
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
#endif
