/* ARM with NEON: all of AArch64, and ARMv7 where the compiler was told so (-mfpu=neon). */
#include "kernel.h"

#if defined(__ARM_NEON)
#include <arm_neon.h>
#define VECTOR uint32x4_t
#define ZERO() vdupq_n_u32(0)
#define LOAD(p) vld1q_u32(p)
#define SPLAT(p) vld1q_dup_u32(p)
#define ADD_COUNTS(bytes, a, b)                                       \
    vreinterpretq_u32_u8(vaddq_u8(vreinterpretq_u8_u32(bytes),        \
                                  vcntq_u8(vreinterpretq_u8_u32(veorq_u32(a, b)))))
#define WIDEN(sums, bytes) vaddq_u32(sums, vpaddlq_u16(vpaddlq_u8(vreinterpretq_u8_u32(bytes))))
#define STORE(p, sums) vst1q_s32(p, vreinterpretq_s32_u32(sums))
#include "lanes.h"

static int usable(void) { return 1; }

const striate_kernel striate_neon = {
    .name = "neon",
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
