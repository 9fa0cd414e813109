// The two sides of a comparison as programs that print one line of JSON a measurement.
import { run } from '../../scripts/common.mjs';

export const METRICS = ['prefill_tok_s', 'decode_tok_s'];

/** Runs a side once; the better figure of each metric among what it prints. */
export async function time(command, env = {}) {
  const { output } = await run(process.execPath, command, { capture: true, env });
  const lines = jsonLines(output);
  if (lines.length === 0) throw new Error(`'${command.join(' ')}' measured nothing:\n${output}`);
  return Object.fromEntries(METRICS.map((metric) => [metric, Math.max(...lines.map((line) => line[metric]))]));
}

export function jsonLines(output) {
  const lines = output.split('\n').filter((line) => line.startsWith('{'));
  return lines.map((line) => JSON.parse(line));
}
