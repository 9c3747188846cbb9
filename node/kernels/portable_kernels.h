/* Kernels of portable arithmetic for one width of vectors; portable.c includes this once for each width.
 *
 * A result never depends on LANES, the floats of one vector: it only says how many sums run side by side. Products are
 * rounded before they are added (-ffp-contract=off), divisions are IEEE's, and each sum has the order stated at its
 * kernel. Activations are [channels, rows, columns, BLOCK]: BLOCK images at once, innermost.
 */

typedef float NAME(lanes) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t NAME(bits) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#define V NAME(lanes)
#define I NAME(bits)
#define INLINE static inline __attribute__((always_inline))

INLINE V NAME(where)(I mask, V yes, V no) { return (V)((mask & (I)yes) | (~mask & (I)no)); }

/* --- elementary functions --------------------------------------------------------------------------------------- */

/* exp(x) = 2^n exp(r), n the integer nearest x / ln 2, exp(r) the Taylor polynomial of degree 7 by Horner's rule. */
INLINE V NAME(exp)(V x) {
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, which stands in the last bits */
    x = NAME(where)(x > 90.0f, 90.0f - (V){0}, x);
    x = NAME(where)(x < -105.0f, -105.0f - (V){0}, x);
    V shifted = x * 1.44269504f + shift;
    V n = shifted - shift;
    V r = x - n * 0.693359375f; /* ln 2 in two parts; the first has 9 bits, so its product is exact */
    r = r + n * 2.12194440e-4f;
    V y = r * (1.0f / 5040) + 1.0f / 720;
    y = y * r + 1.0f / 120;
    y = y * r + 1.0f / 24;
    y = y * r + 1.0f / 6;
    y = y * r + 0.5f;
    y = y * (r * r) + r;
    y = y + 1.0f;
    /* 2^n in two factors: subnormal results are rounded once, by the last product. */
    I whole = (I)shifted - 0x4b400000, half = whole >> 1;
    return y * (V)((half + 127) << 23) * (V)((whole - half + 127) << 23);
}

/* log(x) = k ln 2 + 2 (s + s^3/3 + s^5/5 + s^7/7 + s^9/9), s = (m - 1) / (m + 1), x = 2^k m, m in [sqrt(1/2), sqrt 2). */
INLINE V NAME(log)(V x) {
    I tiny = x < 1.17549435e-38f; /* subnormal */
    V scaled = NAME(where)(tiny, x * 8388608.0f, x);
    I low = (I)scaled - 0x3f3504f3; /* bits of sqrt(1/2) */
    I k = low >> 23;
    V m = (V)((low & 0x7fffff) + 0x3f3504f3);
    V exponent = __builtin_convertvector(k - (tiny & 23), V);
    V s = (m - 1.0f) / (m + 1.0f), square = s * s;
    V y = square * (1.0f / 9) + 1.0f / 7;
    y = y * square + 1.0f / 5;
    y = y * square + 1.0f / 3;
    y = y * square * s + s;
    y = (exponent * -2.12194440e-4f + (y + y)) + exponent * 0.693359375f;
    y = NAME(where)(x == 0.0f, -INFINITY - (V){0}, y);
    y = NAME(where)(x < 0.0f, NAN - (V){0}, y);
    return NAME(where)((x == INFINITY) | (x != x), x, y);
}

/* cos(2 pi turns) = sin(2 pi (1/4 - d)), d the distance to the nearest integer, which is exact; the sine by its Taylor
 * polynomial of degree 13 on +-pi/2. |turns| < 2^21. */
INLINE V NAME(cosine)(V turns) {
    const float shift = 12582912.0f; /* as in exp */
    V d = turns - ((turns + shift) - shift);
    V angle = (0.25f - NAME(where)(d < 0.0f, -d, d)) * 6.28318531f, square = angle * angle;
    V y = square * (1.0f / 6227020800) - 1.0f / 39916800;
    y = y * square + 1.0f / 362880;
    y = y * square - 1.0f / 5040;
    y = y * square + 1.0f / 120;
    y = y * square - 1.0f / 6;
    return y * square * angle + angle;
}

/* x Phi(x), Phi the normal distribution, and its derivative Phi(x) + x phi(x).
 *
 * Phi(-|x|) = exp(-x^2/2) P(s), s = (1 - 0.33 |x|) / (1 + 0.33 |x|); P of degree 7 by Horner's rule is our own fit, which
 * errs by less than 3e-8 exp(x^2/12) of the value on |x| <= 10. */
INLINE V NAME(gelu)(V x, V *slope) {
    V size = NAME(where)(x < 0.0f, -x, x) * 0.33f, s = (1.0f - size) / (1.0f + size);
    V density = NAME(exp)(x * x * -0.5f);
    V tail = s * 3.83349048e-4f - 1.03298959e-3f;
    tail = tail * s - 2.78443331e-3f;
    tail = tail * s + 6.91163354e-3f;
    tail = tail * s + 4.73267101e-2f;
    tail = tail * s + 0.123553485f;
    tail = tail * s + 0.205162391f;
    tail = tail * s + 0.120479859f;
    tail = tail * density;
    V share = NAME(where)(x < 0.0f, tail, 1.0f - tail);
    *slope = share + x * (density * 0.398942280f);
    return x * share;
}

static void NAME(elementwise)(int function, const float *x, size_t count, float *y) {
    for (size_t start = 0; start < count; start += LANES) {
        float held[LANES] = {0};
        size_t width = least(LANES, count - start);
        memcpy(held, x + start, width * sizeof(float));
        V value = *(V *)held, slope, result;
        switch (function) {
        case 0: result = NAME(exp)(value); break;
        case 1: result = NAME(log)(value); break;
        case 2: result = NAME(cosine)(value); break;
        case 3: result = NAME(gelu)(value, &slope); break;
        default: NAME(gelu)(value, &result);
        }
        memcpy(y + start, &result, width * sizeof(float));
    }
}

/* --- matrix product --------------------------------------------------------------------------------------------- */

/* One tile of `rows` rows and 2 LANES columns. */
INLINE void NAME(product_tile)(const size_t rows, size_t depth, const float *a, size_t a_row, size_t a_column,
                               const float *b, size_t b_row, float *c, size_t c_row) {
    V sums[ROWS][2];
#pragma GCC unroll 5
    for (size_t i = 0; i < rows; i++)
        sums[i][0] = *(const V *)(c + i * c_row), sums[i][1] = *(const V *)(c + i * c_row + LANES);
    for (size_t k = 0; k < depth; k++) {
        V left = *(const V *)(b + k * b_row), right = *(const V *)(b + k * b_row + LANES);
#pragma GCC unroll 5
        for (size_t i = 0; i < rows; i++) {
            float factor = a[i * a_row + k * a_column];
            sums[i][0] += factor * left;
            sums[i][1] += factor * right;
        }
    }
#pragma GCC unroll 5
    for (size_t i = 0; i < rows; i++)
        *(V *)(c + i * c_row) = sums[i][0], *(V *)(c + i * c_row + LANES) = sums[i][1];
}

/* C += A B, C [m, n] and B [depth, n] with contiguous rows, A [m, depth] with any strides (a transposed matrix too).
 * Order: an entry of C has its products added one after the other, k ascending. */
static void NAME(product)(size_t m, size_t n, size_t depth, const float *a, size_t a_row, size_t a_column,
                          const float *b, size_t b_row, float *c, size_t c_row) {
    for (size_t from = 0; from < depth; from += DEPTH) { /* a panel of B stays in the nearest cache */
        size_t steps = least(DEPTH, depth - from), tiled_n = n - n % (2 * LANES), tiled_m = m - m % ROWS;
        const float *a_here = a + from * a_column, *b_here = b + from * b_row;
        for (size_t column = 0; column < tiled_n; column += 2 * LANES) {
            for (size_t row = 0; row < tiled_m; row += ROWS)
                NAME(product_tile)(ROWS, steps, a_here + row * a_row, a_row, a_column, b_here + column, b_row,
                                   c + row * c_row + column, c_row);
            for (size_t row = tiled_m; row < m; row++)
                NAME(product_tile)(1, steps, a_here + row * a_row, a_row, a_column, b_here + column, b_row,
                                   c + row * c_row + column, c_row);
        }
        for (size_t row = 0; row < m; row++)
            for (size_t k = 0; k < steps; k++)
                for (size_t j = tiled_n; j < n; j++)
                    c[row * c_row + j] += a_here[row * a_row + k * a_column] * b_here[k * b_row + j];
    }
}

/* --- convolution and pooling ------------------------------------------------------------------------------------ */

/* Sums over BLOCK lanes: the upper half is added onto the lower until one is left. */
INLINE float NAME(folded)(const float *lanes) {
    float half[BLOCK / 2];
    for (size_t i = 0; i < BLOCK / 2; i++) half[i] = lanes[i] + lanes[i + BLOCK / 2];
    for (size_t width = BLOCK / 4; width > 0; width /= 2)
        for (size_t i = 0; i < width; i++) half[i] += half[i + width];
    return half[0];
}

/* Convolution (stride 1, no padding), 2x2 maximum, bias, relu, factor, of one block.
 *
 * x [channels, height, width, BLOCK]; kernels packed [outputs / ROWS, channels, size, size, ROWS]; factors
 * [outputs, BLOCK] or NULL; y and chosen [outputs, (height - size + 1) / 2, (width - size + 1) / 2, BLOCK]: the result,
 * and which of the four places under it (0 to 3 in reading order) holds the maximum; of equal ones, the first.
 * Order: channels, kernel rows, kernel columns, ascending, from 0; the bias is added to the maximum. */
INLINE void NAME(convolve_pool)(const size_t channels, const size_t height, const size_t width, const size_t outputs,
                                const size_t size, const float *x, const float *kernels, const float *bias,
                                const float *factors, float *y, int32_t *chosen) {
    const size_t rows = (height - size + 1) / 2, columns = (width - size + 1) / 2;
    for (size_t out = 0; out < outputs; out += ROWS)
        for (size_t row = 0; row < rows; row++)
            for (size_t column = 0; column < columns; column++)
                for (size_t lane = 0; lane < BLOCK; lane += 2 * LANES) {
                    V best[ROWS][2];
                    I place[ROWS][2] = {{{0}}};
                    for (size_t i = 0; i < 2 * ROWS; i++) best[i / 2][i % 2] = -INFINITY - (V){0};
                    for (int32_t phase = 0; phase < 4; phase++) {
                        const float *corner =
                            x + ((2 * row + phase / 2) * width + 2 * column + phase % 2) * BLOCK + lane;
                        const float *kernel = kernels + out * channels * size * size;
                        V sums[ROWS][2] = {{{0}}};
                        for (size_t channel = 0; channel < channels; channel++)
                            for (size_t r = 0; r < size; r++)
                                for (size_t s = 0; s < size; s++, kernel += ROWS) {
                                    const float *at = corner + ((channel * height + r) * width + s) * BLOCK;
                                    V left = *(const V *)at, right = *(const V *)(at + LANES);
#pragma GCC unroll 5
                                    for (size_t i = 0; i < ROWS; i++) {
                                        sums[i][0] += kernel[i] * left;
                                        sums[i][1] += kernel[i] * right;
                                    }
                                }
#pragma GCC unroll 5
                        for (size_t i = 0; i < ROWS; i++)
                            for (size_t j = 0; j < 2; j++) {
                                I larger = sums[i][j] > best[i][j];
                                best[i][j] = NAME(where)(larger, sums[i][j], best[i][j]);
                                place[i][j] = (larger & phase) | (~larger & place[i][j]);
                            }
                    }
#pragma GCC unroll 5
                    for (size_t i = 0; i < ROWS; i++)
                        for (size_t j = 0; j < 2; j++) {
                            size_t at = (((out + i) * rows + row) * columns + column) * BLOCK + lane + j * LANES;
                            V value = best[i][j] + bias[out + i];
                            value = NAME(where)(value > 0.0f, value, (V){0});
                            if (factors != NULL) value *= *(const V *)(factors + (out + i) * BLOCK + lane + j * LANES);
                            *(V *)(y + at) = value;
                            *(I *)(chosen + at) = place[i][j];
                        }
                }
}

/* The gradient of one channel [rows, columns, BLOCK] after 2x2 pooling, handed to the places that held the maxima:
 * [2 rows, 2 columns, BLOCK]. */
INLINE void NAME(unpool)(const size_t rows, const size_t columns, const float *gradient, const int32_t *chosen,
                         float *spread) {
    for (size_t row = 0; row < rows; row++)
        for (size_t column = 0; column < columns; column++)
            for (size_t lane = 0; lane < BLOCK; lane += LANES) {
                size_t at = (row * columns + column) * BLOCK + lane;
                I value = *(const I *)(gradient + at), place = *(const I *)(chosen + at);
                for (int32_t phase = 0; phase < 4; phase++) {
                    size_t to = (2 * row + phase / 2) * 2 * columns + 2 * column + phase % 2;
                    *(I *)(spread + to * BLOCK + lane) = value & (place == phase);
                }
            }
}

/* sums += the kernel's gradient of a block, for two outputs: `first` and the one after it.
 *
 * x [channels, height, width, BLOCK]; gradient [2, height - size + 1, width - size + 1, BLOCK], of those outputs;
 * sums [outputs, channels, size, size]. Order: each of BLOCK lanes over the positions in reading order from 0, then
 * folded, then added to `sums`. `size` is ROWS. */
INLINE void NAME(kernel_gradient)(const size_t channels, const size_t height, const size_t width, const float *x,
                                  const float *gradient, float *sums) {
    const size_t size = ROWS, rows = height - size + 1, columns = width - size + 1;
    for (size_t channel = 0; channel < channels; channel++)
        for (size_t r = 0; r < size; r++) {
            float lanes[2][ROWS][BLOCK];
            for (size_t lane = 0; lane < BLOCK; lane += LANES) {
                V total[2][ROWS] = {{{0}}};
                for (size_t row = 0; row < rows; row++) {
                    const float *at = x + ((channel * height + row + r) * width) * BLOCK + lane;
                    const float *upper = gradient + row * columns * BLOCK + lane;
                    const float *lower = upper + rows * columns * BLOCK;
                    for (size_t column = 0; column < columns; column++) {
                        V first = *(const V *)(upper + column * BLOCK), second = *(const V *)(lower + column * BLOCK);
#pragma GCC unroll 5
                        for (size_t s = 0; s < ROWS; s++) {
                            V value = *(const V *)(at + (column + s) * BLOCK);
                            total[0][s] += first * value;
                            total[1][s] += second * value;
                        }
                    }
                }
#pragma GCC unroll 5
                for (size_t s = 0; s < ROWS; s++)
                    *(V *)&lanes[0][s][lane] = total[0][s], *(V *)&lanes[1][s][lane] = total[1][s];
            }
            for (size_t s = 0; s < ROWS; s++) {
                sums[(channel * size + r) * size + s] += NAME(folded)(lanes[0][s]);
                sums[((channels + channel) * size + r) * size + s] += NAME(folded)(lanes[1][s]);
            }
        }
}

/* The input's gradient [channels, height, width, BLOCK] from the output's [outputs, height - size + 1, width - size + 1,
 * BLOCK]; kernels packed [channels / ROWS, outputs, size, size, ROWS]. Order: outputs, kernel rows, kernel columns,
 * ascending, from 0; only those that reach the position. */
INLINE void NAME(input_gradient)(const size_t channels, const size_t height, const size_t width, const size_t outputs,
                                 const size_t size, const float *gradient, const float *kernels, float *result) {
    const size_t rows = height - size + 1, columns = width - size + 1;
    for (size_t channel = 0; channel < channels; channel += ROWS)
        for (size_t row = 0; row < height; row++)
            for (size_t column = 0; column < width; column++) {
                size_t r_first = row < rows ? 0 : row - rows + 1, r_last = least(size - 1, row);
                size_t s_first = column < columns ? 0 : column - columns + 1, s_last = least(size - 1, column);
                for (size_t lane = 0; lane < BLOCK; lane += 2 * LANES) {
                    V sums[ROWS][2] = {{{0}}};
                    for (size_t out = 0; out < outputs; out++)
                        for (size_t r = r_first; r <= r_last; r++) {
                            const float *at = gradient + ((out * rows + row - r) * columns + column) * BLOCK + lane;
                            const float *kernel =
                                kernels + ((channel / ROWS * outputs + out) * size + r) * size * ROWS;
                            for (size_t s = s_first; s <= s_last; s++) {
                                V left = *(const V *)(at - s * BLOCK), right = *(const V *)(at - s * BLOCK + LANES);
#pragma GCC unroll 5
                                for (size_t i = 0; i < ROWS; i++) {
                                    sums[i][0] += kernel[s * ROWS + i] * left;
                                    sums[i][1] += kernel[s * ROWS + i] * right;
                                }
                            }
                        }
#pragma GCC unroll 5
                    for (size_t i = 0; i < ROWS; i++) {
                        float *to = result + (((channel + i) * height + row) * width + column) * BLOCK + lane;
                        *(V *)to = sums[i][0], *(V *)(to + LANES) = sums[i][1];
                    }
                }
            }
}

/* sums[row] += row of [rows, columns, BLOCK]: each of BLOCK lanes over the columns from 0, then folded. */
static void NAME(row_sums)(size_t rows, size_t columns, const float *x, float *sums) {
    for (size_t row = 0; row < rows; row++) {
        float lanes[BLOCK];
        for (size_t lane = 0; lane < BLOCK; lane += LANES) {
            V total = {0};
            for (size_t column = 0; column < columns; column++)
                total += *(const V *)(x + (row * columns + column) * BLOCK + lane);
            *(V *)&lanes[lane] = total;
        }
        sums[row] += NAME(folded)(lanes);
    }
}

/* x := x where kept > 0, times the factor of its row [rows, BLOCK] (NULL: 1); else 0. Both are [rows, columns, BLOCK]. */
static void NAME(let_through)(size_t rows, size_t columns, const float *kept, const float *factors, float *x) {
    for (size_t row = 0; row < rows; row++)
        for (size_t column = 0; column < columns; column++)
            for (size_t lane = 0; lane < BLOCK; lane += LANES) {
                size_t at = (row * columns + column) * BLOCK + lane;
                V value = *(V *)(x + at);
                if (factors != NULL) value *= *(const V *)(factors + row * BLOCK + lane);
                *(V *)(x + at) = NAME(where)(*(const V *)(kept + at) > 0.0f, value, (V){0});
            }
}

/* y := max(y + bias, 0) times factors [rows, BLOCK], of [rows, BLOCK]. */
static void NAME(bias_relu)(size_t rows, const float *bias, const float *factors, float *y) {
    for (size_t row = 0; row < rows; row++)
        for (size_t lane = 0; lane < BLOCK; lane += LANES) {
            V value = *(V *)(y + row * BLOCK + lane) + bias[row];
            value = NAME(where)(value > 0.0f, value, (V){0});
            *(V *)(y + row * BLOCK + lane) = value * *(const V *)(factors + row * BLOCK + lane);
        }
}

/* --- softmax and cross entropy ---------------------------------------------------------------------------------- */

/* x := exp(x - max x) in one vector of lanes of [classes, BLOCK]; its sum over the classes, ascending, from 0. */
INLINE V NAME(exponentials)(size_t classes, float *x, V *largest) {
    V sum = {0};
    *largest = *(V *)x;
    for (size_t c = 1; c < classes; c++) {
        V value = *(V *)(x + c * BLOCK);
        *largest = NAME(where)(value > *largest, value, *largest);
    }
    for (size_t c = 0; c < classes; c++) {
        V *value = (V *)(x + c * BLOCK);
        *value = NAME(exp)(*value - *largest);
        sum += *value;
    }
    return sum;
}

/* Cross entropy of scores [classes, BLOCK]; afterwards `scores` hold the gradient of its sum divided by `divisor`.
 *
 * With t = x - max x: losses[lane] = log(sum exp t) - t[target], gradient = (exp t / sum exp t - [target]) / divisor.
 * Order: sums over the classes, ascending, from 0. A negative target: no item, loss and gradient are 0. */
static void NAME(cross_entropy)(size_t classes, const int32_t *targets, float divisor, float *scores, float *losses) {
    for (size_t lane = 0; lane < BLOCK; lane += LANES) {
        I target = *(const I *)(targets + lane);
        V wanted = {0}, largest;
        for (size_t c = 0; c < classes; c++)
            wanted = NAME(where)(target == (int32_t)c, *(V *)(scores + c * BLOCK + lane), wanted);
        V sum = NAME(exponentials)(classes, scores + lane, &largest);
        *(V *)(losses + lane) = NAME(where)(target < 0, (V){0}, NAME(log)(sum) - (wanted - largest));
        for (size_t c = 0; c < classes; c++) {
            V *score = (V *)(scores + c * BLOCK + lane);
            V one = NAME(where)(target == (int32_t)c, 1.0f - (V){0}, (V){0});
            *score = NAME(where)(target < 0, (V){0}, (*score / sum - one) / divisor);
        }
    }
}
