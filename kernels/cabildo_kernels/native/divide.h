/* Division by a small whole number for paths with fused multiply-add: the bits of vd_div. */

/* x / count for a whole count up to 64, correctly rounded without a division: the remainder of the
 * first quotient is exact, so the second is off by less than 2^-51 of its last place, while x / count
 * lies no nearer than 1/128 of it to where rounding turns. */
INLINE vd vd_over_count(vd x, int count)
{
    vd n = vd_set((double)count), inverse = vd_set(1.0 / (double)count);
    vd near = vd_mul(x, inverse);
    return vd_fma(vd_fnma(near, n, x), inverse, near);
}
