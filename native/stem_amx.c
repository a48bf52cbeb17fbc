/* AMX, the matrix unit of Intel's servers since 2023: 16 pixels by 16 filters by 64 bytes at a time,
 * and AVX-512 for what becomes of the sums. */
#define _GNU_SOURCE
#include "stem.h"

#ifdef STRIATE_AMX
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel.h"

STRIATE_BEGIN_TARGET("avx512f,avx512bw,avx512dq,avx512vl,amx-tile,amx-int8")

enum { TILE = STRIATE_TILE, TILE_BYTES = STRIATE_TILE_BYTES, DIGITS = STRIATE_DIGITS };

/* The kernel keeps room for the tiles of a process that has asked for it. */
static int granted(void) {
    enum { ASK = 0x1023, TILES = 18 };
    return syscall(SYS_arch_prctl, ASK, TILES) == 0;
}

static int usable(void) {
    enum { AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25 };
    unsigned a, b, c, d;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __get_cpuid_count(7, 0, &a, &b, &c, &d) && d & AMX_TILE && d & AMX_INT8 && granted();
}

/* Every tile has 16 rows of 64 bytes. */
static const struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} configuration = {
    .palette = 1,
    .bytes = {TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES},
    .rows = {TILE, TILE, TILE, TILE, TILE, TILE, TILE},
};

/* GCC does not know that tiles are loaded from memory: what is to be in it must be there before. */
static inline void write_all(void) { __asm__ volatile("" ::: "memory"); }

/* Bytes by digits: three sums, which do not wait for one another. */
static void multiply(const int8_t *taps, const int8_t *digits, int tiles) {
    size_t pixel = (size_t)tiles * TILE_BYTES;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    for (int t = 0; t < tiles; t++, digits += DIGITS * TILE * TILE_BYTES) {
        _tile_loadd(3, taps + t * TILE_BYTES, pixel);
        _tile_loadd(4, digits, TILE_BYTES);
        _tile_dpbssd(0, 3, 4);
        _tile_loadd(5, digits + TILE * TILE_BYTES, TILE_BYTES);
        _tile_dpbssd(1, 3, 5);
        _tile_loadd(6, digits + 2 * TILE * TILE_BYTES, TILE_BYTES);
        _tile_dpbssd(2, 3, 6);
    }
}

/* [DIGITS][pixel][filter] */
static void store(int32_t *sums) {
    _tile_stored(0, sums, TILE_BYTES);
    _tile_stored(1, sums + TILE * TILE, TILE_BYTES);
    _tile_stored(2, sums + 2 * TILE * TILE, TILE_BYTES);
}

/* The sums of `pixels` windows by 16 filters as floats. */
static void finish(const striate_stem_row *row, const int32_t *sums, int x, int pixels, int f) {
    const float *bases = row->base + f;
    const uint8_t *cases = row->cases + x;
    size_t step = row->case_step;
    const __m512 base = _mm512_set1_ps(256), square = _mm512_set1_ps(65536);
    const __m512 unit = _mm512_loadu_ps(row->unit + f), low = _mm512_set1_ps(row->low);
    float *out = row->sums + x * TILE;
    for (int i = 0; i < pixels; i++, sums += TILE, out += TILE) {
        __m512 first = _mm512_cvtepi32_ps(_mm512_load_si512(sums));
        __m512 second = _mm512_cvtepi32_ps(_mm512_load_si512(sums + TILE * TILE));
        __m512 third = _mm512_cvtepi32_ps(_mm512_load_si512(sums + 2 * TILE * TILE));
        __m512 sum = _mm512_fmadd_ps(third, square, _mm512_fmadd_ps(second, base, first));
        __m512 rest = _mm512_loadu_ps(bases + cases[i] * step);
        _mm512_store_ps(out, _mm512_max_ps(_mm512_fmadd_ps(sum, unit, rest), low));
    }
}

/* All sums of a row by 16 filters. The next product is made while one is stored and finished. */
static void sum_block(const striate_stem_row *row, int f) {
    _Alignas(64) int32_t sums[DIGITS * TILE * TILE];
    size_t pixel = (size_t)row->tiles * TILE_BYTES;
    const int8_t *digits = row->digits + f * pixel * DIGITS;
    multiply(row->taps, digits, row->tiles);
    for (int x = 0; x < row->windows; x += TILE) {
        int pixels = row->windows - x < TILE ? row->windows - x : TILE;
        store(sums);
        if (x + TILE < row->windows)
            multiply(row->taps + (x + TILE) * pixel, digits, row->tiles);
        finish(row, sums, x, pixels, f);
    }
}

/* The maxima of 16 filters, of which the last may not exist. */
static void maxima_of_block(const striate_stem_row *given, int f) {
    const striate_stem_row row = *given;
    int left = row.filters - f;
    __mmask16 exist = left >= TILE ? 0xffff : (__mmask16)((1u << left) - 1);
    for (int x = 0; x < row.width; x++) {
        int first, end;
        striate_under(&row, x, &first, &end);
        __m512 most = _mm512_load_ps(row.sums + first * TILE);
        for (int i = first + 1; i < end; i++)
            most = _mm512_max_ps(most, _mm512_load_ps(row.sums + i * TILE));
        _mm512_mask_storeu_ps(row.out + (size_t)x * row.filters + f, exist, most);
    }
}

static void compute(const striate_stem_row *row) {
    striate_gather(row);
    write_all();
    _tile_loadconfig(&configuration);
    for (int f = 0; f < row->filters; f += TILE) {
        sum_block(row, f);
        maxima_of_block(row, f);
    }
    _tile_release();
}

static void largest(const float *const *rows, int count, size_t n, float *out) {
    for (size_t i = 0; i < n; i += TILE) {
        __mmask16 exist = n - i >= TILE ? 0xffff : (__mmask16)((1u << (n - i)) - 1);
        __m512 most = _mm512_maskz_loadu_ps(exist, rows[0] + i);
        for (int y = 1; y < count; y++)
            most = _mm512_max_ps(most, _mm512_maskz_loadu_ps(exist, rows[y] + i));
        _mm512_mask_storeu_ps(out + i, exist, most);
    }
}

const striate_stem_kernels striate_stem_amx = {"amx", usable, compute, largest};

STRIATE_END_TARGET
#endif
