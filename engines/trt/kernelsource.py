"""CUDA source of the kernel that turns a frame into a model's input.

Plain enough for NVRTC, which has no headers, and, with a few words defined away, for a C++
compiler: so the tests run this very text on a processor, beside the processor's own preprocessing.
"""

from __future__ import annotations

FUNCTION = "vigia_frame"

SOURCE = r"""
typedef unsigned char u8;

/* The nearest float16, ties to even, as bits; by integer arithmetic that is the same everywhere. */
__device__ static __forceinline__ unsigned short half_bits(float value)
{
    union { float f; unsigned u; } v, w;
    v.f = value;
    unsigned sign = (v.u >> 16) & 0x8000u, rest = v.u & 0x7fffffffu;
    if (rest >= 0x47800000u) return sign | (rest > 0x7f800000u ? 0x7e00u : 0x7c00u);
    if (rest < 0x38800000u) {
        /* Subnormal: the last bit of 0.5 is worth 2^-24, float16's smallest step. */
        w.u = rest;
        w.f += 0.5f;
        return sign | (w.u - 0x3f000000u);
    }
    return sign | ((rest - 0x38000000u + 0xfffu + ((rest >> 13) & 1u)) >> 13);
}

/* Two neighbours and their weights in 1/2048, for a place between their centres. */
__device__ static __forceinline__ void neighbours(
    float place, int size, int *first, int *second, int *first_weight, int *second_weight)
{
    int at = (int)floorf(place);
    float share = place - at;
    if (at < 0 || at >= size - 1) {
        at = at < 0 ? 0 : size - 1;
        share = 0.0f;
    }
    *first = at;
    *second = min(at + 1, size - 1);
    *first_weight = (int)rintf((1.0f - share) * 2048.0f);
    *second_weight = (int)rintf(share * 2048.0f);
}

/* OpenCV's INTER_LINEAR of bytes: pixel centres lie at halves, outermost pixels go on beyond the
   edge, and the arithmetic is its own, in fixed point, where bits fall off in the same places. */
__device__ static __forceinline__ void bilinear(
    const u8 *window, int pitch, int width, int height, float sx, float sy, float *bgr)
{
    int x0, x1, y0, y1, left, right, upper, lower;
    neighbours(sx, width, &x0, &x1, &left, &right);
    neighbours(sy, height, &y0, &y1, &upper, &lower);
    const u8 *a = window + (long long)y0 * pitch, *b = window + (long long)y1 * pitch;
    for (int c = 0; c < 3; c++) {
        int top = a[3 * x0 + c] * left + a[3 * x1 + c] * right;
        int bottom = b[3 * x0 + c] * left + b[3 * x1 + c] * right;
        bgr[c] = (((top >> 4) * upper >> 16) + ((bottom >> 4) * lower >> 16) + 2) >> 2;
    }
}

/* OpenCV's INTER_AREA where it shrinks: the mean over what a pixel of the input covers. */
__device__ static __forceinline__ void area(
    const u8 *window, int pitch, int width, int height,
    float left, float top, float right, float bottom, float *bgr)
{
    float sum[3] = {0.0f, 0.0f, 0.0f}, weights = 0.0f;
    right = fminf(right, (float)width);
    bottom = fminf(bottom, (float)height);
    for (int y = (int)top; y < bottom; y++)
        for (int x = (int)left; x < right; x++) {
            const u8 *pixel = window + (long long)y * pitch + 3 * x;
            float weight = (fminf(x + 1.0f, right) - fmaxf((float)x, left)) *
                           (fminf(y + 1.0f, bottom) - fmaxf((float)y, top));
            weights += weight;
            for (int c = 0; c < 3; c++) sum[c] += weight * pixel[c];
        }
    for (int c = 0; c < 3; c++) bgr[c] = sum[c] / weights;
}

/* One thread makes one pixel of the input.
   window: BGR, its rows `pitch` bytes apart, `width` x `height` pixels.
   out: RGB planes of `in_width` x `in_height`, float16 if `half`, else float32.
   It fills left..right x top..bottom of the input; the rest is grey 114. Values are rounded to
   whole levels, as the processor's picture has them, then multiplied by `factor` and shifted. */
extern "C" __global__ void vigia_frame(
    const u8 *window, void *out, int pitch, int width, int height,
    int left, int top, int right, int bottom, int in_width, int in_height, int averaged, int half,
    float factor_r, float factor_g, float factor_b, float shift_r, float shift_g, float shift_b)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= in_width || y >= in_height) return;
    float bgr[3] = {114.0f, 114.0f, 114.0f};
    if (x >= left && x < right && y >= top && y < bottom) {
        float step_x = (float)width / (right - left), step_y = (float)height / (bottom - top);
        int tx = x - left, ty = y - top;
        if (averaged)
            area(window, pitch, width, height, tx * step_x, ty * step_y,
                 (tx + 1) * step_x, (ty + 1) * step_y, bgr);
        else
            bilinear(window, pitch, width, height, (tx + 0.5f) * step_x - 0.5f,
                     (ty + 0.5f) * step_y - 0.5f, bgr);
    }
    float factors[3] = {factor_r, factor_g, factor_b}, shifts[3] = {shift_r, shift_g, shift_b};
    for (int c = 0; c < 3; c++) {
        float value = factors[c] * rintf(bgr[2 - c]) + shifts[c];
        long long at = ((long long)c * in_height + y) * in_width + x;
        if (half)
            ((unsigned short *)out)[at] = half_bits(value);
        else
            ((float *)out)[at] = value;
    }
}
"""
