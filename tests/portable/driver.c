/* Runs the portable kernels on recorded inputs, without Python: standard input to standard output, little-endian.
 *
 * In: batch (int64), parameters, images, targets (int64), dropout of channels and of hidden units; windows, shape and
 * dimension of a transformer (int64), parameters, text and targets (int64).
 * Out: gradient, loss (float64), the product of hidden units and images, elementwise functions of the images' magnitudes;
 * the transformer's gradient, loss and scores.
 * The width of vectors goes to standard error.
 */
#include <stdio.h>

#include "portable.c"

static void *taken(size_t count, size_t bytes) {
    void *memory = calloc(count + 1, bytes);
    if (memory == NULL || fread(memory, bytes, count, stdin) != count) exit(2);
    return memory;
}

int main(int count, char **words) {
    int width = count > 1 ? atoi(words[1]) : btard_portable_width();
    int64_t *batch = taken(1, 8);
    size_t n = (size_t)*batch, pixels = 28 * 28 * n;
    float *parameters = taken(21840, 4), *images = taken(pixels, 4);
    int64_t *targets = taken(n, 8);
    float *channels = taken(20 * n, 4), *hidden = taken(50 * n, 4);
    float *gradient = calloc(21840, 4), *values = calloc(pixels, 4), *products = calloc(50 * 784, 4);
    if (gradient == NULL || values == NULL || products == NULL) return 2;
    fprintf(stderr, "%d\n", width);

    double loss = btard_portable_lenet(width, parameters, n, images, targets, channels, hidden, gradient);
    fwrite(gradient, 4, 21840, stdout);
    fwrite(&loss, 8, 1, stdout);
    btard_portable_product(width, 50, 784, n, hidden, n, 1, images, 784, products, 784);
    fwrite(products, 4, 50 * 784, stdout);
    for (size_t i = 0; i < pixels; i++) images[i] = fabsf(images[i]);
    for (int function = 0; function < 5; function++) {
        btard_portable_elementwise(width, function, images, pixels, values);
        fwrite(values, 4, pixels, stdout);
    }

    size_t *sizes = taken(7, 8), windows = sizes[0], dimension = sizes[6], places = windows * sizes[2];
    float *model = taken(dimension, 4);
    int64_t *text = taken(places, 8), *next = taken(places, 8);
    float *slopes = calloc(dimension, 4), *scores = calloc(places * sizes[1], 4);
    if (slopes == NULL || scores == NULL) return 2;
    loss = btard_portable_transformer(width, sizes + 1, model, windows, text, next, slopes);
    fwrite(slopes, 4, dimension, stdout);
    fwrite(&loss, 8, 1, stdout);
    if (btard_portable_transformer_scores(width, sizes + 1, model, windows, text, scores)) return 2;
    fwrite(scores, 4, places * sizes[1], stdout);
    return 0;
}
