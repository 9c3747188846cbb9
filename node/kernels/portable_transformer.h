/* The gradient of the network of node/training/models/transformer.py, for one width of vectors; portable.c includes this.
 *
 * Windows of the text are computed one after the other. Activations are [features, places], a place of the window in a
 * lane of its own. Places are filled up to a multiple of BLOCK; no real place looks at those, and they have no loss.
 */

struct NAME(norm) {
    float *normal, *inverse, *y; /* [width, places] before scale and shift, [places] 1 / deviation, [width, places] */
};

/* What the forward pass of a block leaves for the backward pass. `weights`: for each head and each BLOCK of places,
 * [places up to the last of these, BLOCK]. */
struct NAME(block) {
    struct NAME(norm) attention, feed;
    float *mixed, *weights, *gathered, *active, *slope;
};

struct NAME(window) {
    size_t places;
    struct NAME(norm) head;
    float *stream, *back, *step, *wide, *turned, *scores, *losses, *sums, *memory;
    int32_t *targets;
    struct NAME(block) blocks[];
};

/* Where a block's parameters begin; behind the last one stand the head's scale and shift. */
static size_t NAME(block_start)(const struct shape *shape, size_t block) {
    return (shape->characters + shape->context + block * (12 * shape->width + 4)) * shape->width;
}

static size_t NAME(dimension)(const struct shape *shape) {
    return NAME(block_start)(shape, shape->blocks) + 2 * shape->width;
}

static float *NAME(take)(float **memory, size_t count) {
    float *taken = *memory;
    *memory += (count + BLOCK - 1) / BLOCK * BLOCK;
    return taken;
}

static struct NAME(norm) NAME(take_norm)(float **memory, size_t width, size_t places) {
    float *normal = NAME(take)(memory, width * places), *inverse = NAME(take)(memory, places);
    return (struct NAME(norm)){normal, inverse, NAME(take)(memory, width * places)};
}

/* Memory for one window; NULL: none left. */
static struct NAME(window) *NAME(window)(const struct shape *shape) {
    size_t width = shape->width, places = (shape->context + BLOCK - 1) / BLOCK * BLOCK;
    struct NAME(window) *at = calloc(1, sizeof *at + shape->blocks * sizeof at->blocks[0]);
    size_t kept = 16 * width + 2 + shape->heads * places; /* floats of a block and place */
    size_t rest = 13 * width + 2 * BLOCK + 4;
    size_t of_all = (shape->characters + 2) * BLOCK + NAME(dimension)(shape);
    float *memory = calloc(places * (shape->blocks * kept + rest) + of_all, sizeof(float));
    if (at == NULL || memory == NULL) {
        free(at), free(memory);
        return NULL;
    }
    at->memory = memory;
    memory += BLOCK - (uintptr_t)memory % (BLOCK * sizeof(float)) / sizeof(float); /* whole lines of the cache */
    at->places = places;
    for (size_t i = 0; i < shape->blocks; i++) {
        struct NAME(block) *block = &at->blocks[i];
        block->attention = NAME(take_norm)(&memory, width, places);
        block->feed = NAME(take_norm)(&memory, width, places);
        block->mixed = NAME(take)(&memory, 3 * width * places);
        block->weights = NAME(take)(&memory, shape->heads * places * places);
        block->gathered = NAME(take)(&memory, width * places);
        block->active = NAME(take)(&memory, 4 * width * places);
        block->slope = NAME(take)(&memory, 4 * width * places);
    }
    at->head = NAME(take_norm)(&memory, width, places);
    at->stream = NAME(take)(&memory, width * places);
    at->back = NAME(take)(&memory, width * places);
    at->step = NAME(take)(&memory, width * places);
    at->wide = NAME(take)(&memory, 4 * width * places);
    at->turned = NAME(take)(&memory, (4 * width + 2 * BLOCK) * places);
    at->scores = NAME(take)(&memory, shape->characters * BLOCK);
    at->losses = NAME(take)(&memory, places);
    at->sums = NAME(take)(&memory, NAME(dimension)(shape));
    at->targets = (int32_t *)NAME(take)(&memory, places);
    return at;
}

/* --- layers ----------------------------------------------------------------------------------------------------- */

/* y := (x - mean) / sqrt(mean (x - mean)^2 + 1e-5) * scale + shift of each place. Order of sums: features ascending,
 * from 0. The square root is IEEE's. */
static void NAME(normalise)(size_t width, size_t places, const float *x, const float *scale, struct NAME(norm) *to) {
    const float *shift = scale + width;
    for (size_t lane = 0; lane < places; lane += LANES) {
        V mean = {0}, square = {0};
        for (size_t f = 0; f < width; f++) mean += *(const V *)(x + f * places + lane);
        mean /= (float)width;
        for (size_t f = 0; f < width; f++) {
            V difference = *(const V *)(x + f * places + lane) - mean;
            square += difference * difference;
        }
        square = square / (float)width + 1e-5f;
        for (size_t i = 0; i < LANES; i++) square[i] = __builtin_sqrtf(square[i]);
        V inverse = 1.0f / square;
        *(V *)(to->inverse + lane) = inverse;
        for (size_t f = 0; f < width; f++) {
            V normal = (*(const V *)(x + f * places + lane) - mean) * inverse;
            *(V *)(to->normal + f * places + lane) = normal;
            *(V *)(to->y + f * places + lane) = normal * scale[f] + shift[f];
        }
    }
}

/* back += the gradient of what was normalised, from y's, `step`, which is spent; sums [2, width] += those of scale and
 * shift: lanes over the window's BLOCKs of places, from 0, then folded.
 * With g = step * scale: (g - mean g - normal * mean(g * normal)) / deviation; means: features ascending, from 0. */
static void NAME(normalise_back)(size_t width, size_t places, const struct NAME(norm) *kept, const float *scale,
                                 float *step, float *back, float *sums) {
    NAME(row_sums)(width, places / BLOCK, step, sums + width);
    for (size_t lane = 0; lane < places; lane += LANES) {
        V inverse = *(const V *)(kept->inverse + lane), mean = {0}, along = {0};
        for (size_t f = 0; f < width; f++) {
            V g = *(const V *)(step + f * places + lane) * scale[f];
            mean += g;
            along += g * *(const V *)(kept->normal + f * places + lane);
        }
        mean /= (float)width;
        along /= (float)width;
        for (size_t f = 0; f < width; f++) {
            size_t at = f * places + lane;
            V normal = *(const V *)(kept->normal + at), *g = (V *)(step + at);
            *(V *)(back + at) += (*g * scale[f] - mean - normal * along) * inverse;
            *g *= normal;
        }
    }
    NAME(row_sums)(width, places / BLOCK, step, sums);
}

/* y += W^T x, W [inputs, outputs]. */
static void NAME(linear)(size_t inputs, size_t outputs, size_t places, const float *weight, const float *x, float *y) {
    NAME(product)(outputs, places, inputs, weight, 1, outputs, x, places, y, places);
}

/* x_back := W y_back; sums [inputs, outputs] += x y_back^T, places ascending. */
static void NAME(linear_back)(size_t inputs, size_t outputs, size_t places, const float *weight, const float *x,
                              const float *y_back, float *turned, float *x_back, float *sums) {
    for (size_t place = 0; place < places; place += BLOCK)
        transpose(outputs, y_back + place, places, turned + place * outputs, outputs);
    NAME(product)(inputs, outputs, places, x, places, 1, turned, outputs, sums, outputs);
    memset(x_back, 0, inputs * places * sizeof(float));
    NAME(product)(inputs, places, outputs, weight, outputs, 1, y_back, places, x_back, places);
}

/* Causal self-attention: gathered [width, places] from queries, keys and values [3, width, places].
 * Order of sums: features, places looked at; ascending, from 0. */
static void NAME(attend)(const struct shape *shape, size_t places, const float *mixed, float *weights,
                         float *gathered) {
    const size_t size = shape->width / shape->heads, all = shape->width * places;
    const float factor = 1.0f / __builtin_sqrtf((float)size);
    memset(weights, 0, shape->heads * places * places * sizeof(float));
    memset(gathered, 0, all * sizeof(float));
    for (size_t head = 0; head < shape->heads; head++, weights += places * places)
        for (size_t first = 0; first < places; first += BLOCK) {
            const float *queries = mixed + head * size * places, *keys = queries + all, *values = keys + all;
            const size_t seen = first + BLOCK;
            float *scores = weights + first * places;
            NAME(product)(seen, BLOCK, size, keys, 1, places, queries + first, places, scores, BLOCK);
            for (size_t lane = 0; lane < BLOCK; lane += LANES) {
                I place;
                V largest;
                for (size_t i = 0; i < LANES; i++) place[i] = (int32_t)(first + lane + i);
                for (size_t key = 0; key < seen; key++) {
                    V *score = (V *)(scores + key * BLOCK + lane);
                    *score = NAME(where)(place < (int32_t)key, -INFINITY - (V){0}, *score * factor);
                }
                V sum = NAME(exponentials)(seen, scores + lane, &largest);
                for (size_t key = 0; key < seen; key++) *(V *)(scores + key * BLOCK + lane) /= sum;
            }
            NAME(product)(size, BLOCK, seen, values, places, 1, scores, BLOCK, gathered + head * size * places + first,
                          places);
        }
}

/* mixed_back := the gradient of queries, keys and values, from that of what was gathered.
 * With w a softmax and g its gradient: w (g - sum w g), the sum over the places looked at, ascending, from 0. Queries:
 * those places, ascending; keys and values: the places that look, ascending; each from 0. */
static void NAME(attend_back)(const struct shape *shape, size_t places, const float *mixed, const float *weights,
                              const float *gathered_back, float *scratch, float *mixed_back) {
    const size_t size = shape->width / shape->heads, all = shape->width * places;
    const float factor = 1.0f / __builtin_sqrtf((float)size);
    float *scores_back = scratch, *turned = scratch + BLOCK * places;
    memset(mixed_back, 0, 3 * all * sizeof(float));
    for (size_t head = 0; head < shape->heads; head++, weights += places * places)
        for (size_t first = 0; first < places; first += BLOCK) {
            const size_t start = head * size * places, seen = first + BLOCK;
            const float *queries = mixed + start, *keys = queries + all, *values = keys + all;
            const float *here = weights + first * places, *back = gathered_back + start + first;
            memset(scores_back, 0, seen * BLOCK * sizeof(float));
            NAME(product)(seen, BLOCK, size, values, 1, places, back, places, scores_back, BLOCK);
            for (size_t lane = 0; lane < BLOCK; lane += LANES) {
                V sum = {0};
                for (size_t at = lane; at < seen * BLOCK; at += BLOCK)
                    sum += *(const V *)(here + at) * *(V *)(scores_back + at);
                for (size_t at = lane; at < seen * BLOCK; at += BLOCK) {
                    V *score = (V *)(scores_back + at);
                    *score = *(const V *)(here + at) * (*score - sum) * factor;
                }
            }
            transpose(seen, here, BLOCK, turned, seen);
            NAME(product)(size, seen, BLOCK, back, places, 1, turned, seen, mixed_back + 2 * all + start, places);
            NAME(product)(size, BLOCK, seen, keys, places, 1, scores_back, BLOCK, mixed_back + start + first, places);
            transpose(seen, scores_back, BLOCK, turned, seen);
            NAME(product)(size, seen, BLOCK, queries + first, places, 1, turned, seen, mixed_back + all + start,
                          places);
        }
}

/* --- the network ------------------------------------------------------------------------------------------------ */

/* A window's normalised stream in front of the head, from its characters [context]. */
static void NAME(transformer_forward)(const struct shape *shape, struct NAME(window) *at, const float *x,
                                      const int64_t *text) {
    const size_t width = shape->width, places = at->places, all = width * places;
    const float *table = x, *positions = x + shape->characters * width;
    memset(at->stream, 0, all * sizeof(float));
    for (size_t place = 0; place < shape->context; place++)
        for (size_t f = 0; f < width; f++)
            at->stream[f * places + place] = table[(size_t)text[place] * width + f] + positions[place * width + f];
    for (size_t i = 0; i < shape->blocks; i++) {
        struct NAME(block) *block = &at->blocks[i];
        const float *attention = x + NAME(block_start)(shape, i), *feed = attention + (4 * width + 2) * width;
        NAME(normalise)(width, places, at->stream, attention, &block->attention);
        memset(block->mixed, 0, 3 * all * sizeof(float));
        NAME(linear)(width, 3 * width, places, attention + 2 * width, block->attention.y, block->mixed);
        NAME(attend)(shape, places, block->mixed, block->weights, block->gathered);
        NAME(linear)(width, width, places, attention + (3 * width + 2) * width, block->gathered, at->stream);

        NAME(normalise)(width, places, at->stream, feed, &block->feed);
        memset(block->active, 0, 4 * all * sizeof(float));
        NAME(linear)(width, 4 * width, places, feed + 2 * width, block->feed.y, block->active);
        for (size_t each = 0; each < 4 * all; each += LANES) {
            V *active = (V *)(block->active + each);
            *active = NAME(gelu)(*active, (V *)(block->slope + each));
        }
        NAME(linear)(4 * width, width, places, feed + (4 * width + 2) * width, block->active, at->stream);
    }
    NAME(normalise)(width, places, at->stream, x + NAME(block_start)(shape, shape->blocks), &at->head);
}

/* Scores [characters, BLOCK] of the places from `first` on. */
static void NAME(head_scores)(const struct shape *shape, struct NAME(window) *at, const float *table, size_t first) {
    memset(at->scores, 0, shape->characters * BLOCK * sizeof(float));
    NAME(product)(shape->characters, BLOCK, shape->width, table, shape->width, 1, at->head.y + first, at->places,
                  at->scores, BLOCK);
}

/* A window's gradient, added to `sums` [D], after `transformer_forward`. The table of characters: first as the head,
 * places ascending, then as the input, places ascending. */
static void NAME(transformer_backward)(const struct shape *shape, struct NAME(window) *at, const float *x,
                                       const int64_t *text, float divisor, float *sums) {
    const size_t width = shape->width, places = at->places, end = NAME(block_start)(shape, shape->blocks);
    memset(at->step, 0, width * places * sizeof(float));
    memset(at->back, 0, width * places * sizeof(float));
    for (size_t first = 0; first < places; first += BLOCK) {
        NAME(head_scores)(shape, at, x, first);
        NAME(cross_entropy)(shape->characters, at->targets + first, divisor, at->scores, at->losses + first);
        transpose(width, at->head.y + first, places, at->turned, width);
        NAME(product)(shape->characters, width, BLOCK, at->scores, BLOCK, 1, at->turned, width, sums, width);
        NAME(product)(width, BLOCK, shape->characters, x, 1, width, at->scores, BLOCK, at->step + first, places);
    }
    NAME(normalise_back)(width, places, &at->head, x + end, at->step, at->back, sums + end);
    for (size_t i = shape->blocks; i-- > 0;) {
        const struct NAME(block) *block = &at->blocks[i];
        const size_t attention = NAME(block_start)(shape, i), feed = attention + (4 * width + 2) * width;
        const size_t attention_out = attention + (3 * width + 2) * width, feed_out = feed + (4 * width + 2) * width;
        NAME(linear_back)(4 * width, width, places, x + feed_out, block->active, at->back, at->turned, at->wide,
                          sums + feed_out);
        for (size_t each = 0; each < 4 * width * places; each += LANES)
            *(V *)(at->wide + each) *= *(const V *)(block->slope + each);
        NAME(linear_back)(width, 4 * width, places, x + feed + 2 * width, block->feed.y, at->wide, at->turned,
                          at->step, sums + feed + 2 * width);
        NAME(normalise_back)(width, places, &block->feed, x + feed, at->step, at->back, sums + feed);

        NAME(linear_back)(width, width, places, x + attention_out, block->gathered, at->back, at->turned, at->step,
                          sums + attention_out);
        NAME(attend_back)(shape, places, block->mixed, block->weights, at->step, at->turned, at->wide);
        NAME(linear_back)(width, 3 * width, places, x + attention + 2 * width, block->attention.y, at->wide,
                          at->turned, at->step, sums + attention + 2 * width);
        NAME(normalise_back)(width, places, &block->attention, x + attention, at->step, at->back, sums + attention);
    }
    float *positions = sums + shape->characters * width;
    for (size_t place = 0; place < shape->context; place++)
        for (size_t f = 0; f < width; f++) {
            sums[(size_t)text[place] * width + f] += at->back[f * places + place];
            positions[place * width + f] += at->back[f * places + place];
        }
}

static void NAME(window_free)(struct NAME(window) *at) {
    free(at->memory);
    free(at);
}

/* The gradient: windows ascending are added up in groups of BLOCK, each from 0, and the groups onto the total. */
static double NAME(transformer_gradient)(const struct shape *shape, const float *x, size_t batch, const int64_t *text,
                                         const int64_t *targets, float *total) {
    const size_t length = shape->context, dimension = NAME(dimension)(shape);
    struct NAME(window) *at = NAME(window)(shape);
    if (at == NULL) return -1;
    double loss = 0;
    memset(total, 0, dimension * sizeof(float));
    for (size_t window = 0; window < batch; window++) {
        const size_t start = window * length;
        for (size_t place = 0; place < at->places; place++)
            at->targets[place] = place < length ? (int32_t)targets[start + place] : -1;
        NAME(transformer_forward)(shape, at, x, text + start);
        NAME(transformer_backward)(shape, at, x, text + start, (float)(batch * length), at->sums);
        for (size_t place = 0; place < length; place++) loss += (double)at->losses[place];
        if (window % BLOCK == BLOCK - 1 || window == batch - 1) {
            for (size_t i = 0; i < dimension; i++) total[i] += at->sums[i];
            memset(at->sums, 0, dimension * sizeof(float));
        }
    }
    NAME(window_free)(at);
    return loss / (double)(batch * length);
}

static int NAME(transformer_scores)(const struct shape *shape, const float *x, size_t batch, const int64_t *text,
                                    float *scores) {
    struct NAME(window) *at = NAME(window)(shape);
    if (at == NULL) return -1;
    const size_t length = shape->context, characters = shape->characters;
    for (size_t start = 0; start < batch * length; start += length) {
        NAME(transformer_forward)(shape, at, x, text + start);
        for (size_t first = 0; first < length; first += BLOCK) {
            NAME(head_scores)(shape, at, x, first);
            for (size_t lane = 0; lane < least(BLOCK, length - first); lane++)
                for (size_t c = 0; c < characters; c++)
                    scores[(start + first + lane) * characters + c] = at->scores[c * BLOCK + lane];
        }
    }
    NAME(window_free)(at);
    return 0;
}
