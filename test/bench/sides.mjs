// The two sides of a comparison as programs that print one line of JSON a measurement.
import { run } from '../../scripts/common.mjs';

export const METRICS = ['prefill_tok_s', 'decode_tok_s'];

/** Runs a side once; its {@link betterRates}. */
export async function time(command) {
  const { output } = await run(process.execPath, command, { capture: true });
  const lines = jsonLines(output);
  if (lines.length === 0) throw new Error(`'${command.join(' ')}' measured nothing:\n${output}`);
  return betterRates(lines);
}

/** Of what a side printed, the better figure of each metric. */
export function betterRates(lines) {
  return Object.fromEntries(METRICS.map((metric) => [metric, Math.max(...lines.map((line) => line[metric]))]));
}

export function jsonLines(output) {
  const lines = output.split('\n').filter((line) => line.startsWith('{'));
  return lines.map((line) => JSON.parse(line));
}
