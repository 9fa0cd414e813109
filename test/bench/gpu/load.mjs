// Loading a checkpoint, beside what copying to the device can reach in the same run.
import { closeSync, openSync, readSync, statSync } from 'node:fs';
import path from 'node:path';

import { run } from '../../../scripts/common.mjs';
import { checkpointFolder, WEIGHTS } from '../shapes.mjs';
import { jsonLines } from '../sides.mjs';
import { median } from '../statistics.mjs';

/**
 * Prints a line for each ceiling and one of medians over the rounds: `seconds` of `Engine.create`, and the rate from the
 * first weights to the last.
 */
export async function measureLoad(Engine, { shape, device, folder, rounds, copy }, print) {
  const model = checkpointFolder(shape, folder);
  const file = path.join(model, WEIGHTS);
  readThrough(file);
  const ceilings = copy ? jsonLines((await run(path.resolve(copy), [], { capture: true })).output) : [];
  for (const ceiling of ceilings) print(ceiling);
  const gigabytes = statSync(file).size / 1e9;
  const seconds = [];
  const weights = [];
  for (let round = 0; round < rounds; round++) {
    const start = performance.now();
    let first;
    let last;
    const onProgress = () => {
      last = performance.now();
      first ??= last;
    };
    const engine = await Engine.create({ model, device, onProgress });
    weights.push((last - first) / 1000);
    seconds.push((performance.now() - start) / 1000);
    await engine.close();
  }
  const rate = gigabytes / median(weights);
  const best = Math.max(...ceilings.map(({ gbPerSecond }) => gbPerSecond));
  print({
    name: 'load',
    gigabytes: round(gigabytes),
    seconds: round(median(seconds)),
    from: round(Math.min(...seconds)),
    to: round(Math.max(...seconds)),
    weightSeconds: round(median(weights)),
    gbPerSecond: round(rate),
    ...(ceilings.length > 0 && { ofCopying: round(rate / best) }),
  });
}

/** Brings a file into the page cache. */
function readThrough(file) {
  const buffer = Buffer.alloc(16 * 2 ** 20);
  const descriptor = openSync(file);
  while (readSync(descriptor, buffer) > 0);
  closeSync(descriptor);
}

function round(value) {
  return Number(value.toPrecision(4));
}
