// Sizes within a model's bounds.

export const RATIOS = [
  ["1:1", 1, 1],
  ["4:3", 4, 3],
  ["3:2", 3, 2],
  ["16:9", 16, 9],
  ["3:4", 3, 4],
  ["2:3", 2, 3],
  ["9:16", 9, 16],
];
export const SCALES = [
  ["S", "Small", 0.5],
  ["M", "Medium", 0.75],
  ["L", "Large", 1],
];

/** The nearest side that a model takes. */
export function fitSide(pixels, largest, limits) {
  const step = limits.size_multiple;
  const least = Math.ceil(limits.min_side / step) * step;
  const most = Math.floor(largest / step) * step;
  const near = Math.round((Number(pixels) || 0) / step) * step;
  return Math.min(Math.max(near, least), most);
}

/** Width and height of a ratio, at a part of the largest that the bounds allow. */
export function sizeOf(across, down, scale, limits) {
  const unit = Math.min(limits.max_width / across, limits.max_height / down) * scale;
  return [
    fitSide(across * unit, limits.max_width, limits),
    fitSide(down * unit, limits.max_height, limits),
  ];
}

/** Which ratio and scale give a size; null where none does. */
export function presetOf(width, height, limits) {
  for (const [scaleName, , scale] of SCALES) {
    for (const [ratioName, across, down] of RATIOS) {
      const [w, h] = sizeOf(across, down, scale, limits);
      if (w === width && h === height) return [ratioName, scaleName];
    }
  }
  return null;
}
