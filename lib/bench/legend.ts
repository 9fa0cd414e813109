/**
 * Figures of a benchmark: a legend says what they are, and a measurement has a number for each.
 *
 * @module
 */

/** By key; a key ends in its unit, or in the statistic after its unit. */
export type Legend = Readonly<Record<string, { readonly label: string; readonly meaning: string }>>;

/** What one repetition measured. NaN or infinite where it was too short to tell. */
export type Figures<L extends Legend> = Readonly<Record<keyof L, number>>;
