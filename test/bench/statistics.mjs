// Medians and spreads, and how they are written.

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** As many digits as a line of JSON is worth. */
export function round(value) {
  return Number(value.toPrecision(4));
}

/** Median and spread, as a line of JSON has them. */
export function summary(values) {
  return { median: round(median(values)), from: round(Math.min(...values)), to: round(Math.max(...values)) };
}

/** Smallest and largest: `(0.9..1.2)`. */
export function spread(values, digits) {
  return `(${Math.min(...values).toFixed(digits)}..${Math.max(...values).toFixed(digits)})`;
}

/** Three digits, as many as there is reason to believe. */
export function describe(value) {
  return String(Number(value.toPrecision(3)));
}

/** Median and spread of what each round of ours was over the other's. */
export function ratio(ours, theirs) {
  const rounds = ours.map((value, i) => value / theirs[i]);
  return `${describe(median(rounds))} ${spread(rounds, 2)}`;
}

/** Median and spread of fractions, in per cent. */
export function percent(fractions) {
  const values = fractions.map((fraction) => fraction * 100);
  return `${Math.round(median(values))} % ${spread(values, 0)}`;
}

/** Values by what `keyOf` says of them, in the order in which it first says so. */
export function groupBy(values, keyOf) {
  const groups = new Map();
  for (const value of values) {
    const key = keyOf(value);
    groups.set(key, [...(groups.get(key) ?? []), value]);
  }
  return groups;
}
