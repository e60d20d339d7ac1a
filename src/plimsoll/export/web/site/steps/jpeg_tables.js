// The constants of JPEG (ITU-T T.81): the order of coefficients, and the tables of annex K.

/** Place in a block of 8 × 8 for each coefficient as stored; 16 more, so that a damaged file can't write beside the block. */
export const ZIGZAG = Uint8Array.of(
  0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
  35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
  63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
);

/** Tables K.1 and K.2, row by row. */
const LUMINANCE = [
  16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
  18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
];
const CHROMINANCE = [
  17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
  99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
];

/** libjpeg's quantization tables for a quality of 1 to 100: [luminance, chrominance], row by row. */
export function quantization(quality) {
  const percent = quality < 50 ? Math.trunc(5000 / quality) : 200 - 2 * quality;
  return [LUMINANCE, CHROMINANCE].map((table) => Uint16Array.from(table, (value) => Math.min(255, Math.max(1, Math.trunc((value * percent + 50) / 100)))));
}

/** Scale factors of Arai, Agui and Nakajima's cosine transform, times 2^14: cos(kπ/16)·√2 for k = 1…7, row times column. */
const AAN = [16384, 22725, 21407, 19266, 16384, 12873, 8867, 4520];
const AAN_ROWS = [
  AAN,
  [22725, 31521, 29692, 26722, 22725, 17855, 12299, 6270],
  [21407, 29692, 27969, 25172, 21407, 16819, 11585, 5906],
  [19266, 26722, 25172, 22654, 19266, 15137, 10426, 5315],
  AAN,
  [12873, 17855, 16819, 15137, 12873, 10114, 6967, 3552],
  [8867, 12299, 11585, 10426, 8867, 6967, 4799, 2446],
  [4520, 6270, 5906, 5315, 4520, 3552, 2446, 1247],
].flat();

/** What the fast inverse transform multiplies coefficients with: the quantization table with those factors in it, times 4. */
export function fastMultipliers(table) {
  return Int32Array.from(table, (value, index) => (value * AAN_ROWS[index] + 2048) >> 12);
}

/** Annex K.3.3: what files without Huffman tables of their own (motion JPEG) mean. Counts of codes by length, then the symbols. */
const AC_LUMINANCE =
  "01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718191a25262728292a3435363738393a434445464748494a535455565758595a" +
  "636465666768696a737475767778797a838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5" +
  "e6e7e8e9eaf1f2f3f4f5f6f7f8f9fa";
const AC_CHROMINANCE =
  "0001020311040521310612415107617113223281081442" +
  "91a1b1c109233352f0156272d10a162434e125f11718191a262728292a35363738393a434445464748494a535455565758595a636465666768696a737475767778797a828384858687" +
  "88898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae2e3e4e5e6e7e8e9eaf2f3f4f5f6f7f8f9fa";
const DC_SYMBOLS = "000102030405060708090a0b";

export const STANDARD_CODES = {
  dc: [
    { counts: [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], symbols: hex(DC_SYMBOLS) },
    { counts: [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0], symbols: hex(DC_SYMBOLS) },
  ],
  ac: [
    { counts: [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125], symbols: hex(AC_LUMINANCE) },
    { counts: [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119], symbols: hex(AC_CHROMINANCE) },
  ],
};

function hex(digits) {
  return Uint8Array.from(digits.match(/../g), (pair) => Number.parseInt(pair, 16));
}
