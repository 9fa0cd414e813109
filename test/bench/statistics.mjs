// Medians and spreads, and how they are written.

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Smallest and largest: `(0.9..1.2)`. */
export function spread(values, digits) {
  return `(${Math.min(...values).toFixed(digits)}..${Math.max(...values).toFixed(digits)})`;
}

/** Three digits, as many as there is reason to believe. */
export function describe(value) {
  return String(Number(value.toPrecision(3)));
}
