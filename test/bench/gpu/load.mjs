// Loading a checkpoint, beside what copying to the device can reach in the same run.
import { closeSync, openSync, readSync, statSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { run } from '../../../scripts/common.mjs';
import { checkpointFolder, WEIGHTS } from '../shapes.mjs';
import { jsonLines } from '../sides.mjs';
import { median } from '../statistics.mjs';

/**
 * Prints a line for each ceiling and one of medians over the rounds: `seconds` of `Engine.create`, and the rate from the
 * end of the first matrix to that of the last.
 */
export async function measureLoad(Engine, { shape, device, folder, rounds, copy }, print) {
  const model = checkpointFolder(shape, folder);
  const file = path.join(model, WEIGHTS);
  readThrough(file);
  const ceilings = copy ? await measureCeilings(copy, file) : [];
  for (const ceiling of ceilings) print(ceiling);
  const gigabytes = statSync(file).size / 1e9;
  const seconds = [];
  const rates = [];
  for (let round = 0; round < rounds; round++) {
    const start = performance.now();
    let first;
    let last;
    const onProgress = (fraction) => {
      const progress = { fraction, seconds: performance.now() / 1000 };
      first ??= progress;
      if (last?.fraction !== 1) last = progress; // the cache of keys and values is still to be made then
    };
    const engine = await Engine.create({ model, device, onProgress });
    rates.push((gigabytes * (last.fraction - first.fraction)) / (last.seconds - first.seconds));
    seconds.push((performance.now() - start) / 1000);
    await engine.close();
  }
  const rate = median(rates);
  const copying = ceilings.find((ceiling) => ceiling.name === 'copy_page_locked');
  print({
    name: 'load',
    gigabytes: round(gigabytes),
    seconds: round(median(seconds)),
    from: round(Math.min(...seconds)),
    to: round(Math.max(...seconds)),
    gbPerSecond: round(rate),
    slowest: round(Math.min(...rates)),
    fastest: round(Math.max(...rates)),
    ...(copying && { ofCopying: round(rate / copying.gbPerSecond) }),
  });
}

async function measureCeilings(program, file) {
  const args = ['0', String(os.availableParallelism()), file];
  return jsonLines((await run(path.resolve(program), args, { capture: true })).output);
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
