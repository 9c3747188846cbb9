/* Portable arithmetic: kernels that give the same bits on every processor with IEEE arithmetic.
 *
 * Nothing is left to a library or to the processor: no contraction into fused products, no library function of its own
 * choosing, one thread, and an order of sums that is stated at each kernel and does not depend on the width of vectors.
 * The processor chooses the width alone: 8 floats with AVX2, else 4 (SSE2, Neon). Rounding is to nearest and subnormal
 * numbers are kept, whatever the caller's thread has switched.
 */
#include <fenv.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 16  /* images, or places of a text, that a kernel computes side by side, each in a lane of its own */
#define ROWS 5    /* rows of a tile: 2 ROWS vectors of sums fit the sixteen registers */
#define DEPTH 256 /* terms of a product before the next columns: what stays in the nearest cache */

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* [rows, BLOCK] to [BLOCK, rows], with strides between the rows of both. */
static void transpose(size_t rows, const float *from, size_t from_row, float *to, size_t to_row) {
    size_t row = 0;
    for (; row + 4 <= rows; row += 4) /* four at once: fewer, longer writes */
        for (size_t lane = 0; lane < BLOCK; lane++) {
            const float *at = from + row * from_row + lane;
            const float four[4] = {at[0], at[from_row], at[2 * from_row], at[3 * from_row]};
            memcpy(to + lane * to_row + row, four, sizeof four);
        }
    for (; row < rows; row++)
        for (size_t lane = 0; lane < BLOCK; lane++) to[lane * to_row + row] = from[row * from_row + lane];
}

/* The shape of node/training/models/transformer.py. Its parameters lie one after the other in the order of its layout. */
struct shape {
    size_t characters, context, width, blocks, heads;
};

#define LANES 4
#define NAME(name) name##_4
#include "portable_kernels.h"
#include "portable_lenet.h"
#include "portable_transformer.h"
#undef V
#undef I
#undef NAME
#undef INLINE
#undef LANES

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE (__builtin_cpu_supports("avx2"))
#pragma GCC push_options
#pragma GCC target("avx2")
#define LANES 8
#define NAME(name) name##_8
#include "portable_kernels.h"
#include "portable_lenet.h"
#include "portable_transformer.h"
#undef V
#undef I
#undef NAME
#undef INLINE
#undef LANES
#pragma GCC pop_options
#define CHOSEN(width, name) (width == 8 ? name##_8 : name##_4)
#else
#define WIDE 0
#define CHOSEN(width, name) name##_4
#endif

/* The widest vectors that this processor and this library have: 8 or 4 floats. Entry points take a width, so that one
 * processor can compare both. */
int btard_portable_width(void) { return WIDE ? 8 : 4; }

static void settle(fenv_t *held) {
    fegetenv(held);
    fesetenv(FE_DFL_ENV);
}

void btard_portable_elementwise(int width, int function, const float *x, size_t count, float *y) {
    fenv_t held;
    settle(&held);
    CHOSEN(width, elementwise)(function, x, count, y);
    fesetenv(&held);
}

void btard_portable_product(int width, size_t m, size_t n, size_t depth, const float *a, size_t a_row, size_t a_column,
                            const float *b, size_t b_row, float *c, size_t c_row) {
    fenv_t held;
    settle(&held);
    CHOSEN(width, product)(m, n, depth, a, a_row, a_column, b, b_row, c, c_row);
    fesetenv(&held);
}

double btard_portable_lenet(int width, const float *parameters, size_t batch, const float *images,
                            const int64_t *targets, const float *channels, const float *hidden, float *gradient) {
    fenv_t held;
    settle(&held);
    double loss = CHOSEN(width, lenet_gradient)(parameters, batch, images, targets, channels, hidden, gradient);
    fesetenv(&held);
    return loss;
}

int btard_portable_lenet_scores(int width, const float *parameters, size_t batch, const float *images, float *scores) {
    fenv_t held;
    settle(&held);
    int failed = CHOSEN(width, lenet_scores)(parameters, batch, images, scores);
    fesetenv(&held);
    return failed;
}

double btard_portable_transformer(int width, const size_t *shape, const float *parameters, size_t batch,
                                  const int64_t *text, const int64_t *targets, float *gradient) {
    fenv_t held;
    settle(&held);
    double loss = CHOSEN(width, transformer_gradient)((const struct shape *)shape, parameters, batch, text, targets,
                                                      gradient);
    fesetenv(&held);
    return loss;
}

int btard_portable_transformer_scores(int width, const size_t *shape, const float *parameters, size_t batch,
                                      const int64_t *text, float *scores) {
    fenv_t held;
    settle(&held);
    int failed = CHOSEN(width, transformer_scores)((const struct shape *)shape, parameters, batch, text, scores);
    fesetenv(&held);
    return failed;
}
