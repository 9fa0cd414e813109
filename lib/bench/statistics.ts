/**
 * Statistics of repeated measurements.
 *
 * @module
 */

/** NaN of no values. */
export function median(values: readonly number[]): number {
  const sorted = ascending(values);
  const upper = sorted.length >> 1;
  const lower = sorted.length % 2 === 1 ? upper : upper - 1;
  return ((sorted[lower] ?? NaN) + (sorted[upper] ?? NaN)) / 2;
}

/** The least value that this share, in (0, 1], of all values does not exceed; NaN of no values. */
export function percentile(values: readonly number[], share: number): number {
  return ascending(values)[Math.ceil(share * values.length) - 1] ?? NaN;
}

function ascending(values: readonly number[]): number[] {
  return [...values].sort((a, b) => a - b);
}
