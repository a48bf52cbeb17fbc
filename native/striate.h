/* Binary convolutions: sums of products of +1 and -1, computed as XOR and bit counts.
 *
 * Bits: value +1 is bit 1, -1 is bit 0; x >= 0 counts as +1, and so does -0.0. Channel c of a pixel
 * is bit c % 32 of its word c / 32; bits beyond the last channel are 0. Words are little-endian.
 * Maps are NHWC. A dense layer is a 1x1 convolution of one pixel.
 *
 * Every function may be called from any thread; a layer never changes after it was made.
 */
#ifndef STRIATE_H
#define STRIATE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define STRIATE_ABI 4

#if defined(__GNUC__)
#define STRIATE_PUBLIC __attribute__((visibility("default")))
#else
#define STRIATE_PUBLIC
#endif

typedef struct striate_layer striate_layer;

typedef struct {
    int32_t height, width, channels; /* of the input */
    int32_t filters, kernel, stride; /* the kernel is square */
    int32_t pad;                     /* rows and columns added on every side */
    int32_t pad_one;                 /* 0: padding adds nothing to a sum; 1: it counts as +1 */
} striate_shape;

/* What to compute; unused pointers are NULL. The input is `values` or `bits`. The outputs wanted
 * are one of `dots`, `scores` and `out_bits`, each [n][height'][width'][filters or words]. */
typedef struct {
    int32_t images, threads;    /* threads below 1 count as 1 */
    const float *values;        /* [n][height][width][channels] */
    const uint32_t *bits;       /* [n][height][width][words] */
    const float *gain, *shift;  /* [channels] each, or NULL: signs are of gain * value + shift */
    int32_t *dots;              /* the sums themselves */
    float *scores;              /* alpha * dot + beta, or alpha * (K * dot) + beta */
    const float *alpha, *beta;  /* [filters] */
    int32_t scale_inputs;       /* 1: K is the mean |x| under the kernel; needs `values` */
    uint32_t *out_bits;         /* bit f is (dot ^ flip[f]) >= threshold[f] */
    const int32_t *threshold;   /* [filters] */
    const int32_t *flip;        /* [filters], 0 or -1: ~dot rises where dot falls */
    void *scratch;              /* striate_scratch_bytes(layer), aligned to 64 bytes */
} striate_run;

/* 4 for this header; another number means another layout of the structures above, or other
 * functions. */
STRIATE_PUBLIC int32_t striate_abi(void);

/* Name of the i-th kernel that this machine can run, fastest first; NULL after the last. */
STRIATE_PUBLIC const char *striate_kernel_name(int32_t i);

/* Prepares a layer. `weights`: bits [filters][kernel][kernel][words]. `kernel`: its name, or NULL
 * for the one in the environment variable STRIATE_KERNEL, or else the fastest. Returns NULL when
 * the shape makes no sense, the machine cannot run that kernel, or memory is short. */
STRIATE_PUBLIC striate_layer *striate_layer_new(const striate_shape *shape,
                                                const uint32_t *weights, const char *kernel);
STRIATE_PUBLIC void striate_layer_free(striate_layer *layer);

STRIATE_PUBLIC const char *striate_layer_kernel(const striate_layer *layer);
STRIATE_PUBLIC striate_shape striate_layer_shape(const striate_layer *layer);
STRIATE_PUBLIC size_t striate_scratch_bytes(const striate_layer *layer);

/* Returns 0, or -1 when `run` asks for no or several inputs or outputs, or lacks a pointer. */
STRIATE_PUBLIC int32_t striate_layer_run(const striate_layer *layer, const striate_run *run);

/* Packs `pixels` pixels of floats into bits [pixels][words] by the fastest kernel. */
STRIATE_PUBLIC void striate_pack(const float *values, int64_t pixels, int32_t channels,
                                 uint32_t *bits);

#ifdef __cplusplus
}
#endif
#endif
