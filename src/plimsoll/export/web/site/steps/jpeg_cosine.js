// The cosine transforms of libjpeg-turbo on blocks of 8 × 8, in its whole numbers, so that every pixel comes out alike:
// jfdctint.c, jidctint.c (Loeffler, Ligtenberg and Moschytz) and jidctfst.c (Arai, Agui and Nakajima).

const C_0_298 = 2446; // The multipliers of jfdctint.c and jidctint.c, times 2^13.
const C_0_390 = 3196;
const C_0_541 = 4433;
const C_0_765 = 6270;
const C_0_899 = 7373;
const C_1_175 = 9633;
const C_1_501 = 12299;
const C_1_847 = 15137;
const C_1_961 = 16069;
const C_2_053 = 16819;
const C_2_562 = 20995;
const C_3_072 = 25172;

const work = new Int32Array(64);

/** Transform 64 samples less 128, in place; the result is 8 times the coefficients. */
export function forward(block) {
  for (let row = 0; row < 64; row += 8) forwardLine(block, row, 1, 11, true);
  for (let column = 0; column < 8; column += 1) forwardLine(block, column, 8, 15, false);
}

function forwardLine(block, at, step, shift, first) {
  const half = 1 << (shift - 1);
  const p = (k) => at + k * step;
  const sum0 = block[p(0)] + block[p(7)];
  const sum1 = block[p(1)] + block[p(6)];
  const sum2 = block[p(2)] + block[p(5)];
  const sum3 = block[p(3)] + block[p(4)];
  let d4 = block[p(3)] - block[p(4)];
  let d5 = block[p(2)] - block[p(5)];
  let d6 = block[p(1)] - block[p(6)];
  let d7 = block[p(0)] - block[p(7)];
  const even0 = sum0 + sum3;
  const even3 = sum0 - sum3;
  const even1 = sum1 + sum2;
  const even2 = sum1 - sum2;
  block[p(0)] = first ? (even0 + even1) << 2 : (even0 + even1 + 2) >> 2;
  block[p(4)] = first ? (even0 - even1) << 2 : (even0 - even1 + 2) >> 2;
  const turn = (even2 + even3) * C_0_541;
  block[p(2)] = (turn + even3 * C_0_765 + half) >> shift;
  block[p(6)] = (turn - even2 * C_1_847 + half) >> shift;
  const z5 = (d4 + d6 + d5 + d7) * C_1_175;
  const z1 = -(d4 + d7) * C_0_899;
  const z2 = -(d5 + d6) * C_2_562;
  const z3 = z5 - (d4 + d6) * C_1_961;
  const z4 = z5 - (d5 + d7) * C_0_390;
  d4 *= C_0_298;
  d5 *= C_2_053;
  d6 *= C_3_072;
  d7 *= C_1_501;
  block[p(7)] = (d4 + z1 + z3 + half) >> shift;
  block[p(5)] = (d5 + z2 + z4 + half) >> shift;
  block[p(3)] = (d6 + z2 + z3 + half) >> shift;
  block[p(1)] = (d7 + z1 + z4 + half) >> shift;
}

/** Turn the coefficients at `from`, times `table`, into 8 × 8 samples at `to` of a plane (Uint8ClampedArray) with rows of `stride`. */
export function inverseAccurate(coefficients, from, table, plane, to, stride) {
  for (let k = 0; k < 8; k += 1) {
    const c = from + k;
    const zero = coefficients[c] * table[k];
    if ((coefficients[c + 8] | coefficients[c + 16] | coefficients[c + 24] | coefficients[c + 32] | coefficients[c + 40] | coefficients[c + 48] | coefficients[c + 56]) === 0) {
      for (let line = 0; line < 64; line += 8) work[k + line] = zero << 2;
      continue;
    }
    accurateLine(
      zero, coefficients[c + 8] * table[k + 8], coefficients[c + 16] * table[k + 16], coefficients[c + 24] * table[k + 24],
      coefficients[c + 32] * table[k + 32], coefficients[c + 40] * table[k + 40], coefficients[c + 48] * table[k + 48], coefficients[c + 56] * table[k + 56],
      1024, 11, work, k, 8, 0,
    );
  }
  for (let row = 0; row < 8; row += 1) {
    const w = 8 * row;
    accurateLine(work[w], work[w + 1], work[w + 2], work[w + 3], work[w + 4], work[w + 5], work[w + 6], work[w + 7], 131072, 18, plane, to + row * stride, 1, 128);
  }
}

function accurateLine(v0, v1, v2, v3, v4, v5, v6, v7, half, shift, out, at, step, centre) {
  const turn = (v2 + v6) * C_0_541;
  const even2 = turn - v6 * C_1_847;
  const even3 = turn + v2 * C_0_765;
  const t0 = (v0 + v4) * 8192 + half;
  const t1 = (v0 - v4) * 8192 + half;
  const a0 = t0 + even3;
  const a3 = t0 - even3;
  const a1 = t1 + even2;
  const a2 = t1 - even2;
  const z5 = (v7 + v3 + v5 + v1) * C_1_175;
  const z1 = -(v7 + v1) * C_0_899;
  const z2 = -(v5 + v3) * C_2_562;
  const z3 = z5 - (v7 + v3) * C_1_961;
  const z4 = z5 - (v5 + v1) * C_0_390;
  const o0 = v7 * C_0_298 + z1 + z3;
  const o1 = v5 * C_2_053 + z2 + z4;
  const o2 = v3 * C_3_072 + z2 + z3;
  const o3 = v1 * C_1_501 + z1 + z4;
  out[at] = ((a0 + o3) >> shift) + centre;
  out[at + 7 * step] = ((a0 - o3) >> shift) + centre;
  out[at + step] = ((a1 + o2) >> shift) + centre;
  out[at + 6 * step] = ((a1 - o2) >> shift) + centre;
  out[at + 2 * step] = ((a2 + o1) >> shift) + centre;
  out[at + 5 * step] = ((a2 - o1) >> shift) + centre;
  out[at + 3 * step] = ((a3 + o0) >> shift) + centre;
  out[at + 4 * step] = ((a3 - o0) >> shift) + centre;
}

/** As `inverseAccurate`, by jidctfst.c; `table` is what `fastMultipliers` made. */
export function inverseFast(coefficients, from, table, plane, to, stride) {
  for (let k = 0; k < 8; k += 1) {
    const c = (line) => coefficients[from + k + line] * table[k + line];
    fastLine(c(0), c(8), c(16), c(24), c(32), c(40), c(48), c(56), 0, work, k, 8, 0);
  }
  for (let row = 0; row < 8; row += 1) {
    const w = 8 * row;
    fastLine(work[w], work[w + 1], work[w + 2], work[w + 3], work[w + 4], work[w + 5], work[w + 6], work[w + 7], 5, plane, to + row * stride, 1, 128);
  }
}

function fastLine(v0, v1, v2, v3, v4, v5, v6, v7, shift, out, at, step, centre) {
  const sum = v2 + v6;
  const side = (((v2 - v6) * 362) >> 8) - sum;
  const a0 = v0 + v4 + sum;
  const a3 = v0 + v4 - sum;
  const a1 = v0 - v4 + side;
  const a2 = v0 - v4 - side;
  const z13 = v5 + v3;
  const z10 = v5 - v3;
  const z11 = v1 + v7;
  const z12 = v1 - v7;
  const o7 = z11 + z13;
  const z5 = ((z10 + z12) * 473) >> 8;
  const o6 = ((z10 * -669) >> 8) + z5 - o7;
  const o5 = (((z11 - z13) * 362) >> 8) - o6;
  const o4 = ((z12 * 277) >> 8) - z5 + o5;
  out[at] = ((a0 + o7) >> shift) + centre;
  out[at + 7 * step] = ((a0 - o7) >> shift) + centre;
  out[at + step] = ((a1 + o6) >> shift) + centre;
  out[at + 6 * step] = ((a1 - o6) >> shift) + centre;
  out[at + 2 * step] = ((a2 + o5) >> shift) + centre;
  out[at + 5 * step] = ((a2 - o5) >> shift) + centre;
  out[at + 4 * step] = ((a3 + o4) >> shift) + centre;
  out[at + 3 * step] = ((a3 - o4) >> shift) + centre;
}
