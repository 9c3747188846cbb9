/* The gradient of the network of node/training/models/lenet.py, for one width of vectors; portable.c includes this. */

/* The parameters' places in the flat vector, as in lenet.LAYOUT. */
enum { NAME(W1) = 0, NAME(B1) = 250, NAME(W2) = 260, NAME(B2) = 5260, NAME(W3) = 5280, NAME(B3) = 21280,
       NAME(W4) = 21330, NAME(B4) = 21830 };

struct NAME(scratch) {
    float kernels1[2][25][ROWS], kernels2[4][250][ROWS], kernels2_back[2][20][25][ROWS];
    float images[28 * 28][BLOCK];
    float active1[10][144][BLOCK], active2[320][BLOCK], active3[50][BLOCK], scores[10][BLOCK];
    int32_t chosen1[10][144][BLOCK], chosen2[20][16][BLOCK];
    float channels[20][BLOCK], hidden[50][BLOCK], losses[BLOCK];
    int32_t targets[BLOCK];
    float back3[50][BLOCK], back2[320][BLOCK], spread2[20][64][BLOCK], back1[10][144][BLOCK], spread1[2][576][BLOCK];
    float transposed[BLOCK][320];
};

/* One block's scores, from its images and dropout factors. */
static void NAME(lenet_forward)(struct NAME(scratch) *at, const float *x) {
    float *flat2 = &at->active2[0][0], *flat3 = &at->active3[0][0], *scores = &at->scores[0][0];
    NAME(convolve_pool)(1, 28, 28, 10, 5, at->images[0], at->kernels1[0][0], x + NAME(B1), NULL, at->active1[0][0],
                        at->chosen1[0][0]);
    NAME(convolve_pool)(10, 12, 12, 20, 5, at->active1[0][0], at->kernels2[0][0], x + NAME(B2), at->channels[0],
                        flat2, at->chosen2[0][0]);
    memset(flat3, 0, sizeof at->active3);
    NAME(product)(50, BLOCK, 320, x + NAME(W3), 320, 1, flat2, BLOCK, flat3, BLOCK);
    NAME(bias_relu)(50, x + NAME(B3), at->hidden[0], flat3);
    memset(scores, 0, sizeof at->scores);
    NAME(product)(10, BLOCK, 50, x + NAME(W4), 50, 1, flat3, BLOCK, scores, BLOCK);
    for (size_t c = 0; c < 10; c++)
        for (size_t lane = 0; lane < BLOCK; lane++) at->scores[c][lane] += x[NAME(B4) + c];
}

/* One block's gradient, added to `sums` [D]. Layers from the last to the first; see the kernels for orders of sums. */
static void NAME(lenet_backward)(struct NAME(scratch) *at, const float *x, float divisor, float *sums) {
    float *flat2 = &at->active2[0][0], *flat3 = &at->active3[0][0], *scores = &at->scores[0][0];
    NAME(cross_entropy)(10, at->targets, divisor, scores, at->losses);

    transpose(50, flat3, BLOCK, &at->transposed[0][0], 320);
    NAME(product)(10, 50, BLOCK, scores, BLOCK, 1, &at->transposed[0][0], 320, sums + NAME(W4), 50);
    NAME(row_sums)(10, 1, scores, sums + NAME(B4));

    memset(at->back3, 0, sizeof at->back3);
    NAME(product)(50, BLOCK, 10, x + NAME(W4), 1, 50, scores, BLOCK, at->back3[0], BLOCK);
    NAME(let_through)(50, 1, flat3, at->hidden[0], at->back3[0]);
    transpose(320, flat2, BLOCK, &at->transposed[0][0], 320);
    NAME(product)(50, 320, BLOCK, at->back3[0], BLOCK, 1, &at->transposed[0][0], 320, sums + NAME(W3), 320);
    NAME(row_sums)(50, 1, at->back3[0], sums + NAME(B3));

    memset(at->back2, 0, sizeof at->back2);
    NAME(product)(320, BLOCK, 50, x + NAME(W3), 1, 320, at->back3[0], BLOCK, at->back2[0], BLOCK);
    NAME(let_through)(20, 16, flat2, at->channels[0], at->back2[0]);
    NAME(row_sums)(20, 16, at->back2[0], sums + NAME(B2));
    for (size_t out = 0; out < 20; out += 2) {
        for (size_t each = out; each < out + 2; each++)
            NAME(unpool)(4, 4, at->back2[16 * each], at->chosen2[each][0], at->spread2[each][0]);
        NAME(kernel_gradient)(10, 12, 12, at->active1[0][0], at->spread2[out][0], sums + NAME(W2) + 250 * out);
    }
    NAME(input_gradient)(10, 12, 12, 20, 5, at->spread2[0][0], at->kernels2_back[0][0][0], at->back1[0][0]);
    NAME(let_through)(10, 144, at->active1[0][0], NULL, at->back1[0][0]);
    NAME(row_sums)(10, 144, at->back1[0][0], sums + NAME(B1));
    for (size_t out = 0; out < 10; out += 2) {
        for (size_t each = 0; each < 2; each++)
            NAME(unpool)(12, 12, at->back1[out + each][0], at->chosen1[out + each][0], at->spread1[each][0]);
        NAME(kernel_gradient)(1, 28, 28, at->images[0], at->spread1[0][0], sums + NAME(W1) + 25 * out);
    }
}

/* The kernels, packed as the convolutions read them. */
static void NAME(lenet_pack)(struct NAME(scratch) *at, const float *x) {
    for (size_t out = 0; out < 10; out++)
        for (size_t tap = 0; tap < 25; tap++) at->kernels1[out / ROWS][tap][out % ROWS] = x[NAME(W1) + 25 * out + tap];
    for (size_t out = 0; out < 20; out++)
        for (size_t channel = 0; channel < 10; channel++)
            for (size_t tap = 0; tap < 25; tap++) {
                float value = x[NAME(W2) + (10 * out + channel) * 25 + tap];
                at->kernels2[out / ROWS][25 * channel + tap][out % ROWS] = value;
                at->kernels2_back[channel / ROWS][out][tap][channel % ROWS] = value;
            }
}

/* `count` images [count, 28, 28] as a block; those that are not there are black. */
static void NAME(lenet_images)(struct NAME(scratch) *at, size_t count, const float *images) {
    memset(at->images, 0, sizeof at->images);
    for (size_t pixel = 0; pixel < 28 * 28; pixel++)
        for (size_t lane = 0; lane < count; lane++) at->images[pixel][lane] = images[lane * 28 * 28 + pixel];
}

static double NAME(lenet_gradient)(const float *x, size_t batch, const float *images, const int64_t *targets,
                                   const float *channels, const float *hidden, float *sums) {
    struct NAME(scratch) *at = calloc(1, sizeof *at);
    if (at == NULL) return -1;
    double loss = 0;
    NAME(lenet_pack)(at, x);
    memset(sums, 0, 21840 * sizeof(float));
    for (size_t start = 0; start < batch; start += BLOCK) {
        size_t count = least(BLOCK, batch - start);
        NAME(lenet_images)(at, count, images + start * 28 * 28);
        for (size_t unit = 0; unit < 20; unit++)
            memcpy(at->channels[unit], channels + unit * batch + start, count * sizeof(float));
        for (size_t unit = 0; unit < 50; unit++)
            memcpy(at->hidden[unit], hidden + unit * batch + start, count * sizeof(float));
        for (size_t lane = 0; lane < BLOCK; lane++)
            at->targets[lane] = lane < count ? (int32_t)targets[start + lane] : -1;
        NAME(lenet_forward)(at, x);
        NAME(lenet_backward)(at, x, (float)batch, sums);
        for (size_t lane = 0; lane < count; lane++) loss += (double)at->losses[lane];
    }
    free(at);
    return loss / (double)batch;
}

static int NAME(lenet_scores)(const float *x, size_t batch, const float *images, float *scores) {
    struct NAME(scratch) *at = calloc(1, sizeof *at);
    if (at == NULL) return -1;
    NAME(lenet_pack)(at, x);
    for (size_t lane = 0; lane < BLOCK; lane++) {
        for (size_t unit = 0; unit < 20; unit++) at->channels[unit][lane] = 1;
        for (size_t unit = 0; unit < 50; unit++) at->hidden[unit][lane] = 1;
    }
    for (size_t start = 0; start < batch; start += BLOCK) {
        size_t count = least(BLOCK, batch - start);
        NAME(lenet_images)(at, count, images + start * 28 * 28);
        NAME(lenet_forward)(at, x);
        for (size_t c = 0; c < 10; c++)
            for (size_t lane = 0; lane < count; lane++) scores[(start + lane) * 10 + c] = at->scores[c][lane];
    }
    free(at);
    return 0;
}
