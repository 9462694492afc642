/* float16 lane by lane, for paths whose CPU need not have the conversion. */
#ifndef CABILDO_HALF_H
#define CABILDO_HALF_H

static inline float float_of_f16(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = half & 0x7fff, bits;
    float x;
    if (rest >= 0x7c00)
        bits = sign | 0x7f800000 | (rest & 0x3ff) << 13;
    else if (rest >= 0x400)
        bits = sign | ((rest << 13) + 0x38000000);
    else {
        x = (float)rest * 0x1p-24f;
        memcpy(&bits, &x, sizeof x);
        bits |= sign;
    }
    memcpy(&x, &bits, sizeof x);
    return x;
}
static inline uint16_t f16_of_float_bits(uint32_t bits)
{
    uint32_t sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest >= 0x47800000)
        return (uint16_t)(sign | 0x7c00);
    if (rest < 0x38800000) {
        /* A denormal half: adding 0.5 leaves the rounded count of 2^-24 in the low bits. */
        float x;
        memcpy(&x, &rest, sizeof x);
        x += 0.5f;
        memcpy(&rest, &x, sizeof x);
        return (uint16_t)(sign | (rest - 0x3f000000));
    }
    rest += 0xfff + (rest >> 13 & 1);
    return (uint16_t)(sign | (rest - 0x38000000) >> 13);
}

#endif
