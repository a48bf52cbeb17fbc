/* AVX-512 with VPOPCNTDQ: 32 filters a block, one in each 32-bit lane of two registers.
 *
 * A word of a pixel is broadcast from memory (which costs nothing), XORed with the words of 16
 * filters, counted and added: three operations for 512 products, and no sum across lanes. Two
 * registers of filters and seven pixels keep 14 sums apart, enough to hide all latencies. On a core
 * with four vector units this runs at their limit. (Adding bits in pairs first, carry-save, needs
 * five operations for two words and was 7 % slower here: it does three-input logic, of which fewer
 * start in a cycle.)
 */
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#include <string.h>

#include "kernel.h"

STRIATE_BEGIN_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq,bmi2,popcnt")

#define LANES 16
#define FLOAT_PIXELS 12
#include "common.h"

enum { BLOCK = 32, PIXELS = 7 };

static int usable(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("bmi2");
}

STRIATE_INLINE uint32_t signs_of(const float *values, int n) {
    __mmask16 low = n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1);
    __mmask16 high = n >= 32 ? 0xffff : n > 16 ? (__mmask16)((1u << (n - 16)) - 1) : 0;
    __m512 zero = _mm512_setzero_ps();
    __m512 first = _mm512_maskz_loadu_ps(low, values);
    __m512 second = _mm512_maskz_loadu_ps(high, values + (n > 16 ? 16 : 0));
    return _mm512_mask_cmp_ps_mask(low, first, zero, _CMP_GE_OQ) |
           (uint32_t)_mm512_mask_cmp_ps_mask(high, second, zero, _CMP_GE_OQ) << 16;
}

static void pack(const float *values, int64_t pixels, int channels, uint32_t *bits, int stride) {
    if (channels == 32 * stride) { /* whole words one after the other */
        int64_t words = pixels * stride;
#pragma GCC unroll 4
        for (int64_t i = 0; i < words; i++) bits[i] = signs_of(values + 32 * i, 32);
        return;
    }
    for (int64_t p = 0; p < pixels; p++, bits += stride)
        for (int c = 0, word = 0; c < channels; c += 32, word++) {
            int left = channels - c;
            bits[word] = left >= 32 ? signs_of(values, 32) : signs_of(values, left);
            values += left >= 32 ? 32 : left;
        }
}

/* [block][words] -> [words][block] */
static void order(const uint32_t *bits, size_t words, uint8_t *own) {
    uint32_t *out = (uint32_t *)own;
    for (size_t word = 0; word < words; word++)
        for (int f = 0; f < BLOCK; f++) out[word * BLOCK + f] = bits[f * words + word];
}

/* As `finish` in common.h, without taking the sums through memory. `sum` times `factor` is the dot. */
STRIATE_INLINE void finish_half(const striate_row row, int x, const int pixels, const int half,
                                __m512 factor, __m512i sum[PIXELS][2]) {
    int first = 16 * half, left = row.filters - first;
    __mmask16 live = left >= 16 ? 0xffff : left > 0 ? (__mmask16)((1u << left) - 1) : 0;
    size_t at = (size_t)x * row.out_step + first;
    if (row.scores) {
        __m512 alpha = _mm512_maskz_loadu_ps(live, row.alpha + first);
        alpha = _mm512_mul_ps(alpha, factor);
        __m512 beta = _mm512_maskz_loadu_ps(live, row.beta + first);
        __m512 value[PIXELS];
#pragma GCC unroll 7
        for (int p = 0; p < pixels; p++)
            value[p] = _mm512_cvtepi32_ps(sum[p][half]);
        if (row.input_scale)
#pragma GCC unroll 7
            for (int p = 0; p < pixels; p++)
                value[p] = _mm512_mul_ps(_mm512_set1_ps(row.input_scale[x + p]), value[p]);
#pragma GCC unroll 7
        for (int p = 0; p < pixels; p++)
            _mm512_mask_storeu_ps(row.scores + at + p * row.out_step, live,
                                  _mm512_add_ps(_mm512_mul_ps(alpha, value[p]), beta));
    } else {
#pragma GCC unroll 7
        for (int p = 0; p < pixels; p++)
            _mm512_mask_storeu_epi32(row.dots + at + p * row.out_step, live, sum[p][half]);
    }
}

/* Whole words of bits: a block has one. */
STRIATE_INLINE void finish_words(const striate_row *row, int x, const int pixels,
                                 __m512i sum[PIXELS][2]) {
    __m512i flip = _mm512_loadu_si512(row->flip), more_flip = _mm512_loadu_si512(row->flip + 16);
    __m512i least = _mm512_loadu_si512(row->threshold);
    __m512i more_least = _mm512_loadu_si512(row->threshold + 16);
#pragma GCC unroll 7
    for (int p = 0; p < pixels; p++) {
        __mmask16 low = _mm512_cmpge_epi32_mask(_mm512_xor_si512(sum[p][0], flip), least);
        __mmask16 high =
            _mm512_cmpge_epi32_mask(_mm512_xor_si512(sum[p][1], more_flip), more_least);
        uint32_t word = _mm512_kunpackw(high, low);
        memcpy(row->bits + (size_t)(x + p) * row->out_step, &word, 4);
    }
}

STRIATE_INLINE __m512i doubled(__m512i sum, const int32_t *base, __m512i odd) {
    __m512i rest = _mm512_and_si512(_mm512_loadu_si512(base), odd);
    return _mm512_add_epi32(_mm512_add_epi32(sum, sum), rest);
}

/* Half of each dot, rounded down -> the dot. */
STRIATE_INLINE void double_sums(const striate_row *row, int x, const int pixels,
                                __m512i sum[PIXELS][2]) {
    __m512i odd = _mm512_set1_epi32(row->odd);
#pragma GCC unroll 7
    for (int p = 0; p < pixels; p++) {
        const int32_t *base = row->base + row->cases[x + p] * row->case_step;
        sum[p][0] = doubled(sum[p][0], base, odd);
        sum[p][1] = doubled(sum[p][1], base + 16, odd);
    }
}

STRIATE_INLINE void finish_tile(const striate_row *row, int x, const int pixels,
                                __m512i sum[PIXELS][2]) {
    __m512 factor = _mm512_set1_ps(2.0f);
    if (row->odd || !row->scores) {
        factor = _mm512_set1_ps(1.0f);
        double_sums(row, x, pixels, sum);
    }
    if (row->bits) {
        finish_words(row, x, pixels, sum);
        return;
    }
    finish_half(*row, x, pixels, 0, factor, sum);
    finish_half(*row, x, pixels, 1, factor, sum);
}

STRIATE_INLINE void tile(const striate_row *row, int x, const int pixels) {
    const uint8_t *taps = row->pixels + (size_t)x * row->pixel_step;
    const __m512i *weights = (const __m512i *)row->weights;
    __m512i sum[PIXELS][2];
#pragma GCC unroll 7
    for (int p = 0; p < pixels; p++) { /* base - 2 * count, halved */
        const int32_t *base = row->base + row->cases[x + p] * row->case_step;
        sum[p][0] = _mm512_srai_epi32(_mm512_loadu_si512(base), 1);
        sum[p][1] = _mm512_srai_epi32(_mm512_loadu_si512(base + 16), 1);
    }
    for (int y = 0; y < row->rows; y++, taps += row->row_step) {
        const uint32_t *at[PIXELS];
#pragma GCC unroll 7
        for (int p = 0; p < pixels; p++)
            at[p] = (const uint32_t *)(taps + (size_t)p * row->pixel_step);
#pragma GCC unroll 1
        for (int word = 0; word < row->words; word++, weights += 2) {
            __m512i first = _mm512_load_si512(weights), second = _mm512_load_si512(weights + 1);
#pragma GCC unroll 7
            for (int p = 0; p < pixels; p++) {
                __m512i pixel = _mm512_set1_epi32((int)at[p][word]);
                sum[p][0] = _mm512_sub_epi32(
                    sum[p][0], _mm512_popcnt_epi32(_mm512_xor_si512(first, pixel)));
                sum[p][1] = _mm512_sub_epi32(
                    sum[p][1], _mm512_popcnt_epi32(_mm512_xor_si512(second, pixel)));
                /* Keeps GCC from giving each sum a second register and moving it back. */
                __asm__ volatile("" : "+v"(sum[p][0]), "+v"(sum[p][1]));
            }
        }
    }
    finish_tile(row, x, pixels, sum);
}

static void convolve(const striate_row *row) {
    int x = 0;
    for (; x + PIXELS <= row->width; x += PIXELS) tile(row, x, PIXELS);
    switch (row->width - x) { /* a constant number of pixels keeps the sums in registers */
        case 6: tile(row, x, 6); break;
        case 5: tile(row, x, 5); break;
        case 4: tile(row, x, 4); break;
        case 3: tile(row, x, 3); break;
        case 2: tile(row, x, 2); break;
        case 1: tile(row, x, 1); break;
        default: break;
    }
}

const striate_kernel striate_avx512 = {
    .name = "avx512",
    .block = BLOCK,
    .word_multiple = 1,
    .word_bytes = 4,
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
