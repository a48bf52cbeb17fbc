/* A stem: its weights as digits, what its borders add, and the loops around the kernels. */
#include "stem.h"

#include <stdlib.h>

#include "kernel.h"

enum {
    MOST_SIDE = 1 << 14,
    MOST_WINDOW = 16,
    MOST_TAPS = 512, /* whose sums with a digit are exact in float32 */
    MOST_FILTERS = 1 << 12,
    MOST_WEIGHT = 127 * (65536 + 256 + 1), /* of three digits */
    SMALL_WORK = 1 << 25, /* products that one thread does before others would be awake */
    MIDDLE = 128, /* of a byte: less that, it has a sign, and sums are small */
};

struct striate_stem {
    striate_stem_shape shape;
    const striate_stem_kernels *kernel;
    int sums_height, sums_width, height, width; /* before and after the pooling */
    int run, tiles, all_filters;                /* filters: up to whole tiles */
    int8_t *digits;
    float *unit, *base;
    uint8_t *row_case, *column_case;
    int column_cases;
};

/* === Kernels === */

static int always(void) { return 1; }

/* Digit d of tap `tap` of filter f, counted from the first of a tile of taps. */
static size_t place_of(int tiles, int f, int tap, int d) {
    int tile = f / STRIATE_TILE * tiles + tap / STRIATE_TILE_BYTES, in = tap % STRIATE_TILE_BYTES;
    size_t bytes = (size_t)STRIATE_TILE * STRIATE_TILE_BYTES;
    return ((size_t)tile * STRIATE_DIGITS + d) * bytes +
           (size_t)(in / 4 * STRIATE_TILE_BYTES + f % STRIATE_TILE * 4 + in % 4);
}

static float portable_sum(const striate_stem_row *row, int x, int f) {
    const int8_t *taps = row->taps + (size_t)x * row->tiles * STRIATE_TILE_BYTES;
    int32_t sums[STRIATE_DIGITS] = {0};
    for (int tap = 0; tap < row->rows * row->run; tap++)
        for (int d = 0; d < STRIATE_DIGITS; d++)
            sums[d] += taps[tap] * row->digits[place_of(row->tiles, f, tap, d)];
    float sum = fmaf((float)sums[2], 65536, fmaf((float)sums[1], 256, (float)sums[0]));
    float answer = fmaf(sum, row->unit[f], row->base[row->cases[x] * row->case_step + f]);
    return answer > row->low ? answer : row->low;
}

static void portable_row(const striate_stem_row *row) {
    striate_gather(row);
    for (int f = 0; f < row->filters; f++) {
        for (int x = 0; x < row->windows; x++) row->sums[x] = portable_sum(row, x, f);
        for (int x = 0; x < row->width; x++) {
            int first, end;
            striate_under(row, x, &first, &end);
            float most = row->sums[first];
            for (int i = first + 1; i < end; i++) most = most < row->sums[i] ? row->sums[i] : most;
            row->out[(size_t)x * row->filters + f] = most;
        }
    }
}

static void portable_largest(const float *const *rows, int count, size_t n, float *out) {
    memcpy(out, rows[0], n * sizeof *out);
    for (int y = 1; y < count; y++)
        for (size_t i = 0; i < n; i++) out[i] = out[i] < rows[y][i] ? rows[y][i] : out[i];
}

static const striate_stem_kernels portable = {"portable", always, portable_row, portable_largest};

const char *striate_stem_kernel(void) {
#ifdef STRIATE_AMX
    const striate_kernel *bits = striate_choose(NULL, 0);
    if (bits == &striate_avx512 && striate_stem_amx.usable()) return striate_stem_amx.name;
#endif
    return NULL;
}

static const striate_stem_kernels *choose(const char *name) {
    static const striate_stem_kernels *const kernels[] = {
#ifdef STRIATE_AMX
        &striate_stem_amx,
#endif
        &portable,
    };
    if (!name) name = striate_stem_kernel();
    if (!name) name = portable.name;
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++)
        if (!strcmp(name, kernels[i]->name) && kernels[i]->usable()) return kernels[i];
    return NULL;
}

/* === Making one === */

/* How many windows there are on a map. */
static void count_windows(const striate_window *w, int height, int width, int *down, int *across) {
    *down = (height + w->top + w->bottom - w->rows) / w->row_stride + 1;
    *across = (width + w->left + w->right - w->columns) / w->column_stride + 1;
}

/* Whether every window lies on the padded map and meets the map. */
static int fits(const striate_window *w, int height, int width) {
    int sizes = w->rows >= 1 && w->columns >= 1 && w->rows <= MOST_WINDOW &&
                w->columns <= MOST_WINDOW && w->row_stride >= 1 && w->column_stride >= 1 &&
                w->row_stride <= MOST_SIDE && w->column_stride <= MOST_SIDE;
    int padding = w->top >= 0 && w->bottom >= 0 && w->left >= 0 && w->right >= 0 &&
                  w->top < w->rows && w->bottom < w->rows && w->left < w->columns &&
                  w->right < w->columns;
    return sizes && padding && height + w->top + w->bottom >= w->rows &&
           width + w->left + w->right >= w->columns;
}

int32_t striate_stem_takes(const striate_stem_shape *s) {
    if (s->height < 1 || s->width < 1 || s->height > MOST_SIDE || s->width > MOST_SIDE ||
        s->channels < 1 || s->channels > MOST_TAPS || s->filters < 1 ||
        s->filters > MOST_FILTERS || !fits(&s->conv, s->height, s->width))
        return 0;
    const striate_window *c = &s->conv;
    int height, width;
    count_windows(c, s->height, s->width, &height, &width);
    return c->rows * c->columns * s->channels <= MOST_TAPS && fits(&s->pool, height, width) &&
           (int64_t)height * width * s->filters < (int64_t)1 << 31;
}

static void find_sizes(striate_stem *stem) {
    const striate_stem_shape *s = &stem->shape;
    count_windows(&s->conv, s->height, s->width, &stem->sums_height, &stem->sums_width);
    count_windows(&s->pool, stem->sums_height, stem->sums_width, &stem->height, &stem->width);
    stem->run = s->conv.columns * s->channels;
    stem->tiles = (s->conv.rows * stem->run + STRIATE_TILE_BYTES - 1) / STRIATE_TILE_BYTES;
    stem->all_filters = (s->filters + STRIATE_TILE - 1) / STRIATE_TILE * STRIATE_TILE;
}

/* A weight, in its filter's unit, rounded and taken apart. */
static void put_digits(striate_stem *stem, int f, int tap, double weight) {
    long rest = lround(weight);
    for (int d = 0; d < STRIATE_DIGITS; d++) {
        int8_t digit = (int8_t)(((rest + 128) & 255) - 128);
        stem->digits[place_of(stem->tiles, f, tap, d)] = digit;
        rest = (rest - digit) / 256;
    }
}

static int order_weights(striate_stem *stem, const float *weights) {
    int taps = stem->shape.conv.rows * stem->run, filters = stem->shape.filters;
    for (int f = 0; f < filters; f++) {
        double largest = 0;
        for (int tap = 0; tap < taps; tap++) {
            double weight = fabs((double)weights[(size_t)tap * filters + f]);
            if (!(weight < INFINITY)) return -1;
            if (weight > largest) largest = weight;
        }
        float unit = largest > 0 ? nextafterf((float)(largest / MOST_WEIGHT), INFINITY) : 1;
        stem->unit[f] = unit;
        for (int tap = 0; tap < taps; tap++)
            put_digits(stem, f, tap, weights[(size_t)tap * filters + f] / (double)unit);
    }
    return 0;
}

/* The weight that the digits are. */
static double weight_of(const striate_stem *stem, int f, int tap) {
    int32_t weight = 0;
    for (int d = STRIATE_DIGITS - 1; d >= 0; d--)
        weight = 256 * weight + stem->digits[place_of(stem->tiles, f, tap, d)];
    return weight * (double)stem->unit[f];
}

/* The bias, and what the mean takes from the taps on the picture; those beside it are 0. */
static float base_of(const striate_stem *stem, int f, const float *mean, double bias,
                     striate_range rows, striate_range columns) {
    int channels = stem->shape.channels;
    for (int y = rows.from; y < rows.to; y++)
        for (int x = columns.from; x < columns.to; x++)
            for (int c = 0; c < channels; c++) {
                int tap = (y * stem->shape.conv.columns + x) * channels + c;
                bias += weight_of(stem, f, tap) * (MIDDLE - (double)mean[c]);
            }
    return (float)bias;
}

static int make_border_table(striate_stem *stem, const float *mean, const float *bias) {
    enum { MOST_RANGES = 2 * MOST_WINDOW + 1 }; /* cut off at either end by less than a window */
    const striate_stem_shape *s = &stem->shape;
    const striate_window *c = &s->conv;
    striate_range rows[MOST_RANGES], columns[MOST_RANGES];
    int down = striate_number_ranges(stem->sums_height, c->rows, c->row_stride, c->top, s->height,
                                     rows, stem->row_case);
    int across = striate_number_ranges(stem->sums_width, c->columns, c->column_stride, c->left,
                                       s->width, columns, stem->column_case);
    stem->column_cases = across;
    stem->base = calloc((size_t)down * across * stem->all_filters, sizeof *stem->base);
    if (!stem->base) return -1;
    float *base = stem->base;
    for (int y = 0; y < down; y++)
        for (int x = 0; x < across; x++, base += stem->all_filters)
            for (int f = 0; f < s->filters; f++)
                base[f] = base_of(stem, f, mean, bias[f], rows[y], columns[x]);
    return 0;
}

striate_stem *striate_stem_new(const striate_stem_shape *shape, const float *weights,
                               const float *mean, const float *bias, const char *kernel) {
    const striate_stem_kernels *chosen = choose(kernel);
    striate_stem *stem = chosen && striate_stem_takes(shape) ? calloc(1, sizeof *stem) : NULL;
    if (!stem) return NULL;
    stem->shape = *shape;
    stem->kernel = chosen;
    find_sizes(stem);
    size_t digits = (size_t)stem->all_filters * stem->tiles * STRIATE_DIGITS * STRIATE_TILE_BYTES;
    stem->digits = aligned_alloc(64, digits);
    stem->unit = calloc((size_t)stem->all_filters, sizeof *stem->unit);
    stem->row_case = malloc((size_t)stem->sums_height);
    stem->column_case = malloc((size_t)stem->sums_width);
    if (stem->digits) memset(stem->digits, 0, digits);
    if (!stem->digits || !stem->unit || !stem->row_case || !stem->column_case ||
        order_weights(stem, weights) || make_border_table(stem, mean, bias)) {
        striate_stem_free(stem);
        return NULL;
    }
    return stem;
}

void striate_stem_free(striate_stem *stem) {
    if (!stem) return;
    free(stem->digits);
    free(stem->unit);
    free(stem->base);
    free(stem->row_case);
    free(stem->column_case);
    free(stem);
}

int striate_stem_fits(const striate_stem *stem, const striate_stem_shape *shape) {
    return !memcmp(&stem->shape, shape, sizeof *shape);
}

void striate_stem_answer(const striate_stem *stem, int32_t *height, int32_t *width) {
    *height = stem->height;
    *width = stem->width;
}

/* === Running === */

static size_t rounded(size_t bytes) { return (bytes + 63) / 64 * 64; }

static size_t padded_width(const striate_stem *stem) {
    const striate_stem_shape *s = &stem->shape;
    return (size_t)(s->conv.left + s->width + s->conv.right) * s->channels;
}

static size_t picture_bytes(const striate_stem *stem) {
    const striate_stem_shape *s = &stem->shape;
    size_t height = (size_t)(s->conv.top + s->height + s->conv.bottom);
    return rounded(height * padded_width(stem) + STRIATE_CHUNK);
}

static size_t taps_bytes(const striate_stem *stem) {
    size_t pixels = (size_t)(stem->sums_width + STRIATE_TILE - 1) / STRIATE_TILE * STRIATE_TILE;
    return rounded(pixels * stem->tiles * STRIATE_TILE_BYTES + STRIATE_CHUNK);
}

static size_t sums_bytes(const striate_stem *stem) {
    return (size_t)stem->sums_width * STRIATE_TILE * sizeof(float);
}

static size_t row_bytes(const striate_stem *stem) {
    return rounded((size_t)stem->width * stem->shape.filters * sizeof(float));
}

/* Of one thread: taps and sums of a row, and as many rows as the largest is taken of. */
static size_t strip_bytes(const striate_stem *stem) {
    return taps_bytes(stem) + sums_bytes(stem) + (size_t)stem->shape.pool.rows * row_bytes(stem);
}

size_t striate_stem_scratch_bytes(const striate_stem *stem, int32_t threads) {
    return picture_bytes(stem) + (size_t)(threads < 1 ? 1 : threads) * strip_bytes(stem);
}

typedef struct {
    const striate_stem *stem;
    const uint8_t *image;
    int8_t *padded;
    uint8_t *strips;
    int tasks;
    float *out;
} call;

static void pad_picture(const call *c) {
    const striate_stem_shape *s = &c->stem->shape;
    size_t across = padded_width(c->stem), row = (size_t)s->width * s->channels;
    memset(c->padded, 0, picture_bytes(c->stem));
    int8_t *to = c->padded + s->conv.top * across + (size_t)s->conv.left * s->channels;
    const uint8_t *from = c->image;
    for (int y = 0; y < s->height; y++, to += across, from += row)
        for (size_t i = 0; i < row; i++) to[i] = (int8_t)(from[i] - MIDDLE);
}

/* Row y of sums, of which the largest along it are kept. `memory`: for its taps and its sums. */
static void sum_row(const call *c, int y, uint8_t *memory, float *out) {
    const striate_stem *stem = c->stem;
    const striate_stem_shape *s = &stem->shape;
    size_t across = padded_width(stem), filters = (size_t)stem->all_filters;
    striate_stem_row row = {
        .pixels = c->padded + (size_t)y * s->conv.row_stride * across,
        .pixel_step = (size_t)s->conv.column_stride * s->channels,
        .row_step = across,
        .rows = s->conv.rows,
        .run = stem->run,
        .windows = stem->sums_width,
        .filters = s->filters,
        .tiles = stem->tiles,
        .taps = (int8_t *)memory,
        .digits = stem->digits,
        .unit = stem->unit,
        .base = stem->base + stem->row_case[y] * (size_t)stem->column_cases * filters,
        .cases = stem->column_case,
        .case_step = filters,
        .low = s->relu ? 0 : -INFINITY,
        .sums = (float *)(memory + taps_bytes(stem)),
        .columns = s->pool.columns,
        .stride = s->pool.column_stride,
        .left = s->pool.left,
        .width = stem->width,
        .out = out,
    };
    stem->kernel->row(&row);
}

/* The rows of one thread. Those that two maxima need are kept from the one to the other, in a ring. */
static void run_strip(void *context, int task) {
    const call *c = context;
    const striate_stem *stem = c->stem;
    const striate_window *p = &stem->shape.pool;
    size_t n = (size_t)stem->width * stem->shape.filters;
    uint8_t *memory = c->strips + task * strip_bytes(stem);
    uint8_t *ring = memory + taps_bytes(stem) + sums_bytes(stem);
    int begin = stem->height * task / c->tasks, end = stem->height * (task + 1) / c->tasks;
    for (int y = begin, next = 0; y < end; y++) {
        const float *rows[MOST_WINDOW];
        int first = y * p->row_stride - p->top, after = first + p->rows, count = 0;
        if (first < 0) first = 0;
        if (after > stem->sums_height) after = stem->sums_height;
        if (next < first) next = first;
        for (int row = first; row < after; row++) {
            float *kept = (float *)(ring + (size_t)(row % p->rows) * row_bytes(stem));
            if (row == next) sum_row(c, next++, memory, kept);
            rows[count++] = kept;
        }
        stem->kernel->largest(rows, count, n, c->out + y * n);
    }
}

static int is_small(const striate_stem *stem) {
    const striate_stem_shape *s = &stem->shape;
    int64_t sums = (int64_t)stem->sums_height * stem->sums_width * s->filters;
    return sums * s->conv.rows * stem->run < SMALL_WORK;
}

void striate_stem_run(const striate_stem *stem, int32_t n, int32_t threads, const uint8_t *images,
                      float *out, void *scratch) {
    const striate_stem_shape *s = &stem->shape;
    int tasks = threads < 1 || is_small(stem) ? 1 : threads;
    for (int i = 0; i < n; i++) {
        call c = {
            .stem = stem,
            .image = images + (size_t)i * s->height * s->width * s->channels,
            .padded = scratch,
            .strips = (uint8_t *)scratch + picture_bytes(stem),
            .tasks = tasks,
            .out = out + (size_t)i * stem->height * stem->width * s->filters,
        };
        pad_picture(&c);
        striate_parallel(tasks, tasks, run_strip, &c);
    }
}
