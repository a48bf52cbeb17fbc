/* AVX2, which cannot count bits: 64 filters a block, one in each byte of two registers.
 *
 * Four bits of a pixel choose one of 16 tables, which for every four bits of a weight says how many
 * differ; a byte shuffle looks 32 filters up at once. So XOR and count are one operation, and with
 * the addition two for 128 products. Weights are kept as one nibble a byte, pixels as the offset of
 * their table.
 */
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#include <string.h>

#include "kernel.h"

STRIATE_BEGIN_TARGET("avx2,bmi2,popcnt")

#define LANES 8
#define FLOAT_PIXELS 6
#include "common.h"

enum { BLOCK = 64, PIXELS = 6, MOST_STEPS = 60 /* of at most 4 each: a byte holds the sum */ };

#define ROW_OF(a) ROW_(a, 0), ROW_(a, 1), ROW_(a, 2), ROW_(a, 3)
#define ROW_(a, b) COUNT((a) ^ (4 * (b))), COUNT((a) ^ (4 * (b) + 1)), COUNT((a) ^ (4 * (b) + 2)), COUNT((a) ^ (4 * (b) + 3))
#define COUNT(x) (((x) & 1) + ((x) >> 1 & 1) + ((x) >> 2 & 1) + ((x) >> 3 & 1))

_Alignas(64) static const uint8_t differing[16][16] = {
    {ROW_OF(0)},  {ROW_OF(1)},  {ROW_OF(2)},  {ROW_OF(3)},  {ROW_OF(4)},  {ROW_OF(5)},
    {ROW_OF(6)},  {ROW_OF(7)},  {ROW_OF(8)},  {ROW_OF(9)},  {ROW_OF(10)}, {ROW_OF(11)},
    {ROW_OF(12)}, {ROW_OF(13)}, {ROW_OF(14)}, {ROW_OF(15)},
};

static int usable(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
}

STRIATE_INLINE uint32_t signs_of(const float *values) {
    __m256 zero = _mm256_setzero_ps();
    uint32_t word = 0;
    for (int i = 0; i < 4; i++) {
        __m256 positive = _mm256_cmp_ps(_mm256_loadu_ps(values + 8 * i), zero, _CMP_GE_OQ);
        word |= (uint32_t)_mm256_movemask_ps(positive) << (8 * i);
    }
    return word;
}

static void pack(const float *values, int64_t pixels, int channels, uint32_t *bits, int stride) {
    for (int64_t p = 0; p < pixels; p++, bits += stride, values += channels) {
        int c = 0;
        for (; c + 32 <= channels; c += 32) bits[c / 32] = signs_of(values + c);
        if (c < channels) bits[c / 32] = pack_word(values + c, channels - c);
    }
}

/* Eight nibbles of a word -> eight bytes, each the offset of its table. */
static void expand(const uint32_t *bits, int pixels, int nwords, int next, uint8_t *own, int32_t *odd) {
    (void)next; for(int p=0;p<pixels;p++)odd[p]=0;
    size_t words=(size_t)pixels*nwords;
    for (size_t i = 0; i < words; i++) {
        uint64_t offsets = _pdep_u64(bits[i], 0xf0f0f0f0f0f0f0f0u);
        memcpy(own + 8 * i, &offsets, 8);
    }
}

/* [block][words] -> [words][8 nibbles][block] */
static void order(const uint32_t *bits, size_t words, int tap, uint8_t *own) {
    (void)tap;
    for (size_t word = 0; word < words; word++)
        for (int nibble = 0; nibble < 8; nibble++)
            for (int f = 0; f < BLOCK; f++)
                *own++ = bits[f * words + word] >> (4 * nibble) & 15;
}

STRIATE_INLINE void widen(uint16_t *total, __m256i bytes) {
    __m256i *sums = (__m256i *)total;
    __m256i low = _mm256_cvtepu8_epi16(_mm256_castsi256_si128(bytes));
    __m256i high = _mm256_cvtepu8_epi16(_mm256_extracti128_si256(bytes, 1));
    _mm256_store_si256(sums, _mm256_add_epi16(_mm256_load_si256(sums), low));
    _mm256_store_si256(sums + 1, _mm256_add_epi16(_mm256_load_si256(sums + 1), high));
}

STRIATE_INLINE void tile(const striate_row *row, int x, const int pixels) {
    _Alignas(32) uint16_t totals[PIXELS * BLOCK];
    const uint8_t *taps = row->pixels + (size_t)x * row->pixel_step;
    const __m256i *weights = (const __m256i *)row->weights;
    int nibbles = 8 * row->words;
    memset(totals, 0, (size_t)pixels * BLOCK * sizeof *totals);
    for (int y = 0; y < row->rows; y++, taps += row->row_step) {
        for (int begin = 0; begin < nibbles; begin += MOST_STEPS) {
            int end = begin + MOST_STEPS < nibbles ? begin + MOST_STEPS : nibbles;
            __m256i sum[PIXELS][2];
            for (int p = 0; p < pixels; p++) sum[p][0] = sum[p][1] = _mm256_setzero_si256();
#pragma GCC unroll 1
            for (int i = begin; i < end; i++, weights += 2) {
                __m256i first = _mm256_load_si256(weights), second = _mm256_load_si256(weights + 1);
#pragma GCC unroll 6
                for (int p = 0; p < pixels; p++) {
                    uint8_t offset = taps[(size_t)p * row->pixel_step + i];
                    const __m128i *table = (const __m128i *)(differing[0] + offset);
                    __m256i both = _mm256_broadcastsi128_si256(_mm_load_si128(table));
                    sum[p][0] = _mm256_add_epi8(sum[p][0], _mm256_shuffle_epi8(both, first));
                    sum[p][1] = _mm256_add_epi8(sum[p][1], _mm256_shuffle_epi8(both, second));
                    /* Without this, GCC reorders the pixels until the sums no longer fit into the
                     * 16 registers, which costs a third of the speed. */
                    __asm__ volatile("" : "+x"(sum[p][0]), "+x"(sum[p][1]));
                }
            }
            for (int p = 0; p < pixels; p++) {
                widen(totals + p * BLOCK, sum[p][0]);
                widen(totals + p * BLOCK + 32, sum[p][1]);
            }
        }
    }
    _Alignas(32) int32_t counts[PIXELS * BLOCK];
    for (int i = 0; i < pixels * BLOCK; i++) counts[i] = totals[i];
    finish(row, BLOCK, x, pixels, counts);
}

static void convolve(const striate_row *row) {
    int x = 0;
    for (; x + PIXELS <= row->width; x += PIXELS) tile(row, x, PIXELS);
    switch (row->width - x) { /* a constant number of pixels keeps the sums in registers */
        case 5: tile(row, x, 5); break;
        case 4: tile(row, x, 4); break;
        case 3: tile(row, x, 3); break;
        case 2: tile(row, x, 2); break;
        case 1: tile(row, x, 1); break;
        default: break;
    }
}

const striate_kernel striate_avx2 = {
    .name = "avx2",
    .block = BLOCK,
    .word_multiple = 1,
    .word_bytes = 8,
    .weight_bytes = 8,
    .most_taps = UINT16_MAX,
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
