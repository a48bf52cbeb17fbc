/* AVX-512 with VPOPCNTDQ: 32 filters a block, one in each 32-bit lane of two registers.
 *
 * Words are taken in pairs, and a group of `striate_row` is the same bit of both: XOR, one operation
 * of three-input logic, count and add make half the count, four operations for 1024 products, where
 * counting each word takes six. Words of a pixel are broadcast from memory (which costs nothing), and
 * no sum goes across lanes. Two registers of filters and seven pixels keep 14 sums apart, enough to
 * hide all latencies.
 */
#include "kernel.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#include <string.h>

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

/* Of two words the second becomes its difference from the first. A word without a second is as if
 * that were 0. */
static void expand(const uint32_t *bits, int pixels, int words, int next, uint8_t *own,
                   int32_t *odd) {
    int p = 0;
    (void)next;
    for (; words == 1 && p + 16 <= pixels; p += 16, bits += 16, own += 64) { /* many at a time */
        __m512i alone = _mm512_loadu_si512(bits);
        _mm512_storeu_si512(own, alone);
        _mm512_storeu_si512(odd + p, _mm512_popcnt_epi32(alone));
    }
    for (; words == 2 && p + 8 <= pixels; p += 8, bits += 16, own += 64) {
        __m512i pairs = _mm512_loadu_si512(bits);
        pairs = _mm512_xor_si512(pairs, _mm512_slli_epi64(pairs, 32));
        __m512i ones = _mm512_popcnt_epi64(_mm512_srli_epi64(pairs, 32));
        _mm512_storeu_si512(own, pairs);
        _mm256_storeu_si256((__m256i *)(odd + p), _mm512_cvtepi64_epi32(ones));
    }
    for (; p < pixels; p++) {
        int ones = 0;
#pragma GCC unroll 1
        for (int pairs = words / 2; pairs > 0; pairs--, bits += 2, own += 8) {
            uint64_t pair;
            memcpy(&pair, bits, 8);
            pair ^= pair << 32;
            memcpy(own, &pair, 8);
            ones += __builtin_popcountll(pair >> 32);
        }
        if (words % 2) {
            memcpy(own, bits, 4);
            ones += __builtin_popcount(*bits++);
            own += 4;
        }
        odd[p] = ones;
    }
}

/* [block][words] -> [words][block], expanded */
static void order(const uint32_t *bits, size_t words, int tap, uint8_t *own) {
    uint32_t *out = (uint32_t *)own;
    for (size_t word = 0; word < words; word++)
        for (int f = 0; f < BLOCK; f++) {
            const uint32_t *filter = bits + f * words + word;
            *out++ = word % tap % 2 ? filter[0] ^ filter[-1] : filter[0];
        }
}

/* As `finish` in common.h, without taking the sums through memory. */
STRIATE_INLINE void finish_dots_of(const striate_row *row, int x, const int pixels,
                                   const __mmask16 live[2], __m512i sum[PIXELS][2]) {
    int32_t *out = row->dots + (size_t)x * row->out_step;
    STRIATE_UNROLL
    for (int p = 0; p < pixels; p++, out += row->out_step) {
        _mm512_mask_storeu_epi32(out, live[0], sum[p][0]);
        _mm512_mask_storeu_epi32(out + 16, live[1], sum[p][1]);
    }
}

STRIATE_INLINE void finish_scores_of(const striate_row *row, int x, const int pixels,
                                     const __mmask16 live[2], __m512i sum[PIXELS][2]) {
    __m512 alpha[2], beta[2], value[PIXELS][2];
    for (int half = 0; half < 2; half++) {
        alpha[half] = _mm512_maskz_loadu_ps(live[half], row->alpha + 16 * half);
        beta[half] = _mm512_maskz_loadu_ps(live[half], row->beta + 16 * half);
    }
    STRIATE_UNROLL
    for (int i = 0; i < 2 * pixels; i++)
        value[i / 2][i % 2] = _mm512_cvtepi32_ps(sum[i / 2][i % 2]);
    if (row->input_scale)
        STRIATE_UNROLL
        for (int i = 0; i < 2 * pixels; i++) {
            __m512 scale = _mm512_set1_ps(row->input_scale[x + i / 2]);
            value[i / 2][i % 2] = _mm512_mul_ps(scale, value[i / 2][i % 2]);
        }
    float *out = row->scores + (size_t)x * row->out_step;
    STRIATE_UNROLL
    for (int i = 0; i < 2 * pixels; i++) {
        __m512 product = _mm512_mul_ps(alpha[i % 2], value[i / 2][i % 2]);
        _mm512_mask_storeu_ps(out + 16 * (i % 2), live[i % 2],
                              _mm512_add_ps(product, beta[i % 2]));
        if (i % 2) out += row->out_step;
    }
}

/* Whole words of bits: a block has one. */
STRIATE_INLINE void finish_words(const striate_row *row, int x, const int pixels,
                                 __m512i sum[PIXELS][2]) {
    __m512i flip = _mm512_loadu_si512(row->flip), more_flip = _mm512_loadu_si512(row->flip + 16);
    __m512i least = _mm512_loadu_si512(row->threshold);
    __m512i more_least = _mm512_loadu_si512(row->threshold + 16);
    STRIATE_UNROLL
    for (int p = 0; p < pixels; p++) {
        __mmask16 low = _mm512_cmpge_epi32_mask(_mm512_xor_si512(sum[p][0], flip), least);
        __mmask16 high =
            _mm512_cmpge_epi32_mask(_mm512_xor_si512(sum[p][1], more_flip), more_least);
        uint32_t word = _mm512_kunpackw(high, low);
        memcpy(row->bits + (size_t)(x + p) * row->out_step, &word, 4);
    }
}

/* dot = base + odd - 4 * half of one pixel */
STRIATE_INLINE void make_dots(__m512i base, __m512i more_base, const int32_t *odd,
                              __m512i half[2]) {
    __m512i odds = _mm512_set1_epi32(*odd);
    half[0] = _mm512_sub_epi32(_mm512_add_epi32(base, odds), _mm512_slli_epi32(half[0], 2));
    half[1] = _mm512_sub_epi32(_mm512_add_epi32(more_base, odds), _mm512_slli_epi32(half[1], 2));
}

STRIATE_INLINE void finish_tile(const striate_row *row, int x, const int pixels,
                                __m512i sum[PIXELS][2]) {
    const uint8_t *cases = row->cases + x;
    const int32_t *base = row->base + cases[0] * row->case_step;
    if (cases[0] == cases[pixels - 1]) { /* then those between are the same, too */
        __m512i bases = _mm512_loadu_si512(base), more_bases = _mm512_loadu_si512(base + 16);
        STRIATE_UNROLL
        for (int p = 0; p < pixels; p++) make_dots(bases, more_bases, row->odd + x + p, sum[p]);
    } else {
        STRIATE_UNROLL
        for (int p = 0; p < pixels; p++) {
            base = row->base + cases[p] * row->case_step;
            make_dots(_mm512_loadu_si512(base), _mm512_loadu_si512(base + 16), row->odd + x + p,
                      sum[p]);
        }
    }
    if (row->bits) {
        finish_words(row, x, pixels, sum);
        return;
    }
    uint32_t filters = row->filters >= 32 ? UINT32_MAX : ((uint32_t)1 << row->filters) - 1;
    __mmask16 live[2] = {(__mmask16)filters, (__mmask16)(filters >> 16)};
    if (row->scores)
        finish_scores_of(row, x, pixels, live, sum);
    else
        finish_dots_of(row, x, pixels, live, sum);
}

/* Half the counts of 16 filters, from a word of a pixel, its difference from the next word, and the
 * same of the filters. Where pixel and filter differ in that difference, they differ in one of the
 * two words; elsewhere in both or none. */
STRIATE_INLINE __m512i halves(__m512i word, __m512i difference, const __m512i *weights) {
    enum { CHOOSE = 0xd4 /* difference where the filter's is another, else what the words say */ };
    __m512i differs = _mm512_xor_si512(word, weights[0]);
    __m512i chosen = _mm512_ternarylogic_epi32(differs, difference, weights[2], CHOOSE);
    return _mm512_popcnt_epi32(chosen);
}

/* The same of a word without a second. */
STRIATE_INLINE __m512i halves_alone(__m512i word, __m512i weights) {
    return _mm512_popcnt_epi32(_mm512_andnot_si512(weights, word));
}

/* `at` is the word of the first pixel. */
STRIATE_INLINE void add_words(const uint8_t *at, size_t pixel_step, const int pixels,
                              const int words, const __m512i *weights, __m512i sum[PIXELS][2]) {
    __m512i own[4];
    STRIATE_UNROLL
    for (int i = 0; i < 2 * words; i++) own[i] = _mm512_load_si512(weights + i);
    STRIATE_UNROLL
    for (int p = 0; p < pixels; p++, at += pixel_step) {
        __asm__("" : "+r"(at)); /* one pointer: GCC else makes seven, for every row of taps */
        const int32_t *word = (const int32_t *)at;
        __m512i first = _mm512_set1_epi32(word[0]);
        if (words == 2) {
            __m512i difference = _mm512_set1_epi32(word[1]);
            sum[p][0] = _mm512_add_epi32(sum[p][0], halves(first, difference, own));
            sum[p][1] = _mm512_add_epi32(sum[p][1], halves(first, difference, own + 1));
        } else {
            sum[p][0] = _mm512_add_epi32(sum[p][0], halves_alone(first, own[0]));
            sum[p][1] = _mm512_add_epi32(sum[p][1], halves_alone(first, own[1]));
        }
        /* Keeps GCC from giving each sum a second register and moving it back. */
        __asm__ volatile("" : "+v"(sum[p][0]), "+v"(sum[p][1]));
    }
}

STRIATE_INLINE void tile(const striate_row *row, int x, const int pixels, const int alone) {
    const uint8_t *taps = row->pixels + (size_t)x * row->pixel_step;
    const __m512i *weights = (const __m512i *)row->weights;
    __m512i sum[PIXELS][2];
    STRIATE_UNROLL
    for (int p = 0; p < pixels; p++) sum[p][0] = sum[p][1] = _mm512_setzero_si512();
    size_t step = row->pixel_step;
    for (int y = 0; y < row->rows; y++, taps += row->row_step) {
        const uint8_t *at = taps, *end = taps + 4 * (size_t)row->words;
        if (!alone) {
#pragma GCC unroll 1
            for (; at < end; at += 8, weights += 4) add_words(at, step, pixels, 2, weights, sum);
            continue;
        }
        for (; at < end; weights += 2, at += 4) {
#pragma GCC unroll 1
            for (int pairs = row->tap / 2; pairs > 0; pairs--, at += 8, weights += 4)
                add_words(at, step, pixels, 2, weights, sum);
            add_words(at, step, pixels, 1, weights, sum);
        }
    }
    finish_tile(row, x, pixels, sum);
}

/* alone: whether every tap ends in a word without a second. */
STRIATE_INLINE void tiles(const striate_row *row, const int alone) {
    int x = 0;
    for (; x + PIXELS <= row->width; x += PIXELS) tile(row, x, PIXELS, alone);
    switch (row->width - x) { /* a constant number of pixels keeps the sums in registers */
        case 6: tile(row, x, 6, alone); break;
        case 5: tile(row, x, 5, alone); break;
        case 4: tile(row, x, 4, alone); break;
        case 3: tile(row, x, 3, alone); break;
        case 2: tile(row, x, 2, alone); break;
        case 1: tile(row, x, 1, alone); break;
        default: break;
    }
}

static void convolve(const striate_row *given) {
    const striate_row row = *given; /* which nothing that is stored can change */
    if (row.tap % 2)
        tiles(&row, 1);
    else
        tiles(&row, 0);
}

const striate_kernel striate_avx512 = {
    .name = "avx512",
    .block = BLOCK,
    .word_multiple = 1,
    .word_bytes = 4,
    .weight_bytes = 4,
    .most_taps = INT32_MAX,
    .usable = usable,
    .pack = pack,
    .normalise = normalise,
    .expand = expand,
    .window_sums = window_sums,
    .order = order,
    .row = convolve,
    .products = multiply,
};

STRIATE_END_TARGET
#endif
