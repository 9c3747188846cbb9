/* Runs the passes over vectors on recorded inputs, without Python: standard input to standard output, little-endian.
 *
 * In: rows, columns, comparators (int64), the comparators (pairs of int32), rows; at least three.
 * Out: the Gram matrix, coefficients, residual and what is hidden, their combination, the sums of the first three rows,
 * an update by them, and btard_answer. Instruction sets go to standard error: 16 floats, 8 or 4.
 */
#include <stdio.h>
#include <stdlib.h>

#include "kernels.c"

static void *taken(size_t count, size_t bytes) {
    void *memory = calloc(count + 1, bytes);
    if (memory == NULL || fread(memory, bytes, count, stdin) != count) exit(2);
    return memory;
}

int main(void) {
    int64_t *sizes = taken(3, 8);
    size_t count = (size_t)sizes[0], columns = (size_t)sizes[1], steps = (size_t)sizes[2];
    int *network = taken(2 * steps, sizeof(int));
    const float **rows = calloc(count, sizeof *rows);
    for (size_t i = 0; i < count; i++) rows[i] = taken(columns, 4);
    double *scratch = calloc(2 * count * WIDTH + 8 * count * count, 8), *gram = calloc(count * count, 8);
    double *coefficients = calloc(count, 8), found[5];
    float *first = calloc(columns + 1, 4), *second = calloc(columns + 1, 4);
#if defined(__x86_64__)
    fprintf(stderr, "%d\n", __builtin_cpu_supports("avx512f") ? 16 : __builtin_cpu_supports("avx2") ? 8 : 4);
#else
    fprintf(stderr, "4\n");
#endif
    btard_gram(rows, count, columns, network, steps, scratch, gram);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < i; j++) gram[j * count + i] = gram[i * count + j];
    fwrite(gram, 8, count * count, stdout);
    btard_clip(gram, count, 300, 1e-6, 1e-12, 8, scratch, coefficients, found);
    fwrite(coefficients, 8, count, stdout);
    fwrite(found, 8, 2, stdout);
    btard_combine(rows, count, columns, coefficients, 1.0 / 3, first);
    fwrite(first, 4, columns, stdout);
    btard_checksum(rows[0], rows[1], rows[2], columns, found);
    found[2] = btard_squares(rows[0], columns);
    fwrite(found, 8, 3, stdout);
    btard_update(rows[0], rows[1], rows[2], columns, 0.9f, 0.1f, first, second);
    fwrite(first, 4, columns, stdout);
    fwrite(second, 4, columns, stdout);
    uint64_t answer = btard_answer();
    fwrite(&answer, 8, 1, stdout);
    return 0;
}
