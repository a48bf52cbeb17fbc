/* A layer: prepared weights, the border table, and the loops around the kernels. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

enum {
    MOST_SIDE = 1 << 16,
    MOST_KERNEL = 15,
    MOST_TAPS = (1 << 24) - 1,   /* so that sums of this many are exact in float32 as well */
    FLAT_WIDTH = 224,            /* pixels of a 1x1 layer are cut into rows of so many */
    PIECE = 4096,                /* floats that are normalised at a time, in the first cache */
    SMALL_WORK = 1 << 25,        /* products that one thread does before others would be awake */
    SMALL_MAP = 1 << 15,         /* numbers that one packs before others would be at it */
    LEAST_ROWS = 3,              /* to multiply with the weights of a block while they are near */
    FLAT_BYTES = 1 << 18,        /* and handled in pieces of about this size, which fit a cache */
};

struct striate_layer {
    striate_shape shape;
    const striate_kernel *kernel;
    int flat;                       /* a 1x1 layer without stride: pixels need no neighbours */
    int words, pixel_words;         /* of a pixel's bits; and rounded up to the kernel's multiple */
    int padded_height, padded_width, out_height, out_width;
    int blocks;
    size_t pixel_bytes, block_bytes; /* in the kernel's own form */
    uint8_t *weights;
    int32_t *base;                  /* [row case][column case][blocks * block] */
    uint8_t *row_case, *column_case; /* of each output row and column */
    int cases, column_cases;
};

/* === Kernels === */

static const striate_kernel *const kernels[] = { /* fastest first */
#if defined(__x86_64__) && defined(__GNUC__)
    &striate_avx512, &striate_avx2, &striate_popcnt,
#elif defined(__ARM_NEON)
    &striate_neon,
#elif defined(__wasm_simd128__)
    &striate_wasm,
#endif
    &striate_portable,
};

enum { KERNELS = sizeof kernels / sizeof *kernels };

int32_t striate_abi(void) { return STRIATE_ABI; }

const char *striate_kernel_name(int32_t i) {
    for (int k = 0; k < KERNELS; k++)
        if (kernels[k]->usable() && i-- == 0) return kernels[k]->name;
    return NULL;
}

const striate_kernel *striate_choose(const char *name, int64_t taps) {
    if (!name) name = getenv("STRIATE_KERNEL");
    int any = !name || !*name;
    for (int k = 0; k < KERNELS; k++)
        if (kernels[k]->usable() && taps <= kernels[k]->most_taps &&
            (any || !strcmp(name, kernels[k]->name)))
            return kernels[k];
    return NULL;
}

void striate_pack(const float *values, int64_t pixels, int32_t channels, uint32_t *bits) {
    striate_choose("", 0)->pack(values, pixels, channels, bits, striate_words(channels));
}

/* === A layer's memory === */

/* Where things are in the scratch memory, in bytes from its beginning. They are counted in 64 bits
 * on every machine: a small file can ask for more than an address of 32 bits reaches. */
typedef struct {
    uint64_t pixels;    /* the input in the kernel's own form, with its padding */
    uint64_t bits;      /* the same as bits, where those are something else */
    uint64_t odd;       /* odd groups of each pixel, see striate_row */
    uint64_t odd_sums;  /* and of each output pixel's window */
    uint64_t means;     /* mean |x| of each pixel */
    uint64_t scales;    /* K of each output pixel */
    uint64_t threshold, flip; /* padded to whole blocks */
    uint64_t end;
} places;

/* Pixels of a flat layer that are handled together. */
static int64_t flat_piece(const striate_layer *layer) {
    int64_t fit = FLAT_BYTES / (int64_t)layer->pixel_bytes;
    return (fit / FLAT_WIDTH + 1) * FLAT_WIDTH;
}

static places places_of(const striate_layer *layer) {
    uint64_t inputs = (uint64_t)layer->padded_height * layer->padded_width;
    uint64_t outputs = (uint64_t)layer->out_height * layer->out_width;
    if (layer->flat) inputs = outputs = (uint64_t)flat_piece(layer);
    uint64_t filters = (uint64_t)layer->blocks * layer->kernel->block;
    uint64_t sizes[] = {inputs * layer->pixel_bytes,
                        layer->kernel->expand ? inputs * layer->pixel_words * 4 : 0,
                        inputs * sizeof(int32_t),
                        outputs * sizeof(int32_t),
                        inputs * sizeof(float),
                        outputs * sizeof(float),
                        filters * sizeof(int32_t),
                        filters * sizeof(int32_t)};
    uint64_t at[9] = {0};
    for (int i = 0; i < 8; i++) at[i + 1] = at[i] + (sizes[i] + 63) / 64 * 64;
    return (places){at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7], at[8]};
}

/* Whether this machine's addresses reach so far. */
static int has_room(const striate_layer *layer) {
    return places_of(layer).end <= PTRDIFF_MAX &&
           (uint64_t)layer->blocks * layer->block_bytes <= PTRDIFF_MAX;
}

/* === Making a layer === */

static int makes_sense(const striate_shape *s) {
    int sizes = s->height >= 1 && s->width >= 1 && s->channels >= 1 && s->filters >= 1 &&
                s->height <= MOST_SIDE && s->width <= MOST_SIDE && s->channels <= MOST_TAPS &&
                s->filters <= MOST_TAPS;
    int window = s->kernel >= 1 && s->kernel <= MOST_KERNEL && s->stride >= 1 &&
                 s->stride <= MOST_SIDE && s->pad >= 0 && s->pad < s->kernel;
    return sizes && window && s->height + 2 * s->pad >= s->kernel &&
           s->width + 2 * s->pad >= s->kernel &&
           (int64_t)s->channels * s->kernel * s->kernel <= MOST_TAPS &&
           (int64_t)s->filters * s->channels * s->kernel * s->kernel < (int64_t)1 << 33 &&
           (int64_t)s->height * s->width * s->channels < (int64_t)1 << 33 &&
           (int64_t)s->height * s->width * s->filters < (int64_t)1 << 31;
}

int striate_number_ranges(int windows, int taps, int stride, int before, int size,
                          striate_range *ranges, uint8_t *numbers) {
    int found = 0;
    for (int i = 0; i < windows; i++) {
        int first = i * stride - before, r = 0;
        striate_range mine = {first < 0 ? -first : 0, first + taps > size ? size - first : taps};
        while (r < found && (ranges[r].from != mine.from || ranges[r].to != mine.to)) r++;
        if (r == found) ranges[found++] = mine;
        numbers[i] = (uint8_t)r;
    }
    return found;
}

/* Those of a layer's windows. Padding of 1 counts like the rest. */
static int number_cases(const striate_shape *s, int outputs, int size, striate_range *ranges,
                        uint8_t *cases) {
    if (!s->pad_one)
        return striate_number_ranges(outputs, s->kernel, s->stride, s->pad, size, ranges, cases);
    ranges[0] = (striate_range){0, s->kernel};
    memset(cases, 0, (size_t)outputs);
    return 1;
}

static int count_bits(const uint32_t *bits, int words) {
    int n = 0;
    for (int i = 0; i < words; i++)
        for (uint32_t word = bits[i]; word; word &= word - 1) n++;
    return n;
}

/* What a dot is when no bit differs: the number of taps that count. A tap in the padding has only
 * 0 bits, so that its weights' 1 bits are counted as differing; twice their number undoes that. */
static int32_t base_of(const striate_layer *layer, const uint32_t *filter, striate_range rows,
                       striate_range columns) {
    int kernel = layer->shape.kernel;
    int32_t base = 0;
    for (int y = 0; y < kernel; y++)
        for (int x = 0; x < kernel; x++, filter += layer->words) {
            int valid = y >= rows.from && y < rows.to && x >= columns.from && x < columns.to;
            base += valid ? layer->shape.channels : 2 * count_bits(filter, layer->words);
        }
    return base;
}

static int make_border_table(striate_layer *layer, const uint32_t *weights) {
    enum { MOST_CASES = (MOST_KERNEL + 1) * (MOST_KERNEL + 1) };
    const striate_shape *s = &layer->shape;
    striate_range rows[MOST_CASES], columns[MOST_CASES];
    int padded_filters = layer->blocks * layer->kernel->block;
    size_t filter_words = (size_t)s->kernel * s->kernel * layer->words;
    layer->row_case = malloc(layer->out_height);
    layer->column_case = malloc(layer->out_width);
    if (!layer->row_case || !layer->column_case) return -1;
    int row_cases = number_cases(s, layer->out_height, s->height, rows, layer->row_case);
    layer->column_cases =
        number_cases(s, layer->out_width, s->width, columns, layer->column_case);
    layer->cases = row_cases * layer->column_cases;
    layer->base = calloc((size_t)layer->cases * padded_filters, sizeof *layer->base);
    if (!layer->base) return -1;
    int32_t *base = layer->base;
    for (int r = 0; r < row_cases; r++)
        for (int c = 0; c < layer->column_cases; c++, base += padded_filters)
            for (int f = 0; f < s->filters; f++)
                base[f] = base_of(layer, weights + f * filter_words, rows[r], columns[c]);
    return 0;
}

/* What the odd groups of a filter contribute to every dot, see striate_row. */
static void add_odd_groups(striate_layer *layer, int filter, const uint32_t *bits, uint8_t *own) {
    size_t padded_filters = (size_t)layer->blocks * layer->kernel->block;
    int taps = layer->shape.kernel * layer->shape.kernel, words = layer->pixel_words;
    for (int tap = 0; tap < taps; tap++, bits += words) {
        int32_t odd;
        layer->kernel->expand(bits, 1, words, 1, own, &odd);
        for (int c = 0; c < layer->cases; c++)
            layer->base[c * padded_filters + filter] -= 2 * odd;
    }
}

/* The weights in the kernel's order, every tap rounded up to the kernel's multiple of words and
 * the filters to whole blocks, by bits that are 0 and so never differ from a pixel's. */
static int order_weights(striate_layer *layer, const uint32_t *weights) {
    const striate_shape *s = &layer->shape;
    int block = layer->kernel->block, taps = s->kernel * s->kernel;
    size_t filter_words = (size_t)taps * layer->pixel_words;
    const striate_kernel *kernel = layer->kernel;
    uint32_t *bits = malloc(block * filter_words * sizeof *bits);
    uint8_t *own = malloc(layer->pixel_bytes);
    layer->weights = aligned_alloc(64, layer->blocks * layer->block_bytes);
    int short_of_memory = !bits || !own || !layer->weights;
    for (int b = 0; b < layer->blocks && !short_of_memory; b++) {
        memset(bits, 0, block * filter_words * sizeof *bits);
        for (int f = 0; f < block && b * block + f < s->filters; f++)
            for (int tap = 0; tap < taps; tap++)
                memcpy(bits + f * filter_words + (size_t)tap * layer->pixel_words,
                       weights + ((size_t)(b * block + f) * taps + tap) * layer->words,
                       layer->words * sizeof *bits);
        kernel->order(bits, filter_words, layer->pixel_words,
                      layer->weights + b * layer->block_bytes);
        for (int f = 0; f < block && kernel->expand; f++)
            add_odd_groups(layer, b * block + f, bits + f * filter_words, own);
    }
    free(bits);
    free(own);
    return -short_of_memory;
}

striate_layer *striate_layer_new(const striate_shape *shape, const uint32_t *weights,
                                 const char *kernel) {
    if (!shape || !weights || !makes_sense(shape)) return NULL;
    int taps = shape->kernel * shape->kernel;
    const striate_kernel *chosen = striate_choose(kernel, (int64_t)taps * shape->channels);
    striate_layer *layer = chosen ? calloc(1, sizeof *layer) : NULL;
    if (!layer) return NULL;
    int multiple = chosen->word_multiple, block = chosen->block;
    layer->shape = *shape;
    layer->kernel = chosen;
    layer->flat = shape->kernel == 1 && shape->stride == 1;
    layer->words = striate_words(shape->channels);
    layer->pixel_words = (layer->words + multiple - 1) / multiple * multiple;
    layer->padded_height = shape->height + 2 * shape->pad;
    layer->padded_width = shape->width + 2 * shape->pad;
    layer->out_height = (layer->padded_height - shape->kernel) / shape->stride + 1;
    layer->out_width = (layer->padded_width - shape->kernel) / shape->stride + 1;
    /* Whole words of output bits need computed filters, if only of zeros. */
    layer->blocks = (32 * striate_words(shape->filters) + block - 1) / block;
    layer->pixel_bytes = (size_t)layer->pixel_words * chosen->word_bytes;
    layer->block_bytes =
        ((size_t)block * taps * layer->pixel_words * chosen->weight_bytes + 63) / 64 * 64;
    if (!has_room(layer) || make_border_table(layer, weights) || order_weights(layer, weights)) {
        striate_layer_free(layer);
        return NULL;
    }
    return layer;
}

void striate_layer_free(striate_layer *layer) {
    if (!layer) return;
    free(layer->weights);
    free(layer->base);
    free(layer->row_case);
    free(layer->column_case);
    free(layer);
}

striate_shape striate_layer_shape(const striate_layer *layer) { return layer->shape; }

const char *striate_layer_kernel(const striate_layer *layer) { return layer->kernel->name; }

/* === Running a layer === */

size_t striate_scratch_bytes(const striate_layer *layer) { return (size_t)places_of(layer).end; }

/* What the tasks of one image (or of one piece of a flat layer) work on. */
typedef struct {
    const striate_layer *layer;
    const striate_run *run;
    places at;
    uint8_t *scratch;
    const float *values; /* the image, one of these two */
    const uint32_t *bits;
    int in_rows, in_width, last_width; /* the last row of a flat layer may be shorter */
    int out_rows, out_width;
    size_t first_out;    /* output pixels before this image */
    int groups;          /* of output rows, in each of which all blocks are computed */
} image;

static int pad_of(const striate_layer *layer) { return layer->flat ? 0 : layer->shape.pad; }

static size_t padded_width(const image *im) {
    return (size_t)im->in_width + 2 * (size_t)pad_of(im->layer);
}

static int32_t *odd_of(const image *im) { return (int32_t *)(im->scratch + im->at.odd); }
static int32_t *odd_sums_of(const image *im) { return (int32_t *)(im->scratch + im->at.odd_sums); }
static float *means_of(const image *im) { return (float *)(im->scratch + im->at.means); }
static float *scales_of(const image *im) { return (float *)(im->scratch + im->at.scales); }

/* Sixteen sums, so that compilers vectorise them, and the same ones for every kernel. */
static float mean_magnitude(const float *values, int n) {
    float sums[16] = {0}, total = 0;
    int i = 0;
    for (; i + 16 <= n; i += 16)
        for (int k = 0; k < 16; k++) sums[k] += fabsf(values[i + k]);
    for (int k = 0; i + k < n; k++) sums[k] += fabsf(values[i + k]);
    for (int k = 0; k < 16; k++) total += sums[k];
    return total / (float)n;
}

static void copy_bits(const uint32_t *from, int pixels, int words, uint32_t *to, int stride) {
    if (words == stride) {
        memcpy(to, from, (size_t)pixels * words * sizeof *to);
        return;
    }
    for (int p = 0; p < pixels; p++, from += words, to += stride)
        memcpy(to, from, words * sizeof *to);
}

/* Packs pixels, of which the signs are taken after normalisation, if there is any. */
static void pack_pixels(const image *im, const float *values, int pixels, uint32_t *bits) {
    const striate_kernel *kernel = im->layer->kernel;
    const striate_run *run = im->run;
    int channels = im->layer->shape.channels, stride = im->layer->pixel_words;
    if (!run->gain) {
        kernel->pack(values, pixels, channels, bits, stride);
        return;
    }
    float piece[PIECE];
    int together = PIECE / channels; /* pixels; 0 where one is cut into pieces itself */
    for (int p = 0; p < pixels; p += together ? together : 1) {
        int now = !together ? 1 : pixels - p < together ? pixels - p : together;
        for (int c = 0; c < channels; c += PIECE) {
            int part = channels - c < PIECE ? channels - c : PIECE;
            kernel->normalise(values + (size_t)p * channels + c, now, part, run->gain + c,
                              run->shift + c, piece);
            kernel->pack(piece, now, part, bits + (size_t)p * stride + c / 32, stride);
        }
    }
}

/* One row of the padded input, in the kernel's own form. */
static void prepare_row(void *context, int padded_row) {
    const image *im = context;
    const striate_layer *layer = im->layer;
    const striate_shape *s = &layer->shape;
    const striate_kernel *kernel = layer->kernel;
    int pad = pad_of(layer), row = padded_row - pad;
    int width = layer->flat && row == im->in_rows - 1 ? im->last_width : im->in_width;
    int stride = layer->pixel_words;
    size_t across = padded_width(im), first = padded_row * across, from = (size_t)row * im->in_width;
    uint8_t *own = im->scratch + im->at.pixels + first * layer->pixel_bytes;
    uint32_t *bits = kernel->expand
                         ? (uint32_t *)(im->scratch + im->at.bits) + first * stride
                         : (uint32_t *)own;
    float *means = means_of(im) + first;
    int real = row >= 0 && row < im->in_rows;
    if (pad || stride > layer->words) memset(bits, 0, across * stride * sizeof *bits);
    if (pad && s->pad_one)
        for (size_t x = 0; x < across; x++)
            for (int c = 0; c < s->channels; c++)
                bits[x * stride + c / 32] |= (uint32_t)1 << c % 32;
    if (real && im->values)
        pack_pixels(im, im->values + from * s->channels, width, bits + (size_t)pad * stride);
    else if (real)
        copy_bits(im->bits + from * layer->words, width, layer->words,
                  bits + (size_t)pad * stride, stride);
    if (kernel->expand)
        kernel->expand(bits, width + 2 * pad, stride, s->stride, own, odd_of(im) + first);
    if (!im->run->scale_inputs) return;
    memset(means, 0, across * sizeof *means);
    for (int x = 0; real && x < width; x++)
        means[pad + x] = mean_magnitude(im->values + (from + x) * s->channels, s->channels);
}

/* Odd groups in the windows of one row of output pixels. */
static void sum_odd_row(const image *im, int y) {
    const striate_layer *layer = im->layer;
    const striate_shape *s = &layer->shape;
    size_t across = padded_width(im);
    int width = layer->flat && y == im->out_rows - 1 ? im->last_width : im->out_width;
    layer->kernel->window_sums(odd_of(im) + (size_t)y * s->stride * across, across, s->kernel,
                               s->stride, width, odd_sums_of(im) + (size_t)y * im->out_width);
}

/* K of one row of output pixels: the means under the kernel, averaged. */
static void scale_row(const image *im, int y) {
    const striate_shape *s = &im->layer->shape;
    size_t across = padded_width(im);
    float share = 1.0f / (float)(s->kernel * s->kernel);
    const float *means = means_of(im) + (size_t)y * s->stride * across;
    float *scales = scales_of(im) + (size_t)y * im->out_width;
    for (int x = 0; x < im->out_width; x++) {
        float sum = 0;
        for (int ky = 0; ky < s->kernel; ky++)
            for (int kx = 0; kx < s->kernel; kx++)
                sum += means[ky * across + (size_t)x * s->stride + kx];
        scales[x] = sum * share;
    }
}

/* What the windows of one row of output pixels have in common for all filters. */
static void prepare_windows(const image *im, int y) {
    if (im->layer->kernel->expand) sum_odd_row(im, y);
    if (im->run->scale_inputs) scale_row(im, y);
}

/* What all rows of a block have in common. */
static striate_row start_block(const image *im, int block) {
    const striate_layer *layer = im->layer;
    const striate_shape *s = &layer->shape;
    const striate_run *run = im->run;
    int size = layer->kernel->block, first = block * size, left = s->filters - first;
    int bytes = 4 * striate_words(s->filters);
    striate_row row = {
        .weights = layer->weights + block * layer->block_bytes,
        .pixel_step = s->stride * layer->pixel_bytes,
        .row_step = padded_width(im) * layer->pixel_bytes,
        .rows = s->kernel,
        .words = s->kernel * layer->pixel_words,
        .tap = layer->pixel_words,
        .case_step = (size_t)layer->blocks * size,
        .filters = left < size ? left : size,
        .out_step = run->out_bits ? (size_t)bytes : (size_t)s->filters,
    };
    if (run->scores) {
        row.alpha = run->alpha + first;
        row.beta = run->beta + first;
    }
    if (run->out_bits) {
        row.bit_bytes = bytes - first / 8 < size / 8 ? bytes - first / 8 : size / 8;
        row.threshold = (const int32_t *)(im->scratch + im->at.threshold) + first;
        row.flip = (const int32_t *)(im->scratch + im->at.flip) + first;
    }
    return row;
}

static void convolve_row(const image *im, striate_row *row, int block, int y) {
    static const uint8_t no_border[FLAT_WIDTH] = {0};
    const striate_layer *layer = im->layer;
    const striate_run *run = im->run;
    int first = block * layer->kernel->block;
    size_t out = (im->first_out + (size_t)y * im->out_width) * row->out_step;
    int row_case = layer->flat ? 0 : layer->row_case[y];
    row->pixels = im->scratch + im->at.pixels + (size_t)y * layer->shape.stride * row->row_step;
    row->width = layer->flat && y == im->out_rows - 1 ? im->last_width : im->out_width;
    row->base = layer->base + row_case * layer->column_cases * row->case_step + first;
    row->cases = layer->flat ? no_border : layer->column_case;
    if (layer->kernel->expand) row->odd = odd_sums_of(im) + (size_t)y * im->out_width;
    if (run->scale_inputs) row->input_scale = scales_of(im) + (size_t)y * im->out_width;
    if (run->dots) row->dots = run->dots + out + first;
    if (run->scores) row->scores = run->scores + out + first;
    if (run->out_bits) row->bits = (uint8_t *)run->out_bits + out + first / 8;
    layer->kernel->row(row);
}

static void convolve_rows(const image *im, int block, int from, int to) {
    striate_row row = start_block(im, block);
    if (row.filters <= 0 && !im->run->out_bits) return; /* only whole words of bits need these */
    for (int y = from; y < to; y++) convolve_row(im, &row, block, y);
}

static void convolve_block(void *context, int block) {
    const image *im = context;
    convolve_rows(im, block, 0, im->out_rows);
}

/* A group of rows, block after block: a block's weights stay in the first cache meanwhile. */
static void convolve_group(void *context, int group) {
    const image *im = context;
    int from = (int)((int64_t)im->out_rows * group / im->groups);
    int to = (int)((int64_t)im->out_rows * (group + 1) / im->groups);
    for (int y = from; y < to; y++) prepare_windows(im, y);
    for (int block = 0; block < im->layer->blocks; block++) convolve_rows(im, block, from, to);
}

/* Threads that are worth their waking; fewer than 1 count as 1. */
static int threads_for(const image *im) {
    const striate_shape *s = &im->layer->shape;
    int64_t sums = (int64_t)im->out_rows * im->out_width * s->filters;
    int64_t taps = (int64_t)s->kernel * s->kernel * s->channels;
    int threads = im->run->threads;
    if (sums * taps < SMALL_WORK || threads < 1) return 1;
    return threads < STRIATE_MOST_THREADS ? threads : STRIATE_MOST_THREADS;
}

static int threads_for_packing(const image *im, int threads) {
    return (int64_t)im->in_rows * im->in_width * im->layer->shape.channels < SMALL_MAP ? 1 : threads;
}

/* As many for each thread, and some to spare for one that others keep from its processor. */
static int groups_for(const image *im, int threads) {
    int each = im->out_rows / (LEAST_ROWS * threads);
    int groups = threads * (each < 1 ? 1 : each > 4 ? 4 : each);
    return threads <= 1 ? 1 : im->out_rows < groups ? im->out_rows : groups;
}

static void run_image(image *im) {
    const striate_layer *layer = im->layer;
    int threads = threads_for(im);
    striate_parallel(threads_for_packing(im, threads), im->in_rows + 2 * pad_of(layer), prepare_row,
                     im);
    /* Too few rows to share, and filters enough: each thread has its own in every call. */
    if (threads > 1 && im->out_rows < 4 * threads && layer->blocks >= 4 * threads) {
        for (int y = 0; y < im->out_rows; y++) prepare_windows(im, y);
        striate_parallel(threads, layer->blocks, convolve_block, im);
        return;
    }
    im->groups = groups_for(im, threads);
    striate_parallel(threads, im->groups, convolve_group, im);
}

static void run_images(const striate_layer *layer, const striate_run *run, image *im) {
    const striate_shape *s = &layer->shape;
    size_t pixels = (size_t)s->height * s->width;
    im->in_rows = s->height;
    im->in_width = s->width;
    im->out_rows = layer->out_height;
    im->out_width = layer->out_width;
    for (int n = 0; n < run->images; n++) {
        if (run->values) im->values = run->values + n * pixels * s->channels;
        if (run->bits) im->bits = run->bits + n * pixels * layer->words;
        im->first_out = (size_t)n * layer->out_height * layer->out_width;
        run_image(im);
    }
}

static void run_flat(const striate_layer *layer, const striate_run *run, image *im) {
    const striate_shape *s = &layer->shape;
    int64_t pixels = (int64_t)s->height * s->width * run->images, piece = flat_piece(layer);
    im->in_width = im->out_width = FLAT_WIDTH;
    for (int64_t first = 0; first < pixels; first += piece) {
        int64_t now = pixels - first < piece ? pixels - first : piece;
        im->in_rows = im->out_rows = (int)((now + FLAT_WIDTH - 1) / FLAT_WIDTH);
        im->last_width = (int)(now - (int64_t)FLAT_WIDTH * (im->in_rows - 1));
        if (run->values) im->values = run->values + first * s->channels;
        if (run->bits) im->bits = run->bits + first * layer->words;
        im->first_out = (size_t)first;
        run_image(im);
    }
}

/* Filters that only fill a block get a threshold that no sum reaches. */
static void pad_thresholds(const striate_layer *layer, const striate_run *run, const image *im) {
    int32_t *threshold = (int32_t *)(im->scratch + im->at.threshold);
    int32_t *flip = (int32_t *)(im->scratch + im->at.flip);
    int filters = layer->shape.filters, padded = layer->blocks * layer->kernel->block;
    memcpy(threshold, run->threshold, filters * sizeof *threshold);
    memcpy(flip, run->flip, filters * sizeof *flip);
    for (int f = filters; f < padded; f++) {
        threshold[f] = INT32_MAX;
        flip[f] = 0;
    }
}

static int is_complete(const striate_run *run) {
    int inputs = (run->values != NULL) + (run->bits != NULL);
    int outputs = (run->dots != NULL) + (run->scores != NULL) + (run->out_bits != NULL);
    return run->images >= 0 && run->scratch && inputs == 1 && outputs == 1 &&
           (!run->scores || (run->alpha && run->beta)) &&
           (!run->out_bits || (run->threshold && run->flip)) &&
           (!run->scale_inputs || (run->values && run->scores && !run->gain)) &&
           (!run->gain || (run->values && run->shift));
}

int32_t striate_layer_run(const striate_layer *layer, const striate_run *run) {
    if (!layer || !run || !is_complete(run)) return -1;
    image im = {.layer = layer, .run = run, .at = places_of(layer), .scratch = run->scratch};
    if (run->out_bits) pad_thresholds(layer, run, &im);
    (layer->flat ? run_flat : run_images)(layer, run, &im);
    return 0;
}
