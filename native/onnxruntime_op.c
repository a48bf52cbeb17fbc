/* Custom operators of ONNX Runtime, in the same library.
 *
 * striate.BinaryConv
 *     inputs: x float [N, h, w, c]; gain, shift float [c]; bits uint8 [filters, k, k, 4 * words];
 *             alpha, beta float [filters]
 *     output: alpha * (sign(gain * x + shift) convolved with the signs in bits) + beta, [N, h', w', f]
 *     attributes: stride, pad, threads
 * striate.Stem
 *     inputs: image uint8 [N, h, w, c]; weights float [rows, columns, c, filters]; mean float [c];
 *             bias float [filters]
 *     output: the maxima of (image - mean) convolved with the weights, + bias, [N, h', w', filters]
 *     attributes: those of the two windows of stem.h, relu, threads
 *
 * ONNX Runtime is reached through the part of its C interface that its first version froze, a table
 * of functions that only ever grows; so this needs none of its headers and runs with any release.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "stem.h"
#include "striate.h"

typedef void *any;
typedef void (*entry)(void); /* cast to what it is; most return a status, NULL for success */

enum { /* places in the table */
    CREATE_CUSTOM_OP_DOMAIN = 26,
    CUSTOM_OP_DOMAIN_ADD = 27,
    ADD_CUSTOM_OP_DOMAIN = 28,
    GET_TENSOR_MUTABLE_DATA = 51,
    GET_DIMENSIONS_COUNT = 61,
    GET_DIMENSIONS = 62,
    GET_TENSOR_TYPE_AND_SHAPE = 65,
    KERNEL_INFO_GET_ATTRIBUTE_INT64 = 86,
    KERNEL_CONTEXT_GET_INPUT = 90,
    KERNEL_CONTEXT_GET_OUTPUT = 91,
    RELEASE_TENSOR_TYPE_AND_SHAPE_INFO = 99,
};

enum { OUR_VERSION = 4, FLOAT = 1, UINT8 = 2, REQUIRED = 0 };
enum { CONVOLUTION_INPUTS = 6, STEM_INPUTS = 4 };

typedef struct {
    const entry *(*get_table)(uint32_t version);
    const char *(*get_version)(void);
} ort_base;

typedef struct operator {
    uint32_t version;
    any (*create)(const struct operator *, const entry *, any info);
    const char *(*name)(const struct operator *);
    const char *(*provider)(const struct operator *);
    int (*input_type)(const struct operator *, size_t);
    size_t (*input_count)(const struct operator *);
    int (*output_type)(const struct operator *, size_t);
    size_t (*output_count)(const struct operator *);
    void (*compute)(any kernel, any context);
    void (*destroy)(any kernel);
    int (*input_kind)(const struct operator *, size_t);
    int (*output_kind)(const struct operator *, size_t);
    any later[62]; /* of later versions, which are not read */
} operator;

/* === What is asked of ONNX Runtime === */

static any input(const entry *table, any context, size_t i) {
    any value = NULL;
    ((any(*)(any, size_t, any *))table[KERNEL_CONTEXT_GET_INPUT])(context, i, &value);
    return value;
}

static any data(const entry *table, any value) {
    any found = NULL;
    ((any(*)(any, any *))table[GET_TENSOR_MUTABLE_DATA])(value, &found);
    return found;
}

/* The shape of a tensor of so many dimensions, none of them huge; 0 where it is not that. */
static int shape_of(const entry *table, any value, size_t expected, int64_t *dims) {
    any info = NULL;
    size_t rank = 0;
    ((any(*)(any, any *))table[GET_TENSOR_TYPE_AND_SHAPE])(value, &info);
    ((any(*)(any, size_t *))table[GET_DIMENSIONS_COUNT])(info, &rank);
    int right = rank == expected;
    if (right) ((any(*)(any, int64_t *, size_t))table[GET_DIMENSIONS])(info, dims, rank);
    ((void (*)(any))table[RELEASE_TENSOR_TYPE_AND_SHAPE_INFO])(info);
    for (size_t i = 0; right && i < rank; i++) right = dims[i] >= 0 && dims[i] < 1 << 24;
    return right;
}

static int has_length(const entry *table, any value, int64_t expected) {
    int64_t length;
    return shape_of(table, value, 1, &length) && length == expected;
}

static int64_t attribute(const entry *table, any info, const char *name, int64_t otherwise) {
    int64_t value = otherwise;
    ((any(*)(any, const char *, int64_t *))table[KERNEL_INFO_GET_ATTRIBUTE_INT64])(info, name,
                                                                                  &value);
    return value;
}

static any output(const entry *table, any context, const int64_t dims[4]) {
    any value = NULL;
    ((any(*)(any, size_t, const int64_t *, size_t, any *))table[KERNEL_CONTEXT_GET_OUTPUT])(
        context, 0, dims, 4, &value);
    return data(table, value);
}

/* This version of the interface cannot report an error while it computes: an output of no elements is
 * one, which the operators after it, or the caller, find. */
static void refuse(const entry *table, any context) {
    output(table, context, (int64_t[4]){0, 0, 0, 0});
}

static void take_inputs(const entry *table, any context, size_t n, any *inputs, any *values) {
    for (size_t i = 0; i < n; i++) {
        inputs[i] = input(table, context, i);
        values[i] = data(table, inputs[i]);
    }
}

/* Working memory that one call after the other has; NULL where memory is short. */
static any take_scratch(_Atomic(any) *kept, size_t bytes) {
    any scratch = atomic_exchange(kept, NULL);
    return scratch ? scratch : aligned_alloc(64, (bytes + 63) / 64 * 64);
}

/* What the first call made; of two that make it at once, one keeps its own. */
static any keep_first(_Atomic(any) *kept, any made, void (*release)(any)) {
    any none = NULL;
    if (!made || atomic_compare_exchange_strong(kept, &none, made)) return made;
    release(made);
    return none;
}

static void keep_scratch(_Atomic(any) *kept, any scratch) { free(atomic_exchange(kept, scratch)); }

/* === BinaryConv === */

typedef struct {
    const entry *table;
    int32_t stride, pad, threads;
    _Atomic(any) layer;   /* made at the first call, which tells the size of the map */
    _Atomic(any) scratch; /* NULL while a call has it */
} convolution;

static any create_convolution(const operator *self, const entry *table, any info) {
    (void)self;
    convolution *made = calloc(1, sizeof *made);
    if (!made) return NULL;
    made->table = table;
    made->stride = (int32_t)attribute(table, info, "stride", 1);
    made->pad = (int32_t)attribute(table, info, "pad", 0);
    made->threads = (int32_t)attribute(table, info, "threads", 1);
    return made;
}

static void destroy_convolution(any kernel) {
    convolution *made = kernel;
    striate_layer_free(atomic_load(&made->layer));
    free(atomic_load(&made->scratch));
    free(made);
}

static void free_layer(any layer) { striate_layer_free(layer); }

/* The layer for maps of this size. */
static striate_layer *layer_for(convolution *made, const striate_shape *shape, const void *bits) {
    any layer = atomic_load(&made->layer);
    if (layer) return layer;
    return keep_first(&made->layer, striate_layer_new(shape, bits, NULL), free_layer);
}

static int fits(const striate_layer *layer, const striate_shape *shape) {
    striate_shape made = striate_layer_shape(layer);
    return !memcmp(&made, shape, sizeof made);
}

/* Whether the inputs are as the head of this file says; a file may be damaged, or hostile. */
static int fit_convolution(const entry *table, const any *inputs, int64_t x[4], int64_t w[4]) {
    return shape_of(table, inputs[0], 4, x) && shape_of(table, inputs[3], 4, w) &&
           w[1] == w[2] && w[3] == 4 * ((x[3] + 31) / 32) && has_length(table, inputs[1], x[3]) &&
           has_length(table, inputs[2], x[3]) && has_length(table, inputs[4], w[0]) &&
           has_length(table, inputs[5], w[0]);
}

static void compute_convolution(any kernel, any context) {
    convolution *made = kernel;
    const entry *table = made->table;
    any values[CONVOLUTION_INPUTS], inputs[CONVOLUTION_INPUTS];
    int64_t x[4], w[4];
    take_inputs(table, context, CONVOLUTION_INPUTS, inputs, values);
    if (!fit_convolution(table, inputs, x, w)) {
        refuse(table, context);
        return;
    }
    striate_shape shape = {
        .height = (int32_t)x[1],
        .width = (int32_t)x[2],
        .channels = (int32_t)x[3],
        .filters = (int32_t)w[0],
        .kernel = (int32_t)w[1],
        .stride = made->stride,
        .pad = made->pad,
    };
    striate_layer *layer = layer_for(made, &shape, values[3]);
    int right = layer && fits(layer, &shape);
    any scratch = right ? take_scratch(&made->scratch, striate_scratch_bytes(layer)) : NULL;
    if (!scratch) {
        refuse(table, context);
        return;
    }
    int64_t dims[4] = {x[0], (x[1] + 2 * shape.pad - w[1]) / shape.stride + 1,
                       (x[2] + 2 * shape.pad - w[1]) / shape.stride + 1, w[0]};
    striate_run run = {
        .images = (int32_t)x[0],
        .threads = made->threads,
        .values = values[0],
        .gain = values[1],
        .shift = values[2],
        .alpha = values[4],
        .beta = values[5],
        .scores = output(table, context, dims),
        .scratch = scratch,
    };
    striate_layer_run(layer, &run);
    keep_scratch(&made->scratch, scratch);
}

/* === Stem === */

typedef struct {
    const entry *table;
    striate_stem_shape shape; /* without the sizes of the picture and the number of filters */
    int32_t threads;
    _Atomic(any) stem;
    _Atomic(any) scratch;
} beginning;

static striate_window window_of(const entry *table, any info, const char *const names[8]) {
    int32_t of[8];
    for (int i = 0; i < 8; i++) of[i] = (int32_t)attribute(table, info, names[i], 0);
    return (striate_window){of[0], of[1], of[2], of[3], of[4], of[5], of[6], of[7]};
}

static any create_stem(const operator *self, const entry *table, any info) {
    static const char *const conv[8] = {"rows", "columns", "row_stride", "column_stride",
                                        "top",  "left",    "bottom",     "right"};
    static const char *const pool[8] = {"pool_rows",          "pool_columns", "pool_row_stride",
                                        "pool_column_stride", "pool_top",     "pool_left",
                                        "pool_bottom",        "pool_right"};
    (void)self;
    beginning *made = calloc(1, sizeof *made);
    if (!made) return NULL;
    made->table = table;
    made->shape.conv = window_of(table, info, conv);
    made->shape.pool = window_of(table, info, pool);
    made->shape.relu = (int32_t)attribute(table, info, "relu", 0);
    made->threads = (int32_t)attribute(table, info, "threads", 1);
    return made;
}

static void destroy_stem(any kernel) {
    beginning *made = kernel;
    striate_stem_free(atomic_load(&made->stem));
    free(atomic_load(&made->scratch));
    free(made);
}

static void free_stem(any stem) { striate_stem_free(stem); }

/* The stem for pictures of this size. */
static striate_stem *stem_for(beginning *made, const striate_stem_shape *shape, const any *values) {
    any stem = atomic_load(&made->stem);
    if (stem) return stem;
    stem = striate_stem_new(shape, values[1], values[2], values[3], NULL);
    return keep_first(&made->stem, stem, free_stem);
}

static int fit_stem(const entry *table, const any *inputs, const striate_window *conv, int64_t x[4],
                    int64_t w[4]) {
    return shape_of(table, inputs[0], 4, x) && shape_of(table, inputs[1], 4, w) &&
           w[0] == conv->rows && w[1] == conv->columns && w[2] == x[3] &&
           has_length(table, inputs[2], x[3]) && has_length(table, inputs[3], w[3]);
}

static void compute_stem(any kernel, any context) {
    beginning *made = kernel;
    const entry *table = made->table;
    any values[STEM_INPUTS], inputs[STEM_INPUTS];
    int64_t x[4], w[4];
    take_inputs(table, context, STEM_INPUTS, inputs, values);
    if (!fit_stem(table, inputs, &made->shape.conv, x, w)) {
        refuse(table, context);
        return;
    }
    striate_stem_shape shape = made->shape;
    shape.height = (int32_t)x[1];
    shape.width = (int32_t)x[2];
    shape.channels = (int32_t)x[3];
    shape.filters = (int32_t)w[3];
    striate_stem *stem = stem_for(made, &shape, values);
    int right = stem && striate_stem_fits(stem, &shape);
    size_t bytes = right ? striate_stem_scratch_bytes(stem, made->threads) : 0;
    any scratch = right ? take_scratch(&made->scratch, bytes) : NULL;
    if (!scratch) {
        refuse(table, context);
        return;
    }
    int32_t height, width;
    striate_stem_answer(stem, &height, &width);
    int64_t dims[4] = {x[0], height, width, w[3]};
    striate_stem_run(stem, (int32_t)x[0], made->threads, values[0], output(table, context, dims),
                     scratch);
    keep_scratch(&made->scratch, scratch);
}

/* === The two operators === */

typedef struct {
    operator called; /* first: ONNX Runtime knows only of this */
    const char *name;
    size_t inputs, of_bytes; /* how many, and which of them is no floats */
} described;

static const char *name(const operator *self) { return ((const described *)self)->name; }

static const char *provider(const operator *self) {
    (void)self;
    return NULL; /* the CPU's */
}

static int input_type(const operator *self, size_t i) {
    return i == ((const described *)self)->of_bytes ? UINT8 : FLOAT;
}

static size_t input_count(const operator *self) { return ((const described *)self)->inputs; }

static int output_type(const operator *self, size_t i) {
    (void)self;
    (void)i;
    return FLOAT;
}

static size_t output_count(const operator *self) {
    (void)self;
    return 1;
}

static int required(const operator *self, size_t i) {
    (void)self;
    (void)i;
    return REQUIRED;
}

#define CALLED(create_it, compute_it, destroy_it)                                                 \
    {                                                                                             \
        .version = OUR_VERSION, .create = create_it, .name = name, .provider = provider,          \
        .input_type = input_type, .input_count = input_count, .output_type = output_type,         \
        .output_count = output_count, .compute = compute_it, .destroy = destroy_it,               \
        .input_kind = required, .output_kind = required                                           \
    }

static described operators[] = {
    {CALLED(create_convolution, compute_convolution, destroy_convolution), "BinaryConv",
     CONVOLUTION_INPUTS, 3},
    {CALLED(create_stem, compute_stem, destroy_stem), "Stem", STEM_INPUTS, 0},
};

/* What ONNX Runtime calls when a session registers this library. */
STRIATE_PUBLIC any RegisterCustomOps(any options, const ort_base *base);

any RegisterCustomOps(any options, const ort_base *base) {
    const entry *table = base->get_table(OUR_VERSION);
    if (!table) return NULL;
    any domain = NULL;
    any status = ((any(*)(const char *, any *))table[CREATE_CUSTOM_OP_DOMAIN])("striate", &domain);
    for (size_t i = 0; i < sizeof operators / sizeof *operators && !status; i++)
        status = ((any(*)(any, operator *))table[CUSTOM_OP_DOMAIN_ADD])(domain, &operators[i].called);
    if (!status) status = ((any(*)(any, any))table[ADD_CUSTOM_OP_DOMAIN])(options, domain);
    return status;
}
