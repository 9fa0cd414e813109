// Our side of a measurement, and the ceilings beside it.
import path from 'node:path';

import { root, run } from '../../../scripts/common.mjs';
import { cacheBytesAToken, modelFlags, weightBytesAStep } from '../shapes.mjs';
import { betterRates, jsonLines } from '../sides.mjs';
import { median } from '../statistics.mjs';

/** What is measured where nothing else is said. */
export const SHAPE = '1.1b';

/**
 * Runs `heddle bench latency` on a shape. Of its repetitions, the better rates count, as of the peer's, and medians of all
 * other figures.
 *
 * @param size `{ prompt, generate, sequences = 1, tp = 1, repetitions = 2, isa }`; `isa` forces a path.
 */
export async function latency(shape, cache, { prompt, generate, sequences = 1, tp = 1, repetitions = 2, isa }) {
  const sizes = ['--prompt-tokens', prompt, '--max-tokens', generate, '--sequences', sequences];
  const flags = [...sizes, '--tp', tp, '--repetitions', repetitions];
  const where = ['--threads', 2 / tp, '--dtype', 'bfloat16', '--json'];
  const lines = await bench('latency', [...modelFlags(shape, cache), ...flags, ...where], isa);
  const figures = Object.keys(lines[0]).filter((key) => typeof lines[0][key] === 'number');
  const medians = figures.map((key) => [key, median(lines.map((line) => line[key]))]);
  return { ...Object.fromEntries(medians), ...betterRates(lines) };
}

/** Lines of JSON that `heddle bench <what>` prints. */
export async function bench(what, flags, isa) {
  const command = [path.join(root, 'dist/cli/main.js'), 'bench', what, ...flags.map(String)];
  const env = isa === undefined ? {} : { HEDDLE_CPU_ISA: isa };
  return jsonLines((await run(process.execPath, command, { capture: true, env })).output);
}

/** What the machine can do now with two threads: `{ read_memory, read_16MiB, ... }`, in units of 10^9 a second. */
export async function ceilings() {
  const lines = await native('ceilings', ['5']);
  return Object.fromEntries(lines.filter(({ threads }) => threads === 2).map(({ name, median }) => [name, median]));
}

/** Lines of JSON that a native benchmark prints. */
export async function native(name, args) {
  const program = path.join(root, 'test/bench/native.mjs');
  return jsonLines((await run(process.execPath, [program, name, ...args], { capture: true })).output);
}

/** Bytes that one decoding step reads: every weight but the embedding, and all keys and values. */
function bytesAStep({ prompt, generate, sequences = 1 }) {
  return weightBytesAStep(SHAPE) + sequences * cacheBytesAToken(SHAPE) * (prompt + generate / 2);
}

/** The part of `bandwidth`, in GB/s, that decoding used for what it must read. */
export function shareOfBandwidth(size, decodeRate, bandwidth) {
  return ((decodeRate / (size.sequences ?? 1)) * bytesAStep(size)) / (bandwidth * 1e9);
}
