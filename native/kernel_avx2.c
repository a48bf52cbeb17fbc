/* AVX2, which cannot count bits: 64 filters a block, one in each byte of two registers.
 *
 * Four bits of each of two pixels choose one of 256 tables, which for every four bits of a weight
 * says how many differ; a byte shuffle looks 32 filters up at once. The numbers in the tables are the
 * halves of `striate_row`, at most 2, so that both pixels' fit into one byte, and seven of them can be
 * added before they are taken apart. Weights are kept as one nibble a byte, pixels as the offsets of
 * their tables, each together with the pixel under the next window.
 */
#include "kernel.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#include <string.h>

STRIATE_BEGIN_TARGET("avx2,bmi2,popcnt")

#define LANES 8
#define FLOAT_PIXELS 6
#include "common.h"

enum {
    BLOCK = 64,
    PAIRS = 4,             /* of pixels, whose sums are made together */
    STEPS = 7,             /* of at most 2 each: four bits hold the sum */
    GROUPS = 18,           /* of so many steps: a byte holds the sum */
    MASK = 15,
};

#define COUNT(x) (0x4332322132212110u >> 4 * (x) & 15)
#define ODD(x) (0x6996 >> (x) & 1)
#define HALF(a, w) ((COUNT((a) ^ (w)) + ODD(a) - ODD(w)) / 2)
#define ENTRY(p, w) HALF((p) & 15, w) + 16 * HALF((p) >> 4, w)
#define FOUR(p, w) ENTRY(p, w), ENTRY(p, w + 1), ENTRY(p, w + 2), ENTRY(p, w + 3)
#define TABLE(p) {FOUR(p, 0), FOUR(p, 4), FOUR(p, 8), FOUR(p, 12)}
#define TABLES_4(p) TABLE(p), TABLE(p + 1), TABLE(p + 2), TABLE(p + 3)
#define TABLES_16(p) TABLES_4(p), TABLES_4(p + 4), TABLES_4(p + 8), TABLES_4(p + 12)
#define TABLES_64(p) TABLES_16(p), TABLES_16(p + 16), TABLES_16(p + 32), TABLES_16(p + 48)

/* [nibble of the first pixel + 16 * nibble of the second][nibble of the weight] */
_Alignas(64) static const uint8_t tables[256][16] = {
    TABLES_64(0), TABLES_64(64), TABLES_64(128), TABLES_64(192),
};

static int usable(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
}

STRIATE_INLINE __m256i not_negative(const float *values) {
    return _mm256_castps_si256(
        _mm256_cmp_ps(_mm256_loadu_ps(values), _mm256_setzero_ps(), _CMP_GE_OQ));
}

/* Comparisons are narrowed to bytes before their bits are taken: fours of numbers then stand in the
 * order 0 2 4 6 1 3 5 7, which one permutation undoes. */
STRIATE_INLINE uint32_t signs_of(const float *values) {
    __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i first = _mm256_packs_epi32(not_negative(values), not_negative(values + 8));
    __m256i second = _mm256_packs_epi32(not_negative(values + 16), not_negative(values + 24));
    __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(first, second), order);
    return (uint32_t)_mm256_movemask_epi8(bytes);
}

static void pack(const float *values, int64_t pixels, int channels, uint32_t *bits, int stride) {
    for (int64_t p = 0; p < pixels; p++, bits += stride, values += channels) {
        int c = 0;
        for (; c + 32 <= channels; c += 32) bits[c / 32] = signs_of(values + c);
        if (c < channels) bits[c / 32] = pack_word(values + c, channels - c);
    }
}

/* Nibbles of words -> the offset of a table in 16 bits each, as if the second pixel were 0. */
static void offsets_alone(const uint32_t *bits, size_t words, uint16_t *own) {
    __m128i mask = _mm_set1_epi8(MASK);
    for (size_t i = 0; i < words; i += 2, own += 16) {
        uint64_t two = bits[i];
        if (i + 1 < words) memcpy(&two, bits + i, 8);
        __m128i bytes = _mm_cvtsi64_si128((int64_t)two);
        __m128i low = _mm_and_si128(bytes, mask);
        __m128i high = _mm_and_si128(_mm_srli_epi16(bytes, 4), mask);
        __m256i nibbles = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(low, high));
        nibbles = _mm256_slli_epi16(nibbles, 4);
        memcpy(own, &nibbles, i + 1 < words ? 32 : 16);
    }
}

/* The nibbles with an odd number of 1 bits. */
static int32_t odd_nibbles(const uint32_t *bits, int words) {
    int32_t odd = 0;
#pragma GCC unroll 1
    for (int i = 0; i < words; i += 2) {
        uint64_t two = bits[i];
        if (i + 1 < words) memcpy(&two, bits + i, 8);
        two ^= two >> 2;
        two ^= two >> 1;
        odd += __builtin_popcountll(two & 0x1111111111111111u);
    }
    return odd;
}

static void expand(const uint32_t *bits, int pixels, int words, int next, uint8_t *own,
                   int32_t *odd) {
    uint16_t *offsets = (uint16_t *)own;
    int64_t ahead = (int64_t)next * words * 8, all = (int64_t)pixels * words * 8;
    offsets_alone(bits, (size_t)pixels * words, offsets);
    for (int64_t i = 0; i + ahead < all; i += 8) { /* the second pixel */
        __m128i first = _mm_loadu_si128((const __m128i *)(offsets + i));
        __m128i second = _mm_loadu_si128((const __m128i *)(offsets + i + ahead));
        first = _mm_or_si128(first, _mm_slli_epi16(second, 4));
        _mm_storeu_si128((__m128i *)(offsets + i), first);
    }
    for (int p = 0; p < pixels; p++) odd[p] = odd_nibbles(bits + (size_t)p * words, words);
}

/* [block][words] -> [words][8 nibbles][block]. Of each 32 filters the second half is in the odd
 * bytes, where sums of 16 bits find it. */
static void order(const uint32_t *bits, size_t words, int tap, uint8_t *own) {
    (void)tap;
    for (size_t word = 0; word < words; word++)
        for (int nibble = 0; nibble < 8; nibble++)
            for (int i = 0; i < BLOCK; i++) {
                int f = i / 32 * 32 + i % 2 * 16 + i % 32 / 2;
                *own++ = bits[f * words + word] >> (4 * nibble) & 15;
            }
}

STRIATE_INLINE __m256i table_of(const uint16_t *offset) {
    const __m128i *table = (const __m128i *)(tables[0] + *offset);
    return _mm256_broadcastsi128_si256(_mm_load_si128(table));
}

/* sum += more, in the same register: GCC else takes another and moves it back. */
STRIATE_INLINE void add_bytes(__m256i *sum, __m256i more) {
    __asm__ volatile("vpaddb %1, %0, %0" : "+x"(*sum) : "x"(more));
}

STRIATE_INLINE void add_step(const uint16_t *const at[PAIRS], size_t i, const int pairs,
                             const __m256i *weights, __m256i sum[PAIRS][2]) {
    __m256i first = _mm256_load_si256(weights), second = _mm256_load_si256(weights + 1);
    __asm__ volatile("" : "+x"(first), "+x"(second));
    STRIATE_UNROLL
    for (int p = 0; p < pairs; p++) {
        __m256i table = table_of(at[p] + i);
        add_bytes(&sum[p][0], _mm256_shuffle_epi8(table, first));
        add_bytes(&sum[p][1], _mm256_shuffle_epi8(table, second));
    }
}

/* So many steps, at most STEPS: the sums of two pixels in the halves of each byte. */
STRIATE_INLINE void add_group(const uint16_t *const at[PAIRS], size_t begin, int steps,
                              const int pairs, const __m256i *weights, __m256i sums[PAIRS][2]) {
    __m256i sum[PAIRS][2];
    STRIATE_UNROLL
    for (int p = 0; p < pairs; p++) {
        __m256i table = table_of(at[p] + begin);
        sum[p][0] = _mm256_shuffle_epi8(table, _mm256_load_si256(weights));
        sum[p][1] = _mm256_shuffle_epi8(table, _mm256_load_si256(weights + 1));
    }
    if (steps == STEPS) {
        STRIATE_UNROLL
        for (int i = 1; i < STEPS; i++) add_step(at, begin + i, pairs, weights + 2 * i, sum);
    } else {
#pragma GCC unroll 1
        for (int i = 1; i < steps; i++) add_step(at, begin + i, pairs, weights + 2 * i, sum);
    }
    STRIATE_UNROLL
    for (int p = 0; p < pairs; p++) {
        sums[p][0] = sum[p][0];
        sums[p][1] = sum[p][1];
    }
}

/* fresh: whether these are the first. */
STRIATE_INLINE void add_total(uint16_t *total, __m256i sums, int fresh) {
    if (!fresh) sums = _mm256_add_epi16(sums, _mm256_load_si256((__m256i *)total));
    _mm256_store_si256((__m256i *)total, sums);
}

/* Sums of two pixels, first + 16 * second in each byte, -> their totals [pixel][filter].
 *
 * `whole` adds up those bytes, `shifted` what is left of them when both bytes of 16 bits move by
 * four: the second pixel, and in an even byte 16 * the first pixel of the odd one. All but the odd
 * bytes of `shifted` overflow, but the sums themselves do not: from those on, each follows from the
 * one before. So nothing is masked where groups are added. */
STRIATE_INLINE void take_apart(__m256i whole, __m256i shifted, uint16_t *totals, int fresh) {
    __m256i byte = _mm256_set1_epi16(255);
    __m256i odd_second = _mm256_srli_epi16(shifted, 8), odd_first = _mm256_srli_epi16(whole, 8);
    odd_first = _mm256_sub_epi16(odd_first, _mm256_slli_epi16(odd_second, 4));
    odd_first = _mm256_and_si256(odd_first, byte);
    __m256i second = _mm256_sub_epi16(shifted, _mm256_slli_epi16(odd_first, 4));
    second = _mm256_and_si256(second, byte);
    __m256i first = _mm256_sub_epi16(whole, _mm256_slli_epi16(second, 4));
    first = _mm256_and_si256(first, byte);
    add_total(totals, first, fresh);
    add_total(totals + 16, odd_first, fresh);
    add_total(totals + BLOCK, second, fresh);
    add_total(totals + BLOCK + 16, odd_second, fresh);
}

/* Adds the groups' sums of one or two pairs of pixels to their totals. */
STRIATE_INLINE void add_groups(__m256i sums[GROUPS][PAIRS][2], int groups, int first,
                               const int pairs, uint16_t *totals, int fresh) {
    __m256i whole[4], shifted[4];
    STRIATE_UNROLL
    for (int i = 0; i < 2 * pairs; i++) whole[i] = shifted[i] = _mm256_setzero_si256();
#pragma GCC unroll 1
    for (int g = 0; g < groups; g++)
        STRIATE_UNROLL
        for (int i = 0; i < 2 * pairs; i++) {
            __m256i both = sums[g][first + i / 2][i % 2];
            __asm__("" : "+x"(both)); /* is read once */
            add_bytes(&whole[i], both);
            add_bytes(&shifted[i], _mm256_srli_epi16(both, 4));
        }
    STRIATE_UNROLL
    for (int i = 0; i < 2 * pairs; i++)
        take_apart(whole[i], shifted[i],
                   totals + 2 * BLOCK * (first + i / 2) + 32 * (i % 2), fresh);
}

static void add_totals(__m256i sums[GROUPS][PAIRS][2], int groups, int pairs, uint16_t *totals,
                       int fresh) {
    for (int p = 0; p + 2 <= pairs; p += 2) add_groups(sums, groups, p, 2, totals, fresh);
    if (pairs % 2) add_groups(sums, groups, pairs - 1, 1, totals, fresh);
}

/* dot = base + odd - 4 * half */
STRIATE_INLINE __m256i eight_dots(const int32_t *base, __m256i odd, const uint16_t *total) {
    __m256i half = _mm256_cvtepu16_epi32(_mm_load_si128((const __m128i *)total));
    __m256i most = _mm256_add_epi32(odd, _mm256_loadu_si256((const __m256i *)base));
    return _mm256_sub_epi32(most, _mm256_slli_epi32(half, 2));
}

/* The scores of one pixel, of a whole block. */
STRIATE_INLINE void finish_scores_of(const striate_row *row, int x, const uint16_t *totals) {
    const int32_t *base = row->base + row->cases[x] * row->case_step;
    const float *alpha = row->alpha, *beta = row->beta;
    float *out = row->scores + (size_t)x * row->out_step;
    __m256i odd = _mm256_set1_epi32(row->odd[x]);
    __m256 values[BLOCK / 8];
    STRIATE_UNROLL
    for (int i = 0; i < BLOCK / 8; i++)
        values[i] = _mm256_cvtepi32_ps(eight_dots(base + 8 * i, odd, totals + 8 * i));
    if (row->input_scale)
        STRIATE_UNROLL
        for (int i = 0; i < BLOCK / 8; i++)
            values[i] = _mm256_mul_ps(_mm256_set1_ps(row->input_scale[x]), values[i]);
    STRIATE_UNROLL
    for (int i = 0; i < BLOCK / 8; i++) {
        __m256 product = _mm256_mul_ps(_mm256_loadu_ps(alpha + 8 * i), values[i]);
        _mm256_storeu_ps(out + 8 * i, _mm256_add_ps(product, _mm256_loadu_ps(beta + 8 * i)));
    }
}

/* The bits of one pixel. */
STRIATE_INLINE void finish_bits_of(const striate_row *row, int x, const uint16_t *totals) {
    const int32_t *base = row->base + row->cases[x] * row->case_step;
    uint8_t *out = row->bits + (size_t)x * row->out_step;
    __m256i odd = _mm256_set1_epi32(row->odd[x]);
    for (int i = 0; i < row->bit_bytes; i++) {
        __m256i flip = _mm256_loadu_si256((const __m256i *)(row->flip + 8 * i));
        __m256i least = _mm256_loadu_si256((const __m256i *)(row->threshold + 8 * i));
        __m256i dots = eight_dots(base + 8 * i, odd, totals + 8 * i);
        __m256i below = _mm256_cmpgt_epi32(least, _mm256_xor_si256(dots, flip));
        out[i] = (uint8_t)~_mm256_movemask_ps(_mm256_castsi256_ps(below));
    }
}

static void finish_tile(const striate_row *row, int x, int pixels, const uint16_t *totals) {
    for (int end = x + pixels; x < end; x++, totals += BLOCK) {
        if (row->bits) {
            finish_bits_of(row, x, totals);
        } else if (row->scores && row->filters == BLOCK) {
            finish_scores_of(row, x, totals);
        } else {
            int32_t counts[BLOCK];
            for (int f = 0; f < BLOCK; f++) counts[f] = 2 * (int32_t)totals[f] - row->odd[x] / 2;
            finish(row, BLOCK, x, 1, counts);
        }
    }
}

STRIATE_INLINE void tile(const striate_row *row, int x, const int pairs) {
    _Alignas(32) uint16_t totals[2 * PAIRS * BLOCK];
    __m256i sums[GROUPS][PAIRS][2];
    const uint8_t *taps = row->pixels + (size_t)x * row->pixel_step;
    const __m256i *weights = (const __m256i *)row->weights;
    int nibbles = 8 * row->words, groups = 0, fresh = 1;
    for (int y = 0; y < row->rows; y++, taps += row->row_step) {
        const uint16_t *at[PAIRS];
        STRIATE_UNROLL
        for (int p = 0; p < pairs; p++)
            at[p] = (const uint16_t *)(taps + 2 * (size_t)p * row->pixel_step);
        for (int i = 0; i < nibbles;) {
            for (; groups < GROUPS && i + STEPS <= nibbles; i += STEPS, weights += 2 * STEPS)
                add_group(at, i, STEPS, pairs, weights, sums[groups++]);
            int left = nibbles - i;
            if (left > 0 && groups < GROUPS) {
                add_group(at, i, left, pairs, weights, sums[groups++]);
                weights += 2 * left;
                i = nibbles;
            }
            if (groups < GROUPS && y + 1 < row->rows) continue;
            add_totals(sums, groups, pairs, totals, fresh);
            groups = fresh = 0;
        }
    }
    int left = row->width - x;
    finish_tile(row, x, left < 2 * pairs ? left : 2 * pairs, totals);
}

static void convolve(const striate_row *row) {
    int x = 0;
    for (; x + 2 * PAIRS <= row->width; x += 2 * PAIRS) tile(row, x, PAIRS);
    switch ((row->width - x + 1) / 2) { /* a constant number keeps the sums in registers */
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
    .word_bytes = 16,
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
